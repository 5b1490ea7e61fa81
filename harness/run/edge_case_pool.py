"""Run the edge cases in workers that are never timed; keep the findings of each backend.

A reply to an edge case holds for its dtype, precision and mode. So each backend is asked once in a run, before the
first case that needs it, and its worker ends then. Up to ``SIDE_BY_SIDE`` workers run at a time, one for each CPU:
nothing here is timed, and most of it is importing and compiling, which one CPU does.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from harness.case import Case
from harness.correctness import conduct, edge_cases, gate
from harness.correctness.edge_cases import EdgeCase
from harness.correctness.verdict import Verdict, passed, refused
from harness.process.handle import WorkerError, WorkerHandle
from harness.process.protocol import AskSupport, CheckGradients, Load, Results, RunEdgeCase
from harness.record import Flag
from harness.run.cell import Cell, fresh_folder
from harness.run.context import RunContext
from harness.run.plan import BASELINE
from harness.run.reference_cache import Arrays, ReferenceCache, arrays

#: Most edge-case workers at a time.
SIDE_BY_SIDE: Final = 8
#: Sizes of the case whose gradients are compared with finite differences, which take two calls for each input element.
GRADCHECK_SIZES: Final = (3, 2, 4, 2)


def side_by_side(threads: int) -> int:
    """Return the number of edge-case workers that run at a time under a thread budget."""
    return min(SIDE_BY_SIDE, threads)


@dataclasses.dataclass(frozen=True, slots=True)
class EdgeCaseFindings:
    """Verdicts of the edge cases on a backend.

    Attributes:
        verdicts: Verdicts by the edge case's name; further ``operators``, ``gradcheck`` and ``skipped``.
        wide_range: True if numbers beyond float16's range came out right.
    """

    verdicts: Mapping[str, Verdict]
    wide_range: bool


class EdgeCasePool:
    """Asks each backend its edge cases once.

    Args:
        context: Plan, workers and clock.
        reference_cache: The right results.

    Attributes:
        seconds: Time of each backend's edge cases in seconds, loading included, by "NAME on DEVICE".
    """

    def __init__(self, context: RunContext, reference_cache: ReferenceCache) -> None:
        self._context = context
        self._reference_cache = reference_cache
        self._known: dict[tuple[str, str, Case], EdgeCaseFindings | WorkerError] = {}
        self._stopped = False
        self.seconds: dict[str, float] = {}

    def judge(self, cells: Sequence[Cell], case: Case, device: str) -> None:
        """Note each backend's findings for a case; a worker's failure ends the cell."""
        unknown = {
            cell.base_name: self._context.plan.backends[cell.name].target
            for cell in cells
            if (cell.base_name, device, _any_size(case)) not in self._known
        }
        if unknown:
            self._ask(unknown, case, device)
        for cell in cells:
            known = self._known[cell.base_name, device, _any_size(case)]
            if isinstance(known, WorkerError):
                cell.end(known.status, f"in the edge cases: {known.reason}")
                continue
            cell.gate.wide_range = known.wide_range
            cell.note(*known.verdicts.values())

    def _ask(self, targets: Mapping[str, str], first: Case, device: str) -> None:
        """Ask backends, by name, about every dtype, precision and mode of the plan."""
        kinds = tuple(dict.fromkeys(_any_size(case) for case in (first, *self._context.plan.cases)))
        self._reference_cache.start()
        with ThreadPoolExecutor(side_by_side(self._context.plan.threads)) as pool:
            try:
                list(pool.map(lambda name: self._ask_all(name, targets[name], device, kinds), targets))
            except BaseException:  # Ctrl-C too: killing the workers ends the requests that other threads wait for
                self._stopped = True
                for name in targets:
                    self._context.workers.discard_edge_case_worker(name, device)
                raise

    def _ask_all(self, name: str, target: str, device: str, kinds: Iterable[Case]) -> None:
        """Ask one backend, through one worker that is replaced if it dies.

        A worker dies with the thread that started it (PR_SET_PDEATHSIG), so this method starts and ends it.
        """
        start = self._context.now()
        limit = self._context.plan.time_limit_seconds
        loaded: WorkerHandle | None = None
        try:
            for kind in kinds:
                if self._stopped:
                    return
                try:
                    worker = self._context.workers.edge_case_worker(name, device)
                    if worker is not loaded:
                        worker.request(Load(name, target, device), limit)
                        loaded = worker
                    asking = EdgeCaseQuestions(kind, name, device, worker, self._reference_cache, limit)
                    self._known[name, device, kind] = asking.findings()
                except WorkerError as error:
                    self._known[name, device, kind] = error
        finally:
            self._context.workers.discard_edge_case_worker(name, device)
        self.seconds[f"{name} on {device}"] = self._context.now() - start


class EdgeCaseQuestions:
    """Puts the edge cases of one dtype, precision and mode to a loaded worker.

    Args:
        asked: Dtype, precision, mode and seed; its sizes do not matter.
        name: The backend's own name.
        device: Device of the backend.
        worker: A worker that is never timed.
        reference_cache: The right results.
        limit_seconds: Time limit of a request, in seconds.
    """

    def __init__(
        self,
        asked: Case,
        name: str,
        device: str,
        worker: WorkerHandle,
        reference_cache: ReferenceCache,
        limit_seconds: float,
    ) -> None:
        self._asked = asked
        self._baseline = name == BASELINE
        self._device = device
        self._worker = worker
        self._reference_cache = reference_cache
        self._limit_seconds = limit_seconds
        self._verdicts: dict[str, Verdict] = {}
        self._actual: dict[str, Arrays] = {}
        self._operators: list[str] = []
        self._native_type = ""

    def findings(self) -> EdgeCaseFindings:
        """Ask all, have the reference compute, judge all.

        Raises:
            WorkerError: The worker did not reply.
            ReferenceUnavailable: The reference did not reply.
        """
        planned = edge_cases.all_edge_cases(self._asked)
        able = {case: self._supports(case) for case in dict.fromkeys(edge_case.case for edge_case in planned)}
        possible = [edge_case for edge_case in planned if able[edge_case.case]]
        folder = fresh_folder(self._worker.directory / "edge_cases")
        for edge_case in possible:
            self._run(edge_case, tuple(other for other in possible if other.case == edge_case.case), folder)
        for edge_case in possible:
            if edge_case.name in self._actual:
                self._judge(edge_case)
        ordered = {edge_case.name: self._verdicts[edge_case.name] for edge_case in possible}
        further = {
            "operators": conduct.judge_operators(self._operators, self._baseline, self._native_type),
            "skipped": passed(edge_cases.PROBE, "" if len(possible) == len(planned) else Flag.EDGE_CASES_PARTIAL),
        }
        if self._asked.mode == "forward_backward":
            further["gradcheck"] = self._gradcheck()
        shutil.rmtree(folder, ignore_errors=True)
        wide_range = all(verdict.ok for name, verdict in ordered.items() if name.startswith("large"))
        return EdgeCaseFindings(ordered | further, wide_range)

    def _supports(self, case: Case) -> bool:
        return self._worker.request(AskSupport(case), self._limit_seconds).supported

    def _run(self, edge_case: EdgeCase, alike: tuple[EdgeCase, ...], folder: Path) -> None:
        """Run one edge case in a request of its own, so that a time limit is one of preparing and a single call."""
        reply = self._worker.request(RunEdgeCase(alike, edge_case.name, folder), self._limit_seconds)
        self._operators += reply.operators
        if reply.results is None:
            self._refuse(edge_case, reply.error)
            return
        self._native_type = reply.results.native_type
        reason = self._form(edge_case, reply.results)
        if not reason:
            try:
                self._actual[edge_case.name] = arrays(folder / edge_case.name, edge_case.case)
            except (OSError, ValueError, EOFError) as error:
                reason = f"it could not be checked: {error}"
        if reason:
            self._refuse(edge_case, reason)

    def _form(self, edge_case: EdgeCase, results: Results) -> str:
        """Return what is wrong with results before their values count; empty if nothing is."""
        form = gate.judge_facts(edge_case.case, self._device, results.native_type, results.facts, edge_cases.PROBE)
        return form.reason or conduct.judge_storage(results.storages.results, results.storages.inputs, {}).reason

    def _judge(self, edge_case: EdgeCase) -> None:
        expected = self._reference_cache.of(edge_case.case, edge_case.kind, 0)
        try:
            self._verdicts[edge_case.name] = edge_cases.judge_edge_case(edge_case, expected, self._actual)
        except KeyError:  # it is compared with another edge case, which was refused
            self._refuse(edge_case, "nothing to compare with")

    def _refuse(self, edge_case: EdgeCase, reason: str) -> None:
        refusal = refused(edge_cases.PROBE, f"not so: {edge_case.sentence}: {reason}")
        self._verdicts[edge_case.name] = refusal

    def _gradcheck(self) -> Verdict:
        """Have PyTorch's gradcheck run where the arrays are PyTorch's; in float64, as finite differences need it."""
        batch, in1, in2, out = GRADCHECK_SIZES
        case = Case(batch, in1, in2, out, dtype="float64", mode="forward_backward", seed=self._asked.seed)
        if not self._supports(case):
            return passed(edge_cases.PROBE)
        reply = self._worker.request(CheckGradients(case), self._limit_seconds)
        if reply.reason:
            return refused(edge_cases.PROBE, f"not so: the gradients are those of the output: {reply.reason}")
        return passed(edge_cases.PROBE)


def _any_size(case: Case) -> Case:
    """Return a case of the same dtype, precision, mode and seed, with sizes that stand for all."""
    return Case(1, 1, 1, 1, dtype=case.dtype, precision=case.precision, mode=case.mode, seed=case.seed)

"""The checker: put the gate's questions to a worker, and have its answers judged.

The same questions, in the same order, whether a run asks them or a test of a third party (``conformance.py``).
"""

from __future__ import annotations

import dataclasses
import shutil
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from harness.case import Case
from harness.correctness import conduct, edge_cases, gate
from harness.correctness.gate import Expected, Verdict
from harness.process.handle import WorkerError, WorkerHandle
from harness.process.protocol import (
    AskSupport,
    CheckFresh,
    CheckGradients,
    CheckIntegrity,
    Expect,
    KeptResults,
    Prepare,
    Prepared,
    Results,
    RunEdgeCase,
    RunScenario,
)
from harness.record import Flag, Status
from harness.run.cell import Cell, fresh_folder
from harness.run.plan import BASELINE

#: What ``scenario`` asks, in order.
SCENARIOS: Final = ("another kernel", "again", "new values in the same buffers", "the same values in new buffers")
#: Where an cell's first results stay until they have been compared with what they are at the end.
FIRST: Final = "first"
#: Gradients are held against finite differences on sizes this small: that takes two calls for each number that goes in.
GRADCHECK_SIZES: Final = (3, 2, 4, 2)

Arrays = dict[str, Any]


class ReferenceUnavailable(Exception):  # noqa: N818  # a state of affairs, which no suffix makes clearer
    """The reference could not be had, so nobody can be judged."""

    def __init__(self, status: Status, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = f"no reference to check against: {reason}"


class ReferenceCache:
    """The reference's answers, each asked for once.

    They are read into this process's memory map and their files deleted at once: while a backend runs, no right
    answer is in any folder. Several threads may ask.

    Args:
        reference: Returns the reference's worker that computes on a device.
        limit_seconds: Longest time for one answer.
    """

    def __init__(self, reference: Callable[[str], WorkerHandle], limit_seconds: float) -> None:
        self._reference = reference
        self._limit_seconds = limit_seconds
        #: Where the answers are computed: on the device of the rows that they are for.
        self.device = "cpu"
        self._known: dict[tuple[Case, str, int], Expected] = {}
        self._lock = threading.Lock()

    def of(self, case: Case, kind: str, variation: int) -> Expected:
        """Return what is expected.

        Raises:
            ReferenceUnavailable: The reference could not be had.
        """
        key = (case, kind, variation)
        with self._lock:
            if key not in self._known:
                self._known[key] = self._ask(case, kind, variation)
            return self._known[key]

    def start(self) -> None:
        """Start the reference, if it is not there: a worker dies with the thread that has started it.

        Raises:
            ReferenceUnavailable: It could not be had.
        """
        try:
            self._reference(self.device)
        except WorkerError as error:
            raise ReferenceUnavailable(error.status, error.reason) from None

    def _ask(self, case: Case, kind: str, variation: int) -> Expected:
        try:
            reference = self._reference(self.device)
            folder = fresh_folder(reference.directory / "expected")
            request = Expect(case, variation, kind, folder, self.device)
            reply = reference.request(request, self._limit_seconds)
        except WorkerError as error:
            raise ReferenceUnavailable(error.status, error.reason) from None
        expected = Expected(
            arrays(folder, case),
            arrays(folder, case, ".scale"),
            reply.quadratics,
            {
                name: (positions, values)
                for name, positions in arrays(folder, case, ".positions").items()
                for values in (np.load(folder / f"{name}.wide.npy", allow_pickle=False),)
            },
        )
        shutil.rmtree(folder, ignore_errors=True)
        return expected

    def forget(self, case: Case, kind: str | None = None) -> None:
        """Let the answers about a case go; all of them, or those of one kind."""
        for key in [key for key in self._known if key[0] == case and kind in (None, key[1])]:
            del self._known[key]


class Checker:
    """The questions about one case on one device.

    Args:
        case: The case.
        device: Where.
        reference_cache: The reference's answers.
        limit_seconds: Longest time for one answer of a backend.
    """

    def __init__(self, case: Case, device: str, reference_cache: ReferenceCache, limit_seconds: float) -> None:
        self._case = case
        self._device = device
        self._reference_cache = reference_cache
        self._limit_seconds = limit_seconds

    def prepare(self, cell: Cell, input_sets: int) -> Prepared | None:
        """Have the case prepared and called once; judge all but the values, for which there is no reference yet."""
        reply = cell.ask(Prepare(self._case, input_sets, cell.results_folder(FIRST)), self._limit_seconds)
        if reply is not None:
            cell.note(conduct.judge_type(reply.results.native_type, reply.native_bases, reply.home_made))
            cell.note(conduct.judge_affinity(reply.affinity.before, reply.affinity.now))
            given = gate.judge_given(self._case, self._device, reply.inputs)
            cell.note(given)
            if given.ok:
                self._judge_form(cell, reply.results, "bound")
        return reply

    def judge_first(self, cell: Cell) -> Arrays | None:
        """Judge the values of the first results; return them, or None if they could not be read."""
        expected = self._reference_cache.of(self._case, "normal", 0)
        actual = self._read(cell, FIRST)
        if actual is not None:
            verdict = gate.judge(self._case, expected, actual)
            cell.note(verdict)
            self._place(cell)
        return actual

    def question(self, what: str) -> tuple[str, int]:
        """The kind and the variation of the inputs that the answer to an scenario is for."""
        if what == "another kernel":
            return "integers", 0
        return "normal", 1 if what == "new values in the same buffers" else 0

    @property
    def renewed(self) -> str:
        """The kind of inputs that ``check`` brings: in a training step the weights change, too."""
        return "normal" if self._case.mode == "forward" else "new weight"

    def scenario(self, cell: Cell, what: str) -> bool:
        """Have one scenario done; judge all but the values, and say whether there are any to judge."""
        probe = "exact" if what == "another kernel" else "conduct"
        reply = cell.ask(RunScenario(what, cell.results_folder("scenario")), self._limit_seconds)
        if reply is None or not self._judge_form(cell, reply.results, probe):
            return False
        if what == "another kernel" and reply.kernel_seconds is not None:
            cell.kernel_seconds = reply.kernel_seconds
        baseline = cell.base_name == BASELINE
        cell.note(
            conduct.judge_operators(reply.operators, baseline, reply.results.native_type),
            conduct.judge_conversion(reply.convert_seconds, reply.call_seconds, self._case.result_bytes),
        )
        return True

    def judge_scenario(self, cell: Cell, what: str) -> None:
        """Judge the values of an scenario."""
        kind, variation = self.question(what)
        expected = self._reference_cache.of(self._case, kind, variation)
        actual = self._read(cell, "scenario")
        if actual is None:
            return
        if kind == "integers":
            cell.note(gate.judge_exactly(self._case, expected, actual))
            return
        if variation == 0:
            first = self._read(cell, FIRST)
            if first is None:
                return
            repeated = conduct.judge_repeated(first, actual)
            cell.note(repeated)
            if not repeated.remark:
                return  # bit for bit what was judged before
        judged = gate.judge(self._case, expected, actual, "conduct")
        told = judged.reason and f"{what}: {judged.reason}"
        cell.note(dataclasses.replace(judged, reason=told))
        self._place(cell)

    def finish_scenarios(self, cell: Cell) -> None:
        """See that inputs and first results are as they were."""
        reply = cell.ask(CheckIntegrity(cell.results_folder("scenario")), self._limit_seconds)
        if reply is None:
            return
        cell.note(conduct.judge_unchanged(reply.changed), conduct.judge_tampering(reply.replaced))
        first, now = self._read(cell, FIRST), self._read(cell, "scenario")
        if first is not None and now is not None:
            cell.note(conduct.judge_intact(first, now))
        shutil.rmtree(cell.folder(FIRST), ignore_errors=True)

    def judge_kept(self, cell: Cell, variation: int) -> None:
        """Judge results from inside a timed sample, on the input set ``variation``."""
        expected = self._reference_cache.of(self._case, "normal", variation)
        stepping = self._case.mode == "forward_backward"
        for case, what in (
            (self._case, "in a timed sample"),
            *([(self._case.with_mode("forward"), "in a timed forward")] if stepping else []),
        ):
            request = KeptResults(case is not self._case, cell.results_folder("kept"))
            reply = cell.ask(request, self._limit_seconds)
            if reply is None or not self._judge_form(cell, reply, "bound", case):
                return
            actual = self._read(cell, "kept", case)
            if actual is not None:
                judged = gate.judge(case, expected, actual)
                cell.note(dataclasses.replace(judged, reason=judged.reason and f"{what}: {judged.reason}"))
        self._place(cell)

    def check_again(self, cell: Cell, variations: list[int], settle: bool = True) -> Verdict | None:
        """See that inputs are as they were, then have it called on some that it has not seen.

        Args:
            cell: Who.
            variations: Numbers of the inputs; calls on all but the last are timed.
            settle: Whether a call that is not timed comes before each of them.

        Returns:
            Whether it seems to remember answers. That is not noted yet: on a busy machine it may seem so once.
        """
        integrity = cell.ask(CheckIntegrity(cell.results_folder("changed")), self._limit_seconds)
        if integrity is not None:
            cell.note(conduct.judge_unchanged(integrity.changed), conduct.judge_tampering(integrity.replaced))
        if not cell.going:
            return None
        request = CheckFresh(tuple(variations), self.renewed, cell.results_folder("check"), settle)
        reply = cell.ask(request, self._limit_seconds)
        if reply is None:
            return None
        self._judge_form(cell, reply.results, "bound")
        cell.note(conduct.judge_affinity(reply.affinity.before, reply.affinity.now))
        return conduct.judge_memory_of_answers(reply.fresh_seconds, reply.seen_seconds)

    def judge_check(self, cell: Cell, variation: int) -> None:
        """Judge the values that ``check_again`` left: they are for the last of its variations."""
        expected = self._reference_cache.of(self._case, self.renewed, variation)
        actual = self._read(cell, "check")
        if actual is not None:
            cell.note(gate.judge(self._case, expected, actual))
            self._place(cell)

    def _place(self, cell: Cell) -> None:
        """Place the cell by all errors seen so far."""
        judged = [verdict for verdict in cell.verdicts if verdict.errors and (verdict.ok or verdict.probe == "bound")]
        if not judged:
            cell.note(gate.passed("precision"))
            cell.precision_class = None
            return
        wide_range = cell.wide_range is not False
        cell.precision_class, verdict = gate.judge_precision(self._case, judged, wide_range)
        cell.note(verdict)

    def _judge_form(self, cell: Cell, results: Results, probe: str, case: Case | None = None) -> bool:
        """Judge what results say of themselves, and where they are stored."""
        form = gate.judge_facts(case or self._case, self._device, results.native_type, results.facts, probe)
        cell.note(form)
        if form.ok:
            stored = results.storages
            cell.note(conduct.judge_storage(stored.results, stored.inputs, stored.earlier))
        return form.ok

    def _read(self, cell: Cell, folder: str, case: Case | None = None) -> Arrays | None:
        """Read results; what cannot be read ends the cell. None also if they were refused before they were written."""
        place = cell.folder(folder)
        try:
            if any(not verdict.ok for verdict in cell.verdicts) and not any(place.iterdir()):
                return None
            found = arrays(place, case or self._case)
            if set(found) != set((case or self._case).result_shapes()):
                raise ValueError(f"it left {', '.join(found) or 'nothing'}")
        except (OSError, ValueError, EOFError) as error:
            cell.end(Status.FAILED, f"it could not be checked: {error}")
            return None
        return found


@dataclasses.dataclass(frozen=True, slots=True)
class EdgeCaseFindings:
    """What the structure probe found out about a backend.

    Attributes:
        verdicts: By the edge_case's name; besides, ``operators``, ``gradcheck`` and ``skipped``.
        wide_range: Whether numbers beyond float16's range came out right.
    """

    verdicts: Mapping[str, Verdict]
    wide_range: bool


def ask_edge_cases(
    asked: Case, name: str, device: str, remote: WorkerHandle, reference_cache: ReferenceCache, limit_seconds: float
) -> EdgeCaseFindings:
    """Put the structure probe's all_edge_cases to a loaded worker.

    Args:
        asked: Gives dtype, precision, mode and seed; sizes do not matter.
        name: The backend's own name.
        device: Where.
        remote: A worker that is not timed.
        reference_cache: The reference's answers.
        limit_seconds: Longest time for the answer.

    Raises:
        WorkerError: The worker did not answer.
        ReferenceUnavailable: The reference did not.
    """
    all_edge_cases = edge_cases.all_edge_cases(asked)
    able = {
        case: remote.request(AskSupport(case), limit_seconds).supported
        for case in dict.fromkeys(edge_case.case for edge_case in all_edge_cases)
    }
    skipped = len([edge_case for edge_case in all_edge_cases if not able[edge_case.case]])
    all_edge_cases = tuple(edge_case for edge_case in all_edge_cases if able[edge_case.case])
    folder = fresh_folder(remote.directory / "all_edge_cases")
    verdicts: dict[str, Verdict] = {}
    answers: dict[str, Arrays] = {}
    operators: list[str] = []
    native_type = ""
    for edge_case in all_edge_cases:
        # One edge_case a request, so that a time limit is one of preparing and a single call.
        alike = tuple(other for other in all_edge_cases if other.case == edge_case.case)
        reply = remote.request(RunEdgeCase(alike, edge_case.name, folder), limit_seconds)
        operators += reply.operators
        results = reply.results
        if results is None:
            verdicts[edge_case.name] = gate.refused(edge_cases.PROBE, f"not so: {edge_case.sentence}: {reply.error}")
            continue
        native_type = results.native_type
        form = gate.judge_facts(edge_case.case, device, native_type, results.facts, edge_cases.PROBE)
        placed = conduct.judge_storage(results.storages.results, results.storages.inputs, {})
        reason = form.reason or placed.reason
        if not reason:
            try:
                answers[edge_case.name] = arrays(folder / edge_case.name, edge_case.case)
            except (OSError, ValueError, EOFError) as error:
                reason = f"it could not be checked: {error}"
        if reason:
            verdicts[edge_case.name] = gate.refused(edge_cases.PROBE, f"not so: {edge_case.sentence}: {reason}")
    for edge_case in all_edge_cases:
        if edge_case.name in answers:
            expected = reference_cache.of(edge_case.case, edge_case.kind, 0)
            try:
                verdicts[edge_case.name] = edge_cases.judge_edge_case(edge_case, expected, answers)
            except KeyError:  # judged beside another edge_case, which was refused
                verdicts[edge_case.name] = gate.refused(
                    edge_cases.PROBE, f"not so: {edge_case.sentence}: nothing to compare with"
                )
    verdicts["operators"] = conduct.judge_operators(operators, name == BASELINE, native_type)
    verdicts["skipped"] = gate.passed(edge_cases.PROBE, Flag.EDGE_CASES_PARTIAL if skipped else "")
    if asked.mode == "forward_backward":
        verdicts["gradcheck"] = gradcheck(asked, remote, limit_seconds)
    shutil.rmtree(folder, ignore_errors=True)
    ordered = {edge_case.name: verdicts.pop(edge_case.name) for edge_case in all_edge_cases}
    return EdgeCaseFindings(
        ordered | verdicts, all(judged.ok for name, judged in ordered.items() if name.startswith("large"))
    )


def gradcheck(asked: Case, remote: WorkerHandle, limit_seconds: float) -> Verdict:
    """Have PyTorch's gradcheck done, where the arrays are PyTorch's; in float64, as finite differences need it."""
    batch, in1, in2, out = GRADCHECK_SIZES
    case = Case(batch, in1, in2, out, dtype="float64", mode="forward_backward", seed=asked.seed)
    if not remote.request(AskSupport(case), limit_seconds).supported:
        return gate.passed(edge_cases.PROBE)
    reason = remote.request(CheckGradients(case), limit_seconds).reason
    if reason:
        return gate.refused(edge_cases.PROBE, f"not so: the gradients are those of the output: {reason}")
    return gate.passed(edge_cases.PROBE)


def arrays(folder: Path, case: Case, suffix: str = "") -> Arrays:
    """Map the files of a case's results that are there, by name."""
    return {
        name: np.load(path, mmap_mode="r", allow_pickle=False)
        for name in case.result_shapes()
        if (path := folder / f"{name}{suffix}.npy").is_file()
    }

"""The edge_case_pool: workers that are never timed, and what the structure probe found out through them.

What a backend answers there holds for its dtype, precision and mode, so it is asked once in a run, before the first
case that needs it; then its edge_case_worker is let go. Several edge_case_pool are at work at a time, one for each CPU: nothing of
this is a time, and most of it is importing and compiling, which one CPU does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from harness.case import Case
from harness.process.handle import WorkerError, WorkerHandle
from harness.process.protocol import Load
from harness.run.cell import Cell
from harness.run.checker import EdgeCaseFindings, ReferenceCache, ask_edge_cases
from harness.run.context import RunContext

#: EdgeCasePool at work at a time, at most.
SIDE_BY_SIDE: Final = 8


def side_by_side(threads: int) -> int:
    """How many edge_case_pool are at work at a time, with so many CPUs."""
    return min(SIDE_BY_SIDE, threads)


class EdgeCasePool:
    """Asks each backend once.

    Args:
        context: Plan, workers and clock.
        reference_cache: The reference's answers.
    """

    def __init__(self, context: RunContext, reference_cache: ReferenceCache) -> None:
        self._context = context
        self._reference_cache = reference_cache
        self._known: dict[tuple[str, str, Case], EdgeCaseFindings | WorkerError] = {}
        self._stopped = False
        #: Seconds that each took, loading included, by backend and device.
        self.seconds: dict[str, float] = {}

    def answer(self, cells: Sequence[Cell], case: Case, device: str) -> None:
        """Take down what the structure probe says of each backend; what went wrong ends the cell."""
        unknown = {
            cell.base_name: self._context.plan.backends[cell.name].target
            for cell in cells
            if (cell.base_name, device, _kind(case)) not in self._known
        }
        if unknown:
            self._ask(unknown, case, device)
        for cell in cells:
            known = self._known[cell.base_name, device, _kind(case)]
            if isinstance(known, WorkerError):
                cell.end(known.status, f"in the structure probe: {known.reason}")
                continue
            cell.wide_range = known.wide_range
            cell.note(*known.verdicts.values())

    def _ask(self, targets: Mapping[str, str], first: Case, device: str) -> None:
        """Ask backends, by name, all that the plan's cases will need."""
        kinds = tuple(dict.fromkeys(_kind(case) for case in (first, *self._context.plan.cases)))
        self._reference_cache.start()
        with ThreadPoolExecutor(side_by_side(self._context.plan.threads)) as pool:
            try:
                list(pool.map(lambda name: self._ask_all(name, targets[name], device, kinds), targets))
            except BaseException:  # Ctrl-C among them: no request is waited for
                self._stopped = True
                for name in targets:
                    self._context.workers.discard_edge_case_worker(name, device)
                raise

    def _ask_all(self, name: str, target: str, device: str, kinds: Iterable[Case]) -> None:
        """Ask one backend, through one worker that is replaced if it dies.

        A worker dies with the thread that has started it (PR_SET_PDEATHSIG): it is started and let go in here.
        """
        start = self._context.now()
        limit = self._context.plan.time_limit_seconds
        loaded: WorkerHandle | None = None
        try:
            for kind in kinds:
                if self._stopped:
                    return
                try:
                    remote = self._context.workers.edge_case_worker(name, device)
                    if remote is not loaded:
                        remote.request(Load(name, target, device), limit)
                        loaded = remote
                    found = ask_edge_cases(kind, name, device, remote, self._reference_cache, limit)
                    self._known[name, device, kind] = found
                except WorkerError as error:
                    self._known[name, device, kind] = error
        finally:
            self._context.workers.discard_edge_case_worker(name, device)
        self.seconds[f"{name} on {device}"] = self._context.now() - start


def _kind(case: Case) -> Case:
    """The same dtype, precision, mode and seed, on sizes that stand for all."""
    return Case(1, 1, 1, 1, dtype=case.dtype, precision=case.precision, mode=case.mode, seed=case.seed)

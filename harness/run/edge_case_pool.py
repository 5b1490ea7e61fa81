"""Run the edge cases in workers that are never timed; keep the findings of each backend.

A reply to an edge case holds for its dtype, precision and mode. So each backend is asked once in a run, before the
first case that needs it, and its worker ends then. In a check, where nothing is timed, that begins at once. Up to
``SIDE_BY_SIDE`` workers run at a time, one for each CPU: most of it is importing and compiling, which one CPU does.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Final

from harness.case import Case
from harness.catalog.registry import Entry
from harness.process.handle import WorkerError, WorkerHandle
from harness.process.protocol import ListFiles, Load
from harness.record import Status
from harness.run.cell import Cell
from harness.run.context import RunContext
from harness.run.edge_case_questions import EdgeCaseFindings, EdgeCaseQuestions
from harness.run.kept_findings import KeptFindings
from harness.run.reference_cache import ReferenceCache

#: Most edge-case workers at a time.
SIDE_BY_SIDE: Final = 8


def side_by_side(threads: int) -> int:
    """Return the number of edge-case workers that run at a time under a thread budget."""
    return min(SIDE_BY_SIDE, threads)


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
        self._kept = KeptFindings(context.workers.findings, context.plan.threads, context.plan.recheck)
        self._threads = ThreadPoolExecutor(side_by_side(context.plan.threads))
        #: What is under way, by the backend's own name and the device.
        self._asking: dict[tuple[str, str], Future[None]] = {}
        self._stopped = False
        self.seconds: dict[str, float] = {}

    def begin(self, cells: Sequence[Cell], case: Case, device: str) -> None:
        """Start to ask backends about every dtype, precision and mode of the plan, the case's first; each once.

        Args:
            cells: Cells of the backends.
            case: The case.
            device: The device.

        Raises:
            ReferenceUnavailable: The reference did not start.
        """
        if cells:
            self._reference_cache.start()
        kinds = tuple(dict.fromkeys(_any_size(each) for each in (case, *self._context.plan.cases)))
        for cell in cells:
            name = cell.base_name
            if (name, device) not in self._asking and (name, device, _any_size(case)) not in self._known:
                entry = dataclasses.replace(self._context.plan.backends[cell.name], name=name)
                self._asking[name, device] = self._threads.submit(self._ask_all, entry, device, kinds)

    def judge(self, cells: Sequence[Cell], case: Case, device: str) -> None:
        """Note each backend's findings for a case; a worker's failure ends the cell."""
        self.begin(cells, case, device)
        try:
            for cell in cells:
                if (asking := self._asking.get((cell.base_name, device))) is not None:
                    asking.result()
                    self._asking.pop((cell.base_name, device))
        except BaseException:  # Ctrl-C too
            self.stop()
            raise
        for cell in cells:
            known = self._known[cell.base_name, device, _any_size(case)]
            if isinstance(known, WorkerError):
                cell.fail(known, "in the edge cases: ")
                continue
            cell.gate.wide_range, cell.gate.edge_cases_kept = known.wide_range, known.kept
            cell.evidence.output = known.output
            cell.note(*known.verdicts.values())

    def stop(self) -> None:
        """End what is under way, and start no more of it; a killed worker ends the request that a thread awaits."""
        self._stopped = True
        for (name, device), asking in self._asking.items():
            asking.cancel()
            self._context.workers.discard_edge_case_worker(name, device)
        wait(self._asking.values())
        self._asking.clear()
        self._stopped = False

    def _ask_all(self, entry: Entry, device: str, kinds: Iterable[Case]) -> None:
        """Ask one backend what was not found before, through one worker that is replaced if it dies.

        A worker dies with the thread that started it (PR_SET_PDEATHSIG), so this method starts and ends it.
        """
        start, name = self._context.now(), entry.name
        worker: WorkerHandle | None = None
        loaded_at = 0.0
        try:
            for kind in kinds:
                if self._stopped:
                    return
                if (kept := self._kept.find(entry, device, kind)) is not None:
                    self._known[name, device, kind] = kept
                    continue
                try:
                    if worker is None or not worker.alive:
                        loaded_at = time.time()
                        worker = self._loaded(entry, device)
                    self._known[name, device, kind] = self._found(entry, device, kind, worker, loaded_at)
                except WorkerError as error:
                    self._known[name, device, kind] = error
        finally:
            self._context.workers.discard_edge_case_worker(name, device)
        self.seconds[f"{name} on {device}"] = self._context.now() - start

    def _loaded(self, entry: Entry, device: str) -> WorkerHandle:
        """Return a worker that has loaded a backend."""
        worker = self._context.workers.edge_case_worker(entry.name, device)
        reply = worker.request(Load(entry.name, entry.target, device), self._context.plan.time_limit_seconds)
        if not reply.available:
            raise WorkerError(Status.FAILED, f"it is not available there: {reply.reason}")
        return worker

    def _found(self, entry: Entry, device: str, kind: Case, worker: WorkerHandle, loaded_at: float) -> EdgeCaseFindings:
        """Ask, and keep what was found for later runs."""
        limit = self._context.plan.time_limit_seconds
        asking = EdgeCaseQuestions(kind, entry.name, device, worker, self._reference_cache, limit)
        found = asking.findings()
        if self._kept.asks(device):
            files = worker.request(ListFiles(), limit).paths
            self._kept.keep(entry, device, kind, found, files, loaded_at)
        return found


def _any_size(case: Case) -> Case:
    """Return a case of the same dtype, precision, mode and seed, with sizes that stand for all."""
    return Case(1, 1, 1, 1, dtype=case.dtype, precision=case.precision, mode=case.mode, seed=case.seed)

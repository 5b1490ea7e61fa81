"""The journey of a case: ask, prepare, check, time, check again, release.

A group is one case in one mode on one device, with a cell for every backend. Backends that fit into memory together are
a cohort. The gate comes before the clock, judges results of timed calls, and comes again after.
"""

from __future__ import annotations

import contextlib

from harness.case import Case
from harness.process.handle import WorkerError
from harness.process.protocol import AskSupport
from harness.record import Status
from harness.run.cell import Cell
from harness.run.cohort import Cohort, Services
from harness.run.context import RunContext
from harness.run.edge_case_pool import side_by_side
from harness.run.plan import BASELINE
from harness.run.reference_cache import ReferenceUnavailable
from harness.run.sampling import Blocks
from harness.timing import roofline


class Group:
    """One case in one mode on one device.

    Args:
        context: Plan, workers and sources of the run.
        case: The case.
        device: Device of the cells.
        services: What the groups of the run share.

    Attributes:
        case: The case.
        device: Device of the cells.
        cells: A cell for every planned row, the baseline first.
        baselines: The baseline's cell of each cohort that has one.
        processes: Number of the process, by block.
    """

    def __init__(self, context: RunContext, case: Case, device: str, services: Services) -> None:
        self.case, self.device = case, device
        self.cells = [Cell(identity[2]) for identity in context.plan.cells(case, device)]
        self.baselines: list[Cell] = []
        self.processes: dict[int, int] = {}
        self._context = context
        self._services = services

    def measure(self, free_bytes: int, device_bytes: int | None) -> None:
        """Take every cell to its outcome.

        Args:
            free_bytes: Memory that all workers may take together, in bytes.
            device_bytes: Memory of a device that has its own, in bytes; None for the CPU.
        """
        self._services.reference_cache.device = self.device
        blocks = Blocks(self._context.now(), self.processes)
        free_bytes = self._reserve(free_bytes)
        if not self._context.plan.timing:
            self._begin()
        self._services.loader.load_all([cell.name for cell in self.cells if cell.going], self.device)
        for cell in self.cells:
            if cell.going:
                self._ask(cell, free_bytes)
        for members in cohorts(self.cells, min(free_bytes, device_bytes or free_bytes)):
            self.baselines += [cell for cell in members if cell.name == BASELINE]
            cohort = Cohort(self._context, self.case, self.device, members, self._services)
            try:
                cohort.prepare()
                cohort.check()
                cohort.time(blocks)
                cohort.check_again()
                if self.processes and self.device != "cpu" and not self._context.plan.flush_l2:
                    cohort.time_by_device(max(self.processes.values()))
            except ReferenceUnavailable as error:
                self._services.edge_case_pool.stop()
                cohort.end(error.status, error.reason)
            cohort.release()

    def _begin(self) -> None:
        """Have the reference and the edge cases at work from the start, where nothing is timed."""
        backends = self._context.plan.backends
        present = [cell for cell in self.cells if cell.going and backends[cell.name].installed().ok]
        with contextlib.suppress(ReferenceUnavailable):  # it is raised again where a result is needed
            self._services.reference_cache.start(at_work=True)
            self._services.edge_case_pool.begin(present, self.case, self.device)

    def _reserve(self, free_bytes: int) -> int:
        """Return the memory that is left to the backends; no cell is attempted where the reference does not fit."""
        needed = roofline.reference_bytes(self.case)
        if needed > free_bytes:
            for cell in self.cells:
                cell.end(Status.OUT_OF_MEMORY, _too_large("the reference", needed, free_bytes))
        # The reference holds its results while the backends hold theirs, and edge-case workers may run at that time.
        edge_case_workers = side_by_side(self._context.plan.threads)
        return free_bytes - needed - edge_case_workers * roofline.PROCESS_BYTES

    def _ask(self, cell: Cell, free_bytes: int) -> None:
        """Load a backend and ask whether it is available, supports the case and fits; a no ends the cell."""
        cell.phase = "load"
        loaded = self._services.loader.load(cell.name, self.device)
        cell.worker, reply = loaded.worker, loaded.reply
        if isinstance(reply, WorkerError):
            cell.fail(reply)
            return
        if not reply.available:
            cell.end(Status.UNAVAILABLE if reply.offered else Status.UNSUPPORTED, reply.reason)
            return
        cell.replies.loaded = cell.replies.latest = reply
        cell.phase = "support"
        support = cell.request(AskSupport(self.case), self._context.plan.time_limit_seconds)
        if support is None:
            return
        if not support.supported:
            cell.end(Status.UNSUPPORTED, support.reason)
            return
        cell.predicted_bytes = roofline.backend_bytes(self.case, support.workspace_bytes)
        if self.device == "cpu" and cell.predicted_bytes > free_bytes:
            cell.end(Status.OUT_OF_MEMORY, _too_large(cell.name, cell.predicted_bytes, free_bytes))


def cohorts(cells: list[Cell], free_bytes: int) -> list[list[Cell]]:
    """Split a group into cohorts whose predicted memory fits; each one after the first gets a baseline of its own.

    Args:
        cells: Cells of one group; those that have ended already are left out.
        free_bytes: Memory that a cohort may take, in bytes.
    """
    going = [cell for cell in cells if cell.going]
    baseline = next((cell for cell in going if cell.name == BASELINE), None)
    parts: list[list[Cell]] = [[]]
    for cell in going:
        taken = sum(member.predicted_bytes for member in parts[-1])
        if parts[-1] and taken + cell.predicted_bytes > free_bytes:
            # Alone, and so without a ratio, where it does not fit together with the baseline.
            together = baseline is not None and baseline.predicted_bytes + cell.predicted_bytes <= free_bytes
            parts.append([baseline.again()] if baseline is not None and together else [])
        parts[-1].append(cell)
    return [part for part in parts if part]


def _too_large(name: str, needed_bytes: int, free_bytes: int) -> str:
    """Return the reason why something is not attempted."""
    return f"{name} would need {needed_bytes / 2**30:.1f} GiB, {free_bytes / 2**30:.1f} GiB are free: not attempted"

"""One run: survey, doctor, groups, store."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from harness.case import Case
from harness.catalog.registry import DISTRIBUTION
from harness.checked import SCHEMA, CheckReport, Diagnosis, checked_row
from harness.installed import version
from harness.machine import environment
from harness.output.store import Json, Store, add_to_environment
from harness.process.folders import default_cache
from harness.process.protocol import encode
from harness.process.supervisor import Supervisor
from harness.record import BAD, Record
from harness.run import diagnoses
from harness.run.cell import Cell
from harness.run.cohort import Services
from harness.run.context import Loader, Progress, RunContext
from harness.run.edge_case_pool import EdgeCasePool
from harness.run.group import Group
from harness.run.options import RunOptions
from harness.run.plan import Plan, never_asked
from harness.run.reference_cache import ReferenceCache
from harness.run.rooflines import Rooflines
from harness.run.summary import interrupted, records
from harness.run.time_spent import Stage, TimeSpent
from harness.survey import doctor, facts, peaks
from harness.timing import roofline


class Runner:
    """Carries out a plan.

    Args:
        context: Plan, workers and progress callback.
        free_bytes: Function that returns the memory that all workers may take together when a group begins, in bytes.
        peaks: Peaks of each device; rows of a device without peaks have no roofline.
        survey: Function that measures a device's peaks again, before a row is called faster than the device.
        device_bytes: Function that returns the memory of a device that has its own, in bytes; None for the CPU.

    Attributes:
        worker_reports: Report of each worker about itself, by "NAME on DEVICE", for ``environment.json``.
        diagnoses: What is known of each cell that is wrong or failed.
    """

    def __init__(
        self,
        context: RunContext,
        free_bytes: Callable[[], int] = environment.available_bytes,
        peaks: Mapping[str, roofline.Peaks] | None = None,
        survey: Callable[[str], roofline.Peaks] | None = None,
        device_bytes: Callable[[str], int | None] = environment.device_bytes,
    ) -> None:
        self.worker_reports: dict[str, Json] = {}
        self.diagnoses: list[Diagnosis] = []
        self._context = context
        self._free_bytes, self._device_bytes = free_bytes, device_bytes
        reference_cache = ReferenceCache(context.workers.reference, context.plan.time_limit_seconds)
        self._services = Services(Loader(context), EdgeCasePool(context, reference_cache), reference_cache)
        self._rooflines = Rooflines(peaks or {}, survey, context.progress.stage)

    @property
    def edge_case_seconds(self) -> dict[str, float]:
        """Return the time of each backend's edge cases in seconds, loading included, by "NAME on DEVICE"."""
        return self._services.edge_case_pool.seconds

    @property
    def time_spent(self) -> Json:
        """Return what the time went into since the context was made."""
        return self._context.spent.as_json()

    def run(self, skip: frozenset[tuple[str, str, str]] = frozenset()) -> Iterator[Record]:
        """Yield the records of every group but those in ``skip`` (case, mode, device)."""
        groups = self._context.plan.groups()
        try:
            for number, (case, device) in enumerate(groups, start=1):
                if (case.name, case.mode, device) in skip:
                    continue
                self._context.progress.group(number, len(groups), case, device)
                once_seconds = self._context.spent.once_seconds
                rows = list(self._group(case, device))
                yield from rows
                once_seconds = self._context.spent.once_seconds - once_seconds
                self._context.progress.finished(number, len(groups), rows, once_seconds)
        finally:
            self._services.edge_case_pool.stop()

    def _group(self, case: Case, device: str) -> Iterator[Record]:
        """Measure a group and yield its records."""
        group = Group(self._context, case, device, self._services)
        try:
            group.measure(self._free_bytes(), self._device_bytes(device))
        finally:
            self._services.reference_cache.forget(case)
            for cell in group.cells:
                if cell.replies.latest is not None:
                    self.worker_reports[f"{cell.name} on {device}"] = _report(cell)
                if self._context.workers.empty_caches:
                    self._context.workers.discard(cell.name, device)
        self.diagnoses += [
            diagnoses.diagnose(self._context.plan, case, device, cell) for cell in group.cells if cell.status in BAD
        ]
        with self._context.spent(Stage.STATISTICS):
            rows = list(records(self._context.plan, group, self._rooflines))
        yield from rows


def _report(cell: Cell) -> Json:
    """Return the replies of a cell's workers about themselves."""
    replies = cell.replies
    report: Json = encode(replies.latest)
    if replies.prepared is not None:
        report["threads"] = encode(replies.prepared.threads)
    return report | {"busy": encode(replies.busy), "absent_times": replies.absent_times}


class _Machine:
    """Measures the machine that a run is on.

    Args:
        plan: The plan: devices, thread budget, time limit.
        workers: The supervisor.
        spent: Stopwatch of the run.
    """

    def __init__(self, plan: Plan, workers: Supervisor, spent: TimeSpent) -> None:
        self._plan, self._workers, self._spent = plan, workers, spent

    def survey(self, device: str) -> roofline.Peaks:
        """Measure a device's peaks."""
        with self._spent(Stage.PEAKS):
            if device == "cpu":
                dtypes = {roofline.arithmetic_of(case) for case, _ in self._plan.groups()}
                return peaks.measure(self._workers, self._plan.threads, self._plan.time_limit_seconds, dtypes)
            return peaks.measure_device(self._workers, device, self._plan.time_limit_seconds)

    def report(self, measure_peaks: bool, folder: Path) -> dict[str, roofline.Peaks]:
        """Have the doctor look at the machine; leave peaks and findings in ``environment.json``, return the peaks."""
        measured = {device: self.survey(device) for device in self._plan.devices} if measure_peaks else {}
        with self._spent(Stage.PEAKS):
            findings = doctor.diagnose(facts.gather(self._plan.threads, measured.get("cpu")))
        as_json = {device: device_peaks.as_json() for device, device_peaks in measured.items()}
        add_to_environment(folder, {"peaks": as_json, "doctor": doctor.as_json(findings)})
        return measured


def run(
    plan: Plan, options: RunOptions, store: Store, progress: Progress, skip: frozenset[tuple[str, str, str]]
) -> bool:
    """Carry out a plan, row by row onto the disk.

    Args:
        plan: Cases, backends and limits.
        options: Options of carrying it out.
        store: Files that take the rows.
        progress: Callback for the next step.
        skip: Groups (case, mode, device) whose rows the store has already.

    Returns:
        True if the run was interrupted.
    """
    planned = {cell for case, device in plan.groups() for cell in plan.cells(case, device)}
    done = {cell for cell in planned if (cell[0], cell[1], cell[3]) in skip}
    stopped = False
    with Supervisor(plan.threads, default_cache(), options.freeze, options.empty_compile_cache) as workers:
        context = RunContext(plan, workers, progress, store.add_sample)
        runner, machine = Runner(context), _Machine(plan, workers, context.spent)
        try:
            progress.stage("how fast this machine can compute and read")
            measured = machine.report(options.roofline, store.folder)
            if options.roofline:
                context.spot_peak = peaks.SpotPeak(workers, plan.time_limit_seconds).now
                runner = Runner(context, peaks=measured, survey=machine.survey)
            for record in runner.run(skip):
                store.add_record(record)
                done.add(record.cell)
        except KeyboardInterrupt:
            stopped = True
    for record in interrupted(plan, frozenset(done)):
        store.add_record(record)
    found: Json = {"workers": runner.worker_reports, "edge_case_seconds": runner.edge_case_seconds}
    add_to_environment(store.folder, found | {"time_spent": runner.time_spent})
    return stopped


def check(plan: Plan, progress: Progress) -> tuple[CheckReport, list[Record]]:
    """Put every planned cell through the gate; return the report, and the rows."""
    with Supervisor(plan.threads, default_cache()) as workers:
        runner = Runner(RunContext(plan, workers, progress))
        found = list(runner.run())
    missed = never_asked(plan, [dataclasses.asdict(record) for record in found])
    report = CheckReport(
        schema=SCHEMA,
        version=version(DISTRIBUTION) or "",
        seed=plan.seed,
        ok=not missed and all(record.status not in BAD for record in found),
        rows=tuple(checked_row(record) for record in found),
        diagnoses=tuple(runner.diagnoses),
    )
    return report, found

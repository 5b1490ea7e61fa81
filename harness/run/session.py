"""Cases and backends in, records out.

For each case, mode and device (a group): ask every backend whether it is here, can do the case and fits; let the cohorts
gate and time those that can; yield one record for every planned cell, whatever happened.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Set
from typing import Any, Final

from harness.case import Case
from harness.machine import environment
from harness.output.store import Store, add_to_environment
from harness.process.handle import WorkerError
from harness.process.protocol import AskSupport, encode
from harness.process.supervisor import Supervisor, default_cache
from harness.record import Flag, Record, Relation, Status
from harness.run.cell import Cell
from harness.run.checker import ReferenceCache
from harness.run.context import Progress, RunContext, RunProgress
from harness.run.edge_case_pool import EdgeCasePool, side_by_side
from harness.run.group import Cohort
from harness.run.loader import Loader
from harness.run.plan import BASELINE, Plan, RunOptions, interrupted, make_record
from harness.survey import doctor, facts, peaks
from harness.timing import estimates, roofline, steady_state

#: A GEMM so many times as fast as multiply-add chains ever were in a run has units that these do not reach; one that is
#: less ahead was measured in a better moment.
OTHER_UNITS: Final = 1.5
#: A time of less than 1 / 1.05 of what this machine could do at best is no time.
IMPLAUSIBLE: Final = 1.05


class Runner:
    """Carries out a plan.

    Args:
        context: The plan, the workers and whom to tell.
        free_bytes: Memory that the workers may take together, asked when a group begins, in bytes.
        peaks: What each device can do; one that is not there leaves its rows' limits empty.
        survey: Measures a device again, before a row is called faster than it.
        device_bytes: Memory of a device that has its own.
    """

    def __init__(
        self,
        context: RunContext,
        free_bytes: Callable[[], int] = environment.available_bytes,
        peaks: Mapping[str, roofline.Peaks] | None = None,
        survey: Callable[[str], roofline.Peaks] | None = None,
        device_bytes: Callable[[str], int | None] = environment.device_bytes,
    ) -> None:
        self._context = context
        self._plan = context.plan
        self._workers = context.workers
        self._free_bytes, self._device_bytes = free_bytes, device_bytes
        self._reference_cache = ReferenceCache(context.workers.reference, context.plan.time_limit_seconds)
        self._edge_case_pool = EdgeCasePool(context, self._reference_cache)
        self._loader = Loader(context)
        self._peaks, self._survey = dict(peaks or {}), survey
        #: The highest spot_peak so far, by arithmetic.
        self._best_spot_peaks: dict[str, float] = {}
        #: Versions, clock and thread pools of each worker, in its own words, for ``environment.json``.
        self.workers_said: dict[str, dict[str, Any]] = {}

    @property
    def edge_case_seconds(self) -> dict[str, float]:
        """What the structure probe took, by backend and device, loading included."""
        return self._edge_case_pool.seconds

    def run(self, skip: frozenset[tuple[str, str, str]] = frozenset()) -> Iterator[Record]:
        """Yield the records of every group but those in ``skip`` (case, mode, device)."""
        groups = self._plan.groups()
        for number, (case, device) in enumerate(groups, start=1):
            if (case.name, case.mode, device) in skip:
                continue
            self._context.progress.group(number, len(groups), case, device)
            yield from self._group(case, device)

    def _group(self, case: Case, device: str) -> Iterator[Record]:
        cells = [Cell(cell[2]) for cell in self._plan.cells(case, device)]
        free, needed = self._free_bytes(), roofline.reference_bytes(case)
        if needed > free:
            for cell in cells:
                cell.end(Status.OUT_OF_MEMORY, _too_large("the reference", needed, free))
        # The reference holds its results while the backends hold theirs, and edge_case_pool may be there besides.
        free -= needed + side_by_side(self._plan.threads) * roofline.PROCESS_BYTES
        baselines: list[Cell] = []
        processes: dict[int, int] = {}
        begun = self._context.now()
        self._reference_cache.device = device
        try:
            for cell in cells:
                if cell.going:
                    self._ask(cell, case, device, free)
            for members in cohorts(cells, min(free, self._device_bytes(device) or free)):
                baselines += [cell for cell in members if cell.name == BASELINE]
                for cell in members:
                    # The panel before may have replaced the worker.
                    cell.worker = self._loader.load(cell.name, device)[0] or cell.worker
                panel = Cohort(
                    self._context, case, device, members, self._edge_case_pool, self._reference_cache, self._loader
                )
                panel.measure(begun, processes)
        finally:
            self._reference_cache.forget(case)
            for cell in cells:
                if cell.loaded is not None:
                    self.workers_said[f"{cell.name} on {device}"] = encode(cell.loaded) | cell.said
                if self._workers.empty_caches:
                    self._workers.discard(cell.name, device)
        yield from self._records(cells, baselines, case, device, processes)

    def _ask(self, cell: Cell, case: Case, device: str, free: int) -> None:
        """Load and ask whether it is here, can do this, and fits."""
        cell.phase = "load"
        cell.worker, loaded = self._loader.load(cell.name, device)
        if isinstance(loaded, WorkerError):
            cell.end(loaded.status, loaded.reason)
            return
        if not loaded.available:
            cell.end(Status.UNAVAILABLE if loaded.offered else Status.UNSUPPORTED, loaded.reason)
            return
        cell.loaded = loaded
        cell.columns |= {"backend_version": loaded.version, "import_seconds": loaded.import_seconds}
        cell.phase = "support"
        said = cell.ask(AskSupport(case), self._plan.time_limit_seconds)
        if said is None:
            return
        if not said.supported:
            cell.end(Status.UNSUPPORTED, said.reason)
            return
        cell.predicted_bytes = roofline.backend_bytes(case, said.workspace_bytes)
        if device == "cpu" and cell.predicted_bytes > free:
            cell.end(Status.OUT_OF_MEMORY, _too_large(cell.name, cell.predicted_bytes, free))

    def _records(
        self,
        cells: list[Cell],
        baselines: list[Cell],
        case: Case,
        device: str,
        processes: Mapping[int, int],
    ) -> Iterator[Record]:
        going = [cell for cell in baselines if cell.going]
        baseline = {block: time for cell in going for block, time in cell.seconds.items()}
        disturbed = frozenset(block for cell in going for block in cell.disturbed_blocks)
        cost_of_baseline = going[0].columns if going else {}
        timed = {cell.name: cell.seconds for cell in cells if cell.going and cell.seconds}
        arithmetic, spot_peaks = (
            roofline.arithmetic_of(case),
            [spot_peak for cell in cells for spot_peak in cell.spot_peaks.values()],
        )
        self._best_spot_peaks[arithmetic] = max([self._best_spot_peaks.get(arithmetic, 0.0), *spot_peaks])
        roofline_seconds = self._limit(case, device, timed)
        implausible = {
            name
            for name, seconds in timed.items()
            if roofline_seconds is not None and roofline_seconds > IMPLAUSIBLE * statistics.median(seconds.values())
        }
        band = self._plan.band
        ranks = _ranks([cell for cell in cells if cell.name not in implausible], timed, processes, band)
        classes = {cell.name.partition("#")[0]: cell.precision_class for cell in baselines}
        for cell in cells:
            columns: dict[str, Any] = cell.columns | {
                "phase": cell.phase,
                "probes": cell.probes() or None,
                "precision_class": cell.precision_class,
                "max_error_over_bound": cell.largest("error_over_bound"),
                "max_absolute_error": cell.largest("absolute_error"),
                "gate_seconds": cell.gate_seconds or None,
                "gflop": roofline.flop(case) / 1e9,
                "roofline_seconds": roofline_seconds,
            }
            status, reason = cell.status, cell.reason or None
            if cell.name in timed:
                status = Status.TIMED
                columns |= _times(cell, case, processes)
                quiet = set(cell.seconds) - disturbed - cell.disturbed_blocks
                columns |= _comparison(cell, baseline, processes, quiet, band)
                columns |= {"rank": ranks.get(cell.name), "break_even_calls": _break_even(columns, cost_of_baseline)}
                if roofline_seconds is not None:
                    columns["roofline_fraction"] = roofline_seconds / columns["median_seconds"]
                    columns |= _spot_fraction(cell, self._spot_rooflines(case, device, cell.spot_peaks), processes)
                    known = [cell.columns.get(column) for column in ("device_seconds", "graph_seconds")]
                    if any(seconds is not None and roofline_seconds > IMPLAUSIBLE * seconds for seconds in known):
                        cell.flag(Flag.DEVICE_UNDER_ROOFLINE)
                if cell.name in implausible:
                    cell.flag(Flag.IMPLAUSIBLE)
                if len(cell.seconds) < estimates.LEAST_VALUES:
                    cell.flag(Flag.FEW_BLOCKS)
                if columns["steady_state"] == steady_state.NO_STEADY_STATE:
                    cell.flag(Flag.NO_STEADY_STATE)
                cell.flag(_disturbance(columns, len(quiet)))
                if classes.get(BASELINE) not in (None, cell.precision_class):
                    cell.flag(Flag.CLASS_DIFFERS)
            elif status is None:
                why = cell.untimeable or "only the gate was asked for"
                why = "there is nothing to compute" if case.empty else why
                status, reason = Status.CHECKED, f"passed the gate; not timed, because {why}"
            columns["flags"] = ";".join(cell.flags) or None
            yield make_record(self._plan, case, device, cell.name, status, reason, **columns)

    def _limit(self, case: Case, device: str, timed: Mapping[str, Mapping[int, float]]) -> float | None:
        """The least time that the device could take, in seconds; measured again before anybody seems to beat it."""
        if device not in self._peaks:
            return None
        limit = roofline.roofline_seconds(case, self._peaks[device])
        fastest = min((statistics.median(seconds.values()) for seconds in timed.values()), default=None)
        if limit is None or fastest is None or limit <= IMPLAUSIBLE * fastest or self._survey is None:
            return limit
        self._context.progress.stage("the machine's limit once more")
        self._peaks[device] = self._peaks[device].best(self._survey(device))
        return roofline.roofline_seconds(case, self._peaks[device])

    def _spot_rooflines(self, case: Case, device: str, spot_peaks: Mapping[int, float]) -> dict[int, float]:
        """The limit at each block's spot_peak, in seconds; none if such a spot_peak is not what the limit is made of.

        Where units that no multiply-add chain reaches make the peak, a chain's spot_peak says nothing of it.
        """
        arithmetic = roofline.arithmetic_of(case)
        peaks = self._peaks.get(device)
        if peaks is None or (rate := peaks.arithmetic.get(arithmetic)) is None:
            return {}
        if rate.flop_per_second >= OTHER_UNITS * max(rate.chains or 0.0, self._best_spot_peaks.get(arithmetic, 0.0)):
            return {}
        limits = {
            block: roofline.roofline_seconds(case, peaks.at_spot_peak(arithmetic, spot_peak))
            for block, spot_peak in spot_peaks.items()
        }
        return {block: limit for block, limit in limits.items() if limit is not None}


def _ranks(
    cells: list[Cell],
    timed: Mapping[str, Mapping[int, float]],
    processes: Mapping[int, int],
    band: float,
) -> dict[str, int]:
    """Rank the timed ones, those of each precision class among themselves."""
    ranks: dict[str, int] = {}
    for precision_class in {cell.precision_class for cell in cells if cell.name in timed}:
        alike = [cell.name for cell in cells if cell.precision_class == precision_class]
        ranks |= estimates.ranks({name: timed[name] for name in alike if name in timed}, processes, band)
    return ranks


def cohorts(cells: list[Cell], free: int) -> list[list[Cell]]:
    """Split a group into cohorts whose predicted memory fits; each part after the first gets a baseline of its own.

    Args:
        cells: Of one group; those that have ended already are left out.
        free: Memory that a panel may take, in bytes.
    """
    going = [cell for cell in cells if cell.going]
    baseline = next((cell for cell in going if cell.name == BASELINE), None)
    parts: list[list[Cell]] = [[]]
    for cell in going:
        taken = sum(member.predicted_bytes for member in parts[-1])
        if parts[-1] and taken + cell.predicted_bytes > free:
            # Alone, and so without a ratio, where it would not fit beside the baseline.
            together = baseline is not None and baseline.predicted_bytes + cell.predicted_bytes <= free
            parts.append([baseline.again()] if baseline is not None and together else [])
        parts[-1].append(cell)
    return [part for part in parts if part]


def _times(cell: Cell, case: Case, processes: Mapping[int, int]) -> dict[str, Any]:
    """Return the columns that only a timed row has, but for what compares it with others."""
    summary = estimates.summarize(list(cell.seconds.values()))
    columns: dict[str, Any] = {
        "processes": len({processes[block] for block in cell.seconds}),
        "blocks": len(cell.seconds),
        "calls": round(statistics.median(cell.calls)),
        "min_seconds": summary.minimum,
        "p25_seconds": summary.p25,
        "median_seconds": summary.median.estimate,
        "mean_seconds": summary.mean,
        "p75_seconds": summary.p75,
        "p95_seconds": summary.p95,
        "median_low_seconds": summary.median.low,
        "median_high_seconds": summary.median.high,
        "gflop_per_second": roofline.flop(case) / 1e9 / summary.median.estimate,
        "steady_state": steady_state.classify(cell.seconds, processes),
        "disturbed_blocks": len(cell.disturbed_blocks),
        "seconds_to_target": cell.seconds_to_target,
        "stopped_by": cell.stopped_by,
    }
    if cell.forward_seconds:
        columns["forward_seconds"] = statistics.median(cell.forward_seconds.values())
        columns["backward_seconds"] = columns["median_seconds"] - columns["forward_seconds"]
    return columns


def _comparison(
    cell: Cell,
    baseline: Mapping[int, float],
    processes: Mapping[int, int],
    quiet: Set[int],
    band: float,
) -> dict[str, Any]:
    """Return the columns that compare a row with the baseline; none without a block that both were in."""
    found = estimates.compare(cell.seconds, baseline, processes, band)
    if found is None:
        return {}
    shared = [time for block, time in baseline.items() if block in cell.seconds]
    columns: dict[str, Any] = {
        "baseline": BASELINE,
        "baseline_median_seconds": statistics.median(shared),
        "speedup": found.ratio.estimate,
        "speedup_low": found.ratio.low,
        "speedup_high": found.ratio.high,
    }
    if cell.name == BASELINE:
        return columns  # it is no faster than itself
    kept = {block: time for block, time in cell.seconds.items() if block in quiet}
    without = found if len(kept) == len(cell.seconds) else estimates.compare(kept, baseline, processes, band)
    return columns | {
        "comparison": found.relation,
        "comparison_undisturbed": without.relation if without else Relation.AMBIGUOUS,
        "unit": found.unit,
        "block_spread": found.block_spread,
        "process_spread": found.process_spread,
    }


def _spot_fraction(cell: Cell, limits: Mapping[int, float], processes: Mapping[int, int]) -> dict[str, float | None]:
    """Return the columns that compare a row with the limit in each of its blocks."""
    found = estimates.compare(cell.seconds, limits, processes)
    if found is None:
        return {}
    return {
        "spot_roofline_fraction": found.ratio.estimate,
        "spot_roofline_fraction_low": found.ratio.low,
        "spot_roofline_fraction_high": found.ratio.high,
    }


def _disturbance(columns: Mapping[str, Any], quiet: int) -> str | None:
    """Say that the verdict hangs on disturbed blocks, or that there are hardly others, as a flag."""
    without = columns.get("comparison_undisturbed")
    if quiet < columns["blocks"] / 2:
        return Flag.MOSTLY_DISTURBED
    # With fewer quiet blocks than an interval needs, less can be said of course.
    differs = without != columns.get("comparison") and quiet >= estimates.LEAST_VALUES
    return Flag.UNDISTURBED.detailed(without) if differs else None


def _break_even(columns: Mapping[str, Any], baseline: Mapping[str, Any]) -> int | None:
    """Calls after which preparing, compiling and calling have taken less time than the baseline's; None if never."""
    if columns.get("comparison") != Relation.FASTER or "first_call_seconds" not in baseline:
        return None
    ahead = sum(columns[name] - baseline[name] for name in ("prepare_seconds", "first_call_seconds"))
    gained = columns["baseline_median_seconds"] - columns["median_seconds"]
    # The first call is in `ahead`; each one after it gains.
    return 1 if ahead <= 0 else 1 + math.ceil(ahead / gained) if gained > 0 else None


def _too_large(who: str, needed: int, free: int) -> str:
    return f"{who} would need {needed / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are free: not attempted"


def run(
    plan: Plan, options: RunOptions, store: Store, progress: RunProgress, skip: frozenset[tuple[str, str, str]]
) -> bool:
    """Carry out a plan, row by row onto the disk.

    Args:
        plan: What is to be measured.
        options: How.
        store: Where rows go.
        progress: Callback for what comes next.
        skip: Groups (case, mode, device) that the store has already.

    Returns:
        True if the run was interrupted.
    """
    planned = {cell for case, device in plan.groups() for cell in plan.cells(case, device)}
    done = {cell for cell in planned if (cell[0], cell[1], cell[3]) in skip}
    stopped = False
    workers = Supervisor(plan.threads, default_cache(), options.freeze, options.empty_compile_cache)
    with workers:

        def survey(device: str) -> roofline.Peaks:
            if device == "cpu":
                return peaks.measure(workers, plan.threads, plan.time_limit_seconds)
            return peaks.measure_device(workers, device, plan.time_limit_seconds)

        context = RunContext(plan, workers, progress, store.add_sample)
        if options.roofline:
            context.spot_peak = peaks.SpotPeak(workers, plan.time_limit_seconds).now
        runner = Runner(context)
        try:
            progress.begin("the machine's peaks")
            measured = {device: survey(device) for device in plan.devices} if options.roofline else {}
            findings = doctor.diagnose(facts.gather(plan.threads, measured.get("cpu")))
            as_json = {device: device_peaks.as_json() for device, device_peaks in measured.items()}
            add_to_environment(store.folder, {"peaks": as_json, "doctor": doctor.as_json(findings)})
            runner = Runner(context, peaks=measured, survey=survey if measured else None)
            for record in runner.run(skip):
                store.add_record(record)
                done.add(record.cell)
        except KeyboardInterrupt:
            stopped = True
    for record in interrupted(plan, frozenset(done)):
        store.add_record(record)
    add_to_environment(store.folder, {"workers": runner.workers_said, "edge_case_seconds": runner.edge_case_seconds})
    return stopped


def check(plan: Plan, progress: Progress) -> list[Record]:
    """Put every planned cell through the gate; return the rows."""
    with Supervisor(plan.threads, default_cache()) as workers:
        return list(Runner(RunContext(plan, workers, progress)).run())

"""From a group's cells to their records."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from harness.case import Case
from harness.record import Flag, Record, Relation, Status
from harness.run.cell import Cell
from harness.run.group import Group
from harness.run.plan import BASELINE, Plan, make_record
from harness.timing import estimates, roofline, steady_state

#: A GEMM this many times as fast as the FMA chains ever were in a run has units that the chains do not reach. A GEMM
#: that is less ahead was measured in a better moment.
OTHER_UNITS: Final = 1.5
#: A median more than 5 % below the roofline is impossible: flag the row, do not rank it.
IMPLAUSIBLE: Final = 1.05

#: Columns of a record, by name.
Columns = dict[str, Any]


class Rooflines:
    """The rooflines of a run's devices.

    Args:
        peaks: Peaks of each device; rows of a device that is not there have no roofline.
        survey: Measures a device's peaks again, before a row is called faster than the device.
        stage: Callback before that.
    """

    def __init__(
        self,
        peaks: Mapping[str, roofline.Peaks],
        survey: Callable[[str], roofline.Peaks] | None,
        stage: Callable[[str], None],
    ) -> None:
        self._peaks, self._survey, self._stage = dict(peaks), survey, stage
        #: Highest spot peak of the run until now, in flop per second, by arithmetic.
        self._best_spot_peaks: dict[str, float] = {}

    def add_spot_peaks(self, case: Case, cells: list[Cell]) -> None:
        """Take the spot peaks of a group into account."""
        arithmetic = roofline.arithmetic_of(case)
        peaks = [peak for cell in cells for peak in cell.timings.spot_peaks.values()]
        self._best_spot_peaks[arithmetic] = max([self._best_spot_peaks.get(arithmetic, 0.0), *peaks])

    def seconds(self, case: Case, device: str, fastest: float | None) -> float | None:
        """Return the least time that a device could take, in seconds; None if it is unknown.

        Args:
            case: The case.
            device: The device.
            fastest: Smallest median of the group, in seconds; if it is impossible, the peaks are measured again.
        """
        if device not in self._peaks:
            return None
        least = roofline.roofline_seconds(case, self._peaks[device])
        if least is None or fastest is None or least <= IMPLAUSIBLE * fastest or self._survey is None:
            return least
        self._stage("the machine's peaks once more")
        self._peaks[device] = self._peaks[device].best(self._survey(device))
        return roofline.roofline_seconds(case, self._peaks[device])

    def at_spot_peaks(self, case: Case, device: str, spot_peaks: Mapping[int, float]) -> dict[int, float]:
        """Return the roofline at each block's spot peak, in seconds; empty if the spot peak is no part of the roofline.

        Where units that no FMA chain reaches make the peak, the chains' spot peak says nothing of it.
        """
        arithmetic = roofline.arithmetic_of(case)
        peaks = self._peaks.get(device)
        if peaks is None or (rate := peaks.arithmetic.get(arithmetic)) is None:
            return {}
        if rate.flop_per_second >= OTHER_UNITS * max(rate.chains or 0.0, self._best_spot_peaks.get(arithmetic, 0.0)):
            return {}
        return {
            block: seconds
            for block, spot_peak in spot_peaks.items()
            if (seconds := roofline.roofline_seconds(case, peaks.at_spot_peak(arithmetic, spot_peak))) is not None
        }


@dataclasses.dataclass(frozen=True, slots=True)
class _Facts:
    """What the rows of a group share.

    Attributes:
        group: The group.
        band: Equivalence band, as a share of the ratio.
        baseline: Times of a call of the baseline, in seconds, by block.
        baseline_cell: The first cohort's baseline; None without one that passed the gate.
        baseline_class: Precision class of the baseline; None if it has none.
        disturbed: Blocks in which the baseline was disturbed.
        roofline_seconds: Least time that the device could take, in seconds; None if it is unknown.
        implausible: Names of cells faster than that.
        ranks: Rank by name.
    """

    group: Group
    band: float
    baseline: Mapping[int, float]
    baseline_cell: Cell | None
    baseline_class: str | None
    disturbed: frozenset[int]
    roofline_seconds: float | None
    implausible: frozenset[str]
    ranks: Mapping[str, int]


def records(plan: Plan, group: Group, rooflines: Rooflines) -> Iterator[Record]:
    """Yield the record of every cell.

    Args:
        plan: The run's plan.
        group: A group whose cells have their outcome.
        rooflines: The rooflines of the run's devices.
    """
    rooflines.add_spot_peaks(group.case, group.cells)
    facts = _facts(plan, group, rooflines)
    for cell in group.cells:
        columns = _columns(cell, group.case) | {"roofline_seconds": facts.roofline_seconds}
        status, reason = cell.status, cell.reason or None
        if _timed(cell):
            status = Status.TIMED
            columns |= _timed_columns(cell, facts, rooflines)
            _flag(cell, columns, facts)
        elif status is None:
            why = cell.untimeable or "only the gate was asked for"
            why = "there is nothing to compute" if group.case.empty else why
            status, reason = Status.CHECKED, f"passed the gate; not timed, because {why}"
        columns["flags"] = ";".join(cell.flags) or None
        yield make_record(plan, group.case, group.device, cell.name, status, reason, **columns)


def _timed(cell: Cell) -> bool:
    return cell.going and bool(cell.timings.seconds)


def _facts(plan: Plan, group: Group, rooflines: Rooflines) -> _Facts:
    """Return what the rows of a group share."""
    going = [cell for cell in group.baselines if cell.going]
    medians = {cell.name: statistics.median(cell.timings.seconds.values()) for cell in group.cells if _timed(cell)}
    least = rooflines.seconds(group.case, group.device, min(medians.values(), default=None))
    implausible = {name for name, median in medians.items() if least is not None and least > IMPLAUSIBLE * median}
    ranked = [cell for cell in group.cells if _timed(cell) and cell.name not in implausible]
    return _Facts(
        group=group,
        band=plan.band,
        baseline={block: seconds for cell in going for block, seconds in cell.timings.seconds.items()},
        baseline_cell=going[0] if going else None,
        baseline_class=group.baselines[-1].gate.precision_class if group.baselines else None,
        disturbed=frozenset(block for cell in going for block in cell.timings.disturbed_blocks),
        roofline_seconds=least,
        implausible=frozenset(implausible),
        ranks=_ranks(ranked, group.processes, plan.band),
    )


def _ranks(cells: list[Cell], processes: Mapping[int, int], band: float) -> dict[str, int]:
    """Rank timed cells, those of each precision class among themselves."""
    ranks: dict[str, int] = {}
    for precision_class in {cell.gate.precision_class for cell in cells}:
        alike = {cell.name: cell.timings.seconds for cell in cells if cell.gate.precision_class == precision_class}
        ranks |= estimates.ranks(alike, processes, band)
    return ranks


def _columns(cell: Cell, case: Case) -> Columns:
    """Return the columns that any row may have."""
    loaded, prepared, log = cell.replies.loaded, cell.replies.prepared, cell.gate
    columns: Columns = {
        "phase": cell.phase,
        "probes": log.probes() or None,
        "precision_class": log.precision_class,
        "max_error_over_bound": log.largest("error_over_bound"),
        "max_absolute_error": log.largest("absolute_error"),
        "mean_absolute_error": log.mean_absolute_error,
        "gate_seconds": log.seconds or None,
        "compile_cache": cell.compile_cache,
        "peak_memory_bytes": cell.timings.peak_memory_bytes,
        "gflop": roofline.flop(case) / 1e9,
    }
    if loaded is not None:
        columns |= {"backend_version": loaded.version, "import_seconds": loaded.import_seconds}
    if prepared is not None:
        columns |= {
            "prepare_seconds": prepared.prepare_seconds,
            "first_call_seconds": prepared.first_call_seconds,
            "tuning": prepared.tuning or None,
        }
    return columns


def _timed_columns(cell: Cell, facts: _Facts, rooflines: Rooflines) -> Columns:
    """Return the columns that only a timed row has."""
    case, device, processes = facts.group.case, facts.group.device, facts.group.processes
    columns = _times(cell, case, processes) | _comparison(cell, facts)
    columns["rank"] = facts.ranks.get(cell.name)
    columns["break_even_calls"] = _break_even(cell, columns, facts.baseline_cell)
    if facts.roofline_seconds is not None:
        columns["roofline_fraction"] = facts.roofline_seconds / columns["median_seconds"]
        spot = rooflines.at_spot_peaks(case, device, cell.timings.spot_peaks)
        found = estimates.compare(cell.timings.seconds, spot, processes)
        if found is not None:
            columns["spot_roofline_fraction"] = found.ratio.estimate
            columns["spot_roofline_fraction_low"] = found.ratio.low
            columns["spot_roofline_fraction_high"] = found.ratio.high
    return columns


def _times(cell: Cell, case: Case, processes: Mapping[int, int]) -> Columns:
    """Return the columns of a timed row that compare it with no other."""
    timings = cell.timings
    summary = estimates.summarize(list(timings.seconds.values()))
    columns: Columns = {
        "processes": len({processes[block] for block in timings.seconds}),
        "blocks": len(timings.seconds),
        "calls": round(statistics.median(timings.calls)),
        "min_seconds": summary.minimum,
        "p25_seconds": summary.p25,
        "median_seconds": summary.median.estimate,
        "mean_seconds": summary.mean,
        "p75_seconds": summary.p75,
        "p95_seconds": summary.p95,
        "median_low_seconds": summary.median.low,
        "median_high_seconds": summary.median.high,
        "gflop_per_second": roofline.flop(case) / 1e9 / summary.median.estimate,
        "steady_state": steady_state.classify(timings.seconds, processes),
        "disturbed_blocks": len(timings.disturbed_blocks),
        "seconds_to_target": cell.schedule.seconds_to_target,
        "stopped_by": cell.schedule.stopped_by,
    }
    if timings.forward_seconds:
        columns["forward_seconds"] = statistics.median(timings.forward_seconds.values())
        columns["backward_seconds"] = columns["median_seconds"] - columns["forward_seconds"]
    return columns | timings.device_seconds


def _quiet(cell: Cell, facts: _Facts) -> set[int]:
    """Return the blocks in which neither the cell nor the baseline was disturbed."""
    return set(cell.timings.seconds) - facts.disturbed - cell.timings.disturbed_blocks


def _comparison(cell: Cell, facts: _Facts) -> Columns:
    """Return the columns that compare a row with the baseline; none without a block that both were in."""
    seconds, baseline, processes = cell.timings.seconds, facts.baseline, facts.group.processes
    found = estimates.compare(seconds, baseline, processes, facts.band)
    if found is None:
        return {}
    columns: Columns = {
        "baseline": BASELINE,
        "baseline_median_seconds": statistics.median(time for block, time in baseline.items() if block in seconds),
        "speedup": found.ratio.estimate,
        "speedup_low": found.ratio.low,
        "speedup_high": found.ratio.high,
    }
    if cell.name == BASELINE:
        return columns  # it is no faster than itself
    quiet = _quiet(cell, facts)
    kept = {block: time for block, time in seconds.items() if block in quiet}
    without = found
    if len(kept) < len(seconds):
        without = estimates.compare(kept, baseline, processes, facts.band) or dataclasses.replace(
            found, relation=Relation.AMBIGUOUS
        )
    return columns | {
        "comparison": found.relation,
        "comparison_undisturbed": without.relation,
        "unit": found.unit,
        "block_spread": found.block_spread,
        "process_spread": found.process_spread,
    }


def _break_even(cell: Cell, columns: Columns, baseline: Cell | None) -> int | None:
    """Return the number of calls from which on the row has taken less time in total than the baseline; None if never.

    Preparing, the first call and the calls after it count.
    """
    own, other = cell.replies.prepared, baseline.replies.prepared if baseline else None
    if columns.get("comparison") != Relation.FASTER or own is None or other is None:
        return None
    behind = own.prepare_seconds - other.prepare_seconds + own.first_call_seconds - other.first_call_seconds
    gained = columns["baseline_median_seconds"] - columns["median_seconds"]
    # The first call is in `behind`; each one after it gains.
    return 1 if behind <= 0 else 1 + math.ceil(behind / gained) if gained > 0 else None


def _flag(cell: Cell, columns: Columns, facts: _Facts) -> None:
    """Flag a timed row."""
    least, by_device = facts.roofline_seconds, cell.timings.device_seconds
    known = [by_device[column] for column in ("device_seconds", "graph_seconds") if column in by_device]
    if least is not None and any(least > IMPLAUSIBLE * seconds for seconds in known):
        cell.flag(Flag.DEVICE_UNDER_ROOFLINE)
    if cell.name in facts.implausible:
        cell.flag(Flag.IMPLAUSIBLE)
    if len(cell.timings.seconds) < estimates.LEAST_VALUES:
        cell.flag(Flag.FEW_BLOCKS)
    if columns["steady_state"] == steady_state.NO_STEADY_STATE:
        cell.flag(Flag.NO_STEADY_STATE)
    cell.flag(_disturbance(columns, len(_quiet(cell, facts))))
    if facts.baseline_class not in (None, cell.gate.precision_class):
        cell.flag(Flag.CLASS_DIFFERS)


def _disturbance(columns: Columns, quiet: int) -> str | None:
    """Return a flag if the verdict hangs on disturbed blocks, or if most blocks are disturbed."""
    if quiet < columns["blocks"] / 2:
        return Flag.MOSTLY_DISTURBED
    without = columns.get("comparison_undisturbed")
    # With fewer quiet blocks than an interval needs, the verdict is weaker in any case.
    differs = without != columns.get("comparison") and quiet >= estimates.LEAST_VALUES
    return Flag.UNDISTURBED.detailed(without) if differs else None

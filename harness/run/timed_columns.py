"""Compute the columns of a timed row: statistics, comparison with the baseline, share of the roofline, flags."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Mapping
from typing import Any

from harness.case import Case
from harness.record import Flag, Relation, slower_than
from harness.run.cell import Cell
from harness.run.group import Group
from harness.run.plan import BASELINE
from harness.run.rooflines import IMPLAUSIBLE, Rooflines
from harness.timing import estimates, moderated, roofline, selection, steady_state

#: Columns of a record, by name.
Columns = dict[str, Any]


@dataclasses.dataclass(frozen=True, slots=True)
class GroupFacts:
    """Facts that the rows of a group share.

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
        prior: Prior of the variances of the group's ratios; None without one.
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
    prior: moderated.Prior | None


def is_timed(cell: Cell) -> bool:
    """True if a cell passed the gate and has times."""
    return cell.going and bool(cell.timings.seconds)


def group_facts(group: Group, band: float, rooflines: Rooflines) -> GroupFacts:
    """Return what the rows of a group share.

    Args:
        group: A group whose cells have their outcome.
        band: Equivalence band, as a share of the ratio.
        rooflines: The rooflines of the run's devices.
    """
    going = [cell for cell in group.baselines if cell.going]
    medians = {cell.name: statistics.median(cell.timings.seconds.values()) for cell in group.cells if is_timed(cell)}
    least = rooflines.seconds(group.case, group.device, min(medians.values(), default=None))
    implausible = {name for name, median in medians.items() if least is not None and least > IMPLAUSIBLE * median}
    ranked = [cell for cell in group.cells if is_timed(cell) and cell.name not in implausible]
    baseline = {block: seconds for cell in going for block, seconds in cell.timings.seconds.items()}
    return GroupFacts(
        group=group,
        band=band,
        baseline=baseline,
        baseline_cell=going[0] if going else None,
        baseline_class=group.baselines[-1].gate.precision_class if group.baselines else None,
        disturbed=frozenset(block for cell in going for block in cell.timings.disturbed_blocks),
        roofline_seconds=least,
        implausible=frozenset(implausible),
        ranks=_ranks(ranked, baseline, group.processes, band),
        prior=selection.group_prior(
            {cell.name: cell.timings.seconds for cell in ranked if cell.name != BASELINE}, baseline, group.processes
        ),
    )


def _ranks(
    cells: list[Cell], baseline: Mapping[int, float], processes: Mapping[int, int], band: float
) -> dict[str, int]:
    """Rank timed cells, those of each precision class among themselves.

    The baseline has its times in every cohort, as in the comparisons; other cells have theirs in one.
    """
    seconds = {cell.name: baseline if cell.name == BASELINE else cell.timings.seconds for cell in cells}
    left = slower_than({cell.name: cell.schedule.stopped_by for cell in cells})
    ranks: dict[str, int] = {}
    for precision_class in {cell.gate.precision_class for cell in cells}:
        alike = {cell.name: seconds[cell.name] for cell in cells if cell.gate.precision_class == precision_class}
        ranks |= selection.ranks(alike, processes, band, left)
    return ranks


def timed_columns(cell: Cell, facts: GroupFacts, rooflines: Rooflines) -> Columns:
    """Return the columns that only a timed row has."""
    case, device, processes = facts.group.case, facts.group.device, facts.group.processes
    columns = _times(cell, case, processes) | _comparison(cell, facts)
    columns["rank"] = facts.ranks.get(cell.name)
    columns["break_even_calls"] = _break_even(cell, columns, facts.baseline_cell)
    if facts.roofline_seconds is not None:
        columns["roofline_fraction"] = facts.roofline_seconds / columns["median_seconds"]
        spot = rooflines.at_spot_peaks(case, device, cell.timings.spot_peaks)
        share = estimates.compare(cell.timings.seconds, spot, processes)
        if share is not None:
            columns["spot_roofline_fraction"] = share.ratio.estimate
            columns["spot_roofline_fraction_low"] = share.ratio.low
            columns["spot_roofline_fraction_high"] = share.ratio.high
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


def _quiet(cell: Cell, facts: GroupFacts) -> set[int]:
    """Return the blocks in which neither the cell nor the baseline was disturbed."""
    return set(cell.timings.seconds) - facts.disturbed - cell.timings.disturbed_blocks


def _comparison(cell: Cell, facts: GroupFacts) -> Columns:
    """Return the columns that compare a row with the baseline; none without a block that both were in."""
    seconds, baseline, processes = cell.timings.seconds, facts.baseline, facts.group.processes
    comparison = estimates.compare(seconds, baseline, processes, facts.band, facts.prior)
    if comparison is None:
        return {}
    columns: Columns = {
        "baseline": BASELINE,
        "baseline_median_seconds": statistics.median(time for block, time in baseline.items() if block in seconds),
        "speedup": comparison.ratio.estimate,
        "speedup_low": comparison.ratio.low,
        "speedup_high": comparison.ratio.high,
    }
    if cell.name == BASELINE:
        return columns  # it is no faster than itself
    quiet = _quiet(cell, facts)
    kept = {block: time for block, time in seconds.items() if block in quiet}
    undisturbed = comparison.relation
    if len(kept) < len(seconds):
        without = estimates.compare(kept, baseline, processes, facts.band, facts.prior)
        undisturbed = without.relation if without else Relation.AMBIGUOUS
    return columns | {
        "comparison": comparison.relation,
        "comparison_undisturbed": undisturbed,
        "unit": comparison.unit,
        "block_spread": comparison.block_spread,
        "process_spread": comparison.process_spread,
    }


def _break_even(cell: Cell, columns: Columns, baseline: Cell | None) -> int | None:
    """Return the number of calls from which on the row has taken less time in total than the baseline; None if never.

    Preparing, the first call and the calls after it count.
    """
    own, other = cell.replies.prepared, baseline.replies.prepared if baseline else None
    if columns.get("comparison") != Relation.FASTER or own is None or other is None:
        return None
    behind = own.prepare_seconds - other.prepare_seconds
    behind += own.first_call_seconds - other.first_call_seconds
    gained = columns["baseline_median_seconds"] - columns["median_seconds"]
    # The first call is in `behind`; each one after it gains.
    return 1 if behind <= 0 else 1 + math.ceil(behind / gained) if gained > 0 else None


def flag_timed(cell: Cell, columns: Columns, facts: GroupFacts) -> None:
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

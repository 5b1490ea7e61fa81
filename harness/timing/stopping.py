"""Decide which samples to take next, and when to stop. Pure.

Measuring stops on the width of the intervals or on the budget, never on significance: that rule would find a difference
in every pair.
"""

from __future__ import annotations

import dataclasses
import random
import sys
from collections.abc import Mapping, Sequence
from typing import Final, Literal

from harness.timing import estimates, moderated, variance

#: Fewest blocks, taken even if the budget is over.
LEAST_BLOCKS: Final = 3
#: Longest call of a backend that joins all blocks, in seconds; a slower one joins only the first blocks.
SLOW_SECONDS: Final = 0.250
#: Most blocks that a slow backend joins.
SLOW_BLOCKS: Final = 5
#: Largest share of the budget that a slow backend takes.
SLOW_SHARE: Final = 0.25
#: Number of blocks that stands for no limit.
ALL_BLOCKS: Final = sys.maxsize
#: Half-width of the interval of a ratio, as a share of it, that is enough for a backend that leaves.
LEAVING_HALF_WIDTH: Final = 0.15
#: Ranges of a process's blocks: one block is drawn from each, and its results are judged.
KEPT_RANGES: Final = ((10, 20), (20, 40), (40, 80), (80, 160), (160, 320), (320, 640))
#: The ranges before these: in the first process, where a backend may leave after five blocks, and in a later one.
EARLY_RANGES: Final = ((3, 5), (5, 10))
LATER_RANGES: Final = ((0, 10),)
#: Number of the first ``LEAST_BLOCKS`` blocks of a group's first process whose results are judged, too.
KEPT_FIRST: Final = 2
#: Most calls of one sample of which one is judged, the one that differs most from another call on the same values.
JUDGED_CALLS: Final = 48
#: Time of these further calls, in seconds; a result of a slow call is judged without one.
JUDGED_SECONDS: Final = 0.05


@dataclasses.dataclass(frozen=True, slots=True)
class Look:
    """The precision of one backend's times.

    Attributes:
        half_width: Half-width of the interval, as a share of the ratio; None without an interval.
        counts_processes: True if a process, and not a block, is one value of the interval.
        units: Number of values.
        split: Standard deviations within and between processes; None where they are not known.
    """

    half_width: float | None
    counts_processes: bool = False
    units: int = estimates.LEAST_VALUES
    split: variance.Split | None = None


def look(
    seconds: Mapping[int, float],
    baseline: Mapping[int, float] | None,
    processes: Mapping[int, int],
    band: float,
    prior: moderated.Prior | None = None,
) -> Look:
    """Look at the ratio to the baseline, or at the median where there is no baseline.

    Args:
        seconds: Times of a call by block, in seconds.
        baseline: Times of a call of the baseline by block, in seconds; None where it no longer joins, and for itself.
        processes: Number of the process by block.
        band: Equivalence band, as a share of the ratio.
        prior: Prior of the variances of the group's ratios; None without one.
    """
    if baseline is None:
        return Look(estimates.relative_half_width(seconds.values()))
    comparison = estimates.compare(seconds, baseline, processes, band, prior)
    if comparison is None:
        return Look(None)
    split = variance.Split(comparison.block_spread, comparison.process_spread)
    return Look(comparison.half_width, comparison.unit == "process", comparison.units, split)


def reached(seen: Look, target: float, most_processes: int) -> bool:
    """True if an interval is narrow enough.

    Few processes can agree by chance, so they reach nothing, unless there cannot be more.

    Args:
        seen: The interval.
        target: Half-width at which measuring stops, as a share of the ratio.
        most_processes: Largest number of processes.
    """
    enough = seen.units >= min(estimates.LEAST_VALUES, most_processes) or not seen.counts_processes
    return enough and seen.half_width is not None and seen.half_width <= target


def known(seen: Look) -> bool:
    """True if a ratio is known well enough for a backend that leaves.

    Its interval is as narrow as ``LEAVING_HALF_WIDTH``, or has the values of an interval without a distribution.
    """
    narrow = seen.half_width is not None and seen.half_width <= LEAVING_HALF_WIDTH
    return narrow or seen.units >= estimates.LEAST_VALUES


def piloting(processes: int, most_processes: int) -> bool:
    """True while there are fewer processes than splitting the variance takes."""
    return processes < min(variance.PILOT, most_processes)


@dataclasses.dataclass(frozen=True, slots=True)
class State:
    """Progress of a cohort's measurement.

    Attributes:
        processes: Number of processes until now.
        most_processes: Largest number of processes.
        left_seconds: Rest of the budget, in seconds.
        block_seconds: Time of a block, in seconds.
        process_seconds: Time of a fresh process until its first block, in seconds.
    """

    processes: int
    most_processes: int
    left_seconds: float
    block_seconds: float
    process_seconds: float


@dataclasses.dataclass(frozen=True, slots=True)
class Next:
    """Decision after a look.

    Attributes:
        action: Take another ``block``, begin a fresh ``process`` for every backend, or ``stop``.
        why: Reason why measuring stops, as in the record's column; empty if it goes on.
        share: Blocks of each further process before the next one; None leaves the number as it is.
    """

    action: Literal["block", "process", "stop"]
    why: str = ""
    share: int | None = None


def after_look(lacking: Sequence[Look], state: State) -> Next:
    """Decide what comes after a look at the intervals.

    Args:
        lacking: Intervals that are not narrow enough.
        state: Progress of the measurement.
    """
    pilot = piloting(state.processes, state.most_processes)
    if not lacking and not pilot:
        return Next("stop", "target")
    # With fewer processes than the pilot has, there is no interval between processes: one process is better then.
    further = variance.PILOT - 1 if state.processes == 1 else 1
    needed = further * (state.process_seconds + variance.FEWEST_BLOCKS * state.block_seconds)
    if state.processes < state.most_processes and needed <= state.left_seconds:
        if pilot:
            return Next("process")
        splits = [seen.split for seen in lacking if seen.split is not None]
        shares = [variance.blocks_per_process(split, state.process_seconds, state.block_seconds) for split in splits]
        return Next("process", share=min(shares, default=variance.MOST_BLOCKS))
    if all(seen.counts_processes for seen in lacking):
        # More blocks of the same processes would repeat the same error.
        return Next("stop", "processes" if state.processes == state.most_processes else "budget")
    return Next("block")


def budget_is_over(
    fewest_blocks: int, first_process: bool, left_seconds: float, budget_seconds: float, block_seconds: float
) -> bool:
    """True if the budget has no room for another block.

    Slow backends, the baseline among them, may use up the budget before the others have the ``LEAST_VALUES`` blocks of
    an interval. So in the first process these others may take as much again.

    Args:
        fewest_blocks: Smallest number of blocks of any backend that still joins.
        first_process: True in the group's first process.
        left_seconds: Rest of the budget, in seconds.
        budget_seconds: The budget, in seconds.
        block_seconds: Predicted time of the next block, in seconds.
    """
    more = budget_seconds if first_process and fewest_blocks < estimates.LEAST_VALUES else 0.0
    return fewest_blocks >= LEAST_BLOCKS and left_seconds + more < block_seconds


def blocks_to_join(call_seconds: float, budget_seconds: float, baseline: bool) -> int:
    """Return the number of blocks that a backend joins.

    All ratios depend on the baseline: a slow one gets ``LEAST_BLOCKS`` in any case, and more if there is time.

    Args:
        call_seconds: Time of a call, in seconds.
        budget_seconds: The budget, in seconds.
        baseline: True for the baseline.
    """
    if call_seconds <= SLOW_SECONDS:
        return ALL_BLOCKS
    affordable = int(SLOW_SHARE * budget_seconds / call_seconds)
    return max(1, max(LEAST_BLOCKS, affordable) if baseline else min(SLOW_BLOCKS, affordable))


def draw_kept_blocks(source: random.Random, joins: int, first_process: bool) -> frozenset[int]:
    """Draw the blocks of a process whose results are judged; in the first process, some that are surely reached.

    Args:
        source: Random source.
        joins: Number of blocks that the backend joins.
        first_process: True in the group's first process.
    """
    sure = source.sample(range(min(LEAST_BLOCKS, joins)), min(KEPT_FIRST, joins)) if first_process else []
    ranges = (*(EARLY_RANGES if first_process else LATER_RANGES), *KEPT_RANGES)
    return frozenset([*sure, *(source.sample(range(*bounds), 1)[0] for bounds in ranges)])


def draw_judged_calls(source: random.Random, held: Sequence[int], call_seconds: float) -> tuple[int, ...]:
    """Draw, after a sample, the calls whose results may be judged: each of them is called again.

    Args:
        source: Random source.
        held: Numbers of the calls whose results are still there.
        call_seconds: Time of a call, in seconds.
    """
    most = JUDGED_CALLS if call_seconds <= 0 else max(1, min(JUDGED_CALLS, int(JUDGED_SECONDS / call_seconds)))
    # What is put off shows in the copy of the last result, which has no other number than -1.
    copied = [number for number in held if number < 0]
    others = [number for number in held if number >= 0]
    if most == 1 or not others:
        return (source.choice(held),)
    return (*source.sample(others, min(len(others), most - len(copied))), *copied)

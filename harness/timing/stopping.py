"""Which samples to take next, and when to stop: decisions on numbers, pure.

Measuring stops on the width of the intervals or on the budget, never on what the intervals say: to stop as soon as a
difference is significant would find one in every pair.
"""

from __future__ import annotations

import dataclasses
import random
import sys
from collections.abc import Mapping, Sequence
from typing import Final, Literal

from harness.timing import estimates, variance

#: Blocks that are taken even if the budget is over.
LEAST_BLOCKS: Final = 3
#: Blocks between two looks at the intervals, at least, once a process has had its share.
LOOK_BLOCKS: Final = 5
#: A look comes after a share of the process's blocks, if that is more: one in this many.
LOOK_SHARE: Final = 10
#: A backend with a longer call, in seconds, joins only the first blocks.
SLOW_SECONDS: Final = 0.250
#: Blocks that a slow backend joins, at most; for the baseline, at least.
SLOW_BLOCKS: Final = 5
#: A slow backend may take this share of the budget.
SLOW_SHARE: Final = 0.25
#: Number of blocks that stands for no limit.
ALL_BLOCKS: Final = sys.maxsize
#: One block is drawn from each range of a process's blocks, and its results are judged.
KEPT_RANGES: Final = ((3, 10), (10, 20), (20, 40), (40, 80), (80, 160), (160, 320), (320, 640))
#: In a group's first process the results of this many of its first ``LEAST_BLOCKS`` blocks are judged, too.
KEPT_FIRST: Final = 2
#: Calls of one sample whose results are kept, at most.
KEPT_CALLS: Final = 4
#: Memory that the kept results of one sample may take, in bytes.
KEPT_BYTES: Final = 64 * 2**20


@dataclasses.dataclass(frozen=True, slots=True)
class Look:
    """How precisely one backend's times are known.

    Attributes:
        half_width: Half-width of the interval, as a share of the ratio; None without an interval.
        counts_processes: True if a process, and not a block, is one value of the interval.
        units: Number of values.
        split: How the noise splits; None where it is not known.
    """

    half_width: float | None
    counts_processes: bool = False
    units: int = estimates.LEAST_VALUES
    split: variance.Split | None = None


def look(
    seconds: Mapping[int, float], baseline: Mapping[int, float] | None, processes: Mapping[int, int], band: float
) -> Look:
    """Look at the ratio to the baseline, or at the median where there is no baseline.

    Args:
        seconds: Times of a call by block, in seconds.
        baseline: The baseline's, in seconds; None where it no longer joins, or is what is looked at.
        processes: Number of the process by block.
        band: Equivalence band, as a share of the ratio.
    """
    if baseline is None:
        return Look(estimates.relative_half_width(seconds.values()))
    comparison = estimates.compare(seconds, baseline, processes, band)
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


def piloting(processes: int, most_processes: int) -> bool:
    """True while there are fewer processes than splitting the variance takes."""
    return processes < min(variance.PILOT, most_processes)


@dataclasses.dataclass(frozen=True, slots=True)
class State:
    """How far a cohort's measurement is.

    Attributes:
        processes: Number of processes until now.
        most_processes: Largest number of processes.
        left_seconds: What is left of the budget, in seconds.
        block_seconds: Time of a block.
        process_seconds: Time of a fresh process until its first block.
    """

    processes: int
    most_processes: int
    left_seconds: float
    block_seconds: float
    process_seconds: float


@dataclasses.dataclass(frozen=True, slots=True)
class Next:
    """What to do after a look.

    Attributes:
        action: Take another ``block``, begin a fresh ``process`` for every backend, or ``stop``.
        why: Why measuring stops, as in the record's column; empty if it goes on.
        share: Blocks that each further process gets before the next one; None leaves it as it is.
    """

    action: Literal["block", "process", "stop"]
    why: str = ""
    share: int | None = None


def after_look(lacking: Sequence[Look], state: State) -> Next:
    """Decide what comes after a look at the intervals.

    Args:
        lacking: Intervals that are not narrow enough.
        state: How far the measurement is.
    """
    pilot = piloting(state.processes, state.most_processes)
    if not lacking and not pilot:
        return Next("stop", "target")
    # With fewer processes than the pilot's there is no interval between processes: then one process alone is better.
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


def next_look(taken: int) -> int:
    """Return the number of a process's blocks at which the intervals are looked at next."""
    return taken + max(LOOK_BLOCKS, taken // LOOK_SHARE)


def budget_is_over(
    fewest_blocks: int, first_process: bool, left_seconds: float, budget_seconds: float, block_seconds: float
) -> bool:
    """True if the budget has no room for another block.

    Slow backends, the baseline among them, may use up the budget before the others have the ``LEAST_VALUES`` blocks of
    an interval. So in the first process these others may take as much again.

    Args:
        fewest_blocks: Smallest number of blocks of any backend that still joins.
        first_process: True in the group's first process.
        left_seconds: What is left of the budget, in seconds.
        budget_seconds: The budget, in seconds.
        block_seconds: Predicted time of the next block, in seconds.
    """
    more = budget_seconds if first_process and fewest_blocks < estimates.LEAST_VALUES else 0.0
    return fewest_blocks >= LEAST_BLOCKS and left_seconds + more < block_seconds


def blocks_to_join(call_seconds: float, budget_seconds: float, baseline: bool) -> int:
    """Return the number of blocks that a backend joins.

    All ratios hang on the baseline: a slow one gets ``SLOW_BLOCKS`` in any case, and more if there is time.

    Args:
        call_seconds: Time of a call, in seconds.
        budget_seconds: The budget, in seconds.
        baseline: True for the baseline.
    """
    if call_seconds <= SLOW_SECONDS:
        return ALL_BLOCKS
    affordable = int(SLOW_SHARE * budget_seconds / call_seconds)
    return max(1, max(SLOW_BLOCKS, affordable) if baseline else min(SLOW_BLOCKS, affordable))


def draw_kept_blocks(lot: random.Random, joins: int, first_process: bool) -> frozenset[int]:
    """Draw the blocks of a process whose results are judged; in the first one, some that are reached for sure.

    Args:
        lot: Random source.
        joins: Number of blocks that the backend joins.
        first_process: True in the group's first process.
    """
    sure = lot.sample(range(min(LEAST_BLOCKS, joins)), min(KEPT_FIRST, joins)) if first_process else []
    ranges = KEPT_RANGES if first_process else ((0, KEPT_RANGES[0][1]), *KEPT_RANGES[1:])
    return frozenset([*sure, *(lot.sample(range(*bounds), 1)[0] for bounds in ranges)])


def draw_kept_calls(lot: random.Random, calls: int, input_sets: int, result_bytes: int) -> tuple[int, ...]:
    """Draw the calls of a sample whose results are kept: all of one input set, so that they can be compared.

    Args:
        lot: Random source.
        calls: Number of calls in the sample.
        input_sets: Number of input sets in rotation.
        result_bytes: Size of one call's results, in bytes.
    """
    alike = range(lot.randrange(min(calls, input_sets)), calls, input_sets)
    count = max(1, min(KEPT_CALLS, KEPT_BYTES // max(result_bytes, 1), len(alike)))
    return tuple(sorted(lot.sample(alike, count)))

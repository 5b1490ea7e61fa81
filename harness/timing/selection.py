"""Decide which backends may be the fastest: who leaves while measuring goes on, and who shares a rank. Pure.

The design is a randomised block design: backends are compared by the log-ratios of their times within a block. The best
one is compared with each other one, with one error rate for all of them by Bonferroni's bound: whichever is the best,
its chance to be called slower is at most ``RANK_ERROR`` (Hsu, Multiple Comparisons, 1996, chapter 4). Leaving early is
racing with an indifference zone, the band (Kim and Nelson, ACM Transactions on Modeling and Computer Simulation 11,
2001): the looks share ``LEAVING_ERROR``. ``studies/selection.py`` runs these functions over simulated noise.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np

from harness.timing import estimates, moderated
from harness.timing.estimates import Times

#: Largest chance that the best backend of a rank is not in it.
RANK_ERROR: Final = 0.005
#: Largest chance that the best backend leaves, at any look.
LEAVING_ERROR: Final = 0.005
#: Fewest blocks before a backend leaves. With three, two outliers would make a fast backend slow.
FIRST_LOOK: Final = 4
#: Factor between the numbers of values of two looks: few looks share the error rate.
LOOK_FACTOR: Final = 1.25


def next_look(values: int) -> int:
    """Return the number of values of the look after one at ``values``: 4, 5, 6, 8, 10, 12, 15, 19, 24, 30 and so on."""
    return max(FIRST_LOOK, values + 1, round(LOOK_FACTOR * values))


def leaving_error(look: int) -> float:
    """Return the chance that the best backend leaves at one look; those of all looks add up to ``LEAVING_ERROR``.

    Args:
        look: Number of the look, from 0.
    """
    return LEAVING_ERROR * 6 / (math.pi * (look + 1)) ** 2  # the sum of 1 / k^2 is pi^2 / 6


def shown_slower(
    seconds: Mapping[str, Times], processes: Mapping[int, int], margin: float, chance: float
) -> dict[str, str]:
    """Return the backends that are shown to be slower than the best one, each with the best one's name.

    Args:
        seconds: Time of a call in seconds, by backend and block; each backend has the same blocks.
        processes: Number of the fresh process by block.
        margin: The margin, as a share of the ratio.
        chance: Largest chance that the best backend is among them.
    """
    best, *others = _by_median(seconds)
    return {
        name: best
        for name, difference in _differences(best, others, seconds, processes)
        if difference is not None and difference.exceeds(math.log1p(margin), chance)
    }


def ranks(
    seconds: Mapping[str, Times],
    processes: Mapping[int, int],
    band: float = estimates.BAND,
    left: Mapping[str, str] | None = None,
) -> dict[str, int]:
    """Rank backends by speed; rank 1 has those that may be the fastest.

    Rank 1 has the backend with the lowest median, and every backend that is not shown to be slower. The rest is ranked
    likewise: the next rank begins with the lowest median that is left. So each backend is shown slower than the first
    of every better rank. Ties are not transitive: two backends of one rank may differ from each other.

    Args:
        seconds: Time of a call in seconds, by backend and block.
        processes: Number of the fresh process that a block was measured in, by block.
        band: Equivalence margin, as a ratio less 1.
        left: Backends that left while others were measured on, each with the one that it was shown to be slower than.
    """
    slower_than = left or {}
    waiting = _by_median(seconds)
    rank_of: dict[str, int] = {}
    while waiting:
        open_to = [name for name in waiting if slower_than.get(name) not in waiting]
        first, rank = open_to[0], len(rank_of) + 1
        tied = _tied(first, open_to[1:], seconds, processes, band)
        rank_of |= dict.fromkeys([first, *tied], rank)
        waiting = [name for name in waiting if name not in rank_of]
    return rank_of


def group_prior(seconds: Mapping[str, Times], baseline: Times, processes: Mapping[int, int]) -> moderated.Prior | None:
    """Return the prior of the variances of all ratios to the baseline; None with too few of them.

    Args:
        seconds: Time of a call in seconds, by backend and block.
        baseline: Times of the baseline by block, in seconds; a backend with exactly these times is left out.
        processes: Number of the fresh process by block.
    """
    others = [times for times in seconds.values() if times != baseline]
    return moderated.prior([estimates.log_ratios(times, baseline, processes) for times in others])


def _tied(
    first: str, others: list[str], seconds: Mapping[str, Times], processes: Mapping[int, int], band: float
) -> list[str]:
    """Return the backends that are not shown to be slower than ``first``."""
    tied = []
    for name, difference in _differences(first, others, seconds, processes):
        slower = _far_slower(seconds[first], seconds[name])
        if difference is not None and not slower:
            slower = difference.mean > math.log1p(band) and difference.exceeds(0.0, RANK_ERROR)
        tied += [] if slower else [name]
    return tied


def _far_slower(faster: Times, slower: Times) -> bool:
    """True if a factor of ``UNPROVEN`` separates two backends in every common block.

    It needs no interval, so it separates backends of one or two common blocks, and those whose few blocks have an
    outlier. Without a common block (in two cohorts) it has to separate the slowest time of one and the fastest of the
    other.
    """
    both = set(faster) & set(slower)
    if both:
        return min(slower[block] / faster[block] for block in both) >= estimates.UNPROVEN
    return min(slower.values()) / max(faster.values()) >= estimates.UNPROVEN


def _by_median(seconds: Mapping[str, Times]) -> list[str]:
    """Return the backends by their median, then by name."""
    return sorted(seconds, key=lambda name: (float(np.median(list(seconds[name].values()))), name))


def _differences(
    best: str, others: list[str], seconds: Mapping[str, Times], processes: Mapping[int, int]
) -> Iterator[tuple[str, moderated.Difference | None]]:
    """Yield each other backend with its difference from the best one."""
    samples = [estimates.log_ratios(seconds[best], seconds[name], processes) for name in others]
    yield from zip(others, moderated.differences(samples), strict=True)

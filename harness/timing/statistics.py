"""From samples to statistics: pure functions, each with its source.

Everything is by order statistics: timings are skewed and have outliers, so means and standard deviations describe them
badly (Hoefler and Belli, Scientific Benchmarking of Parallel Computing Systems, SC'15, rules 5 to 8).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from scipy import stats

#: Confidence level of every interval.
LEVEL: Final = 0.99
#: Times closer than this, as a ratio, are called a tie whatever the interval says.
EQUIVALENCE: Final = 0.02


@dataclasses.dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its interval; the ends are None where there are too few values for the level."""

    estimate: float
    low: float | None
    high: float | None


@dataclasses.dataclass(frozen=True, slots=True)
class Summary:
    """Descriptive statistics of the times of one call, in seconds."""

    minimum: float
    p25: float
    median: Interval
    mean: float
    p75: float
    p95: float


def summarize(seconds: Sequence[float]) -> Summary:
    """Describe the times of one call.

    Raises:
        ValueError: There are none, or one is not a positive number (a clock that stood still or went backwards).
    """
    if not len(seconds) or not all(value > 0 and np.isfinite(value) for value in seconds):
        raise ValueError(f"times must be positive and there must be at least one, got {list(seconds)[:5]}")
    p25, p75, p95 = (float(value) for value in np.quantile(seconds, (0.25, 0.75, 0.95)))
    return Summary(min(seconds), p25, median_interval(seconds), float(np.mean(seconds)), p75, p95)


def median_interval(values: Sequence[float], level: float = LEVEL) -> Interval:
    """The median with its exact order-statistic interval.

    The k-th smallest and k-th largest of n independent values enclose the median of their distribution, whatever it
    is, with probability 1 - 2 P(Binomial(n, 1/2) < k) (David and Nagaraja, Order Statistics, 3rd ed., section 7.1). The
    largest k that keeps the level is taken; with fewer than 8 values no k keeps 99 %.
    """
    ordered = np.sort(np.asarray(values, dtype=float))
    estimate = float(np.median(ordered))
    rank = _rank(len(ordered), level)
    if rank == 0:
        return Interval(estimate, None, None)
    return Interval(estimate, float(ordered[rank - 1]), float(ordered[-rank]))


def paired_ratio(numerator: Mapping[int, float], denominator: Mapping[int, float]) -> Interval | None:
    """The median of ``numerator / denominator`` over the blocks that both were in, with its interval; None without one.

    The samples of a block are neighbours in time, so whatever slows the machine down slows both, and cancels.
    """
    shared = sorted(set(numerator) & set(denominator))
    if not shared:
        return None
    return median_interval([numerator[block] / denominator[block] for block in shared])


def ranks(seconds: Mapping[str, Mapping[int, float]]) -> dict[str, int]:
    """Rank backends by speed; those that cannot be told apart from the fastest of their group share its rank.

    Two are told apart when the interval of their block-by-block ratio excludes 1 and the ratio itself is more than
    ``EQUIVALENCE`` away from it. Without an interval (few blocks) the smallest and largest ratio stand in for it.

    Args:
        seconds: For each backend the time of a call in each block, in seconds.
    """
    order = sorted(seconds, key=lambda name: float(np.median(list(seconds[name].values()))))
    given: dict[str, int] = {}
    leader = ""
    for place, name in enumerate(order, start=1):
        if leader and tie(seconds[leader], seconds[name]):
            given[name] = given[leader]
        else:
            leader = name
            given[name] = place
    return given


def tie(faster: Mapping[int, float], slower: Mapping[int, float]) -> bool:
    """Whether two backends cannot be told apart."""
    shared = sorted(set(faster) & set(slower))
    if not shared:
        return False
    ratios = [slower[block] / faster[block] for block in shared]
    ratio = median_interval(ratios)
    low, high = (min(ratios), max(ratios)) if ratio.low is None or ratio.high is None else (ratio.low, ratio.high)
    return low <= 1 <= high or abs(ratio.estimate - 1) <= EQUIVALENCE


@functools.cache
def _rank(count: int, level: float) -> int:
    """Largest k for which the k-th values from both ends enclose the median at ``level``; 0 if there is none."""
    if count == 0:
        return 0
    # P(Binomial < k) <= (1 - level) / 2; ppf is the smallest x with P(Binomial <= x) >= q, hence k <= x.
    rank = int(stats.binom.ppf((1 - level) / 2, count, 0.5))
    while rank > 0 and stats.binom.cdf(rank - 1, count, 0.5) > (1 - level) / 2:
        rank -= 1
    return rank

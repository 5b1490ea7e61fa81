"""Intervals of a centre from few values: pure functions, each with its source.

Timings are skewed and have outliers. So a mean or a standard deviation is used only where no other way is left (Hoefler
and Belli, Scientific Benchmarking of Parallel Computing Systems, SC'15, rules 5 to 8).
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

#: Confidence level of every interval.
LEVEL: Final = 0.99
#: Fewest values for Student's interval: two have one degree of freedom, and an interval too wide to use.
FEWEST_VALUES: Final = 3
#: Most values for which the distribution of the signed-rank statistic is computed exactly.
EXACT_VALUES: Final = 200


@dataclasses.dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its interval.

    Attributes:
        estimate: Estimate of the centre.
        low: Lower end of the interval; None with too few values for the level.
        high: Upper end of the interval; None with too few values for the level.
    """

    estimate: float
    low: float | None
    high: float | None

    @property
    def half_width(self) -> float | None:
        """Return half the distance between the ends; None without them."""
        return None if self.low is None or self.high is None else (self.high - self.low) / 2


def median_interval(values: Sequence[float], level: float = LEVEL) -> Interval:
    """Return the median with its exact order-statistic interval.

    The k-th smallest and the k-th largest of n independent values enclose the median of any distribution. Their
    confidence is 1 - 2 P(Binomial(n, 1/2) < k) (David and Nagaraja, Order Statistics, 3rd ed., section 7.1). The
    interval has the largest k that keeps the level; with fewer than 8 values no k keeps 99 %.

    Args:
        values: Independent values, one or more.
        level: Confidence level, between 0 and 1.
    """
    ordered = np.sort(np.asarray(values, dtype=float))
    estimate = float(np.median(ordered))
    rank = _sign_rank(len(ordered), level)
    if rank == 0:
        return Interval(estimate, None, None)
    return Interval(estimate, float(ordered[rank - 1]), float(ordered[-rank]))


def hodges_lehmann(values: Sequence[float], level: float = LEVEL) -> Interval:
    """Return the Hodges-Lehmann estimate of a symmetric distribution's centre with its exact signed-rank interval.

    The estimate is the median of the Walsh averages: the averages of all pairs, of a value with itself too. The k-th
    smallest and the k-th largest average enclose the centre with confidence 1 - 2 P(W < k). W is Wilcoxon's signed-rank
    statistic (Hollander, Wolfe and Chicken, Nonparametric Statistical Methods, 3rd ed., sections 3.2 and 3.3). SciPy
    has the test (`scipy.stats.wilcoxon`), but neither the estimate nor the interval.

    Args:
        values: Independent values, one or more.
        level: Confidence level, between 0 and 1.
    """
    array = np.asarray(values, dtype=float)
    first, second = np.triu_indices(len(array))
    averages = np.sort((array[first] + array[second]) / 2)
    estimate = float(np.median(averages))
    rank = _signed_rank(len(array), level)
    if rank == 0:
        return Interval(estimate, None, None)
    return Interval(estimate, float(averages[rank - 1]), float(averages[-rank]))


def student(values: Sequence[float], level: float = LEVEL) -> Interval:
    """Return the mean with Student's interval, for values too few for an interval without a distribution.

    Args:
        values: Independent normal values, one or more; with fewer than ``FEWEST_VALUES`` there is no interval.
        level: Confidence level, between 0 and 1.
    """
    array = np.asarray(values, dtype=float)
    mean = float(array.mean())
    if len(array) < FEWEST_VALUES:
        return Interval(mean, None, None)
    from scipy import special  # not at the top: a check does without

    half = float(special.stdtrit(len(array) - 1, (1 + level) / 2) * array.std(ddof=1) / math.sqrt(len(array)))
    return Interval(mean, mean - half, mean + half)


@functools.cache
def _sign_rank(count: int, level: float) -> int:
    """Return the largest k for which the k-th values from both ends enclose the median at ``level``; 0 without one."""
    if count == 0:
        return 0
    from scipy import special

    # P(Binomial <= k - 1) <= (1 - level) / 2.
    return int(np.searchsorted(special.bdtr(np.arange(count), count, 0.5), (1 - level) / 2, side="right"))


@functools.cache
def _signed_rank(count: int, level: float) -> int:
    """Return the largest k for which the k-th Walsh averages from both ends enclose the centre; 0 without one."""
    tail = (1 - level) / 2
    if count > EXACT_VALUES:
        from scipy import special

        mean, spread = count * (count + 1) / 4, math.sqrt(count * (count + 1) * (2 * count + 1) / 24)
        return math.floor(mean + float(special.ndtri(tail)) * spread)
    # P(W <= k - 1) <= tail.
    return int(np.searchsorted(np.cumsum(_signed_rank_probabilities(count)), tail, side="right"))


def _signed_rank_probabilities(count: int) -> npt.NDArray[np.float64]:
    """Return P(W = 0), P(W = 1) and so on: the sum has each of the ranks 1 to ``count`` with probability 1/2."""
    probabilities = np.zeros(count * (count + 1) // 2 + 1)
    probabilities[0] = 1.0
    for rank in range(1, count + 1):
        probabilities[rank:] += probabilities[:-rank].copy()
        probabilities /= 2
    return probabilities

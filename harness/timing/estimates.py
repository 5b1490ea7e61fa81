"""From samples to statistics: pure functions, each with its source.

Timings are skewed and have outliers, so nothing here trusts a mean or a standard deviation where there is another way
(Hoefler and Belli, Scientific Benchmarking of Parallel Computing Systems, SC'15, rules 5 to 8). Two backends are
compared by the logarithm of the ratio of their times, block by block: the samples of a block are neighbours in time, so
whatever slows the machine down slows both and cancels, and the order within a block is drawn, so what is left has no
preferred sign.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import special  # and not scipy.stats, whose import takes a second

from harness.record import Relation
from harness.timing import variance

#: Confidence level of every interval.
LEVEL: Final = 0.99
#: Fewest values for such an interval: with ten, both kinds exist at ``LEVEL`` and check each other.
LEAST_VALUES: Final = 10
#: With fewer, Student's interval has to do, for values that are normal; and so many it needs.
FEWEST_VALUES: Final = 3
#: Equivalence band: ratios between 1 / 1.02 and 1.02 are no difference that anybody should act on.
BAND: Final = 0.02
#: Without any interval (one or two slow samples), two share a rank unless every ratio seen is beyond this factor.
UNPROVEN: Final = 1.5
#: Up to this many values the distribution of the signed-rank statistic is computed exactly.
EXACT_VALUES: Final = 200


@dataclasses.dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its interval; the ends are None where there are too few values for the level."""

    estimate: float
    low: float | None
    high: float | None

    @property
    def half_width(self) -> float | None:
        """Half the distance of the ends; None without them."""
        return None if self.low is None or self.high is None else (self.high - self.low) / 2


@dataclasses.dataclass(frozen=True, slots=True)
class Summary:
    """Descriptive statistics of the times of one call, in seconds."""

    minimum: float
    p25: float
    median: Interval
    mean: float
    p75: float
    p95: float


@dataclasses.dataclass(frozen=True, slots=True)
class Comparison:
    """How one backend's times compare with another's.

    Attributes:
        ratio: The other's time / this one's, with its interval: above 1 is faster than the other.
        relation: What may be said.
        half_width: Of the interval of the log-ratio, so relative; None without one.
        unit: ``block`` or ``process``: what was counted as one value.
        units: How many of them there were.
        block_spread: Standard deviation of the log-ratio among the blocks of a process; None with fewer than two.
        process_spread: The same between processes, noise of the blocks taken off; None with one process.
    """

    ratio: Interval
    relation: Relation
    half_width: float | None
    unit: str
    units: int
    block_spread: float | None = None
    process_spread: float | None = None


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
    rank = _sign_rank(len(ordered), level)
    if rank == 0:
        return Interval(estimate, None, None)
    return Interval(estimate, float(ordered[rank - 1]), float(ordered[-rank]))


def hodges_lehmann(values: Sequence[float], level: float = LEVEL) -> Interval:
    """The Hodges-Lehmann estimate of a symmetric distribution's centre, with its exact signed-rank interval.

    The estimate is the median of the averages of all pairs, a value with itself included (Walsh averages); the k-th
    smallest and k-th largest of them enclose the centre with probability 1 - 2 P(W < k), W being Wilcoxon's
    signed-rank statistic (Hollander, Wolfe and Chicken, Nonparametric Statistical Methods, 3rd ed., sections 3.2 and
    3.3). SciPy has the test (`scipy.stats.wilcoxon`) and neither the estimate nor the interval.
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
    """The mean with Student's interval, for values too few for an interval without a distribution."""
    array = np.asarray(values, dtype=float)
    mean = float(array.mean())
    if len(array) < FEWEST_VALUES:
        return Interval(mean, None, None)
    half = float(special.stdtrit(len(array) - 1, (1 + level) / 2) * array.std(ddof=1) / math.sqrt(len(array)))
    return Interval(mean, mean - half, mean + half)


def relate(interval: Interval, band: float = BAND) -> Relation:
    """What an interval of a log-ratio allows to say.

    Args:
        interval: Of log(other's time / this one's).
        band: Ratios from 1 / (1 + band) to 1 + band are no difference; declared before anything is measured.
    """
    low, high, edge = interval.low, interval.high, math.log1p(band)
    if low is None or high is None:
        return Relation.AMBIGUOUS
    if -edge <= low and high <= edge:
        return Relation.EQUIVALENT
    if low > 0 and interval.estimate > edge:
        return Relation.FASTER
    if high < 0 and interval.estimate < -edge:
        return Relation.SLOWER
    return Relation.AMBIGUOUS


def agrees(relation: Relation, check: Interval, band: float = BAND) -> bool:
    """Whether a second interval of the same log-ratio, wider by nature, supports what the first one says.

    For a difference it must exclude 1 on the same side, for equivalence its estimate must lie inside the band.
    """
    low, high = check.low, check.high
    match relation:
        case Relation.FASTER:
            return low is not None and low > 0
        case Relation.SLOWER:
            return high is not None and high < 0
        case Relation.EQUIVALENT:
            return abs(check.estimate) <= math.log1p(band)
    return True


def compare(
    times: Mapping[int, float], others: Mapping[int, float], processes: Mapping[int, int], band: float = BAND
) -> Comparison | None:
    """Compare two backends over the blocks that both were in; None if there is no such block.

    The Hodges-Lehmann estimate and its signed-rank interval speak; the median and its order-statistic interval, which
    needs no symmetry, must support them, or the answer is ``ambiguous``. With several
    processes a process is one value (the estimate over its blocks), whatever the number of its blocks; counting its
    blocks instead would be pseudo-replication (Kalibera and Jones, Rigorous Benchmarking in Reasonable Time, ISMM'13).

    Args:
        times: This one's time of a call in each block, in seconds.
        others: The other's.
        processes: For each block, which of its fresh processes each backend was measured in.
        band: Of equivalence.
    """
    groups: dict[int, list[float]] = {}
    for block in sorted(set(times) & set(others)):
        groups.setdefault(processes.get(block, 0), []).append(math.log(others[block] / times[block]))
    if not groups:
        return None
    by_process = list(groups.values())
    if len(by_process) > 1:
        unit, values = "process", [hodges_lehmann(logs).estimate for logs in by_process]
    else:
        unit, values = "block", [log for logs in by_process for log in logs]
    few = len(values) < LEAST_VALUES
    found = student(values) if few else hodges_lehmann(values)
    relation = relate(found, band)
    if not few and not agrees(relation, median_interval(values), band):
        relation = Relation.AMBIGUOUS
    split = variance.split(by_process)
    return Comparison(
        ratio=Interval(math.exp(found.estimate), _exp(found.low), _exp(found.high)),
        relation=relation,
        half_width=found.half_width,
        unit=unit,
        units=len(values),
        block_spread=split.within,
        process_spread=split.between,
    )


def ranks(
    seconds: Mapping[str, Mapping[int, float]], processes: Mapping[int, int], band: float = BAND
) -> dict[str, int]:
    """Rank backends by speed; those that cannot be told apart from the fastest of their group share its rank.

    Args:
        seconds: For each backend the time of a call in each block, in seconds.
        processes: For each block, which of its fresh processes each backend was measured in.
        band: Of equivalence.
    """
    order = sorted(seconds, key=lambda name: float(np.median(list(seconds[name].values()))))
    given: dict[str, int] = {}
    leader = ""
    for place, name in enumerate(order, start=1):
        if leader and tie(seconds[leader], seconds[name], processes, band):
            given[name] = given[leader]
        else:
            leader = name
            given[name] = place
    return given


def tie(
    faster: Mapping[int, float], slower: Mapping[int, float], processes: Mapping[int, int], band: float = BAND
) -> bool:
    """Whether two backends cannot be told apart."""
    found = compare(faster, slower, processes, band)
    if found is None:
        return False
    if found.ratio.low is None:
        return min(slower[block] / faster[block] for block in set(faster) & set(slower)) < UNPROVEN
    return found.relation is not Relation.FASTER


def relative_half_width(values: Iterable[float]) -> float | None:
    """Half-width of the interval of the median, as a share of the median; None without an interval."""
    found = median_interval(list(values))
    return None if found.half_width is None else found.half_width / found.estimate


def _exp(value: float | None) -> float | None:
    return None if value is None else math.exp(value)


@functools.cache
def _sign_rank(count: int, level: float) -> int:
    """Largest k for which the k-th values from both ends enclose the median at ``level``; 0 if there is none."""
    if count == 0:
        return 0
    # P(Binomial <= k - 1) <= (1 - level) / 2.
    return int(np.searchsorted(special.bdtr(np.arange(count), count, 0.5), (1 - level) / 2, side="right"))


@functools.cache
def _signed_rank(count: int, level: float) -> int:
    """Largest k for which the k-th Walsh averages from both ends enclose the centre; 0 if there is none."""
    tail = (1 - level) / 2
    if count > EXACT_VALUES:
        mean, spread = count * (count + 1) / 4, math.sqrt(count * (count + 1) * (2 * count + 1) / 24)
        return math.floor(mean + float(special.ndtri(tail)) * spread)
    # P(W <= k - 1) <= tail.
    return int(np.searchsorted(np.cumsum(_signed_rank_probabilities(count)), tail, side="right"))


def _signed_rank_probabilities(count: int) -> npt.NDArray[np.float64]:
    """P(W = 0), P(W = 1), ...: each of the ranks 1 to n is in the sum or not, with even odds."""
    probabilities = np.zeros(count * (count + 1) // 2 + 1)
    probabilities[0] = 1.0
    for rank in range(1, count + 1):
        probabilities[rank:] += probabilities[:-rank].copy()
        probabilities /= 2
    return probabilities

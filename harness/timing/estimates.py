"""Describe and compare times: pure functions, each with its source.

Two backends are compared by the logarithm of the ratio of their times, block by block. The samples of a block are
neighbours in time, so whatever slows the machine down slows both backends and cancels. The order within a block is
drawn, so the remaining error has no preferred sign.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import numpy as np

from harness.record import Relation
from harness.timing import moderated, variance
from harness.timing.intervals import Interval, hodges_lehmann, median_interval, student

#: Time of a call in seconds, by block.
Times = Mapping[int, float]

#: Fewest values for an interval without a distribution: with ten, both kinds exist at 99 % and check each other.
LEAST_VALUES: Final = 10
#: Equivalence margin: a ratio from 1 / 1.02 to 1.02 is too small a difference to act on.
BAND: Final = 0.02
#: Least ratio that separates two backends without an interval, in every block.
UNPROVEN: Final = 1.5


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
    """The times of one backend against those of another.

    Attributes:
        ratio: The other backend's time / this backend's time, with its interval; above 1 this backend is faster.
        relation: Conclusion that the interval allows.
        half_width: Half-width of the interval of the log-ratio, so relative to the ratio; None without an interval.
        unit: ``block`` or ``process``: the unit that counts as one value.
        units: Number of such values.
        block_spread: Standard deviation of the log-ratio among the blocks of a process; None with fewer than two.
        process_spread: Standard deviation of the log-ratio among processes, less the noise of their blocks; None with
            one process.
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

    Args:
        seconds: Times of a call in seconds, one or more.

    Raises:
        ValueError: There are no times, or one is not positive and finite (the clock stood still or went backwards).
    """
    if not len(seconds) or not all(value > 0 and np.isfinite(value) for value in seconds):
        raise ValueError(f"times must be positive and there must be at least one, got {list(seconds)[:5]}")
    p25, p75, p95 = (float(value) for value in np.quantile(seconds, (0.25, 0.75, 0.95)))
    return Summary(min(seconds), p25, median_interval(seconds), float(np.mean(seconds)), p75, p95)


def relate(interval: Interval, band: float = BAND) -> Relation:
    """Return the conclusion that an interval of a log-ratio allows.

    Args:
        interval: Estimate and interval of log(the other backend's time / this backend's time).
        band: Equivalence margin, declared before anything is measured: ratios from 1 / (1 + band) to 1 + band are no
            difference.
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
    """True if a second, wider interval of the same log-ratio supports the relation of the first.

    To support a difference it must exclude a ratio of 1 on the same side. To support equivalence its estimate must be
    inside the band.
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
    times: Times, others: Times, processes: Mapping[int, int], band: float = BAND, prior: moderated.Prior | None = None
) -> Comparison | None:
    """Compare two backends over the blocks that have both; None if there is no such block.

    The relation follows from the Hodges-Lehmann estimate and its signed-rank interval. The median and its
    order-statistic interval, which need no symmetry, must support it; otherwise the relation is ``ambiguous``.

    With several processes a process is one value: the estimate over its blocks. To count its blocks instead would be
    pseudo-replication (Kalibera and Jones, Rigorous Benchmarking in Reasonable Time, ISMM'13).

    Args:
        times: This backend's time of a call by block, in seconds.
        others: The other backend's time of a call by block, in seconds.
        processes: Number of the fresh process that a block was measured in, by block; 0 for a block without one.
        band: Equivalence margin, as a ratio less 1.
        prior: Prior of the variances of the group's ratios, for fewer than ``LEAST_VALUES`` values; None without one.
    """
    groups = _by_process(times, others, processes)
    if not groups:
        return None
    unit, values = ("process" if len(groups) > 1 else "block"), _values(groups)
    few = len(values) < LEAST_VALUES
    interval = _interval_of_few(values, prior) if few else hodges_lehmann(values)
    relation = relate(interval, band)
    if not few and not agrees(relation, median_interval(values), band):
        relation = Relation.AMBIGUOUS
    spreads = variance.split(groups)
    return Comparison(
        ratio=Interval(math.exp(interval.estimate), _exp(interval.low), _exp(interval.high)),
        relation=relation,
        half_width=interval.half_width,
        unit=unit,
        units=len(values),
        block_spread=spreads.within,
        process_spread=spreads.between,
    )


def _interval_of_few(values: Sequence[float], prior: moderated.Prior | None) -> Interval:
    return student(values) if prior is None else moderated.interval(values, prior)


def relative_half_width(values: Iterable[float]) -> float | None:
    """Return the half-width of the median's interval as a share of the median; None without an interval."""
    median = median_interval(list(values))
    return None if median.half_width is None else median.half_width / median.estimate


def log_ratios(times: Mapping[int, float], others: Mapping[int, float], processes: Mapping[int, int]) -> list[float]:
    """Return log(the other backend's time / this backend's time), one value a block, or a process if there are several.

    Args:
        times: This backend's time of a call by block, in seconds.
        others: The other backend's time of a call by block, in seconds.
        processes: Number of the fresh process by block; 0 for a block without one.
    """
    return _values(_by_process(times, others, processes))


def _by_process(
    times: Mapping[int, float], others: Mapping[int, float], processes: Mapping[int, int]
) -> list[list[float]]:
    """Return a list for each process: the log-ratios of those of its blocks that have both backends."""
    groups: dict[int, list[float]] = {}
    for block in sorted(set(times) & set(others)):
        groups.setdefault(processes.get(block, 0), []).append(math.log(others[block] / times[block]))
    return list(groups.values())


def _values(groups: Sequence[Sequence[float]]) -> list[float]:
    """Return the values that count: the centres of several processes, or the blocks of one."""
    if len(groups) > 1:
        return [_centre(tuple(logs)) for logs in groups]
    return list(groups[0]) if groups else []


@functools.lru_cache(maxsize=4096)
def _centre(logs: tuple[float, ...]) -> float:
    """Return the centre of a process's blocks; each look at the intervals reads those of all processes again."""
    return hodges_lehmann(logs).estimate


def _exp(value: float | None) -> float | None:
    return None if value is None else math.exp(value)

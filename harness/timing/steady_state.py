"""Classify whether the times reach a steady state, in one of four words. Pure.

The method is that of Barrett et al., Virtual Machine Warmup Blows Hot and Cold, OOPSLA'17: detect the change points of
a series and compare the levels between them. Pettitt's rank test detects them one after the other: a spike is no change
of level (A Non-Parametric Approach to the Change-Point Problem, Applied Statistics 28, 1979).
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

#: The series has one level.
FLAT: Final = "flat"
#: Each level is below the level before it.
WARMING_UP: Final = "warming_up"
#: Each level is above the level before it.
SLOWING_DOWN: Final = "slowing_down"
#: The levels go up and down, or the last level is too short.
NO_STEADY_STATE: Final = "no_steady_state"

#: Significance level of a change point, for a whole series.
SIGNIFICANCE: Final = 0.01
#: Least change of level, as a ratio less 1.
SHIFT: Final = 0.05
#: Least share of the series on the last level for a steady state.
SETTLED: Final = 1 / 3
#: Largest interquartile range around the levels, as a ratio less 1; above it the times change level too fast to cut.
SPREAD: Final = 0.10
#: Fewest times of a series: the most extreme split of 10 times has a probability of 2 / 252, below ``SIGNIFICANCE``.
LEAST_TIMES: Final = 10
#: Number of series drawn for the null distribution.
_DRAWN: Final = 4000


def classify(times: Mapping[int, float], processes: Mapping[int, int]) -> str | None:
    """Classify one backend's times within a process; None with fewer than ``LEAST_TIMES`` in every process.

    Several processes are aligned at their first blocks, and the median over them is classified. So the speed of a
    single process is no change.

    Args:
        times: Time of a call by block, in seconds.
        processes: Number of the fresh process that a block was measured in, by block.
    """
    series: dict[int, list[float]] = {}
    for block in sorted(times):
        series.setdefault(processes.get(block, 0), []).append(math.log(times[block]))
    centred = [np.array(logs) - np.median(logs) for logs in series.values() if len(logs) >= LEAST_TIMES]
    if not centred:
        return None
    shortest = min(len(logs) for logs in centred)
    return _shape(np.median([logs[:shortest] for logs in centred], axis=0))


def _shape(logs: npt.NDArray[np.float64]) -> str:
    """Classify a series of log-times (blocks,)."""
    stretches = _stretches(logs)
    heights = [float(np.median(stretch)) for stretch in stretches]
    low, high = np.quantile(np.concatenate([stretch - np.median(stretch) for stretch in stretches]), (0.25, 0.75))
    if high - low > math.log1p(SPREAD) or len(stretches[-1]) < SETTLED * len(logs):
        return NO_STEADY_STATE
    if len(heights) == 1:
        return FLAT
    steps = np.diff(heights)
    if (steps < 0).all():
        return WARMING_UP
    return SLOWING_DOWN if (steps > 0).all() else NO_STEADY_STATE


def _stretches(logs: npt.NDArray[np.float64]) -> list[npt.NDArray[np.float64]]:
    """Cut the series at its change points; return the parts."""
    bounds = [0, *_changes(logs, 0), len(logs)]
    stretches = [logs[start:end] for start, end in itertools.pairwise(bounds)]
    merged = [stretches[0]]
    for stretch in stretches[1:]:
        # A later cut changes both parts, so neighbours may have the same level.
        if abs(float(np.median(stretch) - np.median(merged[-1]))) < math.log1p(SHIFT):
            merged[-1] = np.concatenate([merged[-1], stretch])
        else:
            merged.append(stretch)
    return merged


def _changes(logs: npt.NDArray[np.float64], offset: int) -> list[int]:
    """Return the change points in ascending order; the parts before and after each are searched too."""
    if len(logs) < LEAST_TIMES:
        return []
    if np.abs(_balance(_ranks(logs))).max() <= _critical(len(logs)):
        return []
    # The rank test shows that there is a change, but locates it badly. The cut with the least absolute deviation from
    # the medians of its two parts locates it.
    at = min(range(1, len(logs)), key=lambda cut: _distance(logs[:cut]) + _distance(logs[cut:]))
    before, after = logs[:at], logs[at:]
    return [*_changes(before, offset), offset + at, *_changes(after, offset + at)]


def _distance(values: npt.NDArray[np.float64]) -> float:
    """Return the sum of absolute deviations from the median."""
    return float(np.abs(values - np.median(values)).sum())


def _ranks(values: npt.NDArray[np.float64]) -> npt.NDArray[np.intp]:
    """Return ranks from 1; of equal values the earlier one has the lower rank."""
    return np.argsort(np.argsort(values, kind="stable")) + 1


def _balance(ranks: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """Return Pettitt's U (..., n - 1) for each cut t of ranks (..., n): 2 (sum of the first t ranks) - t (n + 1)."""
    count = ranks.shape[-1]
    balance: npt.NDArray[np.intp] = 2 * ranks.cumsum(axis=-1)[..., :-1] - np.arange(1, count) * (count + 1)
    return balance


@functools.cache
def _critical(count: int) -> float:
    """Return the critical value: the largest |U| of a series without change exceeds it with ``SIGNIFICANCE``.

    The distribution is drawn with a fixed seed, since Pettitt's approximation never rejects with ten values.
    """
    ranks = np.tile(np.arange(1, count + 1), (_DRAWN, 1))
    largest = np.abs(_balance(np.random.default_rng(count).permuted(ranks, axis=1))).max(axis=1)
    return float(np.quantile(largest, 1 - SIGNIFICANCE, method="higher"))

"""Did the times settle? Pure: a series in, one of four words out.

After Barrett et al., Virtual Machine Warmup Blows Hot and Cold, OOPSLA'17: find the points at which a series changes
its level, and look at the levels. They are found one after the other by Pettitt's rank test (A Non-Parametric Approach
to the Change-Point Problem, Applied Statistics 28, 1979), since a spike is no change of level.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

FLAT: Final = "flat"
WARMING_UP: Final = "warming_up"
SLOWING_DOWN: Final = "slowing_down"
NO_STEADY_STATE: Final = "no_steady_state"

#: A change of level is one that chance makes once in a hundred series,
SIGNIFICANCE: Final = 0.01
#: ... and that is at least as large as this, as a ratio.
SHIFT: Final = 0.05
#: The last level must hold for this share of the series to be where it settled.
SETTLED: Final = 1 / 3
#: Times whose quartiles lie further apart than this around their level jump between levels too fast to cut.
SPREAD: Final = 0.10
#: Fewer times cannot show a change at ``SIGNIFICANCE``: the best split of 10 has 2 of 252 chances.
LEAST_TIMES: Final = 10
#: Series drawn for the null distribution.
_DRAWN: Final = 4000


def classify(times: Mapping[int, float], processes: Mapping[int, int]) -> str | None:
    """Say how one backend's times go within a process; None with too few of them.

    Args:
        times: Its time of a call in each block, in seconds.
        processes: For each block, which fresh process it was measured in. Several are laid over each other, the first
            blocks on the first: what they have in common is the backend's.
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
    """The series cut where its level changes."""
    bounds = [0, *_changes(logs, 0), len(logs)]
    stretches = [logs[start:end] for start, end in itertools.pairwise(bounds)]
    merged = [stretches[0]]
    for stretch in stretches[1:]:
        # Neighbours of a later cut may be the same level after all.
        if abs(float(np.median(stretch) - np.median(merged[-1]))) < math.log1p(SHIFT):
            merged[-1] = np.concatenate([merged[-1], stretch])
        else:
            merged.append(stretch)
    return merged


def _changes(logs: npt.NDArray[np.float64], offset: int) -> list[int]:
    """Where the level changes, in ascending order; each part is searched again."""
    if len(logs) < LEAST_TIMES:
        return []
    if np.abs(_balance(_ranks(logs))).max() < _critical(len(logs)):
        return []
    # The test says that there is a change; ranks say badly where. Two medians do, with the least distance to them.
    at = min(range(1, len(logs)), key=lambda cut: _distance(logs[:cut]) + _distance(logs[cut:]))
    before, after = logs[:at], logs[at:]
    return [*_changes(before, offset), offset + at, *_changes(after, offset + at)]


def _distance(values: npt.NDArray[np.float64]) -> float:
    return float(np.abs(values - np.median(values)).sum())


def _ranks(values: npt.NDArray[np.float64]) -> npt.NDArray[np.intp]:
    """Ranks from 1; of equal values the earlier one is the lower."""
    return np.argsort(np.argsort(values, kind="stable")) + 1


def _balance(ranks: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """Pettitt's U for a cut after each rank (..., n) but the last: 2 (sum of the ranks before it) - t (n + 1)."""
    count = ranks.shape[-1]
    balance: npt.NDArray[np.intp] = 2 * ranks.cumsum(axis=-1)[..., :-1] - np.arange(1, count) * (count + 1)
    return balance


@functools.cache
def _critical(count: int) -> float:
    """What the largest |U| of a series without any change exceeds in ``SIGNIFICANCE`` of all cases.

    Drawn, not Pettitt's approximation, which never rejects with ten values; the draw is seeded.
    """
    ranks = np.tile(np.arange(1, count + 1), (_DRAWN, 1))
    largest = np.abs(_balance(np.random.default_rng(count).permuted(ranks, axis=1))).max(axis=1)
    return float(np.quantile(largest, 1 - SIGNIFICANCE, method="higher"))

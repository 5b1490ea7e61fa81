"""Where the noise lives: among the blocks of a process, or between fresh processes. Pure.

A process keeps what it was born with: where its code, its thread stacks and its arrays lie. That can move every one of
its times by more than blocks differ among themselves, so more blocks of the same process repeat the same error
(Mytkowicz et al., Producing Wrong Data Without Doing Anything Obviously Wrong!, ASPLOS'09; Kalibera and Jones, Rigorous
Benchmarking in Reasonable Time, ISMM'13).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Final

import numpy as np

#: Blocks of one process before the next one, at least and at most.
FEWEST_BLOCKS, MOST_BLOCKS = 10, 30
#: Processes that split the variance before it is decided how many blocks each of the others gets. They cannot tell that
#: processes do not differ: pooling the blocks of those that a test could not tell apart left 1 outside the 99 %
#: interval of a thing's ratio to itself in 7 of 35 runs.
PILOT: Final = 3
#: 1.4826 MAD is the standard deviation of normal values, and outliers hardly move it.
_MAD: Final = 1.4826


@dataclasses.dataclass(frozen=True, slots=True)
class Split:
    """Standard deviations of the log-ratio.

    Attributes:
        within: Among the blocks of a process; None with fewer than two blocks.
        between: Of the processes' centres, what the blocks explain taken off; None with one process.
    """

    within: float | None
    between: float | None


def split(groups: Sequence[Sequence[float]]) -> Split:
    """Split the variance, robustly within processes.

    Args:
        groups: For each process its blocks' log-ratios.
    """
    large = [np.asarray(group, dtype=float) for group in groups if len(group) > 1]
    if not large:
        return Split(None, None)
    away = np.concatenate([group - np.median(group) for group in large])
    within = _MAD * float(np.median(np.abs(away)))
    if len(large) < 2:
        return Split(within, None)
    centres = np.array([np.median(group) for group in large])
    # The variance of a median of n normal values is pi / 2 of that of their mean.
    noise = float(np.mean([math.pi / 2 * within**2 / len(group) for group in large]))
    return Split(within, math.sqrt(max(0.0, float(centres.var(ddof=1)) - noise)))


def blocks_per_process(found: Split, process_seconds: float, block_seconds: float) -> int:
    """How many blocks to take of each process so that a given time says most.

    The variance of the estimate is (between^2 + within^2 / b) / p, its price p (process + b block seconds); the best b
    is sqrt(process / block) within / between (Kalibera and Jones, equation 3).
    """
    if not found.between or not found.within or not block_seconds > 0:
        return MOST_BLOCKS if found.between == 0 else FEWEST_BLOCKS
    best = math.sqrt(process_seconds / block_seconds) * found.within / found.between
    return max(FEWEST_BLOCKS, min(MOST_BLOCKS, math.ceil(best)))

"""Split the variance of log-ratios into two levels: the blocks of a process, and fresh processes. Pure.

The addresses of a process's code, thread stacks and arrays are fixed when it starts. They can move all of its times by
more than its blocks differ, so more blocks of one process repeat the same error (Mytkowicz et al., Producing Wrong Data
Without Doing Anything Obviously Wrong!, ASPLOS'09; Kalibera and Jones, Rigorous Benchmarking in Reasonable Time,
ISMM'13).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Final

import numpy as np

#: Fewest blocks of one process before the next process.
FEWEST_BLOCKS: Final = 10
#: Most blocks of one process before the next process.
MOST_BLOCKS: Final = 30
#: Number of processes that split the variance before the blocks of each further process are chosen. Three processes
#: cannot show that processes are alike, so their blocks are never pooled.
PILOT: Final = 3
#: Ratio of the standard deviation to the median absolute deviation of normal values; outliers hardly move the latter.
_MAD: Final = 1.4826


@dataclasses.dataclass(frozen=True, slots=True)
class Split:
    """Standard deviations of the log-ratio.

    Attributes:
        within: Standard deviation among the blocks of a process; None with fewer than two blocks.
        between: Standard deviation of the processes' centres, less the noise of their blocks; None with one process.
    """

    within: float | None
    between: float | None


def split(groups: Sequence[Sequence[float]]) -> Split:
    """Split the variance; the estimate within processes is robust to outliers.

    Args:
        groups: Log-ratios of the blocks, a list for each process.
    """
    large = [np.asarray(group, dtype=float) for group in groups if len(group) > 1]
    if not large:
        return Split(None, None)
    deviations = np.concatenate([group - np.median(group) for group in large])
    within = _MAD * float(np.median(np.abs(deviations)))
    if len(large) < 2:
        return Split(within, None)
    centres = np.array([np.median(group) for group in large])
    # The variance of the median of n normal values is pi / 2 times the variance of their mean.
    noise = float(np.mean([math.pi / 2 * within**2 / len(group) for group in large]))
    return Split(within, math.sqrt(max(0.0, float(centres.var(ddof=1)) - noise)))


def blocks_per_process(spreads: Split, process_seconds: float, block_seconds: float) -> int:
    """Return the blocks of each process that give the narrowest interval for a time.

    With p processes of b blocks the variance of the estimate is (between^2 + within^2 / b) / p. Their time is
    p (process_seconds + b block_seconds). The best b is sqrt(process_seconds / block_seconds) within / between
    (Kalibera and Jones, equation 3).

    Args:
        spreads: Standard deviations of the log-ratio.
        process_seconds: Time to start a process, in seconds.
        block_seconds: Time of a block, in seconds.
    """
    if not spreads.between or not spreads.within or not block_seconds > 0:
        return MOST_BLOCKS if spreads.between == 0 else FEWEST_BLOCKS
    best = math.sqrt(process_seconds / block_seconds) * spreads.within / spreads.between
    return max(FEWEST_BLOCKS, min(MOST_BLOCKS, math.ceil(best)))

"""How work is divided among threads: how many take part, and which strips and pages each takes next.

A thread with strips or pages of its own takes the next ones when it is done, for threads are not alike: some cores are
faster than others, and some have other work.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Final

import numpy as np

from bilinear_bench.cpu.compiled import compiled
from bilinear_bench.cpu.cpu import VECTORS, Cpu
from bilinear_bench.cpu.sizes import Sizes

#: Shares of grad_weight for each thread, where pages and their parts suffice.
SHARES: Final = 8
#: Threads share each strip instead of the batch only if their parts then differ this much less.
EVEN: Final = 1.1


def workers(sizes: Sizes, threads: int, cpu: Cpu) -> int:
    """Return how many threads share the work: all, or one if the work is small."""
    return threads if threads > 1 and sizes.flop >= cpu.parallel_flop else 1


def evenness(tasks: float, count: int, workers: int) -> float:
    """Return the share of its time in which a thread works, when ``tasks`` are divided as ``count`` whole ones."""
    return tasks / (workers * math.ceil(count / workers))


def strips_of(sizes: Sizes, cpu: Cpu) -> int:
    """Return the number of strips of the batch, at least 1."""
    return max(1, math.ceil(sizes.batch / cpu.strip_width(sizes.itemsize)))


def shares_strips(sizes: Sizes, workers: int, along: int, cpu: Cpu) -> bool:
    """True if threads share each strip, along an axis of ``along`` features or pages.

    Each thread has strips of its own unless these are too few or too uneven. A weight that comes from memory is better
    read by one thread than by all.
    """
    strips = strips_of(sizes, cpu)
    if strips < workers or sizes.weight_bytes > cpu.shared_bytes:
        return True
    own = evenness(strips - narrow(sizes.batch, cpu.lanes(sizes.itemsize)) / 2, strips, workers)
    return EVEN * own < evenness(along, along, workers)


@dataclasses.dataclass(frozen=True)
class Blocks:
    """How strips are divided into blocks.

    Attributes:
        strips: Strips of a block, at most.
        count: Blocks that are packed at a time. With one part these are all, for each thread packs its own.
        parts: Parts of the pages or of a page's rows that threads share; 1 if each thread has strips of its own.
    """

    strips: int
    count: int
    parts: int


def blocks(strips: int, workers: int, parts: int, *, strip_bytes: int, cached_bytes: int, cpu: Cpu) -> Blocks:
    """Divide strips into blocks that stay in the L2 cache, evenly.

    Args:
        strips: Number of strips.
        workers: Number of threads.
        parts: Parts that threads share.
        strip_bytes: Bytes of a packed strip.
        cached_bytes: Bytes of a strip that a block reads again and again.
        cpu: Its caches, and how much may be packed.
    """
    together = math.ceil(workers / parts)  # blocks that are worked on at the same time
    most = max(1, min(cpu.block_bytes // cached_bytes, cpu.packed_bytes // (strip_bytes * together)))
    count = math.ceil(strips / most)
    if parts < workers:
        count = min(strips, math.ceil(count / workers) * workers)
    block = math.ceil(strips / count)
    if parts > 1:
        count = min(count, max(1, cpu.packed_bytes // (strip_bytes * block * together)) * together)
    return Blocks(block, count, parts)


@compiled
def part_of(number: int, parts: int, whole: int) -> tuple[int, int]:
    """Return where a part begins and ends, of ``parts`` that divide ``whole`` evenly."""
    return number * whole // parts, (number + 1) * whole // parts


@compiled
def narrow(batch: int, lanes: int) -> int:
    """Return 1 if the last strip's rows fill one vector at most, whose second vector is then left out; else 0."""
    return int((batch - 1) % (VECTORS * lanes) < lanes)


@compiled
def shared_counter(first: int) -> Any:
    """Return a counter for ``take``: the next task of any thread.

    It is a function of its own, for where Numba shares out loops it shares out the filling of an array, too.
    """
    return np.full(1, first, np.int64)

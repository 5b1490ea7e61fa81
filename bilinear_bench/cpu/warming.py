"""A few calls whose plans together reach every compiled loop and tile."""

from __future__ import annotations

from numba.core import config

from bilinear_bench.cpu.cpu import HOST, Cpu
from bilinear_bench.cpu.few_outputs import UNCOPIED_STRIPS
from bilinear_bench.cpu.sizes import Sizes


def warm_calls(dtype: str, cpu: Cpu = HOST) -> tuple[tuple[Sizes, int], ...]:
    """Return the sizes and the number of threads of each call.

    Two threads stand for any number of them, because the compiled loops are the same. On a machine with one CPU all
    calls have one thread.
    """
    itemsize = max(4, Sizes(1, 1, 1, 1, dtype).itemsize)  # half types are computed as float32
    strip, clashing = cpu.strip_width(itemsize), cpu.l1_set_stride // itemsize
    calls = (
        # A small batch: its rows are the rows of the tiles, and pages are grouped.
        ((1, 3, 3, 8), 1),
        ((1, 64, 64, 128), 2),
        # The same of half types, whose pieces are less work than the whole.
        ((2, 64, 64, 128), 2),
        # Few outputs, whose weight is transposed; with two threads, each packs all rows of grad_weight.
        ((UNCOPIED_STRIPS * strip + 1, 64, clashing, 1), 1),
        ((UNCOPIED_STRIPS * strip + 1, 64, clashing, 1), 2),
        # Many strips, of which each thread has its own; both threads pack the rows of grad_weight.
        ((strip, 3, 3, 8), 1),
        ((4000, 6, 6, 8), 2),
        # One strip, which both threads share.
        ((strip, 256, 256, 2), 2),
        ((strip, 64, 64, 64), 2),
    )
    most = config.NUMBA_NUM_THREADS
    return tuple((Sizes(*sizes, dtype), threads) for sizes, threads in calls if threads <= most)

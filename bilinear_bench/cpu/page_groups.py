"""The gradient of the weight for a small batch: a group of pages is one tall page.

Formula, for the rows ``(o, i)`` of a group's pages and the lanes of vectors along ``j``::

    grad_weight[o, i, j] = sum_b (input1[b, i] * grad_output[b, o]) * input2[b, j]

With a small batch, most of a page's work is to begin it. A group needs fewer calls.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Final

import numba
import numpy as np

from bilinear_bench.cpu.compiled import compiled, serial_and_parallel
from bilinear_bench.cpu.cpu import KIB, PRIVATE_BYTES, ROWS
from bilinear_bench.cpu.packing import Array, gradient_buffer, rooms, strip_width
from bilinear_bench.cpu.sizes import Sizes
from bilinear_bench.cpu.threads import part_of
from bilinear_bench.cpu.tiles.abi import address
from bilinear_bench.cpu.tiles.accumulate import Accumulate, accumulate
from bilinear_bench.cpu.tiles.intrinsics import at, call
from bilinear_bench.cpu.tiles.multiply import Multiply, multiply

#: Rows of the batch up to which pages are grouped.
GROUPED_BATCH: Final = 32
#: Numbers (b, o, i) of a group, at most.
GROUP_NUMBERS: Final = 4096
#: Pages of a group that the numbers must suffice for; and pages for each thread.
GROUP_PAGES: Final = 4
#: Bytes of a group's pages, at most, or a single page: they are written column by column.
GROUP_BYTES: Final = 512 * KIB


@dataclasses.dataclass(frozen=True)
class PageGroupsPlan:
    """How the gradient of the weight is divided.

    Attributes:
        workers: Number of threads.
        groups: Groups of pages.
        multiply: Address of the tile of that name.
        accumulate: Address of the tile of that name.
    """

    workers: int
    groups: int
    multiply: int
    accumulate: int

    def run(self, input1: Array, input2: Array, grad_output: Array, grad_weight: Array | None = None) -> Array:
        """Return grad_weight (o, i, j); the last argument is memory for it, or None."""
        if grad_weight is None:
            grad_weight = gradient_buffer((grad_output.shape[1], input1.shape[1], input2.shape[1]), input1)
        arrays = input1, input2, grad_output, grad_weight
        _all_groups[self.workers > 1](self.multiply, self.accumulate, *arrays, self.workers, self.groups)
        return grad_weight


def page_groups(sizes: Sizes, workers: int) -> int:
    """Return the number of groups of pages; 0 where page follows page."""
    pages = sizes.out
    if not 0 < sizes.batch <= GROUPED_BATCH or pages < (2 if workers == 1 else workers * GROUP_PAGES):
        return 0
    most = GROUP_NUMBERS // (sizes.batch * sizes.in1)
    if most < GROUP_PAGES:
        return 0
    most = max(1, min(most, GROUP_BYTES // sizes.page_bytes))
    return min(pages, workers * math.ceil(pages / (workers * most)))


def plan_page_groups(sizes: Sizes, workers: int, groups: int) -> PageGroupsPlan:
    """Divide the groups among the threads."""
    return PageGroupsPlan(workers, groups, address(multiply, sizes.dtype), address(accumulate, sizes.dtype))


@serial_and_parallel
def _all_groups(
    multiply: int, accumulate: int, input1: Array, input2: Array, grad_output: Array, grad_weight: Array, workers: int,
    groups: int,
) -> None:  # fmt: skip
    batch, pages = grad_output.shape
    most = (pages + groups - 1) // groups
    column, one = batch * strip_width(input2), np.full(1, 1, input1.dtype)
    room = rooms(workers, column + batch * most * input1.shape[1], input1)
    for worker in numba.prange(workers):
        first, last = part_of(np.int64(worker), workers, groups)
        for group in range(first, last):
            begin, end = part_of(group, groups, pages)
            _group(
                multiply, accumulate, input1, input2, grad_output, grad_weight, begin, end, one, room[worker][column:],
                room[worker][:column],
            )  # fmt: skip


@compiled
def _group(
    multiply: int, accumulate: int, input1: Array, input2: Array, grad_output: Array, grad_weight: Array, begin: int,
    end: int, one: Array, scaled: Array, column: Array,
) -> None:  # fmt: skip
    """Compute pages ``begin`` to ``end`` as one tall page; ``one`` holds the number 1, the others are room."""
    batch, in1 = input1.shape
    in2, width = input2.shape[1], strip_width(input2)
    rows = (end - begin) * in1
    far = int(grad_weight.size * grad_weight.itemsize > PRIVATE_BYTES)
    for row in range(batch):
        for page in range(end - begin):
            factor = grad_output[row, begin + page]
            for i in range(in1):
                scaled[row * rows + page * in1 + i] = input1[row, i] * factor
    tiles = (rows + ROWS - 1) // ROWS
    short, taller = rows // tiles, rows % tiles
    for j in range(0, in2, width):
        call(multiply, Multiply(
            rows=batch, source=at(input2, j), source_stride_r=in2, factor=at(one, 0), factor_stride_r=0,
            valid=in2 - j, target=at(column, 0), target_stride_r=width,
        ))  # fmt: skip
        for height, low, high in ((short + 1, 0, taller), (short, taller, tiles)):
            if low < high:
                top = low * short + min(low, taller)
                call(accumulate, Accumulate(
                    rows=height, a=at(scaled, top), a_stride_c=rows, a_stride_r=1, b=at(column, 0), b_stride_c=width,
                    count=batch, times=high - low, a_stride_t=height,
                    out=at(grad_weight, (begin * in1 + top) * in2 + j), out_stride_r=in2, valid=in2 - j,
                    overwrite=1, prefetch=far,
                ))  # fmt: skip

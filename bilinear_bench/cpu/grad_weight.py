"""The gradient of the weight: one matrix product over the batch for each page.

Formula, for a few rows ``i`` and the lanes of vectors along ``j``::

    grad_weight[o, i, j] = sum_b input1[b, i] * (input2[b, j] * grad_output[b, o])

Axes: ``b`` batch, ``i`` in1_features, ``j`` in2_features, ``o`` out_features (pages of the weight).

* Work: 2 b i j o flop. Written between: both inputs and grad_output, packed once for all pages.
* Along a column of the arrays themselves, as many cache lines as rows would be read, often from the same few sets.
* grad_output is multiplied into a column of input2 before it meets the tiles.
* Threads share the pages, or parts of them. Each packs some rows for all, or all rows for itself.
* For a small batch a page is little work: see ``page_groups``.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Final

import numba
import numpy as np

from bilinear_bench.cpu import threads as division
from bilinear_bench.cpu.compiled import compiled, parallel, serial_and_parallel
from bilinear_bench.cpu.cpu import HOST, PRIVATE_BYTES, ROWS, Cpu
from bilinear_bench.cpu.packing import PANEL_ROWS, Array, aligned, gradient_buffer, rooms, strip_width
from bilinear_bench.cpu.page_groups import PageGroupsPlan, page_groups, plan_page_groups
from bilinear_bench.cpu.sizes import Sizes
from bilinear_bench.cpu.threads import SHARES, part_of, shared_counter
from bilinear_bench.cpu.tiles.abi import address
from bilinear_bench.cpu.tiles.accumulate import Accumulate, accumulate
from bilinear_bench.cpu.tiles.intrinsics import at, call, take
from bilinear_bench.cpu.tiles.multiply import Multiply, multiply
from bilinear_bench.cpu.tiles.transpose import transpose
from bilinear_bench.cpu.weight_packing import PACKED_ROWS, pack_rows, packed_row_bytes, packed_sizes, tile_stride

#: Tiles that meet a panel of columns: they stay in the L2 cache. A panel itself stays in L1.
PANEL_TILES: Final = 64
#: Products for each packed number from which a thread packs all rows for itself: packing them again takes less time
#: than waiting for all threads, and fetching what another core has just written.
PACKED_PRODUCTS: Final = 8


@dataclasses.dataclass(frozen=True)
class GradWeightPlan:
    """How the gradient of the weight is divided.

    Attributes:
        workers: Number of threads.
        parts: Parts of the tiles of a page.
        rows: Rows of the batch that are packed and summed up at a time.
        pack_per_thread: Whether each thread packs all rows for itself.
        transpose: Address of the tile of that name.
        multiply: Address of the tile of that name.
        accumulate: Address of the tile of that name.
    """

    workers: int
    parts: int
    rows: int
    pack_per_thread: bool
    transpose: int
    multiply: int
    accumulate: int

    def run(self, input1: Array, input2: Array, grad_output: Array, grad_weight: Array | None = None) -> Array:
        """Return grad_weight (o, i, j); the last argument is memory for it, or None."""
        if grad_weight is None:
            grad_weight = gradient_buffer((grad_output.shape[1], input1.shape[1], input2.shape[1]), input1)
        if not len(input1):  # no tile writes what has no row
            grad_weight[:] = 0
        kernel = _each_packs_all if self.pack_per_thread else _all_pack[self.workers > 1]
        tiles = self.transpose, self.multiply, self.accumulate
        kernel(*tiles, input1, input2, grad_output, grad_weight, self.workers, self.parts, self.rows)
        return grad_weight


def plan(sizes: Sizes, threads: int, cpu: Cpu = HOST) -> GradWeightPlan | PageGroupsPlan:
    """Divide the gradient of the weight among at most ``threads`` threads."""
    workers = division.workers(sizes, threads, cpu)
    groups = page_groups(sizes, workers)
    if groups:
        return plan_page_groups(sizes, workers, groups)
    row_bytes = packed_row_bytes(sizes, cpu)
    # Rows that stay in the L2 cache, or one panel of them; fewer only where that exceeds the bytes of all strips.
    panels = max(1, cpu.block_bytes // (PANEL_ROWS * row_bytes))
    rows = max(1, min(panels * PANEL_ROWS, cpu.packed_bytes // row_bytes))
    products, numbers = sizes.in1 * sizes.in2 * sizes.out, sizes.in1 + sizes.in2 + sizes.out
    pays = workers * numbers * PACKED_PRODUCTS <= products
    return GradWeightPlan(
        workers,
        _parts_of_page(sizes.out, math.ceil(sizes.in1 / cpu.rows), workers),
        rows,
        pack_per_thread=workers > 1 and pays and workers * min(sizes.batch, rows) * row_bytes <= cpu.packed_bytes,
        transpose=address(transpose, sizes.dtype),
        multiply=address(multiply, sizes.dtype),
        accumulate=address(accumulate, sizes.dtype),
    )


def _parts_of_page(pages: int, tiles: int, workers: int) -> int:
    """Return the parts of a page: as few as give threads equal work, and 1 where pages are many."""
    if workers == 1 or pages >= workers * SHARES:
        return 1
    return max(1, min(tiles, workers // math.gcd(workers, max(1, pages))))


@serial_and_parallel
def _all_pack(
    transpose: int, multiply: int, accumulate: int, input1: Array, input2: Array,
    grad_output: Array, grad_weight: Array, workers: int, parts: int, most: int,
) -> None:  # fmt: skip
    """All threads pack some rows; then each takes share after share of grad_weight."""
    batch, pages = grad_output.shape
    size1, size2, size3 = packed_sizes(min(batch, most), input1, input2, pages)
    count, panel, end = min(workers, pages * parts), PANEL_ROWS * strip_width(input1), size1 + size2 + size3
    room, one = aligned(end + count * panel, input1), np.full(1, 1, input1.dtype)
    tiles1, columns2, factors = room[:size1], room[size1 : size1 + size2], room[size1 + size2 : end]
    scaled = room[end:].reshape(count, panel)
    for chunk in range(0, batch, most):
        rows = min(most, batch - chunk)
        groups = (rows + PACKED_ROWS - 1) // PACKED_ROWS
        for part in numba.prange(workers):
            first, last = part_of(part, workers, groups)
            pack_rows(
                transpose, multiply, input1, input2, grad_output, chunk, rows, first, last, one, tiles1, columns2,
                factors,
            )  # fmt: skip
        counter = shared_counter(workers)
        for worker in numba.prange(count):
            _shares(
                multiply, accumulate, tiles1, columns2, factors, scaled[worker], rows, chunk == 0, np.int64(worker),
                counter, workers, parts, grad_weight,
            )  # fmt: skip


@parallel
def _each_packs_all(
    transpose: int, multiply: int, accumulate: int, input1: Array, input2: Array,
    grad_output: Array, grad_weight: Array, workers: int, parts: int, most: int,
) -> None:  # fmt: skip
    """Each thread packs all rows for itself, and takes share after share of grad_weight."""
    batch, pages = grad_output.shape
    count = min(workers, pages * parts)
    size1, size2, size3 = packed_sizes(min(batch, most), input1, input2, pages)
    panel, end = PANEL_ROWS * strip_width(input1), size1 + size2 + size3
    room, one = rooms(count, end + panel, input1), np.full(1, 1, input1.dtype)
    for chunk in range(0, batch, most):
        rows = min(most, batch - chunk)
        groups = (rows + PACKED_ROWS - 1) // PACKED_ROWS
        counter = shared_counter(workers)
        for worker in numba.prange(count):
            mine = room[worker]
            tiles1, columns2, factors = mine[:size1], mine[size1 : size1 + size2], mine[size1 + size2 : end]
            pack_rows(
                transpose, multiply, input1, input2, grad_output, chunk, rows, 0, groups, one, tiles1, columns2, factors
            )
            _shares(
                multiply, accumulate, tiles1, columns2, factors, mine[end:], rows, chunk == 0, np.int64(worker),
                counter, workers, parts, grad_weight,
            )  # fmt: skip


@compiled
def _shares(
    multiply: int, accumulate: int, tiles1: Array, columns2: Array, factors: Array, scaled: Array, rows: int,
    begins: bool, share: int, counter: Array, workers: int, parts: int, grad_weight: Array,
) -> None:  # fmt: skip
    """Add what the packed rows give to share after share of grad_weight: this one first, then those of the counter."""
    pages, in1 = grad_weight.shape[:2]
    tiles = (in1 + ROWS - 1) // ROWS
    shares = min(pages * parts, workers * SHARES)
    while share < shares:
        first, last = part_of(share, shares, pages * parts)
        for task in range(first, last):
            begin, end = part_of(task % parts, parts, tiles)
            pieces = (end - begin + PANEL_TILES - 1) // PANEL_TILES
            for piece in range(pieces):
                low, high = part_of(piece, pieces, end - begin)
                _tiles(
                    multiply, accumulate, tiles1, columns2, factors, scaled, rows, begins, task // parts,
                    begin + low, begin + high, grad_weight,
                )  # fmt: skip
        share = take(counter)


@compiled
def _tiles(
    multiply: int, accumulate: int, tiles1: Array, columns2: Array, factors: Array, scaled: Array, rows: int,
    begins: bool, page: int, begin: int, end: int, grad_weight: Array,
) -> None:  # fmt: skip
    """Add the packed rows to tiles ``begin`` to ``end`` of a page, panel by panel; ``begins`` with the first rows.

    ``scaled`` is room for a panel of a column.
    """
    in1, in2 = grad_weight.shape[1:]
    width, stride = strip_width(tiles1), tile_stride(tiles1)
    tiles = (in1 + ROWS - 1) // ROWS
    short, taller = in1 // tiles, in1 % tiles
    far = int(grad_weight.size * grad_weight.itemsize > PRIVATE_BYTES)
    scale_columns = len(grad_weight) > 1  # a single page's columns are multiplied as they are packed
    for first in range(0, rows, PANEL_ROWS):
        count = min(PANEL_ROWS, rows - first)
        for j in range(0, in2, width):
            column = at(columns2, j * rows + first * width)
            if scale_columns:
                call(multiply, Multiply(
                    rows=count, source=column, source_stride_r=width, factor=at(factors, page * rows + first),
                    factor_stride_r=1, valid=in2 - j, target=at(scaled, 0), target_stride_r=width,
                ))  # fmt: skip
                column = at(scaled, 0)
            # Tiles of one height at a time, the taller ones first.
            for height, low, high in ((short + 1, begin, min(taller, end)), (short, max(taller, begin), end)):
                if low < high:
                    top = low * short + min(low, taller)
                    call(accumulate, Accumulate(
                        rows=height, a=at(tiles1, (low * rows + first) * stride), a_stride_c=stride, a_stride_r=1,
                        b=column, b_stride_c=width, count=count, times=high - low,
                        a_stride_t=rows * stride, out=at(grad_weight, (page * in1 + top) * in2 + j), out_stride_r=in2,
                        valid=in2 - j, overwrite=int(begins and first == 0), prefetch=far,
                    ))  # fmt: skip

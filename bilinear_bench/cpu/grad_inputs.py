"""The gradients of both inputs, from one tile over the outputs.

Formula, for a strip of rows ``b`` in the lanes of vectors::

    tile[i, j, b]      = sum_o weight[o, i, j] * grad_output[b, o]     a few i and j at a time, in registers
    grad_input1[b, i] += sum_j tile[i, j, b] * input2[b, j]
    grad_input2[b, j] += sum_i tile[i, j, b] * input1[b, i]

Axes: ``b`` batch, ``i`` in1_features, ``j`` in2_features, ``o`` out_features (pages of the weight).

* Work: 2 b i j o flop for both, the least possible. Written between: the inputs, grad_output and both gradients in
  strips ``[feature][row]``.
* The weight is read where it is stored, unless the pages would clash in the L1 cache: then some rows of every page are
  copied next to each other before they are contracted (``weight_packed``).
* With few outputs this tile is too short: see ``few_outputs``. A small batch goes to ``small_batch``.

Length: plan and kernel of one formula are read together.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import ClassVar, Final

import numba
import numpy as np

from bilinear_bench.cpu import threads as division
from bilinear_bench.cpu.cache_sets import pages_clash, tile_rows
from bilinear_bench.cpu.compiled import compiled, parallel, serial_and_parallel
from bilinear_bench.cpu.cpu import HOST, LINE_BYTES, PRIVATE_BYTES, ROWS, VECTORS, Cpu
from bilinear_bench.cpu.few_outputs import FewOutputsPlan, few_outputs, plan_few_outputs
from bilinear_bench.cpu.packing import (
    Array,
    add_parts,
    aligned,
    gradient_buffer,
    pack,
    pack_all,
    rooms,
    strip_width,
    strips_of_batch,
    unpack,
)
from bilinear_bench.cpu.sizes import Sizes
from bilinear_bench.cpu.small_batch import SmallGradInputsPlan, plan_small_gradients, small_gradients
from bilinear_bench.cpu.threads import narrow, part_of, shared_counter
from bilinear_bench.cpu.tiles.abi import address
from bilinear_bench.cpu.tiles.both_gradients import BothGradients, both_gradients
from bilinear_bench.cpu.tiles.intrinsics import at, call, copy, lanes, prefetch, take
from bilinear_bench.cpu.tiles.register_tile import GROUPED_ROWS
from bilinear_bench.cpu.tiles.transpose import transpose

#: Cache lines to prefetch at a time: a core has room for about 20 on their way.
LINES_AT_ONCE: Final = 8


@dataclasses.dataclass(frozen=True)
class GradInputsPlan:
    """How both input gradients are divided.

    Attributes:
        workers: Number of threads.
        blocks: Blocks of strips. Its parts are parts of the rows of a page, each with sums of grad_input2 of its own.
        tile_rows: Rows ``i`` of a tile, at most.
        weight_packed: Whether rows of every page are copied next to each other.
        transpose: Address of the tile of that name.
        both_gradients: Address of the tile of that name.
    """

    workers: int
    blocks: division.Blocks
    tile_rows: int
    weight_packed: bool
    transpose: int
    both_gradients: int
    forward_tiles: ClassVar[int] = 0

    def run(
        self,
        input1: Array,
        input2: Array,
        weight: Array,
        grad_output: Array,
        forward_tiles: Array,
        gradients: tuple[Array, Array] | None = None,
    ) -> tuple[Array, Array]:
        """Return grad_input1 (b, i) and grad_input2 (b, j); ``forward_tiles`` is not used.

        ``gradients`` is memory for them, or None.
        """
        if gradients is None:
            gradients = gradient_buffer(input1.shape, input1), gradient_buffer(input2.shape, input2)
        arrays = input1, input2, weight, grad_output, *gradients
        tile = self.transpose, self.both_gradients, self.tile_rows, self.weight_packed
        blocks = self.blocks
        if blocks.parts == 1:
            _own_strips[self.workers > 1](*tile, *arrays, self.workers, blocks.count)
        else:
            _shared_strips(*tile, *arrays, self.workers, blocks.strips, blocks.count, blocks.parts)
        return gradients


def plan(
    sizes: Sizes, threads: int, cpu: Cpu = HOST, stores: bool = True
) -> GradInputsPlan | FewOutputsPlan | SmallGradInputsPlan:
    """Divide both input gradients among at most ``threads`` threads; ``stores`` as for ``few_outputs``."""
    workers = division.workers(sizes, threads, cpu)
    few = few_outputs(sizes, cpu, stores=stores)
    if small_gradients(sizes, cpu, few_outputs=few):
        return plan_small_gradients(sizes, workers)
    if few:
        return plan_few_outputs(sizes, workers, cpu)
    return plan_strips(sizes, workers, cpu, both_gradients)


def plan_strips(sizes: Sizes, workers: int, cpu: Cpu, tile: Callable[..., None]) -> GradInputsPlan:
    """Divide both input gradients with the batch in the lanes; ``tile`` is ``both_gradients``, or one in its place."""
    parts = min(workers, sizes.in1) if division.shares_strips(sizes, workers, sizes.in1, cpu) else 1
    # A block needs all of input2, its gradient and grad_output again and again, but of input1 only some rows.
    row_bytes = cpu.strip_width(sizes.itemsize) * sizes.itemsize
    blocks = division.blocks(
        division.strips_of(sizes, cpu), workers, parts, cpu=cpu,
        strip_bytes=row_bytes * (2 * sizes.in1 + (1 + parts) * sizes.in2 + sizes.out),
        cached_bytes=row_bytes * (2 * sizes.in2 + sizes.out),
    )  # fmt: skip
    rows, tiles = tile_rows(sizes, cpu), (address(transpose, sizes.dtype), address(tile, sizes.dtype))
    return GradInputsPlan(workers, blocks, rows, pages_clash(sizes, rows, cpu), *tiles)


@serial_and_parallel
def _own_strips(
    transpose: int, both_gradients: int, tile_rows: int, weight_packed: bool, input1: Array, input2: Array,
    weight: Array, grad_output: Array, grad_input1: Array, grad_input2: Array, workers: int, blocks: int,
) -> None:  # fmt: skip
    """Each thread packs a block, adds up its gradients, stores them, and takes the next one."""
    strips, width = strips_of_batch(input1.shape[0], input1), strip_width(input1)
    in1, in2 = weight.shape[1:]
    whole = strips - narrow(input1.shape[0], lanes(input1))
    most, count = (strips + blocks - 1) // blocks * width, min(workers, blocks)
    size1, size2, end = most * in1, most * in2, most * (2 * in1 + 2 * in2 + len(weight))
    room = rooms(count, end + (_packed_weight(tile_rows, in1, weight) if weight_packed else 0), input1)
    counter = shared_counter(workers)
    for worker in numba.prange(count):
        mine = room[worker]
        strips1, sums1 = mine[:size1], mine[size1 : 2 * size1]
        strips2, sums2 = mine[2 * size1 : 2 * size1 + size2], mine[2 * size1 + size2 : 2 * (size1 + size2)]
        gradients, rows_of_pages = mine[2 * (size1 + size2) : end], mine[end:]
        task = np.int64(worker)
        while task < blocks:
            low, high = part_of(task, blocks, strips)
            first, here = low * width, high - low
            pack_all(transpose, input1, first, here, strips1)
            pack_all(transpose, input2, first, here, strips2)
            pack_all(transpose, grad_output, first, here, gradients)
            sums1[:], sums2[:] = 0, 0
            _block(
                both_gradients, tile_rows, weight_packed, strips1, strips2, gradients, 0, here, whole - low, weight, 0,
                in1, rows_of_pages, sums1, sums2,
            )  # fmt: skip
            for strip in range(here):
                row = first + strip * width
                unpack(transpose, sums1, strip * in1 * width, grad_input1, row, 0, in1)
                unpack(transpose, sums2, strip * in2 * width, grad_input2, row, 0, in2)
            task = take(counter)


@parallel
def _shared_strips(
    transpose: int, both_gradients: int, tile_rows: int, weight_packed: bool, input1: Array, input2: Array,
    weight: Array, grad_output: Array, grad_input1: Array, grad_input2: Array, workers: int, block: int, blocks: int,
    parts: int,
) -> None:  # fmt: skip
    """All threads pack some blocks; then each adds up its rows of every page. It has sums of grad_input2 of its own."""
    strips, width = strips_of_batch(input1.shape[0], input1), strip_width(input1)
    pages, in1, in2 = weight.shape
    whole, room = strips - narrow(input1.shape[0], lanes(input1)), block * blocks
    packed_size = _packed_weight(tile_rows, (in1 + parts - 1) // parts, weight) if weight_packed else 0
    size1, size2, size3 = room * in1 * width, room * in2 * width, room * pages * width
    end = 2 * size1 + (1 + parts) * size2 + size3
    memory = aligned(end + workers * packed_size, input1)
    strips1, sums1 = memory[:size1], memory[size1 : 2 * size1]
    strips2 = memory[2 * size1 : 2 * size1 + size2]
    sums2 = memory[2 * size1 + size2 : end - size3].reshape(parts, size2)
    gradients, rows_of_pages = memory[end - size3 : end], memory[end:].reshape(workers, packed_size)
    for begin in range(0, strips, room):
        here = min(room, strips - begin)
        for strip in numba.prange(here):
            first = (begin + strip) * width
            pack(transpose, grad_output, first, gradients, strip * pages * width)
            pack(transpose, input2, first, strips2, strip * in2 * width)
            sums1[strip * in1 * width : (strip + 1) * in1 * width] = 0
            pack(transpose, input1, first, strips1, strip * in1 * width)
            sums2[:, strip * in2 * width : (strip + 1) * in2 * width] = 0
        count = min(blocks, here)
        for worker in numba.prange(workers):
            # A thread's tasks follow each other: it meets its part of the weight with block after block.
            first_task, last_task = part_of(worker, workers, count * parts)
            for task in range(first_task, last_task):
                part, number = task // count, task % count
                low, high = part_of(number, count, here)
                top, bottom = part_of(part, parts, in1)
                _block(
                    both_gradients, tile_rows, weight_packed, strips1, strips2, gradients, low, high, whole - begin,
                    weight, top, bottom, rows_of_pages[worker], sums1, sums2[part],
                )  # fmt: skip
        for strip in numba.prange(here):
            row = (begin + strip) * width
            unpack(transpose, sums1, strip * in1 * width, grad_input1, row, 0, in1)
            add_parts(sums2, strip * in2 * width, (strip + 1) * in2 * width)
            unpack(transpose, sums2[0], strip * in2 * width, grad_input2, row, 0, in2)


@compiled
def _packed_weight(tile_rows: int, rows: int, weight: Array) -> int:
    """Return the numbers of a tile's rows of every page side by side, of ``rows`` rows at most."""
    return weight.shape[0] * (min(tile_rows, rows) * weight.shape[2] + lanes(weight))


@compiled
def _block(
    both_gradients: int, tile_rows: int, weight_packed: bool, strips1: Array, strips2: Array, gradients: Array,
    low: int, high: int, whole: int, weight: Array, begin: int, end: int, buffer: Array, sums1: Array, sums2: Array,
) -> None:  # fmt: skip
    """Add the gradients of strips ``low`` to ``high`` from rows ``begin`` to ``end`` of every page to the sums.

    Strips from number ``whole`` on have one vector. ``buffer`` holds ``_packed_weight`` numbers, if these are packed.
    """
    pages, in1, in2 = weight.shape
    most = min(tile_rows, end - begin)
    far = weight.size * weight.itemsize > PRIVATE_BYTES
    groups = (end - begin + most - 1) // most
    for group in range(groups):
        i, following = begin + group * (end - begin) // groups, begin + (group + 1) * (end - begin) // groups
        after = begin + (group + 2) * (end - begin) // groups
        # These rows of every page side by side, one vector apart.
        stride = (following - i) * in2 + lanes(weight) if weight_packed else in1 * in2
        if weight_packed:
            for page in range(pages):
                source = at(weight, (page * in1 + i) * in2)
                copy(at(buffer, page * stride), source, (following - i) * in2 * weight.itemsize)
        rows = at(buffer, 0) if weight_packed else at(weight, i * in2)
        # Prefetch the rows that follow, unless the weight stays in a core's caches.
        upcoming = after - following if far and following < end else 0
        _rows(
            both_gradients, rows, stride, most, strips1, strips2, gradients, low, high, whole, weight, i, following,
            upcoming, sums1, sums2,
        )  # fmt: skip


@compiled
def _rows(
    both_gradients: int, source: int, stride: int, most: int, strips1: Array, strips2: Array, gradients: Array,
    low: int, high: int, whole: int, weight: Array, i: int, following: int, upcoming: int, sums1: Array, sums2: Array,
) -> None:  # fmt: skip
    """Add what rows ``i`` to ``following`` of every page give to the sums of strips ``low`` to ``high``.

    These are at most ``most`` rows. ``upcoming`` rows after them are prefetched, a few lines before each call.
    """
    pages, in1, in2 = weight.shape
    width = strip_width(weight)
    columns = GROUPED_ROWS if most > 1 else ROWS
    tiles = (in2 + columns - 1) // columns
    short, taller = in2 // tiles, in2 % tiles
    lines_of_page = (upcoming * in2 * weight.itemsize + LINE_BYTES - 1) // LINE_BYTES
    lines = lines_of_page * pages
    at_once = max(1, LINES_AT_ONCE * tiles * (high - low) // lines) if lines else tiles
    fetched = done = line = 0
    page_address = at(weight, following * in2)
    for strip in range(low, high):
        row1, vectors = (strip * in1 + i) * width, VECTORS if strip < whole else 1
        tile = 0
        while tile < tiles:
            # Tiles of one height at a time, the taller ones first.
            height, last = (short + 1, taller) if tile < taller else (short, tiles)
            times = min(at_once, last - tile)
            done += times
            while fetched * tiles * (high - low) < done * lines:
                prefetch(page_address + line * LINE_BYTES)
                fetched, line = fetched + 1, line + 1
                if line == lines_of_page:
                    page_address, line = page_address + in1 * in2 * weight.itemsize, 0
            left = tile * short + min(tile, taller)
            row2 = (strip * in2 + left) * width
            call(both_gradients, BothGradients(
                rows=ROWS * (following - i - 1) + height, a=source + left * weight.itemsize, a_stride_c=stride,
                a_stride_r=1, b=at(gradients, strip * pages * width), b_stride_c=width, count=pages, times=times,
                vectors=vectors, a_stride_i=in2, input2=at(strips2, row2),
                grad1=at(sums1, row1), input1=at(strips1, row1), grad2=at(sums2, row2),
            ))  # fmt: skip
            tile += times

"""The forward kernel: what a GEMM would write between the two contractions stays in vector registers.

Formula, for a strip of rows ``b`` in the lanes of vectors, and one page ``o``::

    tile[j, b]   = sum_i weight[o, i, j] * input1[b, i]            a few j at a time, in registers
    output[b, o] = sum_j tile[j, b] * input2[b, j] + bias[o]       einsum: bi,oij,bj->bo

Axes: ``b`` batch, ``i`` in1_features, ``j`` in2_features, ``o`` out_features (pages of the weight).

* Work: 2 b i j o flop. Written between: the inputs in strips ``[feature][row]``, and the results of a block.
* The weight is read where it is stored, one number for all lanes: no padding, no copy, no sums across lanes.
* The tile contracts ``i`` or ``j``, see ``contracts_input1``.
* A block of strips that stays in the L2 cache meets page after page.
* Threads have blocks of their own, or share all strips and have pages of their own.
* A batch that fills little of a vector goes to ``small_batch``.

Length: plan and kernel of one formula are read together.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Final

import numba
import numpy as np

from bilinear_bench.cpu import threads as division
from bilinear_bench.cpu.compiled import compiled, parallel, serial_and_parallel
from bilinear_bench.cpu.cpu import HOST, KIB, LINE_BYTES, PRIVATE_BYTES, ROWS, VECTORS, Cpu
from bilinear_bench.cpu.packing import Array, aligned, pack, pack_all, rooms, strip_width, strips_of_batch, unpack
from bilinear_bench.cpu.sizes import Sizes
from bilinear_bench.cpu.small_batch import SmallForwardPlan, plan_small_forward, small_forward
from bilinear_bench.cpu.threads import narrow, part_of, shared_counter
from bilinear_bench.cpu.tiles.abi import address
from bilinear_bench.cpu.tiles.contract import Contract, contract
from bilinear_bench.cpu.tiles.intrinsics import at, call, lanes, spread, take
from bilinear_bench.cpu.tiles.register_tile import UNROLLED
from bilinear_bench.cpu.tiles.transpose import transpose

#: Bytes of a block's results, before they are stored as rows.
RESULT_BYTES: Final = 256 * KIB
#: Features over which a tile takes long enough to hide its epilogue.
LONG: Final = 160


@dataclasses.dataclass(frozen=True)
class ForwardPlan:
    """How a forward is divided.

    Attributes:
        workers: Number of threads.
        blocks: Blocks of strips. Its parts are parts of the pages.
        transpose: Address of the tile of that name.
        contract: Address of the tile of that name.
        over1: Whether the tile contracts ``i``, see ``contracts_input1``.
    """

    workers: int
    blocks: division.Blocks
    transpose: int
    contract: int
    over1: bool

    def run(
        self,
        input1: Array,
        input2: Array,
        weight: Array,
        bias: Array,
        forward_tiles: Array | None = None,
        output: Array | None = None,
    ) -> Array:
        """Return output (b, o) of input1 (b, i), input2 (b, j), weight (o, i, j) and bias (o,).

        Args:
            input1: (b, i).
            input2: (b, j).
            weight: (o, i, j).
            bias: (o,).
            forward_tiles: Memory for the tiles, as many numbers as the backward's plan says; None or empty for none.
            output: Memory for the result; None for new memory.
        """
        if output is None:
            output = np.empty((input1.shape[0], weight.shape[0]), input1.dtype)
        stored = np.empty(0, weight.dtype) if forward_tiles is None else forward_tiles
        arrays = self.transpose, self.contract, self.over1, input1, input2, weight, bias, output, stored
        blocks = self.blocks
        if blocks.parts == 1:
            _own_strips[self.workers > 1](*arrays, self.workers, blocks.count)
        else:
            _shared_strips(*arrays, self.workers, blocks.strips, blocks.count, blocks.parts)
        return output


def plan(sizes: Sizes, threads: int, cpu: Cpu = HOST) -> ForwardPlan | SmallForwardPlan:
    """Divide a forward among at most ``threads`` threads."""
    if small_forward(sizes, cpu):
        return plan_small_forward(sizes, division.workers(sizes, threads, cpu))
    return plan_strips(sizes, threads, cpu, contract, bool(contracts_input1(sizes.in1, sizes.in2)))


def plan_strips(sizes: Sizes, threads: int, cpu: Cpu, tile: Callable[..., None], over1: bool) -> ForwardPlan:
    """Divide a forward with the batch in the lanes.

    Args:
        sizes: Sizes and dtype of the call.
        threads: Number of threads, at most.
        cpu: The CPU.
        tile: ``contract``, or the tile in its place.
        over1: Whether it contracts ``i``.
    """
    workers = division.workers(sizes, threads, cpu)
    pages = max(1, sizes.out)
    parts = min(workers, pages) if division.shares_strips(sizes, workers, pages, cpu) else 1
    strip_bytes = cpu.strip_width(sizes.itemsize) * (sizes.in1 + sizes.in2) * sizes.itemsize
    blocks = division.blocks(
        division.strips_of(sizes, cpu), workers, parts, strip_bytes=strip_bytes, cached_bytes=strip_bytes, cpu=cpu
    )
    return ForwardPlan(workers, blocks, address(transpose, sizes.dtype), address(tile, sizes.dtype), over1)


@compiled
def contracts_input1(in1: int, in2: int) -> bool:
    """True if the tile contracts ``i`` and its epilogue ``j``; False for the other way round.

    The longer axis belongs into the tile, the shorter one into the epilogue. Tiles contract ``j`` if both are much
    alike, or if the shorter one hides its epilogue: along ``j`` a tile reads rows of the weight, along ``i`` columns.
    """
    return bool(in1 > 2 * in2 and in2 < LONG)


@serial_and_parallel
def _own_strips(
    transpose: int, contract: int, over1: bool, input1: Array, input2: Array, weight: Array, bias: Array, output: Array,
    forward_tiles: Array, workers: int, blocks: int,
) -> None:  # fmt: skip
    """Each thread packs a block, computes it for all pages, and takes the next one."""
    strips, width = strips_of_batch(input1.shape[0], input1), strip_width(input1)
    most, count = (strips + blocks - 1) // blocks, min(workers, blocks)
    end1 = most * input1.shape[1] * width
    end2 = end1 + most * input2.shape[1] * width
    room = rooms(count, end2 + _results(most, len(weight), weight), weight)
    counter = shared_counter(workers)
    for worker in numba.prange(count):
        strips1, strips2, results = room[worker][:end1], room[worker][end1:end2], room[worker][end2:]
        task = np.int64(worker)
        while task < blocks:
            low, high = part_of(task, blocks, strips)
            pack_all(transpose, input1, low * width, high - low, strips1)
            pack_all(transpose, input2, low * width, high - low, strips2)
            _block(
                transpose, contract, over1, strips1, strips2, 0, high - low, weight, bias, 0, len(weight), results,
                output, low * width, forward_tiles,
            )  # fmt: skip
            task = take(counter)


@parallel
def _shared_strips(
    transpose: int, contract: int, over1: bool, input1: Array, input2: Array, weight: Array, bias: Array, output: Array,
    forward_tiles: Array, workers: int, block: int, blocks: int, parts: int,
) -> None:  # fmt: skip
    """All threads pack some blocks; then each takes part after part of the pages.

    With as many parts as threads, a task is one part with all blocks, so that its weight is read once; with fewer parts
    it is one part with one block.
    """
    strips, width = strips_of_batch(input1.shape[0], input1), strip_width(input1)
    in1, in2 = weight.shape[1:]
    end1 = block * blocks * in1 * width
    end2 = end1 + block * blocks * in2 * width
    size = _results(block, (len(weight) + parts - 1) // parts, weight)
    room = aligned(end2 + workers * size, weight)
    strips1, strips2, results = room[:end1], room[end1:end2], room[end2:].reshape(workers, size)
    for begin in range(0, strips, block * blocks):
        here = min(block * blocks, strips - begin)
        for strip in numba.prange(here):
            pack(transpose, input1, (begin + strip) * width, strips1, strip * in1 * width)
            pack(transpose, input2, (begin + strip) * width, strips2, strip * in2 * width)
        count = min(blocks, here)
        groups = 1 if parts == workers else count
        counter = shared_counter(workers)
        for worker in numba.prange(min(workers, parts * groups)):
            task = np.int64(worker)
            while task < parts * groups:
                first, last = part_of(task // groups, parts, len(weight))
                start, stop = part_of(task % groups, groups, count)
                for number in range(start, stop):
                    low, high = part_of(number, count, here)
                    _block(
                        transpose, contract, over1, strips1, strips2, low, high, weight, bias, first, last,
                        results[worker], output, (begin + low) * width, forward_tiles,
                    )  # fmt: skip
                task = take(counter)


@compiled
def _results(strips: int, pages: int, like: Array) -> int:
    """Return the numbers of a block's results, for ``strips`` strips and ``pages`` pages at most."""
    size = strips * strip_width(like)
    return min(pages * size, max(size, RESULT_BYTES // like.itemsize))


@compiled
def _block(
    transpose: int, contract: int, over1: bool, strips1: Array, strips2: Array, low: int, high: int, weight: Array,
    bias: Array, begin: int, end: int, results: Array, output: Array, first: int, forward_tiles: Array,
) -> None:  # fmt: skip
    """Compute pages ``begin`` to ``end`` of the output of strips ``low`` to ``high``, whose first row is ``first``."""
    width, strips = strip_width(weight), high - low
    most = max(1, RESULT_BYTES // (strips * width * weight.itemsize))
    for start in range(begin, end, most):
        pages = min(most, end - start)
        for strip in range(strips):
            for page in range(pages):
                spread(results, (strip * pages + page) * width, bias[start + page])
        for page in range(pages):
            _page(
                contract, over1, strips1, strips2, low, high, weight, start + page, len(output), first,
                at(results, page * width), pages * width, forward_tiles,
            )  # fmt: skip
        for strip in range(strips):
            unpack(transpose, results, strip * pages * width, output, first + strip * width, start, pages)


@compiled
def _page(
    contract: int, over1: bool, strips1: Array, strips2: Array, low: int, high: int, weight: Array, page: int,
    batch: int, first: int, results: int, results_stride: int, forward_tiles: Array,
) -> None:  # fmt: skip
    """Add the sums of one page to the results of strips ``low`` to ``high``, whose first row is ``first``."""
    in1, in2 = weight.shape[1:]
    width = strip_width(weight)
    count, rows = (in1, in2) if over1 else (in2, in1)
    stride_c, stride_r = (in2, 1) if over1 else (1, in2)
    inner, outer = (strips1, strips2) if over1 else (strips2, strips1)
    last = narrow(batch, lanes(weight)) if first + (high - low) * width >= batch else 0
    whole = high - low - last
    far = weight.size * weight.itemsize > PRIVATE_BYTES
    tiles = (rows + ROWS - 1) // ROWS
    for tile in range(tiles):
        top, bottom = part_of(tile, tiles, rows)
        root = page * in1 * in2
        # Prefetch what is read next, if the weight is in no core's cache: the rows that follow; or this tile's share of
        # the next page, for tiles of columns have cache lines in common.
        prefetch = at(weight, root + (rows + top if over1 else bottom) * count)
        above = (page * ((batch + width - 1) // width) + first // width) * rows + top
        for skip, times, vectors in ((0, whole, VECTORS), (whole, last, 1)):
            if times == 0:
                continue
            # A tile's bytes, in count / UNROLLED requests for each strip, of a cache line at most.
            step = min(LINE_BYTES, ((bottom - top) * UNROLLED * weight.itemsize + times - 1) // times) if far else 0
            stored = at(forward_tiles, (above + skip * rows) * width) if len(forward_tiles) else 0
            call(contract, Contract(
                rows=bottom - top, a=at(weight, root + top * stride_r), a_stride_c=stride_c, a_stride_r=stride_r,
                b=at(inner, (low + skip) * count * width), b_stride_c=width, count=count,
                times=times, vectors=vectors, b_stride_t=count * width,
                e=at(outer, ((low + skip) * rows + top) * width), e_stride_t=rows * width,
                out=results + skip * results_stride * weight.itemsize, out_stride_t=results_stride,
                forward_tiles=stored, forward_tiles_stride_t=rows * width, prefetch=prefetch, prefetch_step=step,
            ))  # fmt: skip

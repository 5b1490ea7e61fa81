"""The gradients of both inputs of a layer with few outputs: a tile over the outputs would be too short.

Formulas, for a strip of rows ``b`` in the lanes of vectors and one page ``o``; a pass for each gradient::

    grad_input1[b, i] += (sum_j weight[o, i, j] * input2[b, j]) * grad_output[b, o]
    grad_input2[b, j] += (sum_i weight[o, i, j] * input1[b, i]) * grad_output[b, o]

* One of the brackets is what the forward's tiles held. If these are little enough they are stored by the forward, and
  one gradient takes no pass: work 2 b i j o flop. Otherwise both take a pass: 4 b i j o.
* Written between: the inputs, grad_output and both gradients in strips ``[feature][row]``, and the forward's tiles.
* The second pass reads columns of the weight. Where they clash in the L1 cache, the weight is copied with its last two
  axes swapped (``weight_transposed``).
"""

from __future__ import annotations

import dataclasses
import math
from typing import Final

import numba
import numpy as np

from bilinear_bench.cpu import threads as division
from bilinear_bench.cpu.compiled import compiled, parallel, serial_and_parallel
from bilinear_bench.cpu.cpu import LINE_BYTES, PRIVATE_BYTES, ROWS, VECTORS, Cpu
from bilinear_bench.cpu.forward import contracts_input1
from bilinear_bench.cpu.packing import (
    Array,
    aligned,
    gradient_buffer,
    pack,
    packed,
    squares,
    strip_width,
    strips_of_batch,
    transpose_columns,
    unpack,
)
from bilinear_bench.cpu.sizes import Sizes
from bilinear_bench.cpu.small_batch import small_forward
from bilinear_bench.cpu.threads import narrow, part_of, shared_counter
from bilinear_bench.cpu.tiles.abi import address
from bilinear_bench.cpu.tiles.intrinsics import at, call, copy, lanes, take
from bilinear_bench.cpu.tiles.register_tile import UNROLLED
from bilinear_bench.cpu.tiles.scale import Scale, scale
from bilinear_bench.cpu.tiles.transpose import TransposeSum, transpose, transpose_sum

#: Outputs from which a tile over the outputs is long enough, if the forward's tiles can be stored.
FEW: Final = 8
#: Outputs from which it is long enough if they cannot.
FEWEST: Final = 3
#: Strips up to which a copy of the weight does not pay.
UNCOPIED_STRIPS: Final = 4


@dataclasses.dataclass(frozen=True)
class FewOutputsPlan:
    """How both input gradients are divided.

    Attributes:
        workers: Number of threads.
        blocks: Blocks of strips. Its parts are parts of the rows of a page, each with sums of grad_input2 of its own.
        weight_transposed: Whether the weight is copied with its last two axes swapped.
        forward_tiles: Numbers that the forward stores: all that its tiles hold, or none.
        transpose: Address of the tile of that name.
        scale: Address of the tile of that name.
        transpose_sum: Address of the tile of that name.
    """

    workers: int
    blocks: division.Blocks
    weight_transposed: bool
    forward_tiles: int
    transpose: int
    scale: int
    transpose_sum: int

    def run(
        self, input1: Array, input2: Array, weight: Array, grad_output: Array, forward_tiles: Array
    ) -> tuple[Array, Array]:
        """Return grad_input1 (b, i) and grad_input2 (b, j); ``forward_tiles`` is what the forward stored, or empty."""
        gradients = gradient_buffer(input1.shape, input1), gradient_buffer(input2.shape, input2)
        arrays = input1, input2, weight, grad_output, *gradients, forward_tiles
        tiles = self.transpose, self.scale, self.transpose_sum
        swapped = np.empty(weight.size if self.weight_transposed else 0, weight.dtype)
        if self.weight_transposed:
            _transpose_weight[self.workers > 1](self.transpose, weight, swapped)
        blocks = self.blocks
        if blocks.parts == 1:
            _own_strips[self.workers > 1](*tiles, *arrays, swapped, self.workers, blocks.count)
        else:
            _shared_strips(*tiles, *arrays, swapped, blocks.strips, blocks.count, blocks.parts)
        return gradients


def few_outputs(sizes: Sizes, cpu: Cpu) -> bool:
    """Return True if each input gradient is better computed on its own.

    Of stored tiles one is computed at once. Otherwise it takes a pass more, which pays only where a tile over the
    outputs is very short, or where a small batch would be the rows of a tile.
    """
    return sizes.out < (FEW if _tiles_bytes(sizes, cpu) <= cpu.forward_tiles_bytes else FEWEST)


def plan_few_outputs(sizes: Sizes, workers: int, cpu: Cpu) -> FewOutputsPlan:
    """Divide the strips among the threads; they share each strip only if there are not enough for all."""
    strips = division.strips_of(sizes, cpu)
    shared = strips < workers or sizes.weight_bytes > cpu.shared_bytes
    parts = min(workers, sizes.in1) if shared else 1
    row_bytes = cpu.strip_width(sizes.itemsize) * sizes.itemsize
    strip_bytes = row_bytes * (2 * sizes.in1 + (1 + parts) * sizes.in2 + sizes.out)
    blocks = division.blocks(
        strips, workers, parts, strip_bytes=strip_bytes, cached_bytes=strip_bytes, cpu=cpu
    )
    stored_bytes = _tiles_bytes(sizes, cpu)
    stores = not small_forward(sizes, cpu) and stored_bytes <= cpu.forward_tiles_bytes
    second_pass = not (stores and contracts_input1(sizes.in1, sizes.in2))
    return FewOutputsPlan(
        workers,
        blocks,
        weight_transposed=second_pass and strips > UNCOPIED_STRIPS and columns_clash(sizes, cpu),
        forward_tiles=stored_bytes // sizes.itemsize if stores else 0,
        transpose=address(transpose, sizes.dtype),
        scale=address(scale, sizes.dtype),
        transpose_sum=address(transpose_sum, sizes.dtype),
    )


def columns_clash(sizes: Sizes, cpu: Cpu) -> bool:
    """Return True if a page's columns map to too few sets of the L1 cache, and a copy of the weight has room."""
    stride = math.gcd(sizes.in2 * sizes.itemsize, cpu.l1_set_stride)
    return sizes.weight_bytes <= cpu.packed_bytes and sizes.in1 * stride > cpu.l1_safe_ways * cpu.l1_set_stride


def _tiles_bytes(sizes: Sizes, cpu: Cpu) -> int:
    """Return the bytes of what a forward's tiles hold, in whole strips."""
    features = sizes.in2 if contracts_input1(sizes.in1, sizes.in2) else sizes.in1
    rows = division.strips_of(sizes, cpu) * cpu.strip_width(sizes.itemsize)
    return sizes.out * rows * features * sizes.itemsize


@serial_and_parallel
def _transpose_weight(transpose: int, weight: Array, swapped: Array) -> None:
    """Store the weight (o, i, j) as (o, j, i)."""
    pages, in1, in2 = weight.shape
    groups = (in2 + lanes(weight) - 1) // lanes(weight)
    for task in numba.prange(pages * groups):
        transpose_columns(transpose, weight, task // groups, task % groups * lanes(weight), swapped, 0, in1)


@serial_and_parallel
def _own_strips(
    transpose: int, scale: int, transpose_sum: int, input1: Array, input2: Array, weight: Array, grad_output: Array,
    grad_input1: Array, grad_input2: Array, forward_tiles: Array, swapped: Array, workers: int, blocks: int,
) -> None:  # fmt: skip
    """Each thread packs a block, adds up its gradients, stores them, and takes the next one."""
    strips, width = strips_of_batch(input1.shape[0], input1), strip_width(input1)
    pages, in1, in2 = weight.shape
    whole = strips - narrow(input1.shape[0], lanes(input1))
    pass1, pass2 = passes(in1, in2, forward_tiles)
    far = (input1.size + input2.size) * input1.itemsize > PRIVATE_BYTES
    counter = shared_counter(workers)
    for worker in numba.prange(min(workers, blocks)):
        task = np.int64(worker)
        while task < blocks:
            low, high = part_of(task, blocks, strips)
            first, here = low * width, high - low
            strips1 = packed(transpose, input1, first, here if pass2 else 0)
            strips2 = packed(transpose, input2, first, here if pass1 else 0)
            factors = packed(transpose, grad_output, first, here)
            sums1 = aligned(here * in1 * width if pass1 else 0, input1)
            sums2 = aligned(here * in2 * width if pass2 else 0, input1)
            sums1[:], sums2[:] = 0, 0
            results1, results2 = at(grad_input1, first * in1) if far else 0, at(grad_input2, first * in2) if far else 0
            _block(
                swapped, scale, pass1, pass2, results1, results2, strips1, strips2, factors, 0, here, whole - low,
                weight, 0, in1, sums1, sums2,
            )  # fmt: skip
            for strip in range(here):
                row = first + strip * width
                if pass1:
                    unpack(transpose, sums1, strip * in1 * width, grad_input1, row, 0, in1)
                if pass2:
                    unpack(transpose, sums2, strip * in2 * width, grad_input2, row, 0, in2)
                if len(forward_tiles):
                    result, begin = grad_input1 if pass2 else grad_input2, strip * pages * width
                    _unpack_tiles(transpose_sum, forward_tiles, low + strip, strips, factors, begin, result)
            task = take(counter)


@parallel
def _shared_strips(
    transpose: int, scale: int, transpose_sum: int, input1: Array, input2: Array, weight: Array, grad_output: Array,
    grad_input1: Array, grad_input2: Array, forward_tiles: Array, swapped: Array, block: int, blocks: int, parts: int,
) -> None:  # fmt: skip
    """All threads pack some blocks; then each adds up its rows of every page. It has sums of grad_input2 of its own."""
    strips, width = strips_of_batch(input1.shape[0], input1), strip_width(input1)
    pages, in1, in2 = weight.shape
    whole, room = strips - narrow(input1.shape[0], lanes(input1)), block * blocks
    pass1, pass2 = passes(in1, in2, forward_tiles)
    strips1, strips2 = aligned(room * in1 * width, input1), aligned(room * in2 * width, input1)
    factors = aligned(room * pages * width, input1)
    sums1 = aligned(room * in1 * width, input1)
    sums2 = aligned(parts * room * in2 * width, input1).reshape(parts, room * in2 * width)
    for begin in range(0, strips, room):
        here = min(room, strips - begin)
        for strip in numba.prange(here):
            first = (begin + strip) * width
            pack(transpose, grad_output, first, factors, strip * pages * width)
            if pass1:
                pack(transpose, input2, first, strips2, strip * in2 * width)
                sums1[strip * in1 * width : (strip + 1) * in1 * width] = 0
            if pass2:
                pack(transpose, input1, first, strips1, strip * in1 * width)
                sums2[:, strip * in2 * width : (strip + 1) * in2 * width] = 0
        count = min(blocks, here)
        for task in numba.prange(count * parts):
            # A thread's tasks follow each other: it meets its part of the weight with block after block.
            low, high = part_of(task % count, count, here)
            top, bottom = part_of(task // count, parts, in1)
            _block(
                swapped, scale, pass1, pass2, 0, 0, strips1, strips2, factors, low, high, whole - begin, weight, top,
                bottom, sums1, sums2[task // count],
            )  # fmt: skip
        for strip in numba.prange(here):
            row = (begin + strip) * width
            if pass1:
                unpack(transpose, sums1, strip * in1 * width, grad_input1, row, 0, in1)
            if pass2:
                mine = sums2[0, strip * in2 * width : (strip + 1) * in2 * width]
                for part in range(1, parts):
                    mine += sums2[part, strip * in2 * width : (strip + 1) * in2 * width]
                unpack(transpose, mine, 0, grad_input2, row, 0, in2)
            if len(forward_tiles):
                result, start = grad_input1 if pass2 else grad_input2, strip * pages * width
                _unpack_tiles(transpose_sum, forward_tiles, begin + strip, strips, factors, start, result)


@compiled
def passes(in1: int, in2: int, forward_tiles: Array) -> tuple[bool, bool]:
    """Return which of both gradients take a pass: those that the forward's tiles do not hold."""
    over1 = contracts_input1(in1, in2)
    return not len(forward_tiles) or over1, not len(forward_tiles) or not over1


@compiled
def _block(
    swapped: Array, scale: int, pass1: bool, pass2: bool, results1: int, results2: int, strips1: Array, strips2: Array,
    factors: Array, low: int, high: int, whole: int, weight: Array, begin: int, end: int, sums1: Array, sums2: Array,
) -> None:  # fmt: skip
    """Add the gradients of strips ``low`` to ``high`` from rows ``begin`` to ``end`` of every page to the sums.

    Strips from number ``whole`` on have one vector. ``results1`` and ``results2`` are the addresses where the gradients
    will be stored, or 0: the last pass prefetches that memory.
    """
    pages, in1, in2 = weight.shape
    width = strip_width(weight)
    stride_c, stride_r = (1, in1) if len(swapped) else (in2, 1)
    for strip, last, vectors in ((low, min(high, whole), VECTORS), (max(low, whole), high, 1)):
        times = last - strip
        size1, size2 = times * width * in1 * weight.itemsize, times * width * in2 * weight.itemsize
        upcoming1 = results1 + (strip - low) * width * in1 * weight.itemsize
        upcoming2 = results2 + (strip - low) * width * in2 * weight.itemsize
        for page in range(pages if times > 0 else 0):
            start = page * in1 * in2
            factor = at(factors, (strip * pages + page) * width)
            prefetching = results1 > 0 and page == pages - 1
            if pass1:
                tiles = (end - begin + ROWS - 1) // ROWS
                step = prefetch_step((size1 + size2) // tiles, times * in2) if prefetching and not pass2 else 0
                for tile in range(tiles):
                    top = begin + tile * ROWS
                    out = at(sums1, (strip * in1 + top) * width)
                    share = share_of_prefetch(tile, tiles, upcoming1, size1, upcoming2, size2) if step else out
                    call(scale, Scale(
                        rows=min(ROWS, end - top), a=at(weight, start + top * in2), a_stride_c=1, a_stride_r=in2,
                        b=at(strips2, strip * in2 * width), b_stride_c=width, count=in2,
                        times=times, vectors=vectors, b_stride_t=in2 * width, factor=factor,
                        factor_stride_t=pages * width, out=out, out_stride_t=in1 * width,
                        prefetch=share, prefetch_step=step,
                    ))  # fmt: skip
            if pass2:
                tiles = (in2 + ROWS - 1) // ROWS
                step = prefetch_step((size1 + size2) // tiles, times * (end - begin)) if prefetching else 0
                for tile in range(tiles):
                    left = tile * ROWS
                    out = at(sums2, (strip * in2 + left) * width)
                    source = at(weight, start + begin * in2 + left)
                    if len(swapped):
                        source = at(swapped, (page * in2 + left) * in1 + begin)
                    share = share_of_prefetch(tile, tiles, upcoming1, size1, upcoming2, size2) if step else out
                    call(scale, Scale(
                        rows=min(ROWS, in2 - left), a=source, a_stride_c=stride_c,
                        a_stride_r=stride_r, b=at(strips1, (strip * in1 + begin) * width), b_stride_c=width,
                        count=end - begin, times=times, vectors=vectors, b_stride_t=in1 * width, factor=factor,
                        factor_stride_t=pages * width, out=out, out_stride_t=in2 * width,
                        prefetch=share, prefetch_step=step,
                    ))  # fmt: skip


@compiled
def prefetch_step(size: int, steps: int) -> int:
    """Return the bytes from one prefetch to the next, at most a line, for ``size`` bytes in ``steps`` steps of a tile."""
    return min(LINE_BYTES, (size * UNROLLED + steps - 1) // steps)


@compiled
def share_of_prefetch(tile: int, tiles: int, begin1: int, size1: int, begin2: int, size2: int) -> int:
    """Return where a tile's share of two pieces of memory begins; the second is taken to follow the first."""
    offset = tile * ((size1 + size2) // tiles)
    return begin1 + offset if offset < size1 else begin2 + offset - size1


@compiled
def _unpack_tiles(
    transpose_sum: int, forward_tiles: Array, strip: int, strips: int, factors: Array, begin: int, target: Array
) -> None:
    """Store a strip of the forward's tiles, times grad_output and summed over pages, into target (b, f).

    ``forward_tiles`` is (o, strips, f, rows), and ``factors`` from ``begin`` on is this strip's (o, rows).
    """
    batch, features = target.shape
    width, side = strip_width(target), lanes(target)
    page_size = strips * features * width
    pages = forward_tiles.size // page_size
    zero = target.dtype.type(0)
    for v in range(VECTORS):
        row, start, by = strip * width + v * side, strip * features * width + v * side, begin + v * side
        here = min(side, batch - row)
        full = squares(features, side) if here > 0 else 0
        # Where the batch ends within a vector, its last rows go to a buffer first.
        buffer = np.empty(side * side if full > 0 and here < side else 0, target.dtype)
        for square in range(full):
            f = min(square * side, features - side)
            into = row * features + f
            out, stride = (at(buffer, 0), side) if len(buffer) else (at(target, into), features)
            call(transpose_sum, TransposeSum(
                count=pages, source=at(forward_tiles, start + f * width), source_stride_c=page_size,
                source_stride_r=width, factor=at(factors, by), factor_stride_c=width, target=out,
                target_stride_r=stride,
            ))  # fmt: skip
            for r in range(here if len(buffer) else 0):
                copy(at(target, into + r * features), at(buffer, r * side), side * target.itemsize)
        for f in range(0 if full else features):
            for r in range(here):
                total = zero
                for page in range(pages):
                    total += forward_tiles[page * page_size + start + f * width + r] * factors[by + page * width + r]
                target[row + r, f] = total

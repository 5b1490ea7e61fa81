"""The gradients of both inputs of a layer with few outputs: a tile over the outputs would be too short.

Formulas, for a strip of rows ``b`` in the lanes of vectors and one page ``o``; a pass for each gradient::

    grad_input1[b, i] += (sum_j weight[o, i, j] * input2[b, j]) * grad_output[b, o]
    grad_input2[b, j] += (sum_i weight[o, i, j] * input1[b, i]) * grad_output[b, o]

* One of the brackets is what the forward's tiles held. If these are little enough they are stored by the forward, and
  one gradient takes no pass: work 2 b i j o flop. Otherwise both take a pass: 4 b i j o.
* Written between: the inputs, grad_output and both gradients in strips ``[feature][row]``, and the forward's tiles.
* The second pass reads columns of the weight. Where they clash in the L1 cache, the weight is copied with its last two
  axes swapped (``weight_transposed``).

Length: plan and kernel of one formula are read together.
"""

from __future__ import annotations

import dataclasses
from typing import Final

import numba
import numpy as np

from bilinear_bench.cpu import threads as division
from bilinear_bench.cpu.cache_sets import columns_clash
from bilinear_bench.cpu.compiled import compiled, parallel, serial_and_parallel
from bilinear_bench.cpu.cpu import PRIVATE_BYTES, Cpu
from bilinear_bench.cpu.forward import contracts_input1
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
    transpose_columns,
    unpack,
)
from bilinear_bench.cpu.passes import add_passes, unpack_tiles
from bilinear_bench.cpu.sizes import Sizes
from bilinear_bench.cpu.small_batch import small_forward
from bilinear_bench.cpu.threads import narrow, part_of, shared_counter
from bilinear_bench.cpu.tiles.abi import address
from bilinear_bench.cpu.tiles.intrinsics import at, lanes, take
from bilinear_bench.cpu.tiles.scale import scale
from bilinear_bench.cpu.tiles.transpose import transpose, transpose_sum

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
        self,
        input1: Array,
        input2: Array,
        weight: Array,
        grad_output: Array,
        forward_tiles: Array,
        gradients: tuple[Array, Array] | None = None,
    ) -> tuple[Array, Array]:
        """Return grad_input1 (b, i) and grad_input2 (b, j).

        ``forward_tiles`` is what the forward stored, or empty; ``gradients`` is memory for the results, or None.
        """
        if gradients is None:
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


def few_outputs(sizes: Sizes, cpu: Cpu, *, stores: bool = True) -> bool:
    """True if each input gradient is better computed on its own.

    The stored tiles of a forward give one of the two at once. Without them, as where ``stores`` is False, it takes a
    pass more. That pays only where a tile over the outputs is very short. ``small_gradients`` decides for a small
    batch, whose tiles are not stored.
    """
    return sizes.out < (FEW if stores and _tiles_bytes(sizes, cpu) <= cpu.forward_tiles_bytes else FEWEST)


def plan_few_outputs(sizes: Sizes, workers: int, cpu: Cpu) -> FewOutputsPlan:
    """Divide the strips among the threads; they share each strip only if there are not enough for all."""
    strips = division.strips_of(sizes, cpu)
    shared = strips < workers or sizes.weight_bytes > cpu.shared_bytes
    parts = min(workers, sizes.in1) if shared else 1
    row_bytes = cpu.strip_width(sizes.itemsize) * sizes.itemsize
    strip_bytes = row_bytes * (2 * sizes.in1 + (1 + parts) * sizes.in2 + sizes.out)
    blocks = division.blocks(strips, workers, parts, strip_bytes=strip_bytes, cached_bytes=strip_bytes, cpu=cpu)
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
    """Each thread packs a block, adds up its gradients, stores them, and takes the next one.

    Length: Numba compiles the parallel loop together with the room for its workers.
    """
    strips, width = strips_of_batch(input1.shape[0], input1), strip_width(input1)
    pages, in1, in2 = weight.shape
    whole = strips - narrow(input1.shape[0], lanes(input1))
    pass1, pass2 = passes(in1, in2, forward_tiles)
    far = (input1.size + input2.size) * input1.itemsize > PRIVATE_BYTES
    most, count = (strips + blocks - 1) // blocks * width, min(workers, blocks)
    size1, size2, end = most * in1, most * in2, most * (2 * in1 + 2 * in2 + pages)
    room, square = rooms(count, end, input1), np.empty(lanes(input1) ** 2, input1.dtype)
    counter = shared_counter(workers)
    for worker in numba.prange(count):
        mine = room[worker]
        strips1, sums1 = mine[:size1], mine[size1 : 2 * size1]
        strips2, sums2 = mine[2 * size1 : 2 * size1 + size2], mine[2 * size1 + size2 : 2 * (size1 + size2)]
        factors = mine[2 * (size1 + size2) : end]
        task = np.int64(worker)
        while task < blocks:
            low, high = part_of(task, blocks, strips)
            first, here = low * width, high - low
            pack_all(transpose, input1, first, here if pass2 else 0, strips1)
            pack_all(transpose, input2, first, here if pass1 else 0, strips2)
            pack_all(transpose, grad_output, first, here, factors)
            sums1[: size1 * pass1], sums2[: size2 * pass2] = 0, 0
            results1, results2 = at(grad_input1, first * in1) if far else 0, at(grad_input2, first * in2) if far else 0
            add_passes(
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
                    unpack_tiles(transpose_sum, forward_tiles, low + strip, strips, factors, begin, square, result)
            task = take(counter)


@parallel
def _shared_strips(
    transpose: int, scale: int, transpose_sum: int, input1: Array, input2: Array, weight: Array, grad_output: Array,
    grad_input1: Array, grad_input2: Array, forward_tiles: Array, swapped: Array, block: int, blocks: int, parts: int,
) -> None:  # fmt: skip
    """All threads pack some blocks; then each adds up its rows of every page. It has sums of grad_input2 of its own.

    Length: Numba compiles the parallel loops of one function together.
    """
    strips, width = strips_of_batch(input1.shape[0], input1), strip_width(input1)
    pages, in1, in2 = weight.shape
    whole, room = strips - narrow(input1.shape[0], lanes(input1)), block * blocks
    pass1, pass2 = passes(in1, in2, forward_tiles)
    size1, size2, size3 = room * in1 * width, room * in2 * width, room * pages * width
    end = 2 * size1 + (1 + parts) * size2 + size3
    memory = aligned(end, input1)
    strips1, sums1 = memory[:size1], memory[size1 : 2 * size1]
    strips2 = memory[2 * size1 : 2 * size1 + size2]
    sums2 = memory[2 * size1 + size2 : end - size3].reshape(parts, size2)
    factors = memory[end - size3 : end]
    square = np.empty(lanes(input1) ** 2, input1.dtype)
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
            add_passes(
                swapped, scale, pass1, pass2, 0, 0, strips1, strips2, factors, low, high, whole - begin, weight, top,
                bottom, sums1, sums2[task // count],
            )  # fmt: skip
        for strip in numba.prange(here):
            row = (begin + strip) * width
            if pass1:
                unpack(transpose, sums1, strip * in1 * width, grad_input1, row, 0, in1)
            if pass2:
                add_parts(sums2, strip * in2 * width, (strip + 1) * in2 * width)
                unpack(transpose, sums2[0], strip * in2 * width, grad_input2, row, 0, in2)
            if len(forward_tiles):
                result, start = grad_input1 if pass2 else grad_input2, strip * pages * width
                unpack_tiles(transpose_sum, forward_tiles, begin + strip, strips, factors, start, square, result)


@compiled
def passes(in1: int, in2: int, forward_tiles: Array) -> tuple[bool, bool]:
    """Return which of both gradients take a pass: those that the forward's tiles do not hold."""
    over1 = contracts_input1(in1, in2)
    return not len(forward_tiles) or over1, not len(forward_tiles) or not over1

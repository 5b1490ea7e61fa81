"""float16 and bfloat16: read as float32, computed by the kernels for float32, rounded once.

A number is 16 bits here, in arrays of uint16, for NumPy has no bfloat16 and Numba no arithmetic of float16 on a CPU.

* The inputs are widened once a call. Sums are float32; a result is rounded when it is complete.
* A small batch reads the weight as it is stored: its tiles widen each vector that they load.
* For a larger batch a piece of the weight is widened into memory that stays in the caches, and meets all rows there.
* Where the CPU multiplies pairs of bfloat16 (AVX-512 with BF16), two neighbours in ``j`` are a pair for the output: the
  kernel takes them as float32 with half of the ``j``, as they are stored. For the gradients of the inputs two pages are
  paired, a piece at a time. Products of pairs are exact, their sums are float32.
* Pieces are pages for the output and grad_weight. They are rows ``i`` of all pages for the gradients of the inputs,
  whose tiles contract the pages.

Axes: ``b`` batch, ``i`` in1_features, ``j`` in2_features, ``o`` out_features (pages of the weight).
"""

from __future__ import annotations

import functools
from typing import Any, Final

import numpy as np

from bilinear_bench.cpu import forward, grad_inputs, grad_weight
from bilinear_bench.cpu import threads as division
from bilinear_bench.cpu.cpu import HOST, Cpu
from bilinear_bench.cpu.few_outputs import few_outputs
from bilinear_bench.cpu.half_pieces import LEAST_ROWS, PIECE_BYTES, Bits, HalfPlan
from bilinear_bench.cpu.packing import Array
from bilinear_bench.cpu.sizes import Sizes
from bilinear_bench.cpu.small_batch import plan_small_forward, plan_small_gradients, small_forward, small_gradients
from bilinear_bench.cpu.tiles.both_gradients import both_gradients_pairs
from bilinear_bench.cpu.tiles.contract import contract_pairs
from bilinear_bench.cpu.workspace import workspace_bytes

#: In place of a forward's tiles.
_NO_TILES: Final = np.empty(0, np.float32)

_forward_plan = functools.lru_cache(1024)(forward.plan)
_grad_inputs_plan = functools.lru_cache(1024)(grad_inputs.plan)
_grad_weight_plan = functools.lru_cache(1024)(grad_weight.plan)


@functools.lru_cache(1024)
def _pairs_plan(sizes: Sizes, threads: int, cpu: Cpu) -> forward.ForwardPlan:
    """Divide a forward whose ``j`` are pairs."""
    return forward.plan_strips(sizes, threads, cpu, contract_pairs, over1=False)


@functools.lru_cache(1024)
def _gradient_pairs_plan(sizes: Sizes, threads: int, cpu: Cpu) -> grad_inputs.GradInputsPlan:
    """Divide the gradients of both inputs; the outputs of ``sizes`` are pairs of pages."""
    return grad_inputs.plan_strips(sizes, division.workers(sizes, threads, cpu), cpu, both_gradients_pairs)


class HalfForwardPlan(HalfPlan):
    """A forward: in one piece for a small batch, or by pairs; else piece by piece."""

    def run(
        self,
        input1: Bits,
        input2: Bits,
        weight: Bits,
        bias: Bits,
        forward_tiles: Bits | None = None,
        output: Bits | None = None,
    ) -> Bits:
        """Return output (b, o) of input1 (b, i), input2 (b, j), weight (o, i, j), bias (o,); as ``ForwardPlan.run``."""
        if output is None:
            output = np.empty((len(input1), len(weight)), np.uint16)
        tiles = _NO_TILES if forward_tiles is None else forward_tiles.view(np.float32)
        wide1, addend = self.wide(input1), self.wide(bias[None])[0]
        if small_forward(self.wide_sizes, self.cpu):
            plan: Any = plan_small_forward(self.wide_sizes, self.workers, self.sizes.dtype)
            result = plan.run(wide1, self.wide(input2), weight, addend)
        elif self._by_pairs(len(tiles) > 0):
            halved = self.wide_sizes._replace(in2=self.sizes.in2 // 2)
            plan = _pairs_plan(halved, self.threads, self.cpu)
            result = plan.run(wide1, input2.view(np.float32), weight.view(np.float32), addend, tiles)
        else:
            self._piece_by_piece(wide1, self.wide(input2), weight, addend, tiles, output)
            return output
        self.round_into(output, result, 0)
        return output

    def _by_pairs(self, stores: bool) -> bool:
        """True if pairs of ``j`` are multiplied; stored tiles must hold what the gradients in float32 read."""
        possible = self.multiplies_pairs and self.sizes.in2 % 2 == 0
        return possible and not (stores and forward.contracts_input1(self.sizes.in1, self.sizes.in2))

    def _piece_by_piece(
        self, wide1: Array, wide2: Array, weight: Bits, addend: Array, tiles: Array, output: Bits
    ) -> None:
        """Write the output; tiles are stored only if there is one piece."""
        divided = list(self.of_page_pieces())
        memory = self.memory(divided)
        total = addend
        for pages, rows in divided:
            piece = self.wide_weight(weight, pages, rows, memory)
            first = rows.start == 0
            addends = addend[pages] if first else np.zeros_like(addend[pages])
            plan = _forward_plan(self.piece_sizes(pages, rows), self.threads, self.cpu)
            part = plan.run(_columns(wide1, rows), wide2, piece, addends, tiles)
            total = part if first else _added(total, part)
            if rows.stop == self.sizes.in1:
                self.round_into(output, total, pages.start)
        if not divided:  # there is nothing to sum up
            self.round_into(output, np.tile(addend, (len(output), 1)), 0)


class HalfGradInputsPlan(HalfPlan):
    """The gradients of both inputs: in one piece for a small batch, else piece by piece."""

    @functools.cached_property
    def forward_tiles(self) -> int:
        """Return the numbers of 16 bits that the forward stores: its float32 tiles if there is one piece, or none."""
        if not self.is_one_piece:
            return 0
        return 2 * _grad_inputs_plan(self.wide_sizes, self.threads, self.cpu, True).forward_tiles

    def run(
        self,
        input1: Bits,
        input2: Bits,
        weight: Bits,
        grad_output: Bits,
        forward_tiles: Bits,
        gradients: tuple[Bits, Bits] | None = None,
    ) -> tuple[Bits, Bits]:
        """Return grad_input1 (b, i) and grad_input2 (b, j).

        ``forward_tiles`` is what the forward stored, or empty; ``gradients`` is memory for the results, or None.
        """
        if gradients is None:
            gradients = np.empty(input1.shape, np.uint16), np.empty(input2.shape, np.uint16)
        wide1, wide2, sizes = self.wide(input1), self.wide(input2), self.wide_sizes
        few = few_outputs(sizes, self.cpu, stores=self.is_one_piece)
        if small_gradients(sizes, self.cpu, few_outputs=few):
            plan: Any = plan_small_gradients(sizes, self.workers, self.sizes.dtype)
            grad_input1, grad_input2 = plan.run(wide1, wide2, weight, self.wide(grad_output), _NO_TILES)
            self.round_into(gradients[0], grad_input1, 0)
        else:
            pairs = self.multiplies_pairs and not few
            given = wide1, wide2, weight, grad_output
            grad_input2 = self._piece_by_piece(*given, forward_tiles.view(np.float32), gradients[0], pairs)
        self.round_into(gradients[1], grad_input2, 0)
        return gradients

    def _piece_by_piece(
        self, wide1: Array, wide2: Array, weight: Bits, grad_output: Bits, tiles: Array, grad_input1: Bits, pairs: bool
    ) -> Array:
        """Write grad_input1 (b, i); return grad_input2 (b, j) as float32."""
        divided = list(self.of_row_pieces())
        memory = self.memory(divided, pairs=pairs)
        gradient = _even(grad_output).view(np.float32) if pairs else self.wide(grad_output)
        total = np.zeros(wide2.shape, np.float32)
        for pages, rows in divided:
            sizes = self.piece_sizes(pages, rows)
            if pairs:
                sizes = sizes._replace(out=gradient.shape[1])
                piece = self.paired_weight(weight, rows, memory)
                plan: Any = _gradient_pairs_plan(sizes, self.threads, self.cpu)
            else:
                piece = self.wide_weight(weight, pages, rows, memory)
                plan = _grad_inputs_plan(sizes, self.threads, self.cpu, self.is_one_piece)
            part1, part2 = plan.run(_columns(wide1, rows), wide2, piece, gradient, tiles)
            self.round_into(grad_input1, part1, rows.start)
            _added(total, part2)
        return total


class HalfGradWeightPlan(HalfPlan):
    """The gradient of the weight, piece by piece."""

    def run(self, input1: Bits, input2: Bits, grad_output: Bits, grad_weight: Bits | None = None) -> Bits:
        """Return grad_weight (o, i, j); the last argument is memory for it, or None."""
        out, in1, in2 = self.sizes.out, self.sizes.in1, self.sizes.in2
        if grad_weight is None:
            grad_weight = np.empty((out, in1, in2), np.uint16)
        wide1, wide2, gradient = self.wide(input1), self.wide(input2), self.wide(grad_output)
        divided = list(self.of_page_pieces())
        memory = self.memory(divided)
        for pages, rows in divided:
            sizes = self.piece_sizes(pages, rows)
            piece = memory[: sizes.out * sizes.in1 * in2].reshape(sizes.out, sizes.in1, in2)
            plan = _grad_weight_plan(sizes, self.threads, self.cpu)
            plan.run(_columns(wide1, rows), wide2, _columns(gradient, pages), piece)
            target = grad_weight.reshape(out, in1 * in2)[pages]
            self.round_into(target, piece.reshape(sizes.out, sizes.in1 * in2), rows.start * in2)
        return grad_weight


def call_bytes(sizes: Sizes, threads: int, cpu: Cpu = HOST) -> int:
    """Return an upper figure for the bytes of a call on top of inputs, parameters and results.

    These are all operands but the weight as float32, sums of the gradients, a piece, and what the kernels take for it.
    """
    rows = sizes.batch * (2 * sizes.in1 + 3 * sizes.in2 + 2 * sizes.out)
    piece = max(PIECE_BYTES, 4 * LEAST_ROWS * sizes.in2 * sizes.out)
    return 4 * rows + piece + workspace_bytes(sizes._replace(dtype="float32"), threads, cpu)


def _added(total: Array, part: Array) -> Array:
    """Add to total, and return it; NumPy would warn of infinities."""
    with np.errstate(over="ignore", invalid="ignore"):
        total += part
    return total


def _columns(values: Array, columns: slice) -> Array:
    """Return some columns of values (b, n), contiguous."""
    return np.ascontiguousarray(values[:, columns])


def _even(values: Bits) -> Bits:
    """Return values (b, n) with a column of zeros more if n is odd."""
    return np.pad(values, ((0, 0), (0, 1))) if values.shape[1] % 2 else values

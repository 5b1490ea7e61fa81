"""float16 and bfloat16: read as float32 a piece at a time, computed by the kernels for float32, rounded once.

A number is 16 bits here, in arrays of uint16, for NumPy has no bfloat16 and Numba no arithmetic of float16 on a CPU.

* A piece of the weight is widened into memory that stays in the caches, and meets the whole batch there.
* The inputs are widened once a call. Sums over pieces are float32; a result is rounded when it is complete.
* Pieces are pages for the output and grad_weight. They are rows ``i`` of all pages for the gradients of the inputs,
  whose tiles contract the pages.

Axes: ``b`` batch, ``i`` in1_features, ``j`` in2_features, ``o`` out_features (pages of the weight).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any, ClassVar, Final

import numba
import numpy as np
import numpy.typing as npt

from bilinear_bench.cpu import forward, grad_inputs, grad_weight
from bilinear_bench.cpu import threads as division
from bilinear_bench.cpu.compiled import compiled, serial_and_parallel
from bilinear_bench.cpu.cpu import HOST, MIB, Cpu
from bilinear_bench.cpu.packing import Array
from bilinear_bench.cpu.sizes import Sizes
from bilinear_bench.cpu.tiles.half_types import bfloat16_of, float16_of, from_bfloat16, from_float16
from bilinear_bench.cpu.workspace import workspace_bytes
from bilinear_bench.order import pieces

Bits = npt.NDArray[np.uint16]

#: Bytes of a piece of the weight as float32: it stays in the caches, and is much work for each call of a kernel.
PIECE_BYTES: Final = 2 * MIB
#: Rows ``i`` of all pages that a piece has at least: as many as a tile of the input gradients.
LEAST_ROWS: Final = 3
#: Numbers that a thread converts at a time.
CHUNK: Final = 16384
_NO_TILES: Final = np.empty(0, np.float32)
_forward_plan = functools.lru_cache(1024)(forward.plan)
_grad_inputs_plan = functools.lru_cache(1024)(grad_inputs.plan)
_grad_weight_plan = functools.lru_cache(1024)(grad_weight.plan)


@dataclasses.dataclass(frozen=True)
class _HalfPlan:
    """What the three plans share.

    Attributes:
        sizes: Sizes of the call, with a half type.
        threads: Number of threads, at least 1.
        workers: Number of threads that convert.
        cpu: The CPU.
    """

    sizes: Sizes
    threads: int
    workers: int
    cpu: Cpu
    forward_tiles: ClassVar[int] = 0

    def _pages(self) -> Iterator[tuple[slice, slice]]:
        """Yield pages and rows of a page, piece by piece; a page has several pieces only if it is larger than one."""
        row = max(1, 4 * self.sizes.in2)
        for pages in pieces(self.sizes.out, PIECE_BYTES // (row * max(1, self.sizes.in1))):
            for rows in pieces(self.sizes.in1, max(LEAST_ROWS, PIECE_BYTES // (row * (pages.stop - pages.start)))):
                yield pages, rows

    def _of_piece(self, pages: slice, rows: slice) -> Sizes:
        batch, _, in2, _, _ = self.sizes
        return Sizes(batch, rows.stop - rows.start, in2, pages.stop - pages.start, "float32")

    def _wide(self, source: Bits) -> Array:
        """Return an array (m, n) as float32."""
        wide = np.empty(source.shape, np.float32)
        self._widen(source, 0, wide)
        return wide

    def _widen(self, source: Bits, begin: int, wide: Array) -> None:
        """Write the columns of source (m, n) from ``begin`` on into wide (m, n')."""
        _widen[self.workers > 1](self.sizes.dtype == "float16", source, begin, wide)

    def _round(self, wide: Array, target: Bits, begin: int = 0) -> None:
        """Round wide (m, n') into the columns of target (m, n) from ``begin`` on."""
        _round[self.workers > 1](self.sizes.dtype == "float16", wide, target, begin)

    def _weight(self, weight: Bits, pages: slice, rows: slice) -> Array:
        """Return a piece of the weight (o, i, j) as float32 (o', i', j)."""
        in2 = self.sizes.in2
        count = pages.stop - pages.start, rows.stop - rows.start
        piece = np.empty((count[0], count[1] * in2), np.float32)
        self._widen(weight.reshape(len(weight), -1)[pages], rows.start * in2, piece)
        return piece.reshape(*count, in2)


class HalfForwardPlan(_HalfPlan):
    """A forward, piece by piece."""

    def run(
        self,
        input1: Bits,
        input2: Bits,
        weight: Bits,
        bias: Bits,
        forward_tiles: Any = None,
        output: Bits | None = None,
    ) -> Bits:
        """Return output (b, o) of input1 (b, i), input2 (b, j), weight (o, i, j) and bias (o,).

        ``output`` is memory for it, or None. No forward tiles are stored.
        """
        if output is None:
            output = np.empty((len(input1), len(weight)), np.uint16)
        wide1, wide2, addend = self._wide(input1), self._wide(input2), self._wide(bias[None])[0]
        total = addend
        for pages, rows in self._pages():
            plan = _forward_plan(self._of_piece(pages, rows), self.threads, self.cpu)
            first = rows.start == 0
            part = plan.run(
                np.ascontiguousarray(wide1[:, rows]), wide2, self._weight(weight, pages, rows),
                addend[pages] if first else np.zeros_like(addend[pages]),
            )  # fmt: skip
            total = part if first else total + part
            if rows.stop == self.sizes.in1:
                self._round(total, output, pages.start)
        return output


class HalfGradInputsPlan(_HalfPlan):
    """The gradients of both inputs, piece by piece."""

    def run(
        self,
        input1: Bits,
        input2: Bits,
        weight: Bits,
        grad_output: Bits,
        forward_tiles: Any = None,
        gradients: tuple[Bits, Bits] | None = None,
    ) -> tuple[Bits, Bits]:
        """Return grad_input1 (b, i) and grad_input2 (b, j); ``gradients`` is memory for them, or None."""
        if gradients is None:
            gradients = np.empty(input1.shape, np.uint16), np.empty(input2.shape, np.uint16)
        wide1, wide2, gradient = self._wide(input1), self._wide(input2), self._wide(grad_output)
        total2 = np.zeros(input2.shape, np.float32)
        every_page = slice(0, self.sizes.out)
        row_bytes = max(1, 4 * self.sizes.in2 * self.sizes.out)
        for rows in pieces(self.sizes.in1, max(LEAST_ROWS, PIECE_BYTES // row_bytes)):
            plan = _grad_inputs_plan(self._of_piece(every_page, rows), self.threads, self.cpu)
            part1, part2 = plan.run(
                np.ascontiguousarray(wide1[:, rows]), wide2, self._weight(weight, every_page, rows), gradient, _NO_TILES
            )
            self._round(part1, gradients[0], rows.start)
            total2 += part2
        self._round(total2, gradients[1])
        return gradients


class HalfGradWeightPlan(_HalfPlan):
    """The gradient of the weight, piece by piece."""

    def run(self, input1: Bits, input2: Bits, grad_output: Bits, gradient: Bits | None = None) -> Bits:
        """Return grad_weight (o, i, j); the last argument is memory for it, or None."""
        out, in1, in2 = self.sizes.out, self.sizes.in1, self.sizes.in2
        if gradient is None:
            gradient = np.empty((out, in1, in2), np.uint16)
        wide1, wide2, grad = self._wide(input1), self._wide(input2), self._wide(grad_output)
        for pages, rows in self._pages():
            plan = _grad_weight_plan(self._of_piece(pages, rows), self.threads, self.cpu)
            part = plan.run(
                np.ascontiguousarray(wide1[:, rows]), wide2, np.ascontiguousarray(grad[:, pages])
            )
            self._round(part.reshape(len(part), -1), gradient.reshape(out, -1)[pages], rows.start * in2)
        return gradient


def plan_forward(sizes: Sizes, threads: int, cpu: Cpu = HOST) -> HalfForwardPlan:
    """Divide a forward among at most ``threads`` threads."""
    return HalfForwardPlan(sizes, threads, division.workers(sizes, threads, cpu), cpu)


def plan_grad_inputs(sizes: Sizes, threads: int, cpu: Cpu = HOST) -> HalfGradInputsPlan:
    """Divide both input gradients among at most ``threads`` threads."""
    return HalfGradInputsPlan(sizes, threads, division.workers(sizes, threads, cpu), cpu)


def plan_grad_weight(sizes: Sizes, threads: int, cpu: Cpu = HOST) -> HalfGradWeightPlan:
    """Divide the gradient of the weight among at most ``threads`` threads."""
    return HalfGradWeightPlan(sizes, threads, division.workers(sizes, threads, cpu), cpu)


def call_bytes(sizes: Sizes, threads: int, cpu: Cpu = HOST) -> int:
    """Return an upper figure for the bytes of a call on top of inputs, parameters and results.

    These are all operands but the weight as float32, sums of the gradients, a piece, and what the kernels take for it.
    """
    rows = sizes.batch * (2 * sizes.in1 + 3 * sizes.in2 + 2 * sizes.out)
    piece = max(PIECE_BYTES, 4 * LEAST_ROWS * sizes.in2 * sizes.out)
    return 4 * rows + 3 * piece + workspace_bytes(sizes._replace(dtype="float32"), threads, cpu)



@serial_and_parallel
def _widen(is_float16: bool, source: Bits, begin: int, wide: Array) -> None:
    """Write the columns of source (m, n) from ``begin`` on, as float32, into wide (m, n')."""
    rows, columns = wide.shape
    chunks = (columns + CHUNK - 1) // CHUNK
    for task in numba.prange(rows * chunks):
        row, first = task // chunks, task % chunks * CHUNK
        last = min(first + CHUNK, columns)
        if is_float16:
            for n in range(first, last):
                wide[row, n] = from_float16(source[row, begin + n])
        else:
            for n in range(first, last):
                wide[row, n] = from_bfloat16(source[row, begin + n])


@serial_and_parallel
def _round(is_float16: bool, wide: Array, target: Bits, begin: int) -> None:
    """Round wide (m, n') into the columns of target (m, n) from ``begin`` on."""
    rows, columns = wide.shape
    chunks = (columns + CHUNK - 1) // CHUNK
    for task in numba.prange(rows * chunks):
        row, first = task // chunks, task % chunks * CHUNK
        last = min(first + CHUNK, columns)
        if is_float16:
            for n in range(first, last):
                target[row, begin + n] = float16_of(wide[row, n])
        else:
            for n in range(first, last):
                target[row, begin + n] = bfloat16_of(wide[row, n])

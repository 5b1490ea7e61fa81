"""float16 and bfloat16: read as float32, computed by the kernels for float32, rounded once.

A number is 16 bits here, in arrays of uint16, for NumPy has no bfloat16 and Numba no arithmetic of float16 on a CPU.

* The inputs are widened once a call. Sums are float32; a result is rounded when it is complete.
* A small batch reads the weight as it is stored: its tiles widen each vector that they load.
* For a larger batch a piece of the weight is widened into memory that stays in the caches, and meets all rows there.
* Pieces are pages for the output and grad_weight. They are rows ``i`` of all pages for the gradients of the inputs,
  whose tiles contract the pages.

Axes: ``b`` batch, ``i`` in1_features, ``j`` in2_features, ``o`` out_features (pages of the weight).
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator
from typing import Any, ClassVar, Final

import numba
import numpy as np
import numpy.typing as npt

from bilinear_bench.cpu import forward, grad_inputs, grad_weight
from bilinear_bench.cpu import threads as division
from bilinear_bench.cpu.compiled import serial_and_parallel
from bilinear_bench.cpu.cpu import HOST, MIB, Cpu
from bilinear_bench.cpu.few_outputs import few_outputs
from bilinear_bench.cpu.packing import Array
from bilinear_bench.cpu.sizes import Sizes
from bilinear_bench.cpu.small_batch import plan_small_forward, plan_small_gradients, small_forward, small_gradients
from bilinear_bench.cpu.tiles.abi import address
from bilinear_bench.cpu.tiles.half_types import ROUND, WIDEN, Conversion
from bilinear_bench.cpu.tiles.intrinsics import at, call
from bilinear_bench.cpu.workspace import workspace_bytes
from bilinear_bench.order import pieces

Bits = npt.NDArray[np.uint16]

#: Bytes of a piece of the weight as float32: it stays in the caches, and is much work for each call of a kernel.
PIECE_BYTES: Final = 2 * MIB
#: Rows ``i`` that a piece has at least: as many as a tile of the input gradients.
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
        widen: Address of the tile of that name.
        round: Address of the tile of that name.
    """

    sizes: Sizes
    threads: int
    workers: int
    cpu: Cpu
    widen: int
    round: int
    forward_tiles: ClassVar[int] = 0

    @classmethod
    def of(cls, sizes: Sizes, threads: int, cpu: Cpu = HOST) -> Any:
        """Divide a call among at most ``threads`` threads."""
        tiles = (address(kinds[sizes.dtype], "float32") for kinds in (WIDEN, ROUND))
        return cls(sizes, threads, division.workers(sizes, threads, cpu), cpu, *tiles)

    @property
    def wide_sizes(self) -> Sizes:
        """Return the sizes with float32."""
        return self.sizes._replace(dtype="float32")

    def of_page_pieces(self) -> Iterator[tuple[slice, slice]]:
        """Yield pages and rows of a page, piece by piece; a page has several pieces only if it is larger than one."""
        row = max(1, 4 * self.sizes.in2)
        for pages in pieces(self.sizes.out, PIECE_BYTES // (row * max(1, self.sizes.in1))):
            for rows in pieces(self.sizes.in1, max(LEAST_ROWS, PIECE_BYTES // (row * (pages.stop - pages.start)))):
                yield pages, rows

    def of_row_pieces(self) -> Iterator[tuple[slice, slice]]:
        """Yield all pages and some rows of each, piece by piece."""
        row = max(1, 4 * self.sizes.in2 * self.sizes.out)
        for rows in pieces(self.sizes.in1, max(LEAST_ROWS, PIECE_BYTES // row)):
            yield slice(0, self.sizes.out), rows

    def piece_sizes(self, pages: slice, rows: slice) -> Sizes:
        """Return the sizes of a piece's call."""
        return self.wide_sizes._replace(in1=rows.stop - rows.start, out=pages.stop - pages.start)

    def wide(self, source: Bits) -> Array:
        """Return an array (m, n) as float32."""
        wide = np.empty(source.shape, np.float32)
        self.convert(self.widen, wide, source, 0, source.shape[1])
        return wide

    def convert(self, tile: int, wide: Array, narrow: Bits, begin: int, columns: int) -> None:
        """Convert columns of wide (m, columns) from or to columns of narrow (m, n) from ``begin`` on."""
        _convert[self.workers > 1](tile, wide, narrow, begin, columns)

    def wide_weight(self, weight: Bits, pages: slice, rows: slice, memory: Array) -> Array:
        """Return a piece of the weight (o, i, j) as float32 (o', i', j), at the beginning of ``memory``."""
        sizes = self.piece_sizes(pages, rows)
        shape = sizes.out, sizes.in1, sizes.in2
        piece = memory[: math.prod(shape)].reshape(shape)
        rows_of_all = weight.reshape(len(weight), -1)[pages]
        self.convert(self.widen, piece.reshape(sizes.out, -1), rows_of_all, rows.start * sizes.in2, sizes.in1 * sizes.in2)
        return piece


def _memory(sizes: list[Sizes]) -> Array:
    """Return memory for the weight of the largest piece."""
    return np.empty(max((one.out * one.in1 * one.in2 for one in sizes), default=0), np.float32)


class HalfForwardPlan(_HalfPlan):
    """A forward: in one piece for a small batch, else piece by piece."""

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
        wide1, wide2, addend = self.wide(input1), self.wide(input2), self.wide(bias[None])[0]
        if small_forward(self.wide_sizes, self.cpu):
            plan = plan_small_forward(self.wide_sizes, self.workers, self.sizes.dtype)
            self.convert(self.round, plan.run(wide1, wide2, weight, addend), output, 0, len(weight))
            return output
        divided = list(self.of_page_pieces())
        memory = _memory([self.piece_sizes(*piece) for piece in divided])
        total = addend
        for pages, rows in divided:
            piece = self.wide_weight(weight, pages, rows, memory)
            first = rows.start == 0
            part = _forward_plan(self.piece_sizes(pages, rows), self.threads, self.cpu).run(
                _columns(wide1, rows), wide2, piece, addend[pages] if first else np.zeros_like(addend[pages])
            )
            total = part if first else total + part
            if rows.stop == self.sizes.in1:
                self.convert(self.round, total, output, pages.start, total.shape[1])
        return output


class HalfGradInputsPlan(_HalfPlan):
    """The gradients of both inputs: in one piece for a small batch, else piece by piece."""

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
        given = self.wide(input1), self.wide(input2), weight, self.wide(grad_output)
        sizes = self.wide_sizes
        if small_gradients(sizes, self.cpu, few_outputs=few_outputs(sizes, self.cpu)):
            plan = plan_small_gradients(sizes, self.workers, self.sizes.dtype)
            grad_input1, grad_input2 = plan.run(*given, _NO_TILES)
            self.convert(self.round, grad_input1, gradients[0], 0, sizes.in1)
        else:
            grad_input2 = self._piece_by_piece(*given, gradients[0])
        self.convert(self.round, grad_input2, gradients[1], 0, sizes.in2)
        return gradients

    def _piece_by_piece(self, wide1: Array, wide2: Array, weight: Bits, gradient: Array, grad_input1: Bits) -> Array:
        """Write grad_input1 (b, i); return grad_input2 (b, j) as float32."""
        divided = list(self.of_row_pieces())
        memory = _memory([self.piece_sizes(*piece) for piece in divided])
        total = np.zeros(wide2.shape, np.float32)
        for pages, rows in divided:
            piece = self.wide_weight(weight, pages, rows, memory)
            plan = _grad_inputs_plan(self.piece_sizes(pages, rows), self.threads, self.cpu)
            part1, part2 = plan.run(_columns(wide1, rows), wide2, piece, gradient, np.empty(0, np.float32))
            self.convert(self.round, part1, grad_input1, rows.start, part1.shape[1])
            total += part2
        return total


class HalfGradWeightPlan(_HalfPlan):
    """The gradient of the weight, piece by piece."""

    def run(self, input1: Bits, input2: Bits, grad_output: Bits, grad_weight: Bits | None = None) -> Bits:
        """Return grad_weight (o, i, j); the last argument is memory for it, or None."""
        out, in1, in2 = self.sizes.out, self.sizes.in1, self.sizes.in2
        if grad_weight is None:
            grad_weight = np.empty((out, in1, in2), np.uint16)
        wide1, wide2, gradient = self.wide(input1), self.wide(input2), self.wide(grad_output)
        divided = list(self.of_page_pieces())
        memory = _memory([self.piece_sizes(*piece) for piece in divided])
        for pages, rows in divided:
            sizes = self.piece_sizes(pages, rows)
            piece = memory[: sizes.out * sizes.in1 * in2].reshape(sizes.out, sizes.in1, in2)
            plan = _grad_weight_plan(sizes, self.threads, self.cpu)
            plan.run(_columns(wide1, rows), wide2, _columns(gradient, pages), piece)
            target = grad_weight.reshape(out, -1)[pages]
            self.convert(self.round, piece.reshape(sizes.out, -1), target, rows.start * in2, sizes.in1 * in2)
        return grad_weight


def call_bytes(sizes: Sizes, threads: int, cpu: Cpu = HOST) -> int:
    """Return an upper figure for the bytes of a call on top of inputs, parameters and results.

    These are all operands but the weight as float32, sums of the gradients, a piece, and what the kernels take for it.
    """
    rows = sizes.batch * (2 * sizes.in1 + 3 * sizes.in2 + 2 * sizes.out)
    piece = max(PIECE_BYTES, 4 * LEAST_ROWS * sizes.in2 * sizes.out)
    return 4 * rows + piece + workspace_bytes(sizes._replace(dtype="float32"), threads, cpu)


def _columns(values: Array, columns: slice) -> Array:
    """Return some columns of values (b, n), contiguous."""
    return np.ascontiguousarray(values[:, columns])


@serial_and_parallel
def _convert(conversion: int, wide: Array, narrow: Bits, begin: int, columns: int) -> None:
    """Convert wide (m, columns) from, or to, the columns of narrow (m, n) from ``begin`` on."""
    chunks = (columns + CHUNK - 1) // CHUNK
    for task in numba.prange(len(wide) * chunks):
        row, first = task // chunks, task % chunks * CHUNK
        call(conversion, Conversion(
            wide=at(wide, row * columns + first), narrow=at(narrow, row * narrow.shape[1] + begin + first),
            count=min(CHUNK, columns - first),
        ))  # fmt: skip

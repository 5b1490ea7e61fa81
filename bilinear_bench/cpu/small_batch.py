"""Forward and input gradients of a batch that fills little of a vector: its rows are the rows of the tiles.

Formulas, for a few rows ``b`` and the lanes of vectors along ``j``::

    tile[b, j]         = sum_i input1[b, i] * weight[o, i, j]           forward, one page o
    output[b, o]      += sum_j tile[b, j] * input2[b, j]

    tile[b, j]         = sum_o grad_output[b, o] * weight[o, i, j]      gradients, one row i of all pages
    grad_input1[b, i] += sum_j tile[b, j] * input2[b, j]
    grad_input2[b, j] += tile[b, j] * input1[b, i]

Nothing is packed. Threads share the pages (forward) or the rows of a page (gradients).
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Final

import numba
import numpy as np

from bilinear_bench.cpu.compiled import compiled, serial_and_parallel
from bilinear_bench.cpu.cpu import Cpu
from bilinear_bench.cpu.packing import Array, gradient_buffer, strip_width
from bilinear_bench.cpu.sizes import Sizes
from bilinear_bench.cpu.threads import part_of
from bilinear_bench.cpu.tiles.abi import address
from bilinear_bench.cpu.tiles.intrinsics import at, call
from bilinear_bench.cpu.tiles.register_tile import SMALL_BATCH_ROWS
from bilinear_bench.cpu.tiles.row_gradients import ROW_GRADIENTS, RowGradients
from bilinear_bench.cpu.tiles.row_sums import ROW_SUMS, RowSums

#: Rows that keep the multiply-add units busy with one vector each: latency in cycles times units.
BUSY_ROWS: Final = 8
#: Outputs times lanes from which the rows of ``few_outputs`` are worth their calls.
FEW_OUTPUTS_SUMS: Final = 48


@dataclasses.dataclass(frozen=True)
class SmallForwardPlan:
    """How a forward of a small batch is divided.

    Attributes:
        workers: Number of threads.
        parts: Parts of the pages, one for each thread.
        row_sums: Address of the tile of that name.
    """

    workers: int
    parts: int
    row_sums: int

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

        ``output`` is memory for it, or None. No forward tiles are stored: they are sums over lanes.
        """
        if output is None:
            output = np.empty((input1.shape[0], weight.shape[0]), input1.dtype)
        _forward[self.workers > 1](self.row_sums, input1, input2, weight, bias, output, self.parts)
        return output


@dataclasses.dataclass(frozen=True)
class SmallGradInputsPlan:
    """How the input gradients of a small batch are divided.

    Attributes:
        workers: Number of threads.
        parts: Parts of the rows of a page, one for each thread, with sums of grad_input2 of its own.
        row_gradients: Address of the tile of that name.
    """

    workers: int
    parts: int
    row_gradients: int
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
        grad_input1, grad_input2 = gradients
        sums = grad_input2[None] if self.parts == 1 else np.empty((self.parts, *input2.shape), input2.dtype)
        sums[:] = 0
        arrays = input1, input2, weight, grad_output, grad_input1, sums
        _gradients[self.workers > 1](self.row_gradients, *arrays)
        if self.parts > 1:
            sums.sum(0, out=grad_input2)
        return gradients


def small_forward(sizes: Sizes, cpu: Cpu) -> bool:
    """True if a forward has the batch in the rows of its tiles.

    The lanes are better for a batch that fills more than three quarters of a vector. They would then hold one vector a
    row: with tiles of fewer than ``BUSY_ROWS`` rows that is too few sums, and the batch must exceed a whole vector.
    """
    lanes = cpu.lanes(sizes.itemsize)
    return sizes.batch <= (3 * lanes // 4 if cpu.rows >= BUSY_ROWS else lanes)


def small_gradients(sizes: Sizes, cpu: Cpu, *, few_outputs: bool) -> bool:
    """True if both input gradients have the batch in the rows of their tiles.

    Args:
        sizes: Sizes of the layer.
        cpu: Its lanes.
        few_outputs: Whether the gradients of a larger batch would be those of ``few_outputs``.
    """
    lanes = cpu.lanes(sizes.itemsize)
    if few_outputs:
        return sizes.batch <= SMALL_BATCH_ROWS and sizes.out * lanes >= FEW_OUTPUTS_SUMS
    return sizes.batch <= 3 * lanes // 4


def plan_small_forward(sizes: Sizes, workers: int, weight_dtype: str | None = None) -> SmallForwardPlan:
    """Divide the pages among the threads.

    Args:
        sizes: Sizes and dtype of the call.
        workers: Number of threads.
        weight_dtype: A half type, if the weight is given as its bits and all else as float32.
    """
    tile = address(ROW_SUMS[weight_dtype or sizes.dtype], sizes.dtype)
    return SmallForwardPlan(workers, min(workers, max(1, sizes.out)), tile)


def plan_small_gradients(sizes: Sizes, workers: int, weight_dtype: str | None = None) -> SmallGradInputsPlan:
    """Divide the rows of a page among the threads; arguments as for ``plan_small_forward``."""
    tile = address(ROW_GRADIENTS[weight_dtype or sizes.dtype], sizes.dtype)
    return SmallGradInputsPlan(workers, min(workers, sizes.in1), tile)


@serial_and_parallel
def _forward(
    row_sums: int, input1: Array, input2: Array, weight: Array, bias: Array, output: Array, parts: int
) -> None:
    for part in numba.prange(parts):
        begin, end = part_of(part, parts, len(weight))
        _forward_pages(row_sums, input1, input2, weight, bias, begin, end, output)


@compiled
def _forward_pages(
    row_sums: int, input1: Array, input2: Array, weight: Array, bias: Array, begin: int, end: int, output: Array
) -> None:
    """Compute the output of pages ``begin`` to ``end``."""
    batch, in1 = input1.shape
    pages, in2 = weight.shape[0], weight.shape[2]
    for page in range(begin, end):
        for row in range(batch):
            output[row, page] = bias[page]
        for j in range(0, in2, strip_width(input2)):
            for row in range(0, batch, SMALL_BATCH_ROWS):
                call(row_sums, RowSums(
                    rows=min(SMALL_BATCH_ROWS, batch - row), a=at(input1, row * in1), a_stride_c=1, a_stride_r=in1,
                    b=at(weight, page * in1 * in2 + j), b_stride_c=in2, count=in1,
                    e=at(input2, row * in2 + j), e_stride_r=in2, valid=in2 - j,
                    out=at(output, row * pages + page), out_stride_r=pages,
                ))  # fmt: skip


@serial_and_parallel
def _gradients(
    row_gradients: int, input1: Array, input2: Array, weight: Array, grad_output: Array, grad_input1: Array, sums: Array
) -> None:
    in1, parts = input1.shape[1], sums.shape[0]
    for part in numba.prange(parts):
        begin, end = part_of(part, parts, in1)
        _gradients_of_rows(row_gradients, input1, input2, weight, grad_output, begin, end, grad_input1, sums[part])


@compiled
def _gradients_of_rows(
    row_gradients: int, input1: Array, input2: Array, weight: Array, grad_output: Array, begin: int, end: int,
    grad_input1: Array, grad_input2: Array,
) -> None:  # fmt: skip
    """Compute grad_input1 of rows ``begin`` to ``end`` of every page, and add what they give to grad_input2."""
    batch, in1 = input1.shape
    pages, in2 = weight.shape[0], weight.shape[2]
    grad_input1[:, begin:end] = 0
    for i in range(begin, end):
        for j in range(0, in2, strip_width(input2)):
            for row in range(0, batch, SMALL_BATCH_ROWS):
                call(row_gradients, RowGradients(
                    rows=min(SMALL_BATCH_ROWS, batch - row), a=at(grad_output, row * pages), a_stride_c=1,
                    a_stride_r=pages, b=at(weight, i * in2 + j), b_stride_c=in1 * in2, count=pages,
                    input2=at(input2, row * in2 + j), input2_stride_r=in2, valid=in2 - j,
                    grad1=at(grad_input1, row * in1 + i), grad1_stride_r=in1,
                    input1=at(input1, row * in1 + i), input1_stride_r=in1, grad2=at(grad_input2, row * in2 + j),
                ))  # fmt: skip

"""Launch the fused Triton kernels: grids, parts of a sum, and transposed copies.

Formula, forward, one program for a tile of rows and one output ``o``, or the same with the inputs exchanged::

    T[b,j] = sum_i input1[b,i] weight[o,i,j]         a tile in registers, by tl.dot
    output[b,o] = sum_j T[b,j] input2[b,j] + bias[o]

Axes: ``b`` batch, ``i`` in1_features, ``j`` in2_features, ``o`` out_features.

A case with too few tiles to fill the chip is cut into parts along what is summed over (split-K). The sums of the parts,
(parts, results) in the accumulator's type, are added up at the end.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Final

import torch
import triton
import triton.language as tl

from bilinear_bench.gpu.kernels import (
    forward_kernel,
    forward_of_small_pages_kernel,
    grad_input_kernel,
    grad_weight_kernel,
    transpose_kernel,
)

Tensor = Any
#: Memory for the sums of parts, in bytes.
PARTS_BYTES: Final = 64 * 2**20
#: Programs for each multiprocessor below which a case is cut into parts: one computes while another waits.
PROGRAMS: Final = 2
#: Rows and columns of the square that a program transposes.
TRANSPOSE_EDGE: Final = 64
#: Multiprocessors that the interpreter assumes, so that small cases are cut there, too.
INTERPRETED_PROCESSORS: Final = 4


@dataclasses.dataclass(frozen=True, slots=True)
class Tile:
    """Sizes of the work that one program does at a time.

    Attributes:
        rows: Rows of the product's left operand.
        columns: Columns of its right operand.
        depth: Terms that are loaded together.
        warps: Warps of a program.
        stages: Loads in flight.
        transposed: True if the right operand has the other of its axes contiguous. Forward, input2 is then contracted
            first, and input1 multiplies the intermediate. For a gradient the operand (the weight, or input2 for
            ``grad_weight``) is copied with its axes swapped.
    """

    rows: int
    columns: int
    depth: int
    warps: int
    stages: int
    transposed: bool = False

    def __str__(self) -> str:
        tile = f"{self.rows}x{self.columns}x{self.depth}/{self.warps}w{self.stages}s"
        return tile + "/transposed" * self.transposed


@dataclasses.dataclass(frozen=True, slots=True)
class Arithmetic:
    """How products are computed.

    Attributes:
        precision: Input precision of tl.dot for float32: ``ieee`` or ``tf32``.
        accumulator: Triton's type of sums.
        total: PyTorch's type of sums.
    """

    precision: str
    accumulator: Any
    total: torch.dtype

    @classmethod
    def of(cls, dtype: str, precision: str = "ieee") -> Arithmetic:
        """Return the arithmetic of a dtype (``float32``, ``float64`` or a half type) and a precision."""
        double = dtype == "float64"
        return cls(precision, tl.float64 if double else tl.float32, torch.float64 if double else torch.float32)


def interpreted() -> bool:
    """True if Triton's interpreter runs the kernels, on a CPU; decided when Triton was imported."""
    return not isinstance(forward_kernel, triton.JITFunction)


def forward(
    input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None, tile: Tile, arithmetic: Arithmetic
) -> Tensor:
    """Return output (b, o) of input1 (b, i), input2 (b, j), weight (o, i, j) and bias (o,) or None."""
    out, in2 = len(weight), input2.shape[1]
    first, other = (input2, input1) if tile.transposed else (input1, input2)
    strides = (1, in2) if tile.transposed else (in2, 1)
    (batch, contracted), kept = first.shape, other.shape[1]
    row_tiles, column_tiles = tiles_of(batch, tile.rows), tiles_of(kept, tile.columns)
    term_tiles = tiles_of(contracted, tile.depth)
    target = input1.new_empty((batch, out))
    operands = (first, other, weight, weight if bias is None else bias)
    meta = _meta(tile, arithmetic) | {"HAS_BIAS": bias is not None}
    if term_tiles == column_tiles == 1:
        outs_each = _tiles_per_part(out, -(-PROGRAMS * _processors(input1.device) // row_tiles))
        if target.numel():
            forward_of_small_pages_kernel[(row_tiles * tiles_of(out, outs_each),)](
                *operands, target, batch, out, outs_each, contracted, kept, *strides, **meta
            )
        return target
    programs = row_tiles * out
    most = _most_parts(input1, programs, batch * out, arithmetic)
    columns_each = _tiles_per_part(column_tiles, most)
    column_parts = tiles_of(column_tiles, columns_each)
    terms_each = _tiles_per_part(term_tiles, most // column_parts)
    parts = column_parts * tiles_of(term_tiles, terms_each)

    def launch(target: Tensor) -> None:
        sizes = (batch, out, column_parts, columns_each, terms_each, contracted, kept)
        forward_kernel[(programs * parts,)](*operands, target, *sizes, *strides, **meta)

    return _summed(launch, target, parts, arithmetic)


def grad_input(
    other: Tensor, grad_output: Tensor, weight: Tensor, which: int, tile: Tile, arithmetic: Arithmetic
) -> Tensor:
    """Return the gradient of one input from the other one.

    Args:
        other: The other input, (b, j) for the gradient of input1, (b, i) for that of input2.
        grad_output: Tensor (b, o).
        weight: Tensor (o, i, j).
        which: 1 for the gradient of input1, 2 for that of input2.
        tile: Tile of the kernel.
        arithmetic: Arithmetic of the products.
    """
    out, in1, in2 = weight.shape
    (batch, contracted), kept = other.shape, in1 if which == 1 else in2
    if tile.transposed:
        weight = transposed_copy(weight)
    strides = (kept, 1) if (which == 2) != tile.transposed else (1, contracted)
    programs = tiles_of(batch, tile.rows) * tiles_of(kept, tile.columns)
    outs_each = _tiles_per_part(out, _most_parts(other, programs, batch * kept, arithmetic))
    parts = tiles_of(out, outs_each)

    def launch(target: Tensor) -> None:
        grad_input_kernel[(programs * parts,)](
            *(other, grad_output, weight, target),
            *(batch, out, outs_each, contracted, kept, *strides),
            **_meta(tile, arithmetic),
            ONE_TILE=contracted <= tile.depth,
        )

    return _summed(launch, other.new_empty((batch, kept)), parts, arithmetic)


def grad_weight(input1: Tensor, input2: Tensor, grad_output: Tensor, tile: Tile, arithmetic: Arithmetic) -> Tensor:
    """Return the gradient of the weight (o, i, j)."""
    (batch, in1), in2, out = input1.shape, input2.shape[1], grad_output.shape[1]
    programs = tiles_of(in1, tile.rows) * tiles_of(in2, tile.columns) * out
    if tile.transposed:
        input2 = transposed_copy(input2)
    row_tiles = tiles_of(batch, tile.depth)
    rows_each = _tiles_per_part(row_tiles, _most_parts(input1, programs, out * in1 * in2, arithmetic))
    parts = tiles_of(row_tiles, rows_each)

    def launch(target: Tensor) -> None:
        grad_weight_kernel[(programs * parts,)](
            *(input1, input2, grad_output, target),
            *(batch, out, rows_each, in1, in2),
            **_meta(tile, arithmetic),
            TRANSPOSED=tile.transposed,
        )

    return _summed(launch, input1.new_empty((out, in1, in2)), parts, arithmetic)


def transposed_copy(pages: Tensor) -> Tensor:
    """Return a copy of pages (..., r, c) with their last two axes swapped, (..., c, r)."""
    *_, rows, columns = pages.shape
    target = pages.new_empty((*pages.shape[:-2], columns, rows))
    if target.numel():
        squares = tiles_of(rows, TRANSPOSE_EDGE) * tiles_of(columns, TRANSPOSE_EDGE)
        transpose_kernel[(pages.shape[:-2].numel() * squares,)](pages, target, rows, columns, EDGE=TRANSPOSE_EDGE)
    return target


def tiles_of(size: int, edge: int) -> int:
    """Return the number of tiles that cover a size; 1 for size 0, so that zeros are written."""
    return max(1, -(-size // edge))


def _summed(launch: Callable[[Tensor], None], target: Tensor, parts: int, arithmetic: Arithmetic) -> Tensor:
    """Launch into the result itself, or with parts into sums that are added up; return the result."""
    if target.numel() == 0:
        return target
    if parts == 1:
        launch(target)
        return target
    sums = target.new_empty((parts, *target.shape), dtype=arithmetic.total)
    launch(sums)
    return sums.sum(0).to(target.dtype)


def _meta(tile: Tile, arithmetic: Arithmetic) -> dict[str, Any]:
    """Return the constants that a kernel is compiled for."""
    return {
        "ROWS": tile.rows,
        "COLUMNS": tile.columns,
        "DEPTH": tile.depth,
        "ACCUMULATOR": arithmetic.accumulator,
        "PRECISION": arithmetic.precision,
        "num_warps": tile.warps,
        "num_stages": tile.stages,
    }


def _tiles_per_part(tiles: int, parts: int) -> int:
    """Return the number of tiles of each part, if there are at most ``parts`` parts."""
    return max(1, -(-tiles // max(1, parts)))


def _most_parts(like: Tensor, programs: int, results: int, arithmetic: Arithmetic) -> int:
    """Return the number of parts of each program's work: enough to fill the chip, within ``PARTS_BYTES``."""
    wanted = PROGRAMS * _processors(like.device) // max(1, programs)
    return max(1, min(wanted, PARTS_BYTES // max(1, results * arithmetic.total.itemsize)))


@functools.cache
def _processors(device: torch.device) -> int:
    """Return the number of multiprocessors of a device."""
    if device.type != "cuda":
        return INTERPRETED_PROCESSORS
    count: int = torch.cuda.get_device_properties(device).multi_processor_count
    return count

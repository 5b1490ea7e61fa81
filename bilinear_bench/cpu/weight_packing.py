"""What the gradient of the weight reads, packed once for all pages: tiles of input1, columns of input2, grad_output."""

from __future__ import annotations

import math
from typing import Final

from bilinear_bench.cpu.compiled import compiled
from bilinear_bench.cpu.cpu import LINE_BYTES, ROWS, Cpu
from bilinear_bench.cpu.packing import Array, strip_width, transpose_columns
from bilinear_bench.cpu.sizes import Sizes
from bilinear_bench.cpu.tiles.intrinsics import at, call, lanes
from bilinear_bench.cpu.tiles.multiply import Multiply

#: Rows of the batch that are packed at a time: in no more pages of memory than the TLB holds.
PACKED_ROWS: Final = 64


def packed_row_bytes(sizes: Sizes, cpu: Cpu) -> int:
    """Return the bytes of a packed row of the batch: its part of each tile, of each column, and of grad_output."""
    side, width = cpu.lanes(sizes.itemsize), cpu.strip_width(sizes.itemsize)
    tiles, columns = math.ceil(sizes.in1 / cpu.rows), math.ceil(sizes.in2 / width)
    return (tiles * side * math.ceil(cpu.rows / side) + columns * width + sizes.out) * sizes.itemsize


@compiled
def tile_stride(like: Array) -> int:
    """Return the stride of rows of the batch in a packed tile: whole vectors, so that no vector is in two lines."""
    return (ROWS + lanes(like) - 1) // lanes(like) * lanes(like)


@compiled
def packed_sizes(rows: int, input1: Array, input2: Array, pages: int) -> tuple[int, int, int]:
    """Return the numbers of packed rows, in whole lines: tiles of input1, columns of input2, factors of all pages."""
    width, line = strip_width(input1), LINE_BYTES // input1.itemsize
    tiles, columns = (input1.shape[1] + ROWS - 1) // ROWS, (input2.shape[1] + width - 1) // width
    numbers = rows * tiles * tile_stride(input1), rows * columns * width, rows * pages
    return (
        (numbers[0] + line - 1) // line * line, (numbers[1] + line - 1) // line * line,
        (numbers[2] + line - 1) // line * line,
    )  # fmt: skip


@compiled
def pack_rows(
    transpose: int, multiply: int, input1: Array, input2: Array, grad_output: Array, chunk: int, rows: int, begin: int,
    end: int, one: Array, tiles1: Array, columns2: Array, factors: Array,
) -> None:  # fmt: skip
    """Pack groups ``begin`` to ``end`` of the ``rows`` from ``chunk`` on; ``one`` holds the number 1."""
    in1, in2, pages = input1.shape[1], input2.shape[1], grad_output.shape[1]
    width, stride = strip_width(input1), tile_stride(input1)
    tiles = (in1 + ROWS - 1) // ROWS
    short, taller = in1 // tiles, in1 % tiles
    for first in range(begin * PACKED_ROWS, min(end * PACKED_ROWS, rows), PACKED_ROWS):
        count, row = min(PACKED_ROWS, rows - first), chunk + first
        for tile in range(tiles):
            top, height = tile * short + min(tile, taller), short + int(tile < taller)
            for left in range(0, height, width):
                call(multiply, Multiply(
                    rows=count, source=at(input1, row * in1 + top + left), source_stride_r=in1, factor=at(one, 0),
                    factor_stride_r=0, valid=height - left,
                    target=at(tiles1, (tile * rows + first) * stride + left), target_stride_r=stride,
                ))  # fmt: skip
        as_page = grad_output[row : row + count].reshape(1, count, pages)
        for left in range(0, pages if pages > 1 else 0, lanes(input1)):
            transpose_columns(transpose, as_page, 0, left, factors, first, rows)
        # A single page's columns are multiplied here.
        factor, factor_stride = (at(grad_output, row), 1) if pages == 1 else (at(one, 0), 0)
        for j in range(0, in2, width):
            call(multiply, Multiply(
                rows=count, source=at(input2, row * in2 + j), source_stride_r=in2, factor=factor,
                factor_stride_r=factor_stride, valid=in2 - j,
                target=at(columns2, j * rows + first * width), target_stride_r=width,
            ))  # fmt: skip

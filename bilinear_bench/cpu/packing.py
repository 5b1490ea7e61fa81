"""Inputs in strips, ``[feature][row of the batch]``, and results back in rows."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bilinear_bench.cpu.compiled import compiled
from bilinear_bench.cpu.cpu import LINE_BYTES, PRIVATE_BYTES, VECTORS
from bilinear_bench.cpu.tiles.intrinsics import at, call, lanes
from bilinear_bench.cpu.tiles.transpose import Transpose

Array = npt.NDArray[np.floating[Any]]

#: Rows of a panel of a sum over the batch.
PANEL_ROWS: Final = 256


def gradient_buffer(shape: tuple[int, ...], like: Array) -> Array:
    """Return memory for a gradient of like's dtype: a large one begins with a cache line, a small one as NumPy has it.

    The memory is NumPy's own, for which it requests huge pages.
    """
    size = math.prod(shape)
    if size * like.itemsize <= PRIVATE_BYTES:
        return np.empty(shape, like.dtype)
    buffer = np.empty(size + LINE_BYTES // like.itemsize, like.dtype)
    begin = -buffer.ctypes.data % LINE_BYTES // like.itemsize
    return buffer[begin : begin + size].reshape(shape)


@compiled
def aligned(size: int, like: Array) -> Array:
    """Return memory for ``size`` numbers of like's dtype that begins with a cache line.

    A vector in two lines takes two accesses. With AVX-512 a vector is as long as a line, so each one would.
    """
    buffer = np.empty(size + LINE_BYTES // like.itemsize, like.dtype)
    begin = -at(buffer, 0) % LINE_BYTES // like.itemsize
    return buffer[begin : begin + size]


@compiled
def rooms(count: int, size: int, like: Array) -> Array:
    """Return memory for each of ``count`` workers, (count, size), taken before their parallel loop.

    What fails within a parallel loop is lost: its thread ends without a result, and no error is raised. One piece of
    memory for all is kept by the C library for the next call; of several it gives the last ones back, page by page.
    """
    whole = LINE_BYTES // like.itemsize
    stride = (size + whole - 1) // whole * whole
    return aligned(count * stride, like).reshape(count, stride)


@compiled
def strip_width(like: Array) -> int:
    """Return how many rows of the batch a strip holds, for numbers of like's dtype."""
    return VECTORS * lanes(like)


@compiled
def strips_of_batch(batch: int, like: Array) -> int:
    """Return the number of strips of a batch."""
    return (batch + strip_width(like) - 1) // strip_width(like)


@compiled
def squares(features: int, lanes: int) -> int:
    """Return the number of squares that cover the features, of which the last may overlap; 0 if none is full."""
    return (features + lanes - 1) // lanes if features >= lanes else 0


@compiled
def pack(transpose: int, source: Array, first: int, strips: Array, begin: int) -> None:
    """Pack the rows from ``first`` of source (b, f) into one strip (f, rows); rows beyond the batch become 0."""
    batch, features = source.shape
    width, side = strip_width(source), lanes(source)
    zero = source.dtype.type(0)
    for v in range(VECTORS):
        row, start = first + v * side, begin + v * side
        full = squares(features, side) if row + side <= batch else 0
        for square in range(full):
            f = min(square * side, features - side)
            call(transpose, Transpose(
                source=at(source, row * features + f), source_stride_r=features,
                target=at(strips, start + f * width), target_stride_r=width,
            ))  # fmt: skip
        for f in range(0 if full else features):
            for r in range(side):
                strips[start + f * width + r] = source[row + r, f] if row + r < batch else zero


@compiled
def pack_all(transpose: int, source: Array, first: int, count: int, strips: Array) -> None:
    """Pack ``count`` strips of source (b, f), from row ``first`` on."""
    width = strip_width(source)
    size = source.shape[1] * width
    for strip in range(count):
        pack(transpose, source, first + strip * width, strips, strip * size)


@compiled
def unpack(transpose: int, strips: Array, begin: int, target: Array, first: int, left: int, features: int) -> None:
    """Store one strip (f, rows) into target (b, f): rows from ``first``, ``features`` columns from ``left``."""
    batch, columns = target.shape
    width, side = strip_width(target), lanes(target)
    for v in range(VECTORS):
        row, start = first + v * side, begin + v * side
        full = squares(features, side) if row + side <= batch else 0
        for square in range(full):
            f = min(square * side, features - side)
            call(transpose, Transpose(
                source=at(strips, start + f * width), source_stride_r=width,
                target=at(target, row * columns + left + f), target_stride_r=columns,
            ))  # fmt: skip
        for f in range(0 if full else features):
            for r in range(min(side, batch - row)):
                target[row + r, left + f] = strips[start + f * width + r]


@compiled
def transpose_columns(
    transpose: int, source: Array, page: int, left: int, target: Array, begin: int, stride: int
) -> None:
    """Store a vector's width of columns of source (o, i, j), from ``left`` of a page on, into target (o, j, stride)."""
    rows, columns = source.shape[1:]
    side = lanes(source)
    full = squares(rows, side) if columns >= side else 0
    j = min(left, columns - side)
    for square in range(full):
        i = min(square * side, rows - side)
        call(transpose, Transpose(
            source=at(source, (page * rows + i) * columns + j), source_stride_r=columns,
            target=at(target, begin + (page * columns + j) * stride + i), target_stride_r=stride,
        ))  # fmt: skip
    for i in range(0 if full else rows):
        for j in range(left, min(left + side, columns)):
            target[begin + (page * columns + j) * stride + i] = source[page, i, j]


@compiled
def column_sums(values: Array) -> Array:
    """Return the sums over the rows of values (b, o), panel by panel: one long sum of float32 would lose digits."""
    total = np.zeros(values.shape[1], values.dtype)
    for first in range(0, values.shape[0], PANEL_ROWS):
        part = np.zeros(values.shape[1], values.dtype)
        for row in range(first, min(first + PANEL_ROWS, values.shape[0])):
            part += values[row]
        total += part
    return total


@compiled
def add_parts(sums: Array, begin: int, end: int) -> None:
    """Add numbers ``begin`` to ``end`` of all other parts to those of the first part."""
    for part in range(1, len(sums)):
        for n in range(begin, end):
            sums[0, n] += sums[part, n]


def bias_or_zeros(weight: Array, bias: Array | None) -> Array:
    """Return a bias (o,) in any case: the loops then need one compiled version, not two."""
    return np.zeros(weight.shape[0], dtype=weight.dtype) if bias is None else bias

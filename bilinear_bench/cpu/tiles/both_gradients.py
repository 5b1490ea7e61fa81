"""Tile ``both_gradients``, used twice: once over its columns ``j``, once over its rows ``i``.

::

    grad1[i, v] += sum_j acc[i, j, v] * input2[j, v]
    grad2[j, v] += sum_i acc[i, j, v] * input1[i, v]

For each column a vector of ``grad2`` is read and written, and for each row one of ``grad1``. With few steps of ``c``
that takes as long as the multiplications, so tiles are as square as they can be. With many steps, rows of ``a`` take
too much room in the L1 cache, and a tile has one row.
"""

from __future__ import annotations

import functools
from typing import Any, Final, NamedTuple

from numba.extending import intrinsic

from bilinear_bench.cpu.cpu import ROWS, VECTORS
from bilinear_bench.cpu.tiles.abi import Number, Pointer, tile_code
from bilinear_bench.cpu.tiles.emitter import INT, Emitter
from bilinear_bench.cpu.tiles.register_tile import GROUPED_ROWS, HEIGHTS, Factors, for_strips, multiply

#: Most rows ``i`` of a tile that has several; it has up to ``GROUPED_ROWS`` columns of each.
SEVERAL_ROWS: Final = ROWS // GROUPED_ROWS
#: The shapes of a tile, as ``shape`` numbers them.
SHAPES: Final = (
    *HEIGHTS, *(ROWS * more + columns for more in range(1, SEVERAL_ROWS) for columns in range(1, GROUPED_ROWS + 1))
)  # fmt: skip


class BothGradients(NamedTuple):
    """Arguments of the tile; strides count elements.

    Attributes:
        rows: Shape of the tile: ``ROWS * (rows - 1) + columns``.
        a: Numbers ``a[c, i, j]``; each tile of the call has the columns that follow those of the tile before.
        a_stride_c: Stride from one ``c`` to the next.
        a_stride_r: Stride from one column ``j`` to the next.
        b: Vectors ``b[c, v]``, the same for all tiles of the call.
        b_stride_c: Stride from one ``c`` to the next.
        count: Number of steps of ``c``.
        times: Number of tiles of this call.
        vectors: Number of vectors of a tile, 1 or 2; all vectors in memory have room for 2.
        a_stride_i: Stride from one row ``i`` to the next.
        input2: Vectors ``input2[j, v]`` of the columns, one after the other.
        grad1: Vectors ``grad1[i, v]`` of the rows, one after the other.
        input1: Vectors ``input1[i, v]`` of the rows, one after the other.
        grad2: Vectors ``grad2[j, v]`` of the columns, one after the other.
    """

    rows: Number
    a: Pointer
    a_stride_c: Number
    a_stride_r: Number
    b: Pointer
    b_stride_c: Number
    count: Number
    times: Number
    vectors: Number
    a_stride_i: Number
    input2: Pointer
    grad1: Pointer
    input1: Pointer
    grad2: Pointer


def emit_both_gradients(emit: Emitter, given: BothGradients, pairs: bool = False) -> None:
    """Emit the tiles and their epilogue; ``pairs`` is for pairs of bfloat16 in ``a`` and ``b``."""
    builder = emit.builder

    def epilogue(vectors: int, shape: int, number: Any) -> None:
        more, last = divmod(shape - 1, ROWS)
        rows, columns = range(more + 1), range(last + 1)
        first_column = builder.mul(number, INT(len(columns)))
        layout = {"grouped": len(columns), "group_stride": given.a_stride_i} if more else {}
        factors = Factors.of(emit, given, a_offset=builder.mul(first_column, given.a_stride_r), pairs=pairs)
        tile = multiply(emit, factors, len(rows) * len(columns), (None,) * vectors, **layout)
        start = builder.mul(first_column, INT(VECTORS * emit.lanes))
        for v in range(vectors):
            by1 = [emit.load(emit.ahead(given.input1, (i * VECTORS + v) * emit.lanes)) for i in rows]
            totals1 = [emit.zero for _ in rows]
            for j in columns:
                offset, total2 = builder.add(start, INT((j * VECTORS + v) * emit.lanes)), emit.zero
                by2 = emit.load(emit.ahead(given.input2, offset))
                for i in rows:
                    acc = tile[i * len(columns) + j][v]
                    totals1[i] = emit.multiply_add(acc, by2, totals1[i])
                    total2 = emit.multiply_add(acc, by1[i], total2)
                emit.add(total2, emit.ahead(given.grad2, offset))
            for i in rows:
                emit.add(totals1[i], emit.ahead(given.grad1, (i * VECTORS + v) * emit.lanes))

    for_strips(emit, given, epilogue, SHAPES)


@intrinsic
def _both_gradients(_: Any, given: Any) -> Any:
    return tile_code(emit_both_gradients, given)


def both_gradients(given: BothGradients) -> None:
    """Run the tile."""
    _both_gradients(given)


@intrinsic
def _both_gradients_pairs(_: Any, given: Any) -> Any:
    return tile_code(functools.partial(emit_both_gradients, pairs=True), given)


def both_gradients_pairs(given: BothGradients) -> None:
    """Run the tile with ``a`` and ``b`` of pairs of bfloat16, each in a float32's place."""
    _both_gradients_pairs(given)

"""Tile ``row_gradients``: both gradients of a few rows of the batch, which are the rows of the tile.

::

    grad1[r]    += sum_v acc[r, v] * input2[r, v]
    grad2[r, v] += acc[r, v] * input1[r]
"""

from __future__ import annotations

import functools
from typing import Any, Final, NamedTuple

from numba.extending import intrinsic

from bilinear_bench.cpu.tiles.abi import Number, Pointer, tile_code
from bilinear_bench.cpu.tiles.emitter import INT, Emitter, Widen
from bilinear_bench.cpu.tiles.half_types import from_bfloat16, from_float16
from bilinear_bench.cpu.tiles.register_tile import SMALL_BATCH_ROWS, Factors, Masks, for_widths, multiply


class RowGradients(NamedTuple):
    """Arguments of the tile; strides count elements.

    Attributes:
        rows: Number of rows of the tile, at most ``SMALL_BATCH_ROWS``.
        a: Numbers ``a[c, r]``.
        a_stride_c: Stride from one ``c`` to the next.
        a_stride_r: Stride from one row to the next.
        b: Vectors ``b[c, v]``.
        b_stride_c: Stride from one ``c`` to the next.
        count: Number of steps of ``c``.
        input2: Numbers ``input2[r, v]``.
        input2_stride_r: Stride from one row to the next, of ``input2`` and of ``grad2``.
        valid: Number of valid lanes of ``b``, ``input2`` and ``grad2``.
        grad1: Numbers ``grad1[r]``.
        grad1_stride_r: Stride from one row to the next.
        input1: Numbers ``input1[r]``.
        input1_stride_r: Stride from one row to the next.
        grad2: Numbers ``grad2[r, v]``.
    """

    rows: Number
    a: Pointer
    a_stride_c: Number
    a_stride_r: Number
    b: Pointer
    b_stride_c: Number
    count: Number
    input2: Pointer
    input2_stride_r: Number
    valid: Number
    grad1: Pointer
    grad1_stride_r: Number
    input1: Pointer
    input1_stride_r: Number
    grad2: Pointer


def emit_row_gradients(emit: Emitter, given: RowGradients, widen: Widen | None = None) -> None:
    """Emit the tile and its epilogue; ``widen`` is for ``b`` of 16 bits."""
    builder = emit.builder

    def use(masks: Masks) -> None:
        def epilogue(rows: int) -> None:
            tile = multiply(emit, Factors.of(emit, given, widen=widen), rows, masks)
            for r in range(rows):
                start, total = builder.mul(given.input2_stride_r, INT(r)), emit.zero
                by1 = emit.ahead(given.input1, builder.mul(given.input1_stride_r, INT(r)))
                scale = emit.splat(builder.load(by1))
                for v, mask in enumerate(masks):
                    offset = builder.add(start, INT(v * emit.lanes))
                    by2 = emit.load(emit.ahead(given.input2, offset), mask)
                    total = emit.multiply_add(tile[r][v], by2, total)
                    row = emit.ahead(given.grad2, offset)
                    emit.store(emit.multiply_add(tile[r][v], scale, emit.load(row, mask)), row, mask)
                place = emit.ahead(given.grad1, builder.mul(given.grad1_stride_r, INT(r)))
                builder.store(builder.fadd(builder.load(place), emit.total(total)), place)

        emit.switch(given.rows, range(1, SMALL_BATCH_ROWS + 1), epilogue)

    for_widths(emit, given.valid, use)


@intrinsic
def _row_gradients(_: Any, given: Any) -> Any:
    return tile_code(emit_row_gradients, given)


def row_gradients(given: RowGradients) -> None:
    """Run the tile."""
    _row_gradients(given)


@intrinsic
def _row_gradients_bfloat16(_: Any, given: Any) -> Any:
    return tile_code(functools.partial(emit_row_gradients, widen=from_bfloat16), given)


def row_gradients_bfloat16(given: RowGradients) -> None:
    """Run the tile with ``b`` of bfloat16."""
    _row_gradients_bfloat16(given)


@intrinsic
def _row_gradients_float16(_: Any, given: Any) -> Any:
    return tile_code(functools.partial(emit_row_gradients, widen=from_float16), given)


def row_gradients_float16(given: RowGradients) -> None:
    """Run the tile with ``b`` of float16."""
    _row_gradients_float16(given)


#: By the dtype of ``b``.
ROW_GRADIENTS: Final = {
    "float32": row_gradients,
    "float64": row_gradients,
    "bfloat16": row_gradients_bfloat16,
    "float16": row_gradients_float16,
}

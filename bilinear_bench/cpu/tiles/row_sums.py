"""Tile ``row_sums``: ``out[r] += sum_v acc[r, v] * e[r, v]``. The lanes disappear."""

from __future__ import annotations

import functools
from typing import Any, Final, NamedTuple

from numba.extending import intrinsic

from bilinear_bench.cpu.tiles.abi import Number, Pointer, tile_code
from bilinear_bench.cpu.tiles.emitter import INT, Emitter, Widen
from bilinear_bench.cpu.tiles.half_types import from_bfloat16, from_float16
from bilinear_bench.cpu.tiles.register_tile import SMALL_BATCH_ROWS, Factors, Masks, for_widths, multiply


class RowSums(NamedTuple):
    """Arguments of the tile; strides count elements.

    Attributes:
        rows: Number of rows of the tile, at most ``SMALL_BATCH_ROWS``.
        a: Numbers ``a[c, r]``.
        a_stride_c: Stride from one ``c`` to the next.
        a_stride_r: Stride from one row to the next.
        b: Vectors ``b[c, v]``.
        b_stride_c: Stride from one ``c`` to the next.
        count: Number of steps of ``c``.
        e: Numbers ``e[r, v]``.
        e_stride_r: Stride from one row to the next.
        valid: Number of valid lanes of ``b`` and ``e``.
        out: Numbers ``out[r]``.
        out_stride_r: Stride from one row to the next.
    """

    rows: Number
    a: Pointer
    a_stride_c: Number
    a_stride_r: Number
    b: Pointer
    b_stride_c: Number
    count: Number
    e: Pointer
    e_stride_r: Number
    valid: Number
    out: Pointer
    out_stride_r: Number


def emit_row_sums(emit: Emitter, given: RowSums, widen: Widen | None = None) -> None:
    """Emit the tile and its epilogue; ``widen`` is for ``b`` of 16 bits."""
    builder = emit.builder

    def use(masks: Masks) -> None:
        def epilogue(rows: int) -> None:
            tile = multiply(emit, Factors.of(emit, given, widen=widen), rows, masks)
            for r in range(rows):
                row, total = emit.ahead(given.e, builder.mul(given.e_stride_r, INT(r))), emit.zero
                for v, mask in enumerate(masks):
                    total = emit.multiply_add(tile[r][v], emit.load(emit.ahead(row, v * emit.lanes), mask), total)
                place = emit.ahead(given.out, builder.mul(given.out_stride_r, INT(r)))
                builder.store(builder.fadd(builder.load(place), emit.total(total)), place)

        emit.switch(given.rows, range(1, SMALL_BATCH_ROWS + 1), epilogue)

    for_widths(emit, given.valid, use)


@intrinsic
def _row_sums(_: Any, given: Any) -> Any:
    return tile_code(emit_row_sums, given)


def row_sums(given: RowSums) -> None:
    """Run the tile."""
    _row_sums(given)


@intrinsic
def _row_sums_bfloat16(_: Any, given: Any) -> Any:
    return tile_code(functools.partial(emit_row_sums, widen=from_bfloat16), given)


def row_sums_bfloat16(given: RowSums) -> None:
    """Run the tile with ``b`` of bfloat16."""
    _row_sums_bfloat16(given)


@intrinsic
def _row_sums_float16(_: Any, given: Any) -> Any:
    return tile_code(functools.partial(emit_row_sums, widen=from_float16), given)


def row_sums_float16(given: RowSums) -> None:
    """Run the tile with ``b`` of float16."""
    _row_sums_float16(given)


#: By the dtype of ``b``.
ROW_SUMS: Final = {
    "float32": row_sums,
    "float64": row_sums,
    "bfloat16": row_sums_bfloat16,
    "float16": row_sums_float16,
}

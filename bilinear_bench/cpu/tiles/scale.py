"""Tile ``scale``: ``out[r, v] += acc[r, v] * factor[v]``."""

from __future__ import annotations

from typing import Any, NamedTuple

from numba.core import cgutils
from numba.extending import intrinsic

from bilinear_bench.cpu.cpu import VECTORS
from bilinear_bench.cpu.tiles.abi import Number, Pointer, tile_code
from bilinear_bench.cpu.tiles.emitter import Emitter
from bilinear_bench.cpu.tiles.register_tile import Factors, Prefetch, for_strips, multiply


class Scale(NamedTuple):
    """Arguments of the tile; strides count elements.

    Attributes:
        rows: Number of rows of the tile.
        a: Numbers ``a[c, r]``, the same for all tiles of the call.
        a_stride_c: Stride from one ``c`` to the next.
        a_stride_r: Stride from one row to the next.
        b: Vectors ``b[c, v]``.
        b_stride_c: Stride from one ``c`` to the next.
        count: Number of steps of ``c``.
        times: Number of tiles of this call.
        vectors: Number of vectors of a tile, 1 or 2; all vectors in memory have room for 2.
        b_stride_t: Stride from one tile's ``b`` to the next one's.
        factor: Vectors ``factor[v]``.
        factor_stride_t: Stride from one tile's factor to the next one's.
        out: Vectors ``out[r, v]``, row after row.
        out_stride_t: Stride from one tile's ``out`` to the next one's.
        prefetch: Address of memory that will be written, to prefetch while the tiles multiply.
        prefetch_step: Bytes from one prefetch to the next; with 0 the same line is prefetched again, which is harmless.
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
    b_stride_t: Number
    factor: Pointer
    factor_stride_t: Number
    out: Pointer
    out_stride_t: Number
    prefetch: Number
    prefetch_step: Number


def emit_scale(emit: Emitter, given: Scale) -> None:
    """Emit the tiles and their epilogue."""
    builder = emit.builder
    address = cgutils.alloca_once_value(builder, given.prefetch)
    prefetch = Prefetch(address, given.prefetch_step, for_writing=True)

    def epilogue(vectors: int, rows: int, number: Any) -> None:
        factors = Factors.of(emit, given, b_offset=builder.mul(number, given.b_stride_t))
        tile = multiply(emit, factors, rows, (None,) * vectors, prefetch=prefetch)
        scales = emit.ahead(given.factor, builder.mul(number, given.factor_stride_t))
        out = emit.ahead(given.out, builder.mul(number, given.out_stride_t))
        for v in range(vectors):
            scale = emit.load(emit.ahead(scales, v * emit.lanes))
            for r in range(rows):
                place = emit.ahead(out, (r * VECTORS + v) * emit.lanes)
                emit.store(emit.multiply_add(tile[r][v], scale, emit.load(place)), place)

    for_strips(emit, given, epilogue)


@intrinsic
def _scale(_: Any, given: Any) -> Any:
    return tile_code(emit_scale, given)


def scale(given: Scale) -> None:
    """Run the tile."""
    _scale(given)

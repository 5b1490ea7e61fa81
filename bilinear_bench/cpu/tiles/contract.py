"""Tile ``contract``: ``out[v] += sum_r acc[r, v] * e[r, v]``. The rows disappear."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

from numba.core import cgutils
from numba.extending import intrinsic

from bilinear_bench.cpu.cpu import VECTORS
from bilinear_bench.cpu.tiles.abi import Number, Pointer, tile_code
from bilinear_bench.cpu.tiles.emitter import INT, Emitter
from bilinear_bench.cpu.tiles.register_tile import Factors, Prefetch, for_strips, multiply, offsets, prefetch_tile


class Contract(NamedTuple):
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
        vectors: Number of vectors of a tile, 1 or 2; ``b``, ``e``, ``out`` and ``forward_tiles`` have room for 2.
        b_stride_t: Stride from one tile's ``b`` to the next one's.
        e: Vectors ``e[r, v]``, row after row.
        e_stride_t: Stride from one tile's ``e`` to the next one's.
        out: Vectors ``out[v]``.
        out_stride_t: Stride from one tile's ``out`` to the next one's.
        forward_tiles: Memory for ``acc[r, v]``, row after row; 0 stores it nowhere.
        forward_tiles_stride_t: Stride from one tile's place to the next one's.
        prefetch: Address of memory to prefetch while the tiles multiply.
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
    e: Pointer
    e_stride_t: Number
    out: Pointer
    out_stride_t: Number
    forward_tiles: Pointer
    forward_tiles_stride_t: Number
    prefetch: Number
    prefetch_step: Number


def emit_contract(emit: Emitter, given: Contract, pairs: bool = False) -> None:
    """Emit the tiles and their epilogue; ``pairs`` is for pairs of bfloat16 in ``a`` and ``b``."""
    builder = emit.builder
    prefetch = Prefetch(cgutils.alloca_once_value(builder, given.prefetch), given.prefetch_step)
    storing = builder.icmp_unsigned("!=", builder.ptrtoint(given.forward_tiles, INT), INT(0))

    def epilogue(vectors: int, rows: int, number: Any) -> None:
        stored = emit.ahead(given.forward_tiles, builder.mul(number, given.forward_tiles_stride_t))
        with builder.if_then(storing):  # these lines are in no cache
            prefetch_tile(emit, stored, rows)
        factors = Factors.of(emit, given, b_offset=builder.mul(number, given.b_stride_t), pairs=pairs)
        tile = multiply(emit, factors, rows, (None,) * vectors, prefetch=prefetch)
        e = emit.ahead(given.e, builder.mul(number, given.e_stride_t))
        out = emit.ahead(given.out, builder.mul(number, given.out_stride_t))
        for v in range(vectors):
            total = emit.zero
            for r in range(rows):
                other = emit.load(emit.ahead(e, (r * VECTORS + v) * emit.lanes))
                total = emit.multiply_add(tile[r][v], other, total)
            emit.add(total, emit.ahead(out, v * emit.lanes))
        with builder.if_then(storing):
            for r, v, offset in offsets(emit, rows, vectors):
                emit.store(tile[r][v], emit.ahead(stored, offset))

    for_strips(emit, given, epilogue)


@intrinsic
def _contract(_: Any, given: Any) -> Any:
    return tile_code(emit_contract, given)


def contract(given: Contract) -> None:
    """Run the tile."""
    _contract(given)


@intrinsic
def _contract_pairs(_: Any, given: Any) -> Any:
    return tile_code(functools.partial(emit_contract, pairs=True), given)


def contract_pairs(given: Contract) -> None:
    """Run the tile with ``a`` and ``b`` of pairs of bfloat16, each in a float32's place."""
    _contract_pairs(given)

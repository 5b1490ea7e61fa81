"""Tile ``accumulate``: ``out[r, v] += acc[r, v]``."""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

from numba.extending import intrinsic

from bilinear_bench.cpu.tiles.abi import Number, Pointer, tile_code
from bilinear_bench.cpu.tiles.emitter import INT, Emitter, prefetch_line
from bilinear_bench.cpu.tiles.register_tile import Factors, Masks, for_tiles, for_widths, multiply


class Accumulate(NamedTuple):
    """Arguments of the tile; strides count elements.

    Attributes:
        rows: Number of rows of the tile.
        a: Numbers ``a[c, r]``.
        a_stride_c: Stride from one ``c`` to the next.
        a_stride_r: Stride from one row to the next.
        b: Vectors ``b[c, v]``, the same for all tiles of the call; all their lanes are valid.
        b_stride_c: Stride from one ``c`` to the next.
        count: Number of steps of ``c``.
        times: Number of tiles of this call.
        a_stride_t: Stride from one tile's ``a`` to the next one's.
        out: Numbers ``out[r, v]``; each tile of the call has the rows that follow those of the tile before.
        out_stride_r: Stride from one row to the next.
        valid: Number of valid lanes of ``out``.
        overwrite: 1 to overwrite ``out``, 0 to add to it.
        prefetch: 1 if ``out`` is in no cache: a tile then prefetches its part, for writing reads whole lines, too.
    """

    rows: Number
    a: Pointer
    a_stride_c: Number
    a_stride_r: Number
    b: Pointer
    b_stride_c: Number
    count: Number
    times: Number
    a_stride_t: Number
    out: Pointer
    out_stride_r: Number
    valid: Number
    overwrite: Number
    prefetch: Number


def emit_accumulate(emit: Emitter, given: Accumulate) -> None:
    """Emit the tiles and their epilogue."""
    builder = emit.builder
    overwriting, prefetching = (builder.icmp_signed("!=", flag, INT(0)) for flag in (given.overwrite, given.prefetch))

    def use(masks: Masks) -> None:
        def epilogue(rows: int, number: Any) -> None:
            first = builder.mul(number, INT(rows))
            strides = [builder.mul(given.out_stride_r, builder.add(first, INT(r))) for r in range(rows)]
            out = [emit.ahead(given.out, stride) for stride in strides]
            with builder.if_then(prefetching):
                for row, v in itertools.product(out, range(len(masks))):
                    address = builder.ptrtoint(emit.ahead(row, v * emit.lanes), INT)
                    prefetch_line(builder, address, for_writing=True)
            factors = Factors.of(emit, given, a_offset=builder.mul(number, given.a_stride_t))
            tile = multiply(emit, factors, rows, (None,) * len(masks))
            for r, row in enumerate(out):
                for v, mask in enumerate(masks):
                    place = emit.ahead(row, v * emit.lanes)
                    earlier = builder.select(overwriting, emit.zero, emit.load(place, mask))
                    emit.store(builder.fadd(tile[r][v], earlier), place, mask)

        for_tiles(emit, given, epilogue)

    for_widths(emit, given.valid, use)


@intrinsic
def _accumulate(_: Any, given: Any) -> Any:
    return tile_code(emit_accumulate, given)


def accumulate(given: Accumulate) -> None:
    """Run the tile."""
    _accumulate(given)

"""Vector code ``multiply``: ``target[r, v] = source[r, v] * factor[r]``, for at most the vectors of a tile."""

from __future__ import annotations

from typing import Any, NamedTuple

from numba.core import cgutils
from numba.extending import intrinsic

from bilinear_bench.cpu.cpu import VECTORS
from bilinear_bench.cpu.tiles.abi import Number, Pointer, tile_code
from bilinear_bench.cpu.tiles.emitter import INT, Emitter


class Multiply(NamedTuple):
    """Arguments; strides count elements.

    Attributes:
        rows: Number of rows.
        source: Numbers ``source[r, v]``.
        source_stride_r: Stride from one row to the next.
        factor: Numbers ``factor[r]``.
        factor_stride_r: Stride from one row to the next.
        valid: Number of valid lanes of ``source``; the rest of their vectors in ``target`` becomes 0.
        target: Numbers ``target[r, v]``.
        target_stride_r: Stride from one row to the next.
    """

    rows: Number
    source: Pointer
    source_stride_r: Number
    factor: Pointer
    factor_stride_r: Number
    valid: Number
    target: Pointer
    target_stride_r: Number


def emit_multiply(emit: Emitter, given: Multiply) -> None:
    """Emit the loop over rows."""
    builder = emit.builder
    masks = [emit.mask(builder.sub(given.valid, INT(v * emit.lanes))) for v in range(VECTORS)]

    def loop(masks: list[Any]) -> None:
        with cgutils.for_range(builder, given.rows, intp=INT) as row:
            source = emit.ahead(given.source, builder.mul(row.index, given.source_stride_r))
            target = emit.ahead(given.target, builder.mul(row.index, given.target_stride_r))
            factor = builder.load(emit.ahead(given.factor, builder.mul(row.index, given.factor_stride_r)))
            scale = emit.splat(factor)
            for v, mask in enumerate(masks):
                loaded = emit.load(emit.ahead(source, v * emit.lanes), mask)
                emit.store(builder.fmul(loaded, scale), emit.ahead(target, v * emit.lanes))

    with builder.if_else(builder.icmp_signed(">", given.valid, INT(emit.lanes))) as (several, single):
        with several:
            loop(masks)
        with single:
            loop(masks[:1])


@intrinsic
def _multiply(_: Any, given: Any) -> Any:
    return tile_code(emit_multiply, given)


def multiply(given: Multiply) -> None:
    """Run the code."""
    _multiply(given)

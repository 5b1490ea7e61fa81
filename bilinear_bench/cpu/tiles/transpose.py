"""Vector code ``transpose`` and ``transpose_sum``: transpose a square whose side is the number of lanes.

In each of log2(lanes) rounds, rows whose numbers differ in one bit exchange the lanes whose numbers do (Eklundh, A Fast
Computer Method for Matrix Transposing, IEEE Transactions on Computers C-21, 1972).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from numba.core import cgutils
from numba.extending import intrinsic

from bilinear_bench.cpu.tiles.abi import Number, Pointer, tile_code
from bilinear_bench.cpu.tiles.emitter import INT, Emitter


class Transpose(NamedTuple):
    """Arguments of ``transpose``: ``target[v, r] = source[r, v]``; strides count elements.

    Attributes:
        source: Numbers ``source[r, v]``.
        source_stride_r: Stride from one row to the next.
        target: Numbers ``target[v, r]``.
        target_stride_r: Stride from one row to the next.
    """

    source: Pointer
    source_stride_r: Number
    target: Pointer
    target_stride_r: Number


class TransposeSum(NamedTuple):
    """Arguments of ``transpose_sum``: ``target[v, r] = sum_c source[c, r, v] * factor[c, v]``.

    Attributes:
        count: Number of steps of ``c``.
        source: Numbers ``source[c, r, v]``.
        source_stride_c: Stride from one ``c`` to the next.
        source_stride_r: Stride from one row to the next.
        factor: Numbers ``factor[c, v]``.
        factor_stride_c: Stride from one ``c`` to the next.
        target: Numbers ``target[v, r]``.
        target_stride_r: Stride from one row to the next.
    """

    count: Number
    source: Pointer
    source_stride_c: Number
    source_stride_r: Number
    factor: Pointer
    factor_stride_c: Number
    target: Pointer
    target_stride_r: Number


def emit_transpose(emit: Emitter, given: Transpose) -> None:
    """Emit the loads, the rounds and the stores."""
    builder = emit.builder
    rows = [emit.load(emit.ahead(given.source, builder.mul(given.source_stride_r, INT(r)))) for r in range(emit.lanes)]
    _store_columns(emit, rows, given.target, given.target_stride_r)


def emit_transpose_sum(emit: Emitter, given: TransposeSum) -> None:
    """Emit the loop over ``c``, the rounds and the stores."""
    builder = emit.builder
    sums = [cgutils.alloca_once_value(builder, emit.zero) for _ in range(emit.lanes)]
    with cgutils.for_range(builder, given.count, intp=INT) as c:
        factor = emit.load(emit.ahead(given.factor, builder.mul(c.index, given.factor_stride_c)))
        source = emit.ahead(given.source, builder.mul(c.index, given.source_stride_c))
        for r, place in enumerate(sums):
            row = emit.load(emit.ahead(source, builder.mul(given.source_stride_r, INT(r))))
            builder.store(emit.multiply_add(row, factor, builder.load(place)), place)
    _store_columns(emit, [builder.load(place) for place in sums], given.target, given.target_stride_r)


def _store_columns(emit: Emitter, rows: list[Any], target: Any, stride: Any) -> None:
    """Store the columns of the square that has these rows."""
    lanes, bit = emit.lanes, 1
    while bit < lanes:
        # Lane numbers from ``lanes`` on are those of the second of two rows.
        stay = [lane if not lane & bit else lanes + lane - bit for lane in range(lanes)]
        move = [lane + bit if not lane & bit else lanes + lane for lane in range(lanes)]
        for r in range(lanes):
            if not r & bit:
                pair = rows[r], rows[r + bit]
                rows[r], rows[r + bit] = emit.shuffle(*pair, stay), emit.shuffle(*pair, move)
        bit *= 2
    for r, row in enumerate(rows):
        emit.store(row, emit.ahead(target, emit.builder.mul(stride, INT(r))))


@intrinsic
def _transpose(_: Any, given: Any) -> Any:
    return tile_code(emit_transpose, given)


@intrinsic
def _transpose_sum(_: Any, given: Any) -> Any:
    return tile_code(emit_transpose_sum, given)


def transpose(given: Transpose) -> None:
    """Run the code."""
    _transpose(given)


def transpose_sum(given: TransposeSum) -> None:
    """Run the code."""
    _transpose_sum(given)

"""The register tile: ``acc[r, v] = sum_c a[c, r] * b[c, v]``, held in vector registers until an epilogue has used it.

``r`` are a few rows, whose factor is one number for all lanes; ``v`` are the lanes of one or two vectors. This is what
makes a fused kernel: a GEMM would write the tile to memory first.

Each kind of tile is a C function with a switch over the number of rows. One call makes several tiles of one height,
for a call costs as much as several steps of ``c``.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

from numba.core import cgutils

from bilinear_bench.cpu.cpu import LINE_BYTES, ROWS, VECTOR_BYTES, VECTORS
from bilinear_bench.cpu.tiles.emitter import BITS16, INT, Emitter, Widen, prefetch_line

#: Steps of ``c`` between two tests of the loop.
UNROLLED: Final = 4
#: Rows of a tile whose addresses are computed from one another.
GROUPED_ROWS: Final = 3
#: Most rows of a tile whose rows are those of a small batch.
SMALL_BATCH_ROWS: Final = 4
#: Numbers of rows that a tile can have.
HEIGHTS: Final = range(1, ROWS + 1)

#: A mask, or None for a whole vector; one for each vector of a tile.
Masks = tuple[Any, ...]


class Factors(NamedTuple):
    """Operands of a tile, as LLVM values.

    Attributes:
        a: Pointer to the numbers ``a[c, r]``.
        a_stride_c: Elements from one ``c`` to the next.
        a_stride_r: Elements from one row to the next.
        b: Pointer to the vectors ``b[c, v]``.
        b_stride_c: Elements from one ``c`` to the next.
        count: Number of steps of ``c``.
        widen: What makes float32 of ``b``, if those are numbers of 16 bits; else None.
        pairs: Whether each number of ``a`` and ``b`` is a pair of bfloat16, to be multiplied pair by pair.
    """

    a: Any
    a_stride_c: Any
    a_stride_r: Any
    b: Any
    b_stride_c: Any
    count: Any
    widen: Widen | None = None
    pairs: bool = False

    @classmethod
    def of(
        cls,
        emit: Emitter,
        given: Any,
        a_offset: Any = 0,
        b_offset: Any = 0,
        widen: Widen | None = None,
        pairs: bool = False,
    ) -> Factors:
        """Take a tile's arguments; ``a`` and ``b`` start the offsets (elements) further."""
        start = given.b if widen is None else emit.builder.bitcast(given.b, BITS16.as_pointer())
        a, b = emit.ahead(given.a, a_offset), emit.ahead(start, b_offset)
        return cls(a, given.a_stride_c, given.a_stride_r, b, given.b_stride_c, given.count, widen, pairs)


class Prefetch(NamedTuple):
    """Memory to prefetch while a tile multiplies, one cache line in each ``UNROLLED`` steps.

    Attributes:
        address: Variable with the next address.
        step: Bytes from one address to the next.
        for_writing: Whether the memory will be written.
    """

    address: Any
    step: Any
    for_writing: bool = False


def multiply(
    emit: Emitter,
    factors: Factors,
    rows: int,
    masks: Masks,
    *,
    grouped: int = GROUPED_ROWS,
    group_stride: Any = None,
    prefetch: Prefetch | None = None,
) -> list[list[Any]]:
    """Emit the loop over ``c`` and return the sums, row by row and vector by vector.

    Args:
        emit: Emitter of the tile.
        factors: Operands of the tile.
        rows: Number of rows.
        masks: One mask or None for each vector.
        grouped: Rows of a group, in which each is ``a_stride_r`` after the one before.
        group_stride: Elements from one group to the next, or None for ``grouped * a_stride_r``.
        prefetch: Memory to prefetch, or None.
    """
    builder = emit.builder
    sums = [[cgutils.alloca_once_value(builder, emit.zero) for _ in masks] for _ in range(rows)]
    step = _Step(emit, factors, sums, masks, grouped, group_stride)
    unrolled = INT(UNROLLED)
    whole = builder.mul(builder.sdiv(factors.count, unrolled), unrolled)
    with cgutils.for_range_slice(builder, INT(0), whole, unrolled, INT):
        for _ in range(UNROLLED):
            step.emit()
        if prefetch:
            address = builder.load(prefetch.address)
            prefetch_line(builder, address, for_writing=prefetch.for_writing)
            builder.store(builder.add(address, prefetch.step), prefetch.address)
    with cgutils.for_range_slice(builder, whole, factors.count, INT(1), INT):
        step.emit()
    return [[builder.load(place) for place in row] for row in sums]


class _Step:
    """One step of ``c``.

    Left to itself, LLVM walks from row to row and on to the next step: each address waits for the one before, as long
    as the multiplications take. Or it keeps a pointer for each row and step, more than there are registers. So every
    step starts from pointers whose origin LLVM does not know, one for ``b`` and one for each group of rows.
    """

    def __init__(
        self,
        emit: Emitter,
        factors: Factors,
        sums: list[list[Any]],
        masks: Masks,
        grouped: int,
        stride: Any,
    ) -> None:
        self._emit, self._factors, self._sums, self._masks, self._grouped = emit, factors, sums, masks, grouped
        builder = emit.builder
        self._offsets = [builder.mul(factors.a_stride_r, INT(row)) for row in range(grouped)]
        stride = stride or builder.mul(factors.a_stride_r, INT(grouped))
        starts = [emit.ahead(factors.a, builder.mul(stride, INT(group))) for group in range(-(-len(sums) // grouped))]
        self._groups = [cgutils.alloca_once_value(builder, start) for start in starts]
        self._vectors = cgutils.alloca_once_value(builder, factors.b)

    def emit(self) -> None:
        emit, builder = self._emit, self._emit.builder
        multiply_add = emit.add_pair_products if self._factors.pairs else emit.multiply_add
        from_b, from_a = builder.load(self._vectors), [builder.load(group) for group in self._groups]
        vectors = [self._load(emit.ahead(from_b, v * emit.lanes), mask) for v, mask in enumerate(self._masks)]
        for number, row in enumerate(self._sums):
            group, within = divmod(number, self._grouped)
            factor = emit.splat(builder.load(emit.ahead(from_a[group], self._offsets[within])))
            for vector, place in zip(vectors, row, strict=True):
                builder.store(multiply_add(factor, vector, builder.load(place)), place)
        builder.store(emit.opaque(emit.ahead(from_b, self._factors.b_stride_c)), self._vectors)
        for pointer, group in zip(from_a, self._groups, strict=True):
            builder.store(emit.opaque(emit.ahead(pointer, self._factors.a_stride_c)), group)

    def _load(self, pointer: Any, mask: Any) -> Any:
        widen = self._factors.widen
        return self._emit.load(pointer, mask) if widen is None else self._emit.load_wide(pointer, mask, widen)


def for_tiles(
    emit: Emitter, given: Any, epilogue: Callable[[int, Any], None], heights: Iterable[int] = HEIGHTS
) -> None:
    """Emit a loop over ``given.times`` tiles for each height; ``epilogue`` gets the height and the tile's number."""

    def loop(height: int) -> None:
        with cgutils.for_range(emit.builder, given.times, intp=INT) as counter:
            epilogue(height, counter.index)

    emit.switch(given.rows, heights, loop)


def for_strips(
    emit: Emitter, given: Any, epilogue: Callable[[int, int, Any], None], heights: Iterable[int] = HEIGHTS
) -> None:
    """Emit ``for_tiles`` for tiles of two vectors and for those of one; ``epilogue`` gets their number first."""
    whole = emit.builder.icmp_signed("==", given.vectors, INT(VECTORS))
    with emit.builder.if_else(whole) as branches:
        for branch, vectors in zip(branches, (VECTORS, 1), strict=True):
            with branch:
                for_tiles(emit, given, functools.partial(epilogue, vectors), heights)


def for_widths(emit: Emitter, valid: Any, use: Callable[[Masks], None]) -> None:
    """Emit code for whole vectors, for a last one that is not whole, and for a single one.

    Args:
        emit: Emitter of the tile.
        valid: Number of valid lanes, which chooses the code that runs.
        use: Emits code for vectors, each with its mask or None.
    """
    builder = emit.builder
    whole = builder.icmp_signed(">=", valid, INT(VECTORS * emit.lanes))
    with builder.if_else(whole) as (yes, no):
        with yes:
            use((None,) * VECTORS)
        with no, builder.if_else(builder.icmp_signed(">", valid, INT(emit.lanes))) as (several, single):
            with several:
                use((None, emit.mask(builder.sub(valid, INT(emit.lanes)))))
            with single:
                use((emit.mask(valid),))


def prefetch_tile(emit: Emitter, start: Any, rows: int) -> None:
    """Prefetch a tile's rows for writing, which follow each other from ``start``."""
    address = emit.builder.ptrtoint(start, INT)
    for offset in range(0, rows * VECTORS * VECTOR_BYTES, LINE_BYTES):
        prefetch_line(emit.builder, emit.builder.add(address, INT(offset)), for_writing=True)


def offsets(emit: Emitter, rows: int, vectors: int) -> list[tuple[int, int, int]]:
    """Return row, vector and offset in elements of each vector of a tile whose rows follow each other."""
    return [(r, v, (r * VECTORS + v) * emit.lanes) for r, v in itertools.product(range(rows), range(vectors))]

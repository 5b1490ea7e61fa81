"""Vector code for numbers of 16 bits: ``widen_*`` to float32, ``round_*`` from float32, and pairs (``interleave``).

bfloat16 is the upper half of a float32. For float16 LLVM has a type, and x86 has had instructions since AVX2.
Rounding is to the nearest, ties to even. NaN stays NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from llvmlite import ir
from numba.core import cgutils
from numba.extending import intrinsic

from bilinear_bench.cpu.tiles.abi import Number, Pointer, tile_code
from bilinear_bench.cpu.tiles.emitter import BITS16, INT, Emitter

_FLOAT: Final = ir.FloatType()
#: Just under half of the last bit that bfloat16 keeps; and the bit that keeps a NaN from becoming infinite.
_JUST_UNDER_HALF, _QUIET = 0x7FFF, 0x40


class Interleave(NamedTuple):
    """Arguments of ``interleave``: ``pairs[n] = first[n], second[n]``.

    Attributes:
        pairs: Pairs of 16 bits, each in a float32's place; the first has the lower bits.
        first: Address of the first numbers.
        second: Address of the second ones; 0 for zeros.
        count: How many.
    """

    pairs: Pointer
    first: Number
    second: Number
    count: Number


class Conversion(NamedTuple):
    """Arguments of the conversions.

    Attributes:
        wide: Numbers of float32.
        narrow: Address of the numbers of 16 bits.
        count: How many.
    """

    wide: Pointer
    narrow: Number
    count: Number


def _like(kind: Any, scalar: Any) -> Any:
    """Return the type with this scalar that has as many lanes as another type."""
    return ir.VectorType(scalar, kind.count) if isinstance(kind, ir.VectorType) else scalar


def _constant(kind: Any, value: int) -> Any:
    return ir.Constant(kind, [value] * kind.count if isinstance(kind, ir.VectorType) else value)


def from_bfloat16(builder: Any, bits: Any) -> Any:
    """Return float32 of a number's bits, or of a vector's."""
    words = _like(bits.type, ir.IntType(32))
    return builder.bitcast(builder.shl(builder.zext(bits, words), _constant(words, 16)), _like(bits.type, _FLOAT))


def from_float16(builder: Any, bits: Any) -> Any:
    """Return float32 of a number's bits, or of a vector's."""
    return builder.fpext(builder.bitcast(bits, _like(bits.type, ir.HalfType())), _like(bits.type, _FLOAT))


def to_bfloat16(builder: Any, number: Any) -> Any:
    """Return the bits of the nearest bfloat16 of a float32, or of a vector."""
    words = _like(number.type, ir.IntType(32))
    bits = builder.bitcast(number, words)
    upper = builder.lshr(bits, _constant(words, 16))
    odd = builder.and_(upper, _constant(words, 1))
    sum_ = builder.add(bits, builder.add(odd, _constant(words, _JUST_UNDER_HALF)))
    is_nan = builder.fcmp_unordered("uno", number, number)
    quiet = builder.or_(upper, _constant(words, _QUIET))
    nearest = builder.select(is_nan, quiet, builder.lshr(sum_, _constant(words, 16)))
    return builder.trunc(nearest, _like(number.type, BITS16))


def to_float16(builder: Any, number: Any) -> Any:
    """Return the bits of the nearest float16 of a float32, or of a vector."""
    half = builder.fptrunc(number, _like(number.type, ir.HalfType()))
    return builder.bitcast(half, _like(number.type, BITS16))


def _emit(convert: Callable[[Any, Any], Any], *, widens: bool) -> Callable[[Emitter, Conversion], None]:
    """Return what emits the loops of a conversion."""

    def emit_loops(emit: Emitter, given: Conversion) -> None:
        narrow = emit.builder.inttoptr(given.narrow, BITS16.as_pointer())

        def step(n: Any, lanes: int) -> None:
            wide, bits = _place(emit, given.wide, n, lanes), _place(emit, narrow, n, lanes)
            if widens:
                _store(emit, convert(emit.builder, _load(emit, bits)), wide)
            else:
                _store(emit, convert(emit.builder, _load(emit, wide)), bits)

        _loops(emit, given.count, step)

    return emit_loops


def emit_interleave(emit: Emitter, given: Interleave) -> None:
    """Emit the loops."""
    builder = emit.builder
    first, second = (builder.inttoptr(place, BITS16.as_pointer()) for place in (given.first, given.second))

    def loops(*, alone: bool) -> None:
        def step(n: Any, lanes: int) -> None:
            lower = _load(emit, _place(emit, first, n, lanes))
            words = _like(lower.type, ir.IntType(32))
            pair = builder.zext(lower, words)
            if not alone:
                upper = builder.zext(_load(emit, _place(emit, second, n, lanes)), words)
                pair = builder.or_(pair, builder.shl(upper, _constant(words, 16)))
            _store(emit, builder.bitcast(pair, _like(words, _FLOAT)), _place(emit, given.pairs, n, lanes))

        _loops(emit, given.count, step)

    with builder.if_else(builder.icmp_signed("==", given.second, INT(0))) as (yes, no):
        with yes:
            loops(alone=True)
        with no:
            loops(alone=False)


def _loops(emit: Emitter, count: Any, step: Callable[[Any, int], None]) -> None:
    """Emit a loop over whole vectors, and one over the numbers that are left; ``step`` gets the first, and how many."""
    builder, lanes = emit.builder, INT(emit.lanes)
    whole = builder.mul(builder.sdiv(count, lanes), lanes)
    for begin, end, width in ((INT(0), whole, emit.lanes), (whole, count, 1)):
        with cgutils.for_range_slice(builder, begin, end, INT(width), INT) as (n, _):
            step(n, width)


def _place(emit: Emitter, start: Any, n: Any, lanes: int) -> Any:
    """Return a pointer to number ``n``, or to a vector from there on."""
    place = emit.builder.gep(start, [n])
    if lanes == 1:
        return place
    return emit.builder.bitcast(place, ir.VectorType(start.type.pointee, lanes).as_pointer())


def _load(emit: Emitter, place: Any) -> Any:
    loaded = emit.builder.load(place)
    loaded.align = _bytes(place.type.pointee)
    return loaded


def _store(emit: Emitter, value: Any, place: Any) -> None:
    emit.builder.store(value, place).align = _bytes(value.type)


def _bytes(kind: Any) -> int:
    """Return the bytes of a number of this type, or of this vector type."""
    return 2 if getattr(kind, "element", kind) == BITS16 else 4


@intrinsic
def _widen_bfloat16(_: Any, given: Any) -> Any:
    return tile_code(_emit(from_bfloat16, widens=True), given)


@intrinsic
def _widen_float16(_: Any, given: Any) -> Any:
    return tile_code(_emit(from_float16, widens=True), given)


@intrinsic
def _round_bfloat16(_: Any, given: Any) -> Any:
    return tile_code(_emit(to_bfloat16, widens=False), given)


@intrinsic
def _round_float16(_: Any, given: Any) -> Any:
    return tile_code(_emit(to_float16, widens=False), given)


@intrinsic
def _interleave(_: Any, given: Any) -> Any:
    return tile_code(emit_interleave, given)


def interleave(given: Interleave) -> None:
    """Write pairs of 16 bits."""
    _interleave(given)


def widen_bfloat16(given: Conversion) -> None:
    """Write bfloat16 as float32."""
    _widen_bfloat16(given)


def widen_float16(given: Conversion) -> None:
    """Write float16 as float32."""
    _widen_float16(given)


def round_bfloat16(given: Conversion) -> None:
    """Round float32 to bfloat16."""
    _round_bfloat16(given)


def round_float16(given: Conversion) -> None:
    """Round float32 to float16."""
    _round_float16(given)


WIDEN: Final = {"bfloat16": widen_bfloat16, "float16": widen_float16}
ROUND: Final = {"bfloat16": round_bfloat16, "float16": round_float16}

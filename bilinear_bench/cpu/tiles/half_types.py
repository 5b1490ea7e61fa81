"""Vector code ``widen`` and ``round_off``: numbers of 16 bits to float32, and float32 to numbers of 16 bits.

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
from bilinear_bench.cpu.tiles.emitter import INT, Emitter

_FLOAT: Final = ir.FloatType()
#: Just under half of the last bit that bfloat16 keeps; and the bit that keeps a NaN from becoming infinite.
_JUST_UNDER_HALF, _QUIET = 0x7FFF, 0x40


class Conversion(NamedTuple):
    """Arguments of all four.

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
    return builder.bitcast(
        builder.shl(builder.zext(bits, words), _constant(words, 16)), _like(bits.type, _FLOAT)
    )


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
    return builder.trunc(nearest, _like(number.type, ir.IntType(16)))


def to_float16(builder: Any, number: Any) -> Any:
    """Return the bits of the nearest float16 of a float32, or of a vector."""
    half = builder.fptrunc(number, _like(number.type, ir.HalfType()))
    return builder.bitcast(half, _like(number.type, ir.IntType(16)))


def _emit(convert: Callable[[Any, Any], Any], *, widens: bool) -> Callable[[Emitter, Conversion], None]:
    """Return what emits a loop over whole vectors, and one over the numbers that are left."""

    def emit_loops(emit: Emitter, given: Conversion) -> None:
        builder, lanes = emit.builder, INT(emit.lanes)
        narrow = builder.inttoptr(given.narrow, ir.IntType(16).as_pointer())
        whole = builder.mul(builder.sdiv(given.count, lanes), lanes)
        for begin, end, step in ((INT(0), whole, emit.lanes), (whole, given.count, 1)):
            with cgutils.for_range_slice(builder, begin, end, INT(step), INT) as (n, _):
                places = [builder.gep(start, [n]) for start in (given.wide, narrow)]
                if step > 1:
                    kinds = emit.kind, _like(emit.kind, ir.IntType(16))
                    places = [builder.bitcast(place, kind.as_pointer()) for place, kind in zip(places, kinds, strict=True)]
                source, target = (places[1], places[0]) if widens else places
                loaded, stored = builder.load(source), None
                loaded.align = 2 if widens else 4
                stored = builder.store(convert(builder, loaded), target)
                stored.align = 4 if widens else 2

    return emit_loops


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

"""Numbers of 16 bits from and to float32; a loop over them becomes vector code.

bfloat16 is the upper half of a float32. For float16 LLVM has a type, and x86 has had instructions since AVX2.
Rounding is to the nearest, ties to even. NaN stays NaN.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

_BITS16, _BITS32, _FLOAT = ir.IntType(16), ir.IntType(32), ir.FloatType()
#: Half of the last bit that bfloat16 keeps, less one; and the bit that keeps a NaN from becoming infinite.
_JUST_UNDER_HALF, _QUIET = 0x7FFF, 0x40


@intrinsic
def from_bfloat16(_: Any, bits: Any) -> Any:
    """``from_bfloat16(bits)``: return the float32."""

    def generate(_: Any, builder: Any, __: Any, given: Any) -> Any:
        return builder.bitcast(builder.shl(builder.zext(given[0], _BITS32), _BITS32(16)), _FLOAT)

    return types.float32(types.uint16), generate


@intrinsic
def from_float16(_: Any, bits: Any) -> Any:
    """``from_float16(bits)``: return the float32."""

    def generate(_: Any, builder: Any, __: Any, given: Any) -> Any:
        return builder.fpext(builder.bitcast(given[0], ir.HalfType()), _FLOAT)

    return types.float32(types.uint16), generate


@intrinsic
def bfloat16_of(_: Any, number: Any) -> Any:
    """``bfloat16_of(number)``: return the bits of the nearest bfloat16."""

    def generate(_: Any, builder: Any, __: Any, given: Any) -> Any:
        bits = builder.bitcast(given[0], _BITS32)
        upper = builder.lshr(bits, _BITS32(16))
        odd = builder.and_(upper, _BITS32(1))
        rounded = builder.lshr(builder.add(bits, builder.add(odd, _BITS32(_JUST_UNDER_HALF))), _BITS32(16))
        is_nan = builder.fcmp_unordered("uno", given[0], given[0])
        return builder.trunc(builder.select(is_nan, builder.or_(upper, _BITS32(_QUIET)), rounded), _BITS16)

    return types.uint16(types.float32), generate


@intrinsic
def float16_of(_: Any, number: Any) -> Any:
    """``float16_of(number)``: return the bits of the nearest float16."""

    def generate(_: Any, builder: Any, __: Any, given: Any) -> Any:
        return builder.bitcast(builder.fptrunc(given[0], ir.HalfType()), _BITS16)

    return types.uint16(types.float32), generate

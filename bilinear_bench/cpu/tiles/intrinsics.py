"""What loops in compiled Python need and Numba does not have: calls by address, addresses, atomics, prefetches."""

from __future__ import annotations

from typing import Any, Final

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from bilinear_bench.cpu.cpu import VECTOR_BYTES, VECTORS
from bilinear_bench.cpu.tiles.emitter import INT, Emitter, prefetch_line

_ADDRESS: Final = types.intp


@intrinsic
def call(_: Any, address: Any, arguments: Any) -> Any:
    """``call(address, Contract(...))``: call the tile at an address; fields are integers and addresses."""

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        struct = ir.Constant(ir.LiteralStructType([INT] * len(signature.args[1])), ir.Undefined)
        for number, kind in enumerate(signature.args[1]):
            field = context.cast(builder, builder.extract_value(given[1], number), kind, types.intp)
            struct = builder.insert_value(struct, field, number)
        function = ir.FunctionType(ir.VoidType(), [struct.type])
        builder.call(builder.inttoptr(given[0], function.as_pointer()), [struct])
        return context.get_dummy_value()

    return types.void(_ADDRESS, arguments), generate


@intrinsic
def at(_: Any, array: Any, offset: Any) -> Any:
    """``at(array, offset)``: return the address of an element of a C-contiguous array, counted from its first."""

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, given[0]).data
        return builder.ptrtoint(builder.gep(data, [given[1]]), INT)

    return types.intp(array, types.intp), generate


@intrinsic
def lanes(_: Any, array: Any) -> Any:
    """``lanes(array)``: return how many of the array's numbers a vector holds, a constant of the compiled code."""

    def generate(_: Any, __: Any, signature: Any, ___: Any) -> Any:
        return INT(8 * VECTOR_BYTES // signature.args[0].dtype.bitwidth)

    return types.intp(array), generate


@intrinsic
def take(_: Any, counter: Any) -> Any:
    """``take(counter)``: return the array's first number and add 1 to it, atomically."""

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, given[0]).data
        return builder.atomic_rmw("add", data, INT(1), "monotonic")

    return types.intp(counter), generate


@intrinsic
def spread(_: Any, array: Any, offset: Any, value: Any) -> Any:
    """``spread(array, offset, value)``: store a number in all lanes of a tile's vectors, from an element on."""

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        emit = Emitter(context, builder, signature.args[0].dtype)
        begin = builder.gep(context.make_array(signature.args[0])(context, builder, given[0]).data, [given[1]])
        for v in range(VECTORS):
            emit.store(emit.splat(given[2]), emit.ahead(begin, v * emit.lanes))
        return context.get_dummy_value()

    return types.void(array, types.intp, value), generate


@intrinsic
def copy(_: Any, target: Any, source: Any, size: Any) -> Any:
    """``copy(target, source, size)``: copy bytes from one address to another, faster than Numba assigns a slice."""

    def generate(context: Any, builder: Any, _: Any, given: Any) -> Any:
        to, origin = (builder.inttoptr(address, ir.IntType(8).as_pointer()) for address in given[:2])
        cgutils.raw_memcpy(builder, to, origin, given[2], 1)
        return context.get_dummy_value()

    return types.void(_ADDRESS, _ADDRESS, types.intp), generate


@intrinsic
def prefetch(_: Any, address: Any) -> Any:
    """``prefetch(address)``: prefetch the cache line at an address into L2; nothing is read."""

    def generate(context: Any, builder: Any, _: Any, given: Any) -> Any:
        prefetch_line(builder, given[0])
        return context.get_dummy_value()

    return types.void(_ADDRESS), generate

"""The peak worker's vector loops: multiply-add chains and sums, compiled by Numba.

The loops are LLVM code from this module, so that the compiler neither drops nor reorders the work that is counted.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

#: Vectors summed side by side while reading. An integer sum has a latency of one cycle and more ports than a
#: floating-point one, so the loads bound the loop; and the sum is exact.
SUMS: Final = 8
#: A cache line, and the longest vector of any CPU, in bytes.
LINE_BYTES: Final = 64

Array = npt.NDArray[Any]
Chain = Callable[[Array, Any, Any, int], None]
Sum = Callable[[Array, int], int]

#: Set by ``kernels``. They are globals because Numba puts the variables of a closure into the key of its cache on disk.
#: An intrinsic is another object in every process, so a closure over one would be compiled in every process.
_chain_loop: Any
_sum_loop: Any


class Vector(NamedTuple):
    """The host's widest vector, and the number of multiply-add chains that keeps its units busy.

    Latency times units is 8 to 16 chains. They share the registers (16 with AVX2, else 32) with the factor and the
    addend.
    """

    name: str
    size_bytes: int
    chains: int


class Kernels(NamedTuple):
    """The compiled loops; all release the GIL.

    Attributes:
        vector: Vector that the loops compute with.
        chain: ``chain(state, factor, addend, count)``: ``count`` times ``state = fma(state, factor, addend)``, element
            by element; ``state`` holds ``vector.chains`` vectors.
        total: ``total(buffer, passes)``: sum of an int64 buffer, read ``passes`` times, modulo 2**64; its length is a
            multiple of ``SUMS`` vectors.
    """

    vector: Vector
    chain: Chain
    total: Sum


@functools.cache
def kernels() -> Kernels:
    """Define the compiled loops; Numba compiles each at its first call, or loads it from its cache.

    Raises:
        ImportError: Numba is not installed.
    """
    import numba
    from numba import types
    from numba.extending import intrinsic

    global _chain_loop, _sum_loop
    vector = _widest_vector()

    @intrinsic
    def _chain_loop(_: Any, state: Any, factor: Any, addend: Any, count: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return _emit_chains(vector, context, builder, signature.args[0], arguments)

        return types.void(state, factor, addend, types.intp), generate

    @intrinsic
    def _sum_loop(_: Any, buffer: Any, passes: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return _emit_sums(vector, context, builder, signature.args[0], arguments)

        return types.int64(buffer, types.intp), generate

    @numba.njit(nogil=True, cache=True)
    def chain(state: Array, factor: Any, addend: Any, count: int) -> None:
        _chain_loop(state, factor, addend, count)

    @numba.njit(nogil=True, cache=True)
    def total(buffer: Array, passes: int) -> int:
        return _sum_loop(buffer, passes)

    return Kernels(vector, chain, total)


def aligned(size_bytes: int) -> Array:
    """Return an int64 array of ones that starts at a cache line; every page has been written to."""
    spare = np.empty(size_bytes + LINE_BYTES, np.uint8)
    skipped = -spare.ctypes.data % LINE_BYTES
    buffer = spare[skipped : skipped + size_bytes].view(np.int64)
    buffer.fill(1)
    return buffer


def numpy_total(buffer: Array, passes: int) -> int:
    """Return what ``Kernels.total`` returns; NumPy's sum releases the GIL, but is slower than a small cache."""
    return sum(int(buffer.sum()) for _ in range(passes)) % 2**64


def _widest_vector() -> Vector:
    from llvmlite import binding

    features = binding.get_host_cpu_features()
    if features.get("avx512f"):
        return Vector("AVX-512", 64, 24)
    if features.get("avx2") and features.get("fma"):
        return Vector("AVX2", 32, 12)
    return Vector("128-bit vectors", 16, 24)


# LLVM code of the loops.


def _emit_chains(vector: Vector, context: Any, builder: Any, array_type: Any, arguments: Any) -> Any:
    """Emit ``chain``: every chain stays in a register from the first to the last multiply-add."""
    from llvmlite import ir
    from numba.core import cgutils

    kind, first, lanes, load = _vectors(vector, context, builder, array_type, arguments[0])
    name = f"llvm.fma.v{lanes}f{array_type.dtype.bitwidth}"
    fma = cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [kind] * 3), name)
    scale, shift = (_splat(builder, kind, scalar) for scalar in arguments[1:3])
    places = [builder.gep(first, [ir.Constant(ir.IntType(64), k)]) for k in range(vector.chains)]
    chains = [cgutils.alloca_once_value(builder, load(place)) for place in places]
    with cgutils.for_range(builder, arguments[3]):
        for chain in chains:
            builder.store(builder.call(fma, [builder.load(chain), scale, shift]), chain)
    for chain, place in zip(chains, places, strict=True):
        builder.store(builder.load(chain), place).align = array_type.dtype.bitwidth // 8
    return context.get_dummy_value()


def _emit_sums(vector: Vector, context: Any, builder: Any, array_type: Any, arguments: Any) -> Any:
    """Emit ``total``: ``SUMS`` vectors are loaded and added in each round."""
    from llvmlite import ir
    from numba.core import cgutils

    kind, first, lanes, load = _vectors(vector, context, builder, array_type, arguments[0])
    array = context.make_array(array_type)(context, builder, arguments[0])
    vector_count = builder.sdiv(array.nitems, ir.Constant(ir.IntType(64), lanes))
    step = ir.Constant(ir.IntType(64), SUMS)
    sums = [cgutils.alloca_once_value(builder, ir.Constant(kind, [0] * lanes)) for _ in range(SUMS)]
    with (
        cgutils.for_range(builder, arguments[1]),
        cgutils.for_range_slice(builder, step.type(0), vector_count, step, step.type) as (at, _),
    ):
        for k, one in enumerate(sums):
            place = builder.gep(first, [builder.add(at, step.type(k))])
            builder.store(builder.add(builder.load(one), load(place)), one)
    total = functools.reduce(builder.add, [builder.load(one) for one in sums])
    lane_numbers = [ir.Constant(ir.IntType(32), lane) for lane in range(lanes)]
    return functools.reduce(builder.add, [builder.extract_element(total, lane) for lane in lane_numbers])


def _vectors(
    vector: Vector, context: Any, builder: Any, array_type: Any, array: Any
) -> tuple[Any, Any, int, Callable[[Any], Any]]:
    """Return the vector type, a pointer to the array's first vector, the lanes, and an unaligned load."""
    from llvmlite import ir

    itemsize = array_type.dtype.bitwidth // 8
    lanes = vector.size_bytes // itemsize
    kind = ir.VectorType(context.get_data_type(array_type.dtype), lanes)
    data = context.make_array(array_type)(context, builder, array).data

    def load(pointer: Any) -> Any:
        loaded = builder.load(pointer)
        loaded.align = itemsize
        return loaded

    return kind, builder.bitcast(data, kind.as_pointer()), lanes, load


def _splat(builder: Any, kind: Any, scalar: Any) -> Any:
    """Return a vector with the scalar in each lane."""
    from llvmlite import ir

    number = ir.IntType(32)
    undefined = ir.Constant(kind, ir.Undefined)
    one = builder.insert_element(undefined, scalar, ir.Constant(number, 0))
    return builder.shuffle_vector(one, undefined, ir.Constant(ir.VectorType(number, kind.count), [0] * kind.count))

"""Vector code, written from Python with LLVM's vector types: loads, stores, masks, arithmetic.

Nothing is read or written beyond what the sizes say: less than a vector is loaded and stored under a mask.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from llvmlite import binding, ir
from numba.core import cgutils

from bilinear_bench.cpu.cpu import VECTOR_BYTES

INT: Final = ir.IntType(64)
BITS16: Final = ir.IntType(16)
_INT32: Final = ir.IntType(32)
#: Makes a vector of float32 of a vector of numbers of 16 bits: ``widen(builder, bits)``.
Widen = Callable[[Any, Any], Any]


class Emitter:
    """Writes vector code where the builder stands.

    Args:
        context: Numba's target context.
        builder: LLVM's builder.
        dtype: Numba type of the numbers.
    """

    def __init__(self, context: Any, builder: Any, dtype: Any) -> None:
        self.builder = builder
        scalar = context.get_data_type(dtype)
        self._align = dtype.bitwidth // 8
        self.lanes = VECTOR_BYTES // self._align
        self.kind = ir.VectorType(scalar, self.lanes)
        self._suffix = f"v{self.lanes}f{dtype.bitwidth}"
        self.zero = ir.Constant(self.kind, [ir.Constant(scalar, 0.0)] * self.lanes)

    def ahead(self, pointer: Any, elements: Any) -> Any:
        """Return the pointer moved by a number of elements."""
        return self.builder.gep(pointer, [INT(elements) if isinstance(elements, int) else elements])

    def load(self, pointer: Any, mask: Any = None) -> Any:
        """Load a vector; the lanes outside a mask become 0."""
        place = self.builder.bitcast(pointer, self.kind.as_pointer())
        if mask is None:
            loaded = self.builder.load(place)
            loaded.align = self._align
            return loaded
        arguments = (place, _INT32(self._align), mask, self.zero)
        return self._call("masked.load", f"{self._suffix}.p0", self.kind, arguments)

    def load_wide(self, pointer: Any, mask: Any, widen: Widen) -> Any:
        """Load a vector of numbers of 16 bits and return it as float32; the lanes outside a mask become 0."""
        kind = ir.VectorType(BITS16, self.lanes)
        place = self.builder.bitcast(pointer, kind.as_pointer())
        if mask is None:
            loaded = self.builder.load(place)
            loaded.align = 2
        else:
            none = ir.Constant(kind, [0] * self.lanes)
            loaded = self._call("masked.load", f"v{self.lanes}i16.p0", kind, (place, _INT32(2), mask, none))
        return widen(self.builder, loaded)

    def store(self, value: Any, pointer: Any, mask: Any = None) -> None:
        """Store a vector; the lanes outside a mask stay as they are in memory."""
        place = self.builder.bitcast(pointer, self.kind.as_pointer())
        if mask is None:
            self.builder.store(value, place).align = self._align
        else:
            arguments = (value, place, _INT32(self._align), mask)
            self._call("masked.store", f"{self._suffix}.p0", ir.VoidType(), arguments)

    def add(self, value: Any, pointer: Any) -> None:
        """Add a vector to the one in memory.

        A tile sums up its rows before. A long sum then has few parts, which rounds less; and a tile does not wait for
        the tile before it.
        """
        self.store(self.builder.fadd(self.load(pointer), value), pointer)

    def mask(self, count: Any) -> Any:
        """Return the mask of the first ``count`` lanes; of all lanes if ``count`` is larger."""
        numbers = ir.Constant(ir.VectorType(INT, self.lanes), list(range(self.lanes)))
        return self.builder.icmp_signed("<", numbers, self._spread(count, ir.VectorType(INT, self.lanes)))

    def splat(self, scalar: Any) -> Any:
        """Return a vector with the scalar in each lane."""
        return self._spread(scalar, self.kind)

    def multiply_add(self, one: Any, other: Any, addend: Any) -> Any:
        """Return ``one * other + addend``, fused where the CPU can."""
        return self._call("fmuladd", self._suffix, self.kind, (one, other, addend))

    def add_pair_products(self, one: Any, other: Any, addend: Any) -> Any:
        """Return ``addend`` plus both products of each lane, which holds a pair of bfloat16; for AVX-512 with BF16.

        llvmlite has no type for bfloat16, so this is an instruction and not an intrinsic.
        """
        binding.initialize_native_asmparser()
        kind = ir.FunctionType(self.kind, [self.kind] * 3)
        instruction = ir.InlineAsm(kind, "vdpbf16ps $3, $2, $0", "=v,0,v,v")
        return self.builder.call(instruction, (addend, one, other))

    def total(self, vector: Any) -> Any:
        """Return the sum over the lanes, added up in halves."""
        width = self.lanes
        while width > 1:
            width //= 2
            lower, upper = ([*range(start, start + width)] for start in (0, width))
            halves = (
                self.builder.shuffle_vector(vector, vector, ir.Constant(ir.VectorType(_INT32, width), lanes))
                for lanes in (lower, upper)
            )
            vector = self.builder.fadd(*halves)
        return self.builder.extract_element(vector, _INT32(0))

    def shuffle(self, one: Any, other: Any, lanes: list[int]) -> Any:
        """Return the listed lanes of two vectors; those of the second are numbered on from the first."""
        return self.builder.shuffle_vector(one, other, ir.Constant(ir.VectorType(_INT32, self.lanes), lanes))

    def opaque(self, pointer: Any) -> Any:
        """Return the same pointer, hidden from LLVM: it comes out of an empty assembler instruction."""
        number = self.builder.ptrtoint(pointer, INT)
        nothing = ir.InlineAsm(ir.FunctionType(INT, [INT]), "", "=r,0")
        return self.builder.inttoptr(self.builder.call(nothing, [number]), pointer.type)

    def switch(self, value: Any, numbers: Iterable[int], emit: Callable[[int], None]) -> None:
        """Emit code for each of the numbers, and a jump to the code for ``value``."""
        end = self.builder.append_basic_block("rows.end")
        switch = self.builder.switch(value, end)
        for number in numbers:
            block = self.builder.append_basic_block(f"rows.{number}")
            switch.add_case(INT(number), block)
            self.builder.position_at_end(block)
            emit(number)
            self.builder.branch(end)
        self.builder.position_at_end(end)

    def _spread(self, scalar: Any, kind: Any) -> Any:
        undefined = ir.Constant(kind, ir.Undefined)
        one = self.builder.insert_element(undefined, scalar, _INT32(0))
        return self.builder.shuffle_vector(
            one, undefined, ir.Constant(ir.VectorType(_INT32, kind.count), [0] * kind.count)
        )

    def _call(self, name: str, suffix: str, returned: Any, arguments: tuple[Any, ...]) -> Any:
        kind = ir.FunctionType(returned, [argument.type for argument in arguments])
        function = cgutils.get_or_insert_function(self.builder.module, kind, f"llvm.{name}.{suffix}")
        return self.builder.call(function, arguments)


def prefetch_line(builder: Any, address: Any, *, for_writing: bool = False) -> None:
    """Prefetch the cache line at an address: into L2 for reading, into L1 for writing."""
    place = builder.inttoptr(address, ir.IntType(8).as_pointer())
    kind = ir.FunctionType(ir.VoidType(), [place.type, _INT32, _INT32, _INT32])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
    # Arguments: write or read, locality from 0 to 3, data and not instructions.
    builder.call(function, [place, _INT32(int(for_writing)), _INT32(3 if for_writing else 2), _INT32(1)])

"""How a loop calls a tile: arguments by name, a C function by its address.

A tile is a C function with one argument, a NamedTuple; LLVM passes its fields as that many arguments. Loops call it by
its address. Were it an ordinary function, Numba would link and optimise all of its code again into every caller.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Annotated, Any, get_type_hints

from numba import types
from numba.core import cgutils, sigutils
from numba.core.ccallback import CFunc

from bilinear_bench.cpu.compiled import kept
from bilinear_bench.cpu.tiles.emitter import Emitter

#: Fields of a tile's arguments. A loop gives addresses and integers; an emitter gets pointers and integers of LLVM.
Pointer = Annotated[Any, "pointer"]
Number = Annotated[Any, "number"]


def tile_code(emit: Callable[[Emitter, Any], None], given: Any) -> tuple[Any, Callable[..., Any]]:
    """Return what an ``@intrinsic`` returns: a signature, and code that unpacks the arguments for ``emit``.

    Args:
        emit: Writes the tile's code.
        given: Numba type of the arguments.
    """
    dtype = next(field.dtype for field in given if isinstance(field, types.CPointer))

    def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
        fields = cgutils.unpack_tuple(builder, arguments[0], len(given))
        emit(Emitter(context, builder, dtype), given.instance_class(*fields))
        return context.get_dummy_value()

    return types.void(given), generate


@functools.cache
def address(tile: Callable[[Any], None], dtype: str) -> int:
    """Compile a tile for a dtype, or load it from Numba's cache; return the address of its C function."""
    arguments = get_type_hints(tile)["given"]
    pointer = types.CPointer(getattr(types, dtype))
    hints = get_type_hints(arguments, include_extras=True)
    fields = [pointer if hints[field] is Pointer else types.intp for field in arguments._fields]
    signature = sigutils.normalize_signature(types.void(types.NamedTuple(fields, arguments)))
    function = kept(lambda code: CFunc(code, signature, locals={}, options={}), tile)
    function.compile()
    _functions.append(function)  # its code must outlive this call
    return int(function.address)


_functions: list[Any] = []

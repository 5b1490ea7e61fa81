"""Compile loops with Numba, and keep them in its cache under names that change with all code they take in."""

from __future__ import annotations

import hashlib
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numba

from bilinear_bench.cpu.cpu import HOST


def _stamp() -> str:
    """Return a hash of all code of this folder, and of the CPU's numbers that it compiles in."""
    folder = Path(__file__).parent
    code = hashlib.sha256(repr(HOST).encode())
    for path in sorted(folder.rglob("*.py")):
        code.update(path.read_bytes())
    return code.hexdigest()[:8]


#: Numba's cache on disk knows a function by its name and the age of its own file. It does not see the functions and
#: the tiles of other files that are compiled into it: so the hash of all files is part of every name.
STAMP: Final = _stamp()


def stamped(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a function the name under which Numba's cache keeps it."""
    function.__qualname__ = f"{function.__name__}_{STAMP}"
    return function


def compiled(function: Callable[..., Any], **options: bool) -> Callable[..., Any]:
    """Compile a function when it is first called, or load it from Numba's cache."""
    return numba.njit(cache=True, nogil=True, **options)(stamped(function))


def parallel(loops: Callable[..., Any]) -> Callable[..., Any]:
    """Compile loops whose ``prange`` is shared out among threads."""
    return compiled(loops, parallel=True)


def serial_and_parallel(loops: Callable[..., Any]) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Compile loops twice: for one thread without any parallel loop, and for several threads."""
    shared_out = types.FunctionType(loops.__code__, loops.__globals__, f"{loops.__name__}_parallel")
    return compiled(loops), parallel(shared_out)

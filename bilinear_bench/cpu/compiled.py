"""Compile loops with Numba, and keep them in its cache under names that change with all code they take in."""

from __future__ import annotations

import hashlib
import logging
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numba
from numba.core.caching import FunctionCache

from bilinear_bench.cpu.cpu import HOST

#: Said once a process, on stderr if logging was not set up.
COMPILING: Final = (
    "bilinear_bench compiles its kernels for this CPU: some seconds for a forward, more for gradients. "
    "`python -m bilinear_bench warm` does that ahead."
)
NOT_KEPT: Final = "They are not kept: Numba finds no folder to write to. NUMBA_CACHE_DIR names one."
_LOG: Final = logging.getLogger("bilinear_bench")


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


class _Cache(FunctionCache):
    """Numba's cache; a damaged file of it, or a full disk, costs a compilation and no more."""

    said = False

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return compiled code, or None if it must be compiled, which is said."""
        found = None
        try:
            found = super().load_overload(sig, target_context)
        except Exception as error:  # whatever a torn file leads to in pickle and LLVM
            _LOG.debug("cannot read %s: %r", self._name, error)
        if found is None:
            say_that_it_compiles()
        return found

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep compiled code if that is possible."""
        try:
            super().save_overload(sig, data)
        except Exception:  # as above: begin with an empty index, once
            try:
                self.flush()
                super().save_overload(sig, data)
            except Exception as error:  # a full disk, a folder that was removed
                _LOG.debug("cannot keep %s: %r", self._name, error)


def say_that_it_compiles(more: str = "") -> None:
    """Say once that compiling takes a while."""
    if not _Cache.said:
        _Cache.said = True
        _LOG.warning("%s", f"{COMPILING} {more}".rstrip())


class _NoCache:
    """In place of a cache where Numba finds no folder for one."""

    def load_overload(self, sig: Any, target_context: Any) -> None:
        """Find nothing, and say so."""
        say_that_it_compiles(NOT_KEPT)

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep nothing."""


def is_kept() -> bool:
    """Return whether compiled code is kept for the next process."""
    return isinstance(getattr(_nothing, "_cache", None), _Cache)


def stamped(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a function the name under which Numba's cache keeps it."""
    function.__qualname__ = f"{function.__name__}_{STAMP}"
    return function


def kept(compiles: Callable[[Callable[..., Any]], Any], function: Callable[..., Any]) -> Any:
    """Return what ``compiles``, one of Numba's decorators, makes of a function, with a cache.

    With NUMBA_DISABLE_JIT that is the function itself, which cannot run.
    """
    made = compiles(stamped(function))
    if made is not function:
        try:
            made._cache = _Cache(function)
        except RuntimeError:  # no folder
            made._cache = _NoCache()
    return made


def compiled(function: Callable[..., Any], **options: bool) -> Callable[..., Any]:
    """Compile a function when it is first called, or load it from Numba's cache."""
    made: Callable[..., Any] = kept(numba.njit(nogil=True, **options), function)
    return made


def parallel(loops: Callable[..., Any]) -> Callable[..., Any]:
    """Compile loops whose ``prange`` is shared out among threads."""
    return compiled(loops, parallel=True)


def serial_and_parallel(loops: Callable[..., Any]) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Compile loops twice: for one thread without any parallel loop, and for several threads."""
    shared_out = types.FunctionType(loops.__code__, loops.__globals__, f"{loops.__name__}_parallel")
    return compiled(loops), parallel(shared_out)


@compiled
def _nothing() -> None:
    """Do nothing; it has a cache if all others have."""

"""Describe what a backend raised, and what it did against its interface."""

from __future__ import annotations

import errno
import inspect
import re
import sys

from harness.backend import EntryPointError
from harness.checked import Location
from harness.machine import memory
from harness.process import frames
from harness.process.protocol import Failure


class InterfaceError(TypeError):
    """Something that the interface of backends does not allow; the message is one plain line.

    Args:
        text: What was returned, and what was expected.
        location: The function that returned it.
    """

    def __init__(self, text: str, location: Location | None = None) -> None:
        super().__init__(text)
        self.location = location


def failure(error: BaseException, target: str) -> Failure:
    """Return an exception as a reply.

    Args:
        error: The exception.
        target: ``module:Class`` of the backend; empty for another worker.
    """
    text = frames.text_of(error)
    location = error.location if isinstance(error, InterfaceError) else None
    location = location or frames.own_frame(text, target)
    if location is None:
        location = _place_of(target) if isinstance(error, EntryPointError) else frames.deepest_frame(text)
    plain = isinstance(error, InterfaceError | EntryPointError)
    said = str(error) if plain else f"{type(error).__name__}: {error}"
    if _no_room(error):
        said = f"no room left for files: look at the temporary folder (TMPDIR) and the compile caches: {said}"
    return Failure(said.strip().removesuffix(":"), location, text, memory.ran_out(error))


def _no_room(error: BaseException) -> bool:
    """True if a file could not be written for lack of room; NumPy says it without the system's number."""
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    return full or (isinstance(error, OSError) and re.search(r"requested and \d+ written", str(error)) is not None)


def _place_of(target: str) -> Location | None:
    """Return where the class of an entry point is, or where its module begins; None without a file."""
    module, _, attribute = target.partition(":")
    loaded = sys.modules.get(module)
    found = getattr(loaded, attribute, None)
    try:
        file, (_, line) = inspect.getsourcefile(found), inspect.getsourcelines(found)  # type: ignore[arg-type]  # or raises
    except (OSError, TypeError):  # it is missing, or no class
        file, line = getattr(loaded, "__file__", None), 1
    return None if file is None else Location(file, line)


def kind_of(value: object) -> str:
    """Return what a value is, in words, as in ``a list``."""
    return "None" if value is None else f"a {type(value).__name__}"

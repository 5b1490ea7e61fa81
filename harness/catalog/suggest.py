"""Suggest the name that a misspelt one was meant to be."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Final

#: Most suggestions of one line.
MOST: Final = 3


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """Return a question with the closest known names, as in ``did you mean 'quick'?``; empty without a close one."""
    spelt = {name.casefold(): name for name in known}
    close = difflib.get_close_matches(given.casefold(), spelt, MOST)
    return f"did you mean {' or '.join(repr(spelt[name]) for name in close)}?" if close else ""


def suggestion(given: str, known: Iterable[str]) -> str:
    """Return what follows ``X is unknown``: the closest known names, or all of them where none is close."""
    names = list(known)
    meant = did_you_mean(given, names)
    return f": {meant}" if meant else f", expected one of: {', '.join(names)}"

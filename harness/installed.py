"""The versions of installed distributions, by metadata alone; that of strangers on the path may be malformed."""

from __future__ import annotations

import contextlib
import importlib.metadata
from typing import Final

#: Errors of malformed metadata: not UTF-8, or no value.
UNREADABLE: Final = (OSError, TypeError, ValueError)


def version(name: str) -> str | None:
    """Return the version of the first distribution of a name that can be read; None if there is none."""
    for distribution in importlib.metadata.distributions(name=name):
        with contextlib.suppress(*UNREADABLE):
            if found := distribution.metadata["Version"]:
                return str(found)
    return None

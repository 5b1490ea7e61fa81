"""The console that prints: its width and its colours.

Rich reads FORCE_COLOR, NO_COLOR and TERM. COLUMNS sets the width of a terminal and of a pipe. A stream that cannot
encode a character gets ASCII in its place.
"""

from __future__ import annotations

import codecs
import io
import os
import sys
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final, TextIO

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

#: Width of a file, of a pipe and of a terminal that does not know its own, in characters.
USUAL_WIDTH: Final = 80
#: ASCII for characters that Unicode does not decompose.
_ASCII: Final = str.maketrans(
    {"±": "+-", "×": "x", "·": "*", "µ": "u", "\u03bc": "u", "–": "-", "—": "-", "−": "-"}
    | {"‘": "'", "’": "'", "“": '"', "”": '"', "→": "->", "≤": "<=", "≥": ">="}
)


def console(stderr: bool = False) -> Console:
    """Return a console on standard output or standard error."""
    from rich.console import Console  # not at the top: `list` and `--help` reply without it

    stream = sys.stderr if stderr else sys.stdout
    # Rich would take 80 columns for every dumb terminal; with a height, it takes the width that it was given.
    return Console(file=stream, width=width_of(stream), height=25, highlight=False)


def width_of(stream: TextIO) -> int:
    """Return the width of lines on a stream, in characters."""
    columns = os.environ.get("COLUMNS", "")
    if columns.isdecimal() and int(columns) > 0:
        return int(columns)
    if not stream.isatty():
        return USUAL_WIDTH
    return os.get_terminal_size(stream.fileno()).columns or USUAL_WIDTH


def show(lines: Iterable[Text], out: Console) -> None:
    """Print lines as they are: a line that is wider than the terminal is not cut."""
    for line in lines:
        out.print(line, soft_wrap=True)


def open_missing_streams() -> None:
    """Open the standard streams that were closed before this process began, as some daemons do, on the null device.

    Otherwise a pipe to a worker could get the number of a standard stream.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115  # open until the process ends


def accept_any_text() -> None:
    """Let standard output and error take every text: what their encoding lacks is replaced by ASCII."""
    codecs.register_error("ascii-instead", _replace)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="ascii-instead")


def _replace(error: UnicodeError) -> tuple[str, int]:
    """Return ASCII for the characters that cannot be encoded, and where to go on; ``?`` for what has none."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    signs = error.object[error.start : error.end]
    return "".join(_ascii(sign) for sign in signs), error.end


def _ascii(sign: str) -> str:
    plain = unicodedata.normalize("NFKD", sign.translate(_ASCII))
    return plain.encode("ascii", "ignore").decode() or "?"

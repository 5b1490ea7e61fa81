"""The console that prints: its width and its colours.

Rich reads FORCE_COLOR, NO_COLOR and TERM. COLUMNS sets the width of a terminal and of a pipe.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, TextIO

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

#: Width of what is printed into a file or a pipe, in characters: no column of a table is left out.
PIPE_WIDTH: Final = 200
#: Width of a terminal that does not know its own, in characters.
USUAL_WIDTH: Final = 80


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
        return PIPE_WIDTH
    return os.get_terminal_size(stream.fileno()).columns or USUAL_WIDTH


def show(lines: Iterable[Text], out: Console) -> None:
    """Print lines as they are: a line that is wider than the terminal is not cut."""
    for line in lines:
        out.print(line, soft_wrap=True)

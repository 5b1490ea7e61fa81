"""Fit a table into a width: leave out whole columns in a fixed order, and cut nothing.

Lines are Rich texts, so that a terminal can colour them; ``plain`` makes them text for files.
"""

from __future__ import annotations

import dataclasses
import re
import textwrap
from collections.abc import Iterable, Sequence
from typing import Final

from rich.text import Text

from harness.output.format import printable

Lines = list[Text]
#: Spaces between two columns.
GAP: Final = "  "
_AFTER_NUMBER: Final = re.compile(r"(?<=\d) (?=[\w%])")


@dataclasses.dataclass(frozen=True, slots=True)
class Column:
    """One column of a table.

    Attributes:
        heading: Text of the first line.
        cells: One text for each row.
        right: True if the column is aligned to the right.
        goes: Place in the order in which columns are left out, from 1; 0 for a column that always stays.
    """

    heading: str
    cells: Sequence[str | Text]
    right: bool = False
    goes: int = 0

    @property
    def width(self) -> int:
        """Number of terminal cells that the widest text takes."""
        return max(Text(self.heading).cell_len, *(_styled(cell).cell_len for cell in self.cells), 0)


def fit(columns: Iterable[Column], width: int) -> list[Column]:
    """Return the columns that fit into ``width`` terminal cells; those that always stay may be wider together."""
    kept = list(columns)
    for column in sorted((column for column in kept if column.goes), key=lambda column: column.goes):
        if table_width(kept) <= width:
            break
        kept.remove(column)
    return kept


def table_width(columns: Sequence[Column], gap: str = GAP) -> int:
    """Return the number of terminal cells that the columns take in a table."""
    return sum(column.width for column in columns) + len(gap) * (len(columns) - 1)


def table(columns: Iterable[Column], width: int, gap: str = GAP) -> Lines:
    """Return a heading line and a line for each row of the columns that fit, without spaces at the end."""
    kept = fit(columns, width)
    lines = [_line([Text(column.heading, style="dim") for column in kept], kept, gap)]
    return lines + [
        _line([_styled(cell) for cell in row], kept, gap)
        for row in zip(*(column.cells for column in kept), strict=True)
    ]


def wrapped(text: str | Text, width: int, indent: str = "") -> Lines:
    """Return a text in lines of at most ``width`` terminal cells, broken at spaces only; later ones are indented."""
    whole = _styled(text).copy()
    whole.plain = printable(whole.plain)
    # A number stays with its unit: textwrap breaks at plain spaces only.
    glued = _AFTER_NUMBER.sub("\u00a0", whole.plain)
    pieces = textwrap.wrap(glued, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    lines, end = [], 0
    for number, piece in enumerate(pieces):
        words = (piece[len(indent) :] if number else piece).replace("\u00a0", " ")
        start = whole.plain.index(words, end)
        end = start + len(words)
        lines.append(Text(indent if number else "") + whole[start:end])
    return lines


def plain(lines: Iterable[Text]) -> str:
    """Return lines as text without styles, each with its newline."""
    return "".join(f"{line.plain.rstrip()}\n" for line in lines)


def _styled(cell: str | Text) -> Text:
    return Text(cell) if isinstance(cell, str) else cell


def _line(cells: Sequence[Text], columns: Sequence[Column], gap: str) -> Text:
    line = Text()
    for place, (cell, column) in enumerate(zip(cells, columns, strict=True)):
        space = " " * (column.width - cell.cell_len)
        line.append(gap if place else "")
        # Appended whole, a cell keeps its style to itself.
        for piece in (space, cell) if column.right else (cell, space):
            line.append(piece)
    line.rstrip()
    return line

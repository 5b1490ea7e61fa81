"""Lay out the table of the answer: a line for each case, with the winners of both modes next to each other.

Rows come as a data frame with the columns of ``harness.record.Record``.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from rich.text import Text

from harness.output import format as form
from harness.output.case_labels import names_of
from harness.output.fastest import Fastest, fastest
from harness.output.layout import Column, Lines, table, table_width
from harness.record import Status

if TYPE_CHECKING:
    import pandas as pd

#: Marks of a winner: others that cannot be told from it, under ten samples.
OTHERS, FEW_BLOCKS = "+", "~"
#: Gaps between columns that are tried where both modes are next to each other.
GAPS: Final = ("  ", " ")


class Cells(NamedTuple):
    """What a line of the table says of one mode.

    Attributes:
        name: Name of the winner; without a time words in place of all cells, such as why there is no winner.
        time: Its time of a call.
        ratio: nn.Bilinear's time divided by its own.
        others: ``OTHERS`` with their number.
        found: The winner; None without one.
    """

    name: Text = Text()
    time: str = ""
    ratio: str = ""
    others: str = ""
    found: Fastest | None = None


#: Winners by (dtype or precision, case, mode); several where a group has several precision classes.
Winners = Mapping[tuple[str, str, str], list[Cells]]


def winners_of(records: pd.DataFrame) -> Winners:
    """Return the winners of the groups of a device."""
    groups = records.groupby(["dtype", "precision", "case", "mode"], sort=False)
    return {
        (str(dtype if precision == "ieee" else precision), str(case), str(mode)): _of_group(rows)
        for (dtype, precision, case, mode), rows in groups
    }


def winner_lines(winners: Winners, labels: Mapping[str, str], width: int, mark_few: bool) -> Lines:
    """Return the table, with both modes next to each other if there is room, else one below the other.

    Args:
        winners: Winners of a device.
        labels: Names of cases, by their text.
        width: Terminal cells of a line.
        mark_few: True if winners with under ten samples are marked.
    """
    modes = [mode for mode in form.MODES if any(mode == own for _, _, own in winners)]
    rows = list(_rows(winners, labels, modes))
    for gap in GAPS:
        columns = _columns(rows, gap, mark_few)
        if table_width(columns, gap) <= width:
            return table(columns, width, gap)[1:]
    columns = _columns([row for mode in modes for row in _rows(winners, labels, [mode])], GAPS[0], mark_few)
    return table(columns, table_width(columns))[1:]


def _of_group(rows: pd.DataFrame) -> list[Cells]:
    """Return the winners of a group, or why it has none."""
    found = [_cells(one) for one in fastest(rows)]
    untimed = (rows["status"] != Status.TIMED.value).all()
    return found or [Cells(Text("none was timed", "red") if untimed else Text("its row is missing"))]


def _cells(found: Fastest) -> Cells:
    name = Text(found.name, "bold")
    if found.ties_baseline:  # without a time: those of the backends may differ by far
        return Cells(name, found=found)
    return Cells(name, found.median, found.ratio, f"{OTHERS}{found.others}" if found.others else "", found)


def _rows(
    winners: Winners, labels: Mapping[str, str], modes: Sequence[str]
) -> Iterator[tuple[Text, *tuple[Cells, ...]]]:
    """Yield a heading and a row for each case of each dtype and precision, with these modes next to each other."""
    sections = dict.fromkeys(section for section, _, _ in winners)
    for section in sections:
        yield (
            Text(section if len(sections) > 1 else "", "dim"),
            *(Cells(Text(form.MODES[mode], "dim")) for mode in modes),
        )
        cases = dict.fromkeys(case for own, case, mode in winners if own == section and mode in modes)
        for case, name in names_of(cases, labels, section).items():
            each = (winners.get((section, case, mode), [Cells(Text("not reached", "dim"))]) for mode in modes)
            for number, cells in enumerate(itertools.zip_longest(*each, fillvalue=Cells())):
                yield Text("" if number else name), *cells


def _columns(rows: Iterable[tuple[Text, *tuple[Cells, ...]]], gap: str, mark_few: bool) -> list[Column]:
    """Return a column of labels and one for each mode; the heading is their first row."""
    label, *modes = zip(*rows, strict=True)
    return [Column("", label), *(Column("", _mode(cells, gap, mark_few)) for cells in modes)]


def _mode(cells: Sequence[Cells], gap: str, mark_few: bool) -> Lines:
    """Return the lines of a mode: name, time, ratio and marks, or words alone that take the room of all of them."""
    few = [FEW_BLOCKS if mark_few and one.found and one.found.few_blocks else "" for one in cells]
    marks = [" ".join(filter(None, (one.others, mark))) for one, mark in zip(cells, few, strict=True)]
    columns = [
        Column("", [one.name if one.time else "" for one in cells]),
        Column("", [one.time for one in cells], right=True),
        Column("", [one.ratio for one in cells], right=True),
        Column("", [mark if one.time else "" for one, mark in zip(cells, marks, strict=True)]),
    ]
    lines = table(columns, table_width(columns, gap), gap)[1:]
    return [
        line if one.time else Text(gap).join(filter(None, (one.name, Text(mark))))
        for one, line, mark in zip(cells, lines, marks, strict=True)
    ]

"""Print one case: its timed backends with a bar each, the fastest first.

Rows come as a data frame with the columns of ``harness.record.Record``.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from rich.text import Text

from harness.output import format as form
from harness.output import tables
from harness.output.layout import Column, Lines, fit, table, table_width
from harness.record import Flag

if TYPE_CHECKING:
    import pandas as pd

#: Marks the backends that share the first rank.
TIED: Final = "="
#: Heading of the bars: they show the logarithm of the speed.
HEADING: Final = "speed (log)"
#: Fewest and most characters of the longest bar.
SHORTEST, LONGEST = 11, 24
#: Least quotient of the slowest and the fastest time over which a bar shrinks to nothing: noise looks like noise.
LEAST_RANGE: Final = 10.0


def bars(records: pd.DataFrame, labels: Mapping[str, str], width: int, wide: bool = False) -> Lines:
    """Return a screen for each case, mode and device, with an empty line after each.

    Args:
        records: Rows of the cases to show.
        labels: Names of cases, by their text.
        width: Terminal cells of a line.
        wide: True if no column is left out.
    """
    lines = Lines()
    for (device, case, mode), rows in tables.groups(records):
        title = tables.title(labels, case, mode, device)
        for _, row in tables.timed(rows).head(1).iterrows():
            if Flag.FEW_BLOCKS in form.text(row["flags"]).split(";"):
                title.append(f"  few samples: {row['blocks']}", style="yellow")
        lines += [title, *_screen(rows, width, wide), Text()]
    return lines


def _screen(rows: pd.DataFrame, width: int, wide: bool) -> Lines:
    """Return the table with its bars, its flags, the rows that were not timed, and the columns that are hidden."""
    whole, ranked = tables.case_table(rows, width), tables.timed(rows)
    if ranked.empty:
        return whole.below
    columns = _columns(whole.columns, ranked)
    shown = columns if wide else fit(columns, width)
    hidden = [column.heading for column in columns if column not in shown]
    # The bars take the room that is left.
    longest = LONGEST if wide else min(LONGEST, SHORTEST + width - table_width(shown))
    shown = [
        dataclasses.replace(column, cells=_bars(ranked, longest)) if column.heading == HEADING else column
        for column in shown
    ]
    lines = [*whole.above, *table(shown, table_width(shown)), *whole.below]
    return lines + tables.hidden_line(hidden, width)


def _columns(columns: Sequence[Column], ranked: pd.DataFrame) -> list[Column]:
    """Return a table's columns with a mark in place of the rank, and with bars after the ratio."""
    rank, *others = columns
    # The share after the median goes first: the interval of the ratio says as much.
    others = [dataclasses.replace(one, goes=1 if one.heading == "+-" else one.goes and one.goes + 1) for one in others]
    several = (ranked["rank"] == 1).sum() > 1
    mark = Column("", [TIED if several and text == "1" else "" for text in rank.cells])
    place = 1 + next(number for number, column in enumerate(others) if column.heading == "ratio")
    last = 1 + max(column.goes for column in others)
    bar = Column(HEADING, _bars(ranked, SHORTEST), goes=last)
    return [mark, *others[:place], bar, *others[place:]]


def _bars(ranked: pd.DataFrame, longest: int) -> Sequence[str]:
    """Return a bar for each row, in proportion to the logarithm of its speed."""
    medians = [float(median) for median in ranked["median_seconds"]]
    whole = math.log(max(LEAST_RANGE, max(medians) / min(medians)))
    return ["#" * max(1, round(longest * (1 - math.log(median / min(medians)) / whole))) for median in medians]

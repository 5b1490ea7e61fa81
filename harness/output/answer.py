"""Print the answer: for each case the fastest right implementation, and its ratio to nn.Bilinear.

Rows come as a data frame with the columns of ``harness.record.Record``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from rich.text import Text

from harness.output import format as form
from harness.output.layout import Column, Lines, table
from harness.output.tables import groups, of_roofline, timed

if TYPE_CHECKING:
    import pandas as pd

#: Most backends of a tie that a line names; of a larger one it names the first and counts the rest.
MOST_NAMED: Final = 2


def answer(records: pd.DataFrame, labels: Mapping[str, str], width: int) -> Lines:
    """Return a table for each device and mode, with an empty line after each.

    Args:
        records: Rows of a run.
        labels: Names of cases, by their text.
        width: Terminal cells of a line.
    """
    lines = Lines()
    for (device, mode), rows in records.groupby(["device", "mode"], sort=False):
        lines.append(Text(f"Fastest right implementation: {form.MODES[str(mode)]}, {device}", style="bold"))
        lines += [*table(_columns(rows, labels), width), Text()]
    return lines


def _columns(records: pd.DataFrame, labels: Mapping[str, str]) -> list[Column]:
    cells = [(_label(case, labels), case, *line) for (_, case, _), rows in groups(records) for line in _fastest(rows)]
    label, case, fastest, time, ratio, share = zip(*cells, strict=True)
    return [
        Column("case", label, breaks=True),
        # Without a label the text of the case is in the first column.
        *([Column("batch x in1 x in2 x out", case, goes=1)] if label != case else []),
        Column("fastest", fastest),
        Column("median", time, right=True),
        Column("ratio", ratio, right=True),
        Column("% of roofline", share, right=True, goes=2),
    ]


def _label(case: str, labels: Mapping[str, str]) -> str:
    """Return what people call a case, with what is not the default; the case itself if it has no name."""
    options = case.split(":")[1:]
    return ", ".join((labels[case], *options)) if case in labels else case


def _fastest(rows: pd.DataFrame) -> list[tuple[Text, str, str, str]]:
    """Return winners, time, ratio and share of the roofline: one line for each precision class."""
    times = timed(rows)
    if times.empty:
        return [(Text("none was timed", style="red"), "", "", "")]
    best = times[times["rank"] == 1]
    if best.empty:
        return [(Text("its row is missing"), "", "", "")]
    baseline = set(rows["baseline"].dropna())
    classes = best["precision_class"].fillna("")
    several = times["precision_class"].nunique(dropna=False) > 1
    return [
        _winner(tied, baseline, f" ({name or 'no class'})" if several else "")
        for name, tied in best.groupby(classes, sort=False)
    ]


def _winner(tied: pd.DataFrame, baseline: set[str], suffix: str) -> tuple[Text, str, str, str]:
    """Return the line of the backends that share the first rank."""
    first, names = tied.iloc[0], list(tied["backend"])
    median = form.seconds(first["median_seconds"], first["median_low_seconds"], first["median_high_seconds"])
    if len(names) > 1 and baseline & set(names):
        text = f"no difference shown among {len(names)} backends{suffix}"
        return Text(text), median, "", of_roofline(first)
    shown = " = ".join(names) if len(names) <= MOST_NAMED else f"{names[0]} = {len(names) - 1} others"
    ratio = form.ratio(first["speedup"], first["speedup_low"], first["speedup_high"])
    return Text(f"{shown}{suffix}", style="bold"), median, ratio, of_roofline(first)

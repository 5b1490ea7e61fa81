"""Print a check: a table for each case, mode and device with a column for each probe, then what went wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from rich.text import Text

from harness.output import format as form
from harness.output.layout import Column, Lines, table, wrapped
from harness.output.remarks import trouble, unasked
from harness.output.tables import MARK, flag_lines, groups, title
from harness.record import BAD, Status

if TYPE_CHECKING:
    import pandas as pd

#: The gate's probes, in the order in which they are shown.
PROBES: Final = ("edge_cases", "exact", "bound", "precision", "conduct")
_STYLES: Final = {Status.CHECKED.value: "green"} | {status.value: "red" for status in BAD}


def report(records: pd.DataFrame, labels: Mapping[str, str], seed: int, width: int) -> Lines:
    """Return the lines of a whole check.

    Args:
        records: Rows of a check.
        labels: Names of cases, by their text.
        seed: Seed of the inputs.
        width: Terminal cells of a line.
    """
    lines = checks(records, labels, width)
    for remark in (trouble(records, labels, width), unasked(records, width)):
        lines += [*remark, Text()] if remark else []
    passed = int((records["status"] == Status.CHECKED.value).sum())
    bad = int(records["status"].isin([status.value for status in BAD]).sum())
    others = len(records) - passed - bad
    unchecked = f", {others} could not be checked" if others else ""
    return lines + wrapped(
        f"{passed} of {len(records)} passed the gate, {bad} did not{unchecked}. Seed: {seed}.", width
    )


def checks(records: pd.DataFrame, labels: Mapping[str, str], width: int) -> Lines:
    """Return the lines of every table, with an empty line after each.

    Args:
        records: Rows of a check.
        labels: Names of cases, by their text.
        width: Terminal cells of a line.
    """
    lines = Lines()
    for (device, case, mode), rows in groups(records):
        above, below, marked = flag_lines(rows, width)
        lines += [title(labels, case, mode, device), *above, *table(_columns(rows, marked), width), *below, Text()]
    return lines


def _columns(rows: pd.DataFrame, marked: set[str]) -> list[Column]:
    each = [row for _, row in rows.iterrows()]
    replies = [dict(part.split("=", 1) for part in form.text(row["probes"]).split(";") if part) for row in each]
    verdicts = ["right" if row["status"] == Status.CHECKED else str(row["status"]) for row in each]
    return [
        Column("backend", [row["backend"] for row in each]),
        *([Column(MARK, [MARK if row["backend"] in marked else "" for row in each])] if marked else []),
        Column(
            "verdict",
            [Text(word, _STYLES.get(str(row["status"]), "dim")) for word, row in zip(verdicts, each, strict=True)],
        ),
        *(Column(probe, [_answer(reply.get(probe, "-")) for reply in replies]) for probe in PROBES),
        Column("error/bound", [form.number(row["max_error_over_bound"], ".2g") for row in each], right=True, goes=3),
        Column("class", [form.text(row["precision_class"]) for row in each], goes=2),
        Column("mean abs diff", [form.number(row["mean_absolute_error"], ".1e") for row in each], right=True, goes=1),
    ]


def _answer(word: str) -> Text:
    return Text(word, "red" if word == "no" else "")

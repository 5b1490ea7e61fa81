"""Print a check: a line for each right backend, a block for each wrong one; with ``verbose`` every probe."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from rich.text import Text

from harness.checked import CheckReport
from harness.output import format as form
from harness.output.diagnoses import blocks
from harness.output.layout import Column, Lines, table, wrapped
from harness.output.remarks import NOT_CHECKED, unasked
from harness.output.tables import MARK, flag_lines, groups, title
from harness.record import BAD, Status

if TYPE_CHECKING:
    import pandas as pd

#: The gate's probes, in the order in which they are shown.
PROBES: Final = ("edge_cases", "exact", "bound", "precision", "conduct")
_STYLES: Final = {Status.CHECKED.value: "green"} | {status.value: "red" for status in BAD}


def report(checked: CheckReport, records: pd.DataFrame, labels: Mapping[str, str], width: int, verbose: bool) -> Lines:
    """Return the lines of a whole check; what is wrong comes last.

    Args:
        checked: The check.
        records: Its rows.
        labels: Names of cases, by their text.
        width: Terminal cells of a line.
        verbose: True for a table of probes for each case, all promises, tracebacks and output.
    """
    lines = wrapped(asked(records, labels), width, "  ")
    lines += [Text(), *tables(records, labels, width)] if verbose else [*right(records, width), Text()]
    for remark in (unasked(records, width), *blocks(checked.diagnoses, width, verbose)):
        lines += [*remark, Text()] if remark else []
    return lines + wrapped(summary(records, checked.seed), width, "  ")


def asked(records: pd.DataFrame, labels: Mapping[str, str]) -> Text:
    """Return the line that says what was checked."""
    cases, modes, devices = (list(records[name].unique()) for name in ("case", "mode", "device"))
    label = labels.get(cases[0])
    case = f"{label}, {cases[0]}" if label else cases[0]
    what = case if len(cases) == 1 else f"{len(cases)} cases"
    words = " and ".join(form.MODES[mode] for mode in modes)
    return Text(f"Checked against nn.Bilinear in float64: {what}, {words}, {' and '.join(devices)}", "bold")


def summary(records: pd.DataFrame, seed: int) -> str:
    """Return the last line: how many backends passed the gate, and the seed."""
    statuses = [set(rows["status"]) for _, rows in records.groupby("backend", sort=False)]
    bad = sum(bool(found & {status.value for status in BAD}) for found in statuses)
    others = sum(found <= set(NOT_CHECKED) for found in statuses)
    passed = len(statuses) - bad - others
    unchecked = f", {others} could not be checked" if others else ""
    return f"{passed} of {len(statuses)} passed the gate, {bad} did not{unchecked}. Seed: {seed}."


def right(records: pd.DataFrame, width: int) -> Lines:
    """Return a table with a line for each backend that is right wherever it could be checked."""
    by_backend = [(str(name), rows) for name, rows in records.groupby("backend", sort=False)]
    passed = [
        (name, rows[rows["status"] == Status.CHECKED.value], len(rows))
        for name, rows in by_backend
        if set(rows["status"]) <= {Status.CHECKED.value, *NOT_CHECKED} and Status.CHECKED.value in set(rows["status"])
    ]
    if not passed:
        return []
    counts = [f"{len(rows)} of {total}" for _, rows, total in passed]
    partial = any(len(rows) != total for _, rows, total in passed)
    difference = Column("mean abs diff", _largest(passed, "mean_absolute_error", ".1e"), right=True, goes=1)
    flags = Column("flags", [" ".join(_words(rows["flags"])) for _, rows, _ in passed], goes=4)
    columns = [
        Column("backend", [name for name, _, _ in passed]),
        Column("verdict", [Text("right", "green")] * len(passed)),
        *([Column("in", counts)] if partial else []),
        Column("error/bound", _largest(passed, "max_error_over_bound", ".2g"), right=True, goes=3),
        Column("class", [" ".join(_words(rows["precision_class"])) for _, rows, _ in passed], goes=2),
        *([difference] if any(difference.cells) else []),
        *([flags] if any(flags.cells) else []),
    ]
    return table(columns, width)


def tables(records: pd.DataFrame, labels: Mapping[str, str], width: int) -> Lines:
    """Return a table for each case, mode and device, with a column for each probe and an empty line after each."""
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


def _largest(passed: Sequence[tuple[str, pd.DataFrame, int]], column: str, number: str) -> list[str]:
    return [form.number(rows[column].max(), number) for _, rows, _ in passed]


def _words(values: Iterable[object]) -> list[str]:
    """Return the different texts of a column, each once."""
    return list(dict.fromkeys(word for value in values for word in form.text(value).split(";") if word))

"""Print the lines around the tables: what went wrong, what is not here, and the doctor's findings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.text import Text

from harness.output import format as form
from harness.output.layout import Column, Lines, table, wrapped
from harness.output.tables import GROUP, not_here
from harness.record import BAD, Status

if TYPE_CHECKING:
    import pandas as pd


def reached(records: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the groups that a run has begun."""
    interrupted = records["status"] == Status.INTERRUPTED.value
    return records[~interrupted.groupby([records[name] for name in GROUP]).transform("all")]


def unreached(records: pd.DataFrame, width: int) -> Lines:
    """Return a line that counts the groups that a stopped run did not begin; none without them."""
    planned, begun = (len(rows.drop_duplicates(GROUP)) for rows in (records, reached(records)))
    if planned == begun:
        return []
    line = f"The run was stopped: {planned - begun} of {planned} cases (each mode and device) were not reached."
    return wrapped(Text(line, style="bold red"), width)


def trouble(records: pd.DataFrame, width: int) -> Lines:
    """Return a line for every row whose status is in ``BAD``; none without them."""
    bad = records[records["status"].isin([status.value for status in BAD])]
    lines = Lines() if bad.empty else [Text("What went wrong:", style="bold red")]
    for _, row in bad.iterrows():
        cell = f"{row['backend']} on {row['case']}, {form.MODES[row['mode']]}, {row['device']}"
        line = Text.assemble(
            "  ", (row["status"], "red"), f" {cell} ({form.text(row['phase'])}): {form.text(row['reason'])}"
        )
        lines += wrapped(line, width, indent="    ")
    return lines


def absent(records: pd.DataFrame, width: int) -> Lines:
    """Return a line for every backend that is not installed, or is for other devices than the run's."""
    lines = {
        f"Not on {row['device']}: {row['backend']}: {form.text(row['reason']).removeprefix(row['backend'] + ' ')}": None
        for _, row in records[not_here(records)].iterrows()
    }
    return _dim(lines, width)


def unasked(records: pd.DataFrame, width: int) -> Lines:
    """Return a line for every backend and reason for which a cell could not be checked."""
    rows = records[records["status"].isin([Status.UNAVAILABLE.value, Status.UNSUPPORTED.value])]
    lines = dict.fromkeys(
        f"{row['backend']}: {row['status']}, {form.text(row['reason'])}" for _, row in rows.iterrows()
    )
    return _dim(lines, width)


def warnings(findings: Sequence[Mapping[str, str]], width: int) -> Lines:
    """Return the doctor's warnings about the machine of a run; none without them."""
    lines = [line for one in findings if one["level"] == "warning" for line in _finding(one, width)]
    return [Text("About this machine:", style="bold"), *lines] if lines else []


def machine(peaks: Mapping[str, Any], findings: Sequence[Mapping[str, str]], width: int) -> Lines:
    """Return a machine's peaks and every finding of the doctor.

    Args:
        peaks: What ``roofline.Peaks.as_json`` returns.
        findings: What ``doctor.as_json`` returns.
        width: Terminal cells of a line.
    """
    rates = [
        (f"arithmetic, {dtype}", f"{rate['flop_per_second'] / 1e9:,.0f} GFLOP/s", rate["source"])
        for dtype, rate in peaks["arithmetic"].items()
    ]
    rates += [
        (f"GEMM of {one['library']}, {one['dtype']}", f"{one['flop_per_second'] / 1e9:,.0f} GFLOP/s", one["detail"])
        for one in peaks["products"]
    ]
    for level in peaks["levels"]:
        capacity = "" if level["capacity_bytes"] is None else f", {form.size(level['capacity_bytes'])}"
        rates.append((f"reading from {level['name']}{capacity}", f"{level['bytes_per_second'] / 1e9:,.0f} GB/s", ""))
    what, rate, source = zip(*rates, strict=True)
    columns = [
        Column("what", [form.text(one) for one in what]),
        Column("rate", rate, right=True),
        Column("measured by", [form.text(one) for one in source], goes=1),
    ]
    lines = [Text("Peaks of this machine", style="bold"), *table(columns, width), Text()]
    if peaks["missing"]:
        lines += [*_dim([f"not measured: {form.text(one)}" for one in peaks["missing"]], width), Text()]
    lines.append(Text("What to know before you trust a measurement", style="bold"))
    return lines + [line for one in findings for line in _finding(one, width)]


def _dim(lines: Iterable[str], width: int) -> Lines:
    return [piece for line in lines for piece in wrapped(Text(line, style="dim"), width, indent="  ")]


def _finding(finding: Mapping[str, str], width: int) -> Lines:
    style = {"warning": "bold yellow", "note": "bold"}.get(finding["level"], "green")
    advice = f" -> {form.text(finding['advice'])}" if finding["advice"] else ""
    line = Text.assemble(
        "  ", (finding["level"], style), f" {form.text(finding['topic'])}: {form.text(finding['saw'])}{advice}"
    )
    return wrapped(line, width, indent="    ")

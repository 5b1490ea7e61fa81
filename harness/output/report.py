"""Turn the rows of a run into what a person reads: the answer first, then a table per case. Never measures.

Rows come as a data frame with the columns of ``harness.record.Record``; what comes back is for a Rich console to print.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

import pandas as pd
from rich.console import Group
from rich.table import Table
from rich.text import Text

from harness.record import BAD, Status

if TYPE_CHECKING:
    from rich.console import RenderableType

#: What identifies a table of the report.
GROUP: Final = ["device", "case", "mode"]
#: The gate's probes, in the order in which they are shown.
PROBES: Final = ("structure", "exact", "bound", "precision", "behaviour")
MODES: Final = {"forward": "forward", "forward_backward": "forward + backward"}


def answer(records: pd.DataFrame, labels: Mapping[str, str]) -> RenderableType:
    """The winner of each case and mode, with all that tie with it, and how it compares with nn.Bilinear."""
    table = Table(title="The answer: fastest right implementation", title_justify="left", box=None, pad_edge=False)
    for heading in ("case", "batch x in1 x in2 x out", "mode", "device"):
        table.add_column(heading)
    table.add_column("fastest (= cannot be told apart)", no_wrap=False)
    table.add_column("time", justify="right")
    table.add_column("vs nn.Bilinear", justify="right")
    for (device, case, mode), rows in groups(records):
        timed = _timed(rows)
        if timed.empty:
            winners, time, ratio = Text("none was timed", style="red"), "", ""
        else:
            best = timed[timed["rank"] == 1]
            winners = Text(_winners(best) or "its row is missing", style="bold")
            time = seconds(best["median_seconds"].min())
            ratio = "" if best.empty else times(best["speedup"].iloc[0])
        table.add_row(labels.get(case, ""), case, MODES[mode], device, winners, time, ratio)
    return table


def trouble(records: pd.DataFrame) -> RenderableType | None:
    """One line for every row that should not have become what it is; None where there is none."""
    bad = records[records["status"].isin([status.value for status in BAD])]
    if bad.empty:
        return None
    lines = [Text("What went wrong:", style="bold red")]
    for _, row in bad.iterrows():
        lines.append(
            Text.assemble(
                "  ",
                (f"{row['status']} ", "red"),
                f"{row['backend']} on {row['case']}, {MODES[row['mode']]}, {row['device']} ({_or(row['phase'])}): ",
                plain(row["reason"]),
            )
        )
    return Group(*lines)


def tables(records: pd.DataFrame, labels: Mapping[str, str]) -> Iterator[RenderableType]:
    """A table for every case, mode and device, sorted by speed, with a line for every row that was not timed."""
    for (device, case, mode), rows in groups(records):
        title = _title(labels, case, mode, device)
        table = Table(title=title, title_justify="left", box=None, pad_edge=False)
        table.add_column("rank", justify="right")
        table.add_column("backend")
        for heading in ("median", "quartiles", "vs nn.Bilinear", "99 % interval", "GFLOP/s"):
            table.add_column(heading, justify="right")
        table.add_column("mean abs. error", justify="right")
        table.add_column("error/bound", justify="right")
        table.add_column("class")
        table.add_column("flags")
        for _, row in _timed(rows).iterrows():
            table.add_row(
                str(row["rank"]),
                row["backend"],
                seconds(row["median_seconds"]),
                f"{seconds(row['p25_seconds'])} .. {seconds(row['p75_seconds'])}",
                times(row["speedup"]),
                "" if pd.isna(row["speedup_low"]) else f"{times(row['speedup_low'])} .. {times(row['speedup_high'])}",
                number(row["gflop_per_second"]),
                number(row["mean_absolute_error"], ".1e"),
                number(row["max_error_over_bound"], ".2g"),
                _or(row["precision_class"]),
                Text("" if pd.isna(row["flags"]) else plain(row["flags"])),
            )
        parts: list[RenderableType] = [table] if table.row_count else [title]
        parts += [_not_timed(row) for _, row in rows[rows["status"] != Status.TIMED.value].iterrows()]
        yield Group(*parts, Text())


def checks(records: pd.DataFrame, labels: Mapping[str, str]) -> Iterator[RenderableType]:
    """The gate's answers: a table for every case, mode and device; a line for each backend, a column for each probe."""
    styles = {Status.CHECKED.value: "green"} | {status.value: "red" for status in BAD}
    for (device, case, mode), rows in groups(records):
        table = Table(title=_title(labels, case, mode, device), title_justify="left", box=None, pad_edge=False)
        for heading in ("backend", "verdict", *PROBES):
            table.add_column(heading)
        table.add_column("error/bound", justify="right")
        table.add_column("class")
        table.add_column("mean abs. error", justify="right")
        table.add_column("flags")
        for _, row in rows.iterrows():
            said = dict(part.split("=", 1) for part in _or(row["probes"]).split(";") if part)
            passed = row["status"] == Status.CHECKED.value
            table.add_row(
                row["backend"],
                Text("right" if passed else row["status"], style=styles.get(row["status"], "dim")),
                *(Text(said.get(probe, "-"), style="red" if said.get(probe) == "no" else "") for probe in PROBES),
                number(row["max_error_over_bound"], ".2g"),
                _or(row["precision_class"]),
                number(row["mean_absolute_error"], ".1e"),
                Text(plain(_or(row["flags"]))),
            )
        yield Group(table, Text())


def unasked(records: pd.DataFrame) -> RenderableType | None:
    """One line for every backend and reason for which a cell could not be checked; None where there is none."""
    rows = records[records["status"].isin([Status.UNAVAILABLE.value, Status.UNSUPPORTED.value])]
    lines = dict.fromkeys(f"{row['backend']}: {row['status']}, {plain(row['reason'])}" for _, row in rows.iterrows())
    return Group(*(Text(line, style="dim") for line in lines)) if lines else None


def groups(records: pd.DataFrame) -> Iterator[tuple[tuple[str, str, str], pd.DataFrame]]:
    """The rows of each device, case and mode, in the order in which they were measured."""
    for key, rows in records.groupby(GROUP, sort=False):
        device, case, mode = (str(part) for part in key)
        yield (device, case, mode), rows


def seconds(value: float | None) -> str:
    """A time with three digits and the unit that suits it."""
    if value is None or pd.isna(value):
        return ""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if value >= 0.9995 * size or unit == "µs":
            return f"{_digits(value / size)} {unit}"
    raise AssertionError("the last unit takes everything")


def times(value: float | None) -> str:
    """A ratio, as in 1.86x."""
    return "" if value is None or pd.isna(value) else f"{_digits(value)}x"


def number(value: float | None, form: str = "") -> str:
    """A plain number; empty if missing."""
    if value is None or pd.isna(value):
        return ""
    return format(value, form) if form else _digits(value)


def plain(value: Any) -> str:
    """Text that cannot move the cursor or colour the terminal."""
    return "".join(sign if sign.isprintable() else " " for sign in str(value))


def _title(labels: Mapping[str, str], case: str, mode: str, device: str) -> Text:
    label = labels.get(case)
    return Text(f"{label + ': ' if label else ''}{case}, {MODES[mode]}, {device}", style="bold")


def _winners(best: pd.DataFrame) -> str:
    """Who is first; where rows are of several precision classes, in each of them."""
    if best["precision_class"].nunique(dropna=False) <= 1:
        return " = ".join(best["backend"])
    groups = best.groupby("precision_class", sort=False, dropna=False)
    return "; ".join(f"{' = '.join(rows['backend'])} ({_or(name) or 'no class'})" for name, rows in groups)


def _timed(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[rows["status"] == Status.TIMED.value].sort_values(["median_seconds"])


def _not_timed(row: pd.Series) -> Text:
    style = "red" if row["status"] in {status.value for status in BAD} else "dim"
    return Text.assemble(
        ("   - ", style), f"{row['backend']}: ", (f"{row['status']}", style), f", {plain(row['reason'])}"
    )


def _or(value: Any) -> str:
    return "" if pd.isna(value) else str(value)


def _digits(value: float) -> str:
    """Three significant digits, without an exponent."""
    for bound, form in ((0.09995, ".3g"), (0.9995, ".3f"), (9.995, ".2f"), (99.95, ".1f")):
        if abs(value) < bound:
            return format(value, form)
    return format(round(value), ",d")

"""Turn the rows of a run into what a person reads: the answer first, then a table per case. Never measures.

Rows come as a data frame with the columns of ``harness.record.Record``; what comes back is for a Rich console to print.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import pandas as pd
from rich.console import Group
from rich.table import Table
from rich.text import Text

from harness.record import BAD, Status

if TYPE_CHECKING:
    from rich.console import RenderableType

#: What a row makes of the spot_peak is shown where the upper end of its interval is at most so many times the lower one.
KNOWN_WITHIN: Final = 4.0
#: What identifies a table of the report.
GROUP: Final = ["device", "case", "mode"]
#: Most digits that are shown, however narrow the interval.
MOST_DIGITS: Final = 4
#: The gate's probes, in the order in which they are shown.
PROBES: Final = ("edge_cases", "exact", "bound", "precision", "conduct")
MODES: Final = {"forward": "forward", "forward_backward": "forward + backward"}


def answer(records: pd.DataFrame, labels: Mapping[str, str]) -> RenderableType:
    """The winner of each case and mode, with all that tie with it, and how it compares with nn.Bilinear."""
    table = Table(title="The answer: fastest right implementation", title_justify="left", box=None, pad_edge=False)
    for heading in ("case", "batch x in1 x in2 x out", "mode", "device"):
        table.add_column(heading)
    table.add_column("fastest (= cannot be told apart)", no_wrap=False)
    table.add_column("time", justify="right")
    table.add_column("vs nn.Bilinear", justify="right")
    table.add_column("of limit", justify="right")
    for (device, case, mode), rows in groups(records):
        timed = _timed(rows)
        if timed.empty:
            winners, time, ratio, share = Text("none was timed", style="red"), "", "", ""
        else:
            best = timed[timed["rank"] == 1]
            winners = Text(_winners(best) or "its row is missing", style="bold")
            time, ratio, share = ("", "", "") if best.empty else _fastest(best.iloc[0])
        table.add_row(labels.get(case, ""), case, MODES[mode], device, winners, time, ratio, share)
    return table


def reached(records: pd.DataFrame) -> pd.DataFrame:
    """The rows of the groups that a run came to before it was stopped, if it was."""
    interrupted = records["status"] == Status.INTERRUPTED.value
    return records[~interrupted.groupby([records[name] for name in GROUP]).transform("all")]


def unreached(records: pd.DataFrame) -> RenderableType | None:
    """One line for all groups that a run did not come to; None where there is none."""
    planned, begun = (len(rows.drop_duplicates(GROUP)) for rows in (records, reached(records)))
    if planned == begun:
        return None
    line = f"The run was stopped: {planned - begun} of {planned} cases (each mode and device) were not reached."
    return Text(line, style="bold red")


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
    """A table for every case, mode and device, sorted by speed, with a line for every row that was not timed.

    Backends that are for other devices have no line in it, but one in ``elsewhere``.
    """
    for (device, case, mode), rows in groups(records):
        title = _title(labels, case, mode, device)
        timed = _timed(rows)
        classes = timed["precision_class"].nunique(dropna=False) > 1
        table = Table(title=title, title_justify="left", box=None, pad_edge=False)
        table.add_column("rank", justify="right")
        table.add_column("backend", no_wrap=True)
        for heading in ("median", "vs nn.Bilinear", "99 % interval"):
            table.add_column(heading, justify="right", no_wrap=True)
        table.add_column("so it is")
        for heading in ("of limit", "GFLOP/s", "memory", "first call", "pays off", "mean error"):
            table.add_column(heading, justify="right", no_wrap=True)
        if classes:
            table.add_column("class", no_wrap=True)
        table.add_column("flags")
        for _, row in timed.iterrows():
            table.add_row(
                "-" if pd.isna(row["rank"]) else str(row["rank"]),
                row["backend"],
                seconds(row["median_seconds"], row["median_low_seconds"], row["median_high_seconds"]),
                times(row["speedup"], row["speedup_low"], row["speedup_high"]),
                _interval(row),
                _or(row["comparison"]),
                _of_roofline(row),
                number(row["gflop_per_second"]),
                size(row["peak_memory_bytes"]),
                seconds(row["prepare_seconds"] + row["first_call_seconds"]),
                "" if pd.isna(row["break_even_calls"]) else f"{row['break_even_calls']:,d}",
                number(row["mean_absolute_error"], ".1e"),
                *([_or(row["precision_class"])] if classes else []),
                Text(plain(_or(row["flags"]).replace(";", " "))),
            )
        parts: list[RenderableType] = [table] if table.row_count else [title]
        left_out = (rows["status"] != Status.TIMED.value) & ~_elsewhere(rows)
        parts += [_not_timed(row) for _, row in rows[left_out].iterrows()]
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


def elsewhere(records: pd.DataFrame) -> RenderableType | None:
    """One line for every backend that is for other devices than it was asked for; None where there is none."""
    rows = records[_elsewhere(records)]
    lines = dict.fromkeys(f"Not on {row['device']}: {plain(row['reason'])}" for _, row in rows.iterrows())
    return Group(*(Text(line, style="dim") for line in lines)) if lines else None


def _elsewhere(rows: pd.DataFrame) -> pd.Series:
    """Which rows are of backends that are not for the row's device."""
    return (rows["status"] == Status.UNSUPPORTED.value) & rows["phase"].isin(["load"])


def machine(peaks: Mapping[str, Any], findings: Sequence[Mapping[str, str]]) -> Iterator[RenderableType]:
    """What a machine could do at best, and what is to be known before it is trusted.

    Args:
        peaks: As ``cost.Peaks.as_json`` has it.
        findings: As ``doctor.as_json`` has them.
    """
    rates = Table(title="What it could do at best", title_justify="left", box=None, pad_edge=False)
    for heading in ("what", "rate", "measured by"):
        rates.add_column(heading)
    for dtype, rate in peaks["arithmetic"].items():
        rates.add_row(
            f"arithmetic, {dtype}", f"{rate['flop_per_second'] / 1e9:,.0f} GFLOP/s", Text(plain(rate["source"]))
        )
    for product in peaks["products"]:
        rate = f"{product['flop_per_second'] / 1e9:,.0f} GFLOP/s"
        name = Text(f"GEMM of {plain(product['library'])}, {product['dtype']}")
        rates.add_row(name, rate, Text(plain(product["detail"])))
    for level in peaks["levels"]:
        held = "" if level["capacity_bytes"] is None else f", {size(level['capacity_bytes'])}"
        rates.add_row(f"reading from {level['name']}{held}", f"{level['bytes_per_second'] / 1e9:,.0f} GB/s", "")
    yield rates
    if peaks["missing"]:
        yield Group(*(Text(f"not measured: {plain(line)}", style="dim") for line in peaks["missing"]))
    lines = [Text("What to know before you trust it", style="bold")]
    yield Group(*lines, *(_finding(finding) for finding in findings))


def warnings(findings: Sequence[Mapping[str, str]]) -> RenderableType | None:
    """The doctor's warnings about the machine of a run; None where there is none."""
    found = [_finding(finding) for finding in findings if finding["level"] == "warning"]
    return Group(Text("About this machine:", style="bold"), *found) if found else None


def _finding(finding: Mapping[str, str]) -> Text:
    style = {"warning": "bold yellow", "note": "bold"}.get(finding["level"], "green")
    advice = f" -> {plain(finding['advice'])}" if finding["advice"] else ""
    return Text.assemble(
        "  ", (f"{finding['level']} ", style), f"{plain(finding['topic'])}: {plain(finding['saw'])}{advice}"
    )


def groups(records: pd.DataFrame) -> Iterator[tuple[tuple[str, str, str], pd.DataFrame]]:
    """The rows of each device, case and mode, in the order in which they were measured."""
    for key, rows in records.groupby(GROUP, sort=False):
        device, case, mode = (str(part) for part in key)
        yield (device, case, mode), rows


def seconds(value: float | None, low: float | None = None, high: float | None = None) -> str:
    """A time in the unit that suits it, with the digits that its interval supports (two without one)."""
    if value is None or pd.isna(value):
        return ""
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        shown = _supported(value / scale, _half(low, high, scale))
        if unit == "µs" or float(shown.replace(",", "")) >= 1:
            return f"{shown} {unit}"
    raise AssertionError("the last unit takes everything")


def times(value: float | None, low: float | None = None, high: float | None = None) -> str:
    """A ratio, as in 1.86x, with the digits that its interval supports (two without one)."""
    if value is None or pd.isna(value):
        return ""
    half = _half(low, high)
    return "1x" if half == 0 and value == 1 else f"{_supported(value, half)}x"


def size(value: float | None) -> str:
    """Bytes in the unit that suits them; empty if missing, 0 below a kibibyte."""
    if value is None or pd.isna(value):
        return ""
    for unit, scale in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if value >= scale:
            return f"{_significant(value / scale, 2)} {unit}"
    return "0"


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


def _fastest(row: pd.Series) -> tuple[str, str, str]:
    """Time, ratio and share of the limit of a winner."""
    return (
        seconds(row["median_seconds"], row["median_low_seconds"], row["median_high_seconds"]),
        times(row["speedup"], row["speedup_low"], row["speedup_high"]),
        _of_roofline(row),
    )


def _of_roofline(row: pd.Series) -> str:
    """The share of what the machine could do right before each sample; of what it can at best, if that is not known.

    A spot_peak is no longer than a moment: few samples among much noise do not even tell whether a row makes half of it or
    twice as much.
    """
    low, high = row["spot_roofline_fraction_low"], row["spot_roofline_fraction_high"]
    known = pd.notna(low) and high <= KNOWN_WITHIN * low
    return _share(row["spot_roofline_fraction"] if known else row["roofline_fraction"])


def _timed(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[rows["status"] == Status.TIMED.value].sort_values(["median_seconds"])


def _not_timed(row: pd.Series) -> Text:
    style = "red" if row["status"] in {status.value for status in BAD} else "dim"
    return Text.assemble(
        ("   - ", style), f"{row['backend']}: ", (f"{row['status']}", style), f", {plain(row['reason'])}"
    )


def _or(value: Any) -> str:
    return "" if pd.isna(value) else str(value)


def _interval(row: pd.Series) -> str:
    low, high = row["speedup_low"], row["speedup_high"]
    if pd.isna(low) or pd.isna(high) or pd.isna(row["comparison"]):
        return ""
    half = _half(low, high)
    return f"{_supported(low, half)}x .. {_supported(high, half)}x"


def _share(fraction: float) -> str:
    return "" if pd.isna(fraction) else f"{_significant(100 * fraction, 2)} %"


def _half(low: float | None, high: float | None, scale: float = 1.0) -> float | None:
    """Half the width of an interval; None without one."""
    if low is None or high is None or pd.isna(low) or pd.isna(high):
        return None
    return (high - low) / 2 / scale


def _supported(value: float, half: float | None) -> str:
    """A number whose last digit is the first that its interval leaves open; four significant digits at the most."""
    digits = 2
    if half is not None:
        digits = MOST_DIGITS if half <= 0 else _exponent(value) - _exponent(half) + 1
    return _significant(value, max(1, min(MOST_DIGITS, digits)))


def _significant(value: float, digits: int) -> str:
    """So many significant digits, without an exponent."""
    decimals = digits - 1 - _exponent(value)
    rounded = round(value, decimals)
    if _exponent(rounded) > _exponent(value):  # 9.99 becomes 10.0: one decimal less says the same
        decimals -= 1
    return f"{rounded:,.{max(0, decimals)}f}"


def _exponent(value: float) -> int:
    return math.floor(math.log10(abs(value))) if value else 0


def _digits(value: float) -> str:
    """Three significant digits, without an exponent."""
    return _significant(value, 3)

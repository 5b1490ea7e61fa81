"""Print the lines around the tables: what went wrong, what is not here, and the doctor's findings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from rich.text import Text

from harness.output import format as form
from harness.output.case_labels import names_of
from harness.output.layout import Column, Lines, table, wrapped
from harness.output.tables import GROUP, not_here
from harness.record import BAD, Status

if TYPE_CHECKING:
    import pandas as pd

#: Statuses of rows that could not be checked.
NOT_CHECKED: Final = (Status.UNAVAILABLE.value, Status.UNSUPPORTED.value)


def reached(records: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the groups that a run has begun."""
    interrupted = records["status"] == Status.INTERRUPTED.value
    return records[~interrupted.groupby([records[name] for name in GROUP]).transform("all")]


def unreached(records: pd.DataFrame, width: int) -> Lines:
    """Return a line that counts the groups that a stopped run did not begin; none without them."""
    planned, begun = (len(rows.drop_duplicates(GROUP)) for rows in (records, reached(records)))
    if planned == begun:
        return []
    line = f"The run was stopped before {planned - begun} of {planned} cases (each mode and device)."
    return wrapped(Text(line, style="bold red"), width)


def trouble(records: pd.DataFrame, labels: Mapping[str, str], width: int) -> Lines:
    """Return a line for every backend and reason whose status is in ``BAD``; none without them.

    Args:
        records: Rows of a run.
        labels: Names of cases, by their text.
        width: Terminal cells of a line.
    """
    bad = records[records["status"].isin([status.value for status in BAD])]
    names = names_of(records["case"].unique(), labels)
    lines = Lines() if bad.empty else [Text("What went wrong:", style="bold red")]
    for (backend, status, phase, reason), rows in bad.groupby(
        [bad[name].fillna("") for name in ("backend", "status", "phase", "reason")], sort=False
    ):
        first = rows.iloc[0]
        where = f"{names[first['case']]}, {form.MODES[first['mode']]} on {first['device']}"
        cells = where if len(rows) == 1 else f"{len(rows)} times, first {where}"
        words = f" {backend}: {cells} ({form.text(phase)}): {form.text(reason)}"
        lines += wrapped(Text.assemble("  ", (str(status), "red"), words), width, indent="    ")
    return lines


def not_here_at_all(records: pd.DataFrame) -> pd.Series:
    """Return for each row whether its backend is not here, on none of the devices of these rows."""
    return not_here(records).groupby(records["backend"]).transform("all")


def absent(records: pd.DataFrame, width: int) -> Lines:
    """Return one line with the backends that are not installed, or are for other devices than the run's."""
    rows = records[not_here_at_all(records)]
    reasons = {str(row["backend"]): short_reason(form.text(row["reason"])) for _, row in rows.iterrows()}
    return wrapped(Text(f"Not here: {by_reason(reasons)}", "dim"), width, indent="  ") if reasons else []


def untimed(records: pd.DataFrame, width: int) -> Lines:
    """Return one line with the backends that passed the gate without being timed: too slow a call, or checked alone."""
    why: dict[str, str] = {}
    for backend, rows in records.groupby("backend", sort=False):
        slow, checked = (rows[rows["status"] == status.value] for status in (Status.TOO_SLOW, Status.CHECKED))
        reasons = dict.fromkeys(_why_checked(form.text(reason)) for reason in checked["reason"])
        if len(slow):
            reasons[f"too slow in {len(slow)} of {len(rows)}, a call takes longer than --budget"] = None
        if reasons:
            why[str(backend)] = "; ".join(reasons)
    return wrapped(Text(f"Not timed: {by_reason(why)}", "dim"), width, indent="  ") if why else []


def _why_checked(reason: str) -> str:
    return reason.partition("not timed, because ")[2] or reason


def by_reason(absent: Mapping[str, str]) -> str:
    """Return names with their reasons, those with the same reason together, as in ``a, b (not installed), c (...)``."""
    reasons = dict.fromkeys(absent.values())
    return ", ".join(
        f"{', '.join(name for name, own in absent.items() if own == reason)} ({reason})" for reason in reasons
    )


def short_reason(reason: str) -> str:
    """Return in few words why a backend is not here."""
    if "is not installed" in reason:
        return "not installed"
    if "runs on cuda" in reason:
        return "needs CUDA"
    return reason


def unasked(records: pd.DataFrame, width: int) -> Lines:
    """Return a line for every backend and reason for which a cell could not be checked."""
    rows = records[records["status"].isin(NOT_CHECKED)]
    lines = dict.fromkeys(
        f"{row['backend']}: {row['status']}, {form.text(row['reason'])}" for _, row in rows.iterrows()
    )
    return _dim(lines, width)


def resumed_elsewhere(environment: Mapping[str, Any], width: int) -> Lines:
    """Return a line with what differed where a run was resumed; none if it was measured in one place."""
    found = environment.get("differences")
    if not isinstance(found, list) or not found:
        return []
    text = f"Resumed elsewhere, so rows of one run may not compare: {'; '.join(map(form.text, found))}"
    return wrapped(Text(text, style="bold yellow"), width, indent="  ")


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

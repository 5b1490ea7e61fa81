"""Print a table for each case, mode and device: the timed backends, the fastest first.

Rows come as a data frame with the columns of ``harness.record.Record``. Nothing is measured here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Final

from rich.text import Text

from harness.output import format as form
from harness.output.layout import Column, Lines, fit, table, table_width, wrapped
from harness.record import BAD, FLAG_MEANING, Flag, Status

if TYPE_CHECKING:
    import pandas as pd

#: Columns that identify a table.
GROUP: Final = ["device", "case", "mode"]
#: Largest quotient of an interval's ends at which the share of the spot roofline is shown.
KNOWN_WITHIN: Final = 4.0
#: Marks a row of which a line below the table says more.
MARK: Final = "!"
#: Stands for a ratio whose interval is too wide; ``FEW`` stands for its verdict.
UNKNOWN: Final = "?"
FEW: Final = "too few samples"

#: The headings of the tables in this package, with their meaning.
HEADINGS: Final[dict[str, str]] = {
    "rank": "1 for the fastest and every backend that cannot be told apart from it; - for an impossible time",
    "backend": "the implementation",
    "median": "the time of one call, or of one training step, with its synchronisation",
    "+-": "half-width of the median's 99 % interval, as a share of the median",
    "ratio": "nn.Bilinear's time divided by the backend's, block by block; above 1 the backend is faster. "
    "? with too few samples",
    "verdict": "what the interval of the ratio shows: faster, slower, equivalent or ambiguous; or too few samples, "
    "if the interval's ends are more than ten-fold apart",
    "99 % interval": "the interval of the ratio",
    "% of roofline": "the least time this machine could take, as a share of the median",
    "first call": "preparing, compiling and the first call",
    "memory": "memory of one call at its highest, without inputs, parameters and results",
    "GFLOP/s": "the least work divided by the median, in 1e9 operations a second",
    "break-even (calls)": "calls after which the backend has made up for preparing and compiling",
    "mean abs diff": "mean absolute difference from nn.Bilinear's output",
    "class": "precision that the errors show; only in tables with several",
    MARK: "a flag; the line below the table names it",
}


def groups(records: pd.DataFrame) -> Iterator[tuple[tuple[str, str, str], pd.DataFrame]]:
    """Yield (device, case, mode) and its rows, in the order in which they were measured."""
    for key, rows in records.groupby(GROUP, sort=False):
        device, case, mode = (str(part) for part in key)
        yield (device, case, mode), rows


def timed(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the timed rows by rank, those of a rank by printed median, then by name; those without a rank last."""
    known = rows[rows["status"] == Status.TIMED.value]
    printed = [form.printed_seconds(*_median(row)) for _, row in known.iterrows()]
    ordered = known.assign(printed=printed).sort_values(["rank", "printed", "backend"], kind="stable")
    return ordered.drop(columns="printed")


def not_here(rows: pd.DataFrame) -> pd.Series:
    """Return for each row whether its backend is not installed, or is for other devices than the row's."""
    loading = (rows["status"] == Status.UNSUPPORTED.value) & rows["phase"].isin(["load"])
    return loading | (rows["status"] == Status.UNAVAILABLE.value)


@dataclasses.dataclass(frozen=True, slots=True)
class CaseTable:
    """The parts of one table, in the order of printing.

    Attributes:
        above: Flags that most rows have.
        columns: All columns of the timed rows; none without such rows.
        below: A line for each row that was not timed, then the other flags.
    """

    above: Lines
    columns: list[Column]
    below: Lines

    def lines(self, hidden: Collection[str]) -> Lines:
        """Return the table without the columns of some headings."""
        shown = [column for column in self.columns if column.heading not in hidden]
        return [*self.above, *(table(shown, table_width(shown)) if shown else []), *self.below]


def case_tables(records: pd.DataFrame, labels: Mapping[str, str], width: int, wide: bool = False) -> Lines:
    """Return the lines of every case's table, each with the same columns, with an empty line after each.

    Args:
        records: Rows of a run.
        labels: Names of cases, by their text.
        width: Terminal cells of a line.
        wide: True if no column is left out.
    """
    each = {key: case_table(rows, width) for key, rows in groups(records)}
    hidden = [] if wide else hidden_headings(each.values(), width)
    lines = Lines()
    for (device, case, mode), one in each.items():
        lines += [title(labels, case, mode, device), *one.lines(hidden), Text()]
    return [*lines, *hidden_line(hidden, width), *([Text()] if hidden else [])]


def case_table(rows: pd.DataFrame, width: int) -> CaseTable:
    """Return the table of one case, mode and device.

    Backends that are not installed, or are for other devices, are left to ``remarks.absent``.

    Args:
        rows: Rows of one case, mode and device.
        width: Terminal cells of a line of words.
    """
    ranked = timed(rows)
    above, below, marked = flag_lines(ranked, width)
    untimed = rows[(rows["status"] != Status.TIMED.value) & ~not_here(rows)]
    reasons = [line for _, row in untimed.iterrows() for line in wrapped(_untimed(row), width, indent=" " * 5)]
    return CaseTable(above, [] if ranked.empty else _columns(ranked, marked), reasons + below)


def hidden_headings(tables: Iterable[CaseTable], width: int) -> list[str]:
    """Return the headings for which some table has no room, so that all tables have the same columns."""
    hidden = set[str]()
    for one in tables:
        kept = [column.heading for column in fit(one.columns, width)]
        hidden |= {column.heading for column in one.columns if column.heading not in kept}
    return [heading for heading in HEADINGS if heading in hidden]


def hidden_line(hidden: Collection[str], width: int) -> Lines:
    """Return the line that says which columns are left out; none if all are there."""
    line = f"hidden at {width} columns: {', '.join(hidden)} (--wide shows them)"
    return wrapped(Text(line, "dim"), width, indent="  ") if hidden else []


def title(labels: Mapping[str, str], case: str, mode: str, device: str) -> Text:
    """Return the title of a table: what people call the case, its mode and device, and the case as text."""
    label = labels.get(case)
    words = f"{label or case}, {form.MODES[mode]} on {device}{f' ({case})' if label else ''}"
    return Text(words, style="bold")


def few_samples(row: pd.Series) -> bool:
    """True if a timed row has a ratio, but an interval too wide for it or none."""
    compared = not form.missing(row["speedup"]) and row["backend"] != form.text(row["baseline"])
    return compared and form.too_wide(row["speedup_low"], row["speedup_high"])


def ratio(row: pd.Series) -> str:
    """Return the text of a row's ratio; ``UNKNOWN`` with too few samples."""
    return UNKNOWN if few_samples(row) else form.ratio(row["speedup"], row["speedup_low"], row["speedup_high"])


def of_roofline(row: pd.Series) -> str:
    """Return the share of the spot roofline where it is known, else the share of the roofline.

    With few samples among much noise the interval of the spot roofline's share does not even tell half from twice.
    """
    low, high = row["spot_roofline_fraction_low"], row["spot_roofline_fraction_high"]
    known = not form.missing(low) and high <= KNOWN_WITHIN * low
    return form.percent(row["spot_roofline_fraction"] if known else row["roofline_fraction"])


def flag_lines(rows: pd.DataFrame, width: int) -> tuple[Lines, Lines, set[str]]:
    """Return the lines of flags above and below a table, and the backends that a line below it names.

    A flag without details that more than half of the rows have is said once, above the table.
    """
    above, below, marked = Lines(), Lines(), set[str]()
    carriers: dict[str, dict[str, str]] = {}
    for _, row in rows.iterrows():
        for flag in filter(None, form.text(row["flags"]).split(";")):
            name, _, detail = flag.partition("(")
            carriers.setdefault(name, {})[row["backend"]] = detail.removesuffix(")")
    for name, details in carriers.items():
        if 2 * len(details) > len(rows) > 1 and not any(details.values()):
            others = [backend for backend in rows["backend"] if backend not in details]
            count = f"on all {len(rows)} rows" if not others else f"on {len(details)} of {len(rows)} rows"
            but = f" (not {', '.join(others)})" if others else ""
            above += wrapped(f"{name} {count}{but}: {FLAG_MEANING[Flag(name)]}", width, indent="  ")
        else:
            marked |= set(details)
            shown = (f"{backend} ({detail})" if detail else backend for backend, detail in details.items())
            below += wrapped(f"   {MARK} {name}: {', '.join(shown)}", width, indent=" " * 5)
    return above, below, marked


def _columns(rows: pd.DataFrame, marked: Collection[str]) -> list[Column]:
    """Return the columns of a table of timed rows, of which some have a flag that a line below the table names."""
    each = [row for _, row in rows.iterrows()]
    shown = [Column(name, [cell(row) for row in each], right, goes) for name, right, goes, cell in _COLUMNS]
    if rows["precision_class"].nunique(dropna=False) > 1:
        shown.insert(2, Column("class", [form.text(row["precision_class"]) for row in each]))
    if marked:
        shown.insert(2, Column(MARK, [MARK if row["backend"] in marked else "" for row in each]))
    return shown


def _median(row: pd.Series) -> tuple[float, float, float]:
    return row["median_seconds"], row["median_low_seconds"], row["median_high_seconds"]


def _interval(row: pd.Series) -> str:
    """Return the interval of the ratio; empty for the baseline itself, and where it would be too wide."""
    hidden = form.missing(row["comparison"]) or few_samples(row)
    return "" if hidden else form.interval(row["speedup_low"], row["speedup_high"])


def _rate(row: pd.Series) -> str:
    """Return the rate with the digits of the time: the work is exact."""
    rate = row["gflop_per_second"]
    return "" if form.missing(rate) else form.significant(rate, form.digits(*_median(row)))


#: Heading, alignment to the right, place in the order of leaving out (0 stays), and the text of a row's cell.
_COLUMNS: Final[tuple[tuple[str, bool, int, Callable[[pd.Series], str]], ...]] = (
    ("rank", True, 0, lambda row: form.text(row["rank"]) or "-"),
    ("backend", False, 0, lambda row: str(row["backend"])),
    ("median", True, 0, lambda row: form.seconds(*_median(row))),
    ("+-", True, 8, lambda row: form.plus_minus(*_median(row))),
    ("ratio", True, 0, ratio),
    ("99 % interval", True, 7, _interval),
    ("verdict", False, 0, lambda row: FEW if few_samples(row) else form.text(row["comparison"])),
    ("% of roofline", True, 6, of_roofline),
    ("first call", True, 5, lambda row: form.seconds(row["prepare_seconds"] + row["first_call_seconds"])),
    ("memory", True, 4, lambda row: form.size(row["peak_memory_bytes"])),
    ("GFLOP/s", True, 3, _rate),
    ("break-even (calls)", True, 2, lambda row: form.number(row["break_even_calls"], ",d")),
    ("mean abs diff", True, 1, lambda row: form.number(row["mean_absolute_error"], ".1e")),
)


def _untimed(row: pd.Series) -> Text:
    style = "red" if row["status"] in {status.value for status in BAD} else "dim"
    return Text.assemble(
        ("   - ", style), f"{row['backend']}: ", (f"{row['status']}", style), f", {form.text(row['reason'])}"
    )

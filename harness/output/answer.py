"""Print the answer, the last thing of a run: for each case the fastest right backend, and its ratio to nn.Bilinear.

Rows come as a data frame with the columns of ``harness.record.Record``.
"""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from rich.text import Text

from harness.output import format as form
from harness.output.case_labels import names_of
from harness.output.fastest import Fastest, fastest
from harness.output.header import busy, machine
from harness.output.layout import Column, Lines, table, table_width, wrapped
from harness.output.remarks import not_here_at_all
from harness.output.tables import UNKNOWN, ratio
from harness.record import Status

if TYPE_CHECKING:
    import pandas as pd

#: Marks of a winner: others that cannot be told from it, under ten samples, nn.Bilinear among them, no ratio.
OTHERS, FEW_BLOCKS, TIES = "+", "~", "="
#: Gaps between columns that are tried where both modes are next to each other.
GAPS: Final = ("  ", " ")
#: Backends that compute what ``bilinear_bench.Bilinear`` does: on a CPU in these dtypes, and elsewhere.
FUSED, CONTRACTED = "torch-fused", "torch-contract"
FUSED_DTYPES: Final = ("float32", "float64")
#: Smallest budget, in seconds, that is advised against too few samples.
BUDGET_SECONDS: Final = 60
#: Indent of what follows a word such as ``See more:``.
_INDENT: Final = " " * 16


class Cells(NamedTuple):
    """What a line of the table says of one mode.

    Attributes:
        name: Name of the winner, the number of backends that tie, or why there is no winner.
        time: Its time of a call.
        ratio: nn.Bilinear's time divided by its own.
        marks: ``OTHERS`` with their number, and ``FEW_BLOCKS``.
    """

    name: Text = Text()
    time: str = ""
    ratio: str = ""
    marks: str = ""


#: Winners by (dtype or precision, case, mode); several where a group has several precision classes.
Winners = Mapping[tuple[str, str, str], list[Cells]]


def answer(
    records: pd.DataFrame, labels: Mapping[str, str], environment: Mapping[str, Any], name: str, width: int
) -> Lines:
    """Return the answer block: a table for each device, the marks, the layer to use, and the command for more.

    Args:
        records: Rows of the groups that a run has begun.
        labels: Names of cases, by their text.
        environment: What ``environment.json`` holds.
        name: Name of the run, as ``report`` takes it.
        width: Terminal cells of a line.
    """
    lines = Lines()
    used = ""
    for device, rows in records.groupby("device", sort=False):
        winners = _winners(rows)
        lines += [*_heading(rows, environment, str(device), width), *_table(winners, labels, width)]
        used += "".join(cells.ratio + cells.marks for group in winners.values() for cells in group)
    return [*lines, *_legend(used, environment, width), Text(), *_more(records, labels, name, width)]


def remedy(environment: Mapping[str, Any]) -> str:
    """Return what to do about too few samples."""
    given = float(environment.get("plan", {}).get("budget_seconds", 0))
    return f"--budget {max(BUDGET_SECONDS, 2 * given):g}, or fewer backends"


def resume(records: pd.DataFrame, name: str, width: int) -> Lines:
    """Return the command that completes a run; none if it is complete."""
    stopped = bool((records["status"] == Status.INTERRUPTED.value).any())
    command = f"Complete it:    bilinear-bench run --resume {name}"
    return wrapped(Text(command, "bold"), width, _INDENT) if stopped else []


def _winners(records: pd.DataFrame) -> Winners:
    """Return the winners of the groups of a device."""
    groups = records.groupby(["dtype", "precision", "case", "mode"], sort=False)
    return {
        (str(dtype if precision == "ieee" else precision), str(case), str(mode)): _of_group(rows)
        for (dtype, precision, case, mode), rows in groups
    }


def _of_group(rows: pd.DataFrame) -> list[Cells]:
    """Return the winners of a group, or why it has none."""
    found = [_cells(one) for one in fastest(rows)]
    untimed = (rows["status"] != Status.TIMED.value).all()
    return found or [Cells(Text("none was timed", "red") if untimed else Text("its row is missing"))]


def _cells(found: Fastest) -> Cells:
    others = f"{OTHERS}{found.others}" if found.others and not found.ties_baseline else ""
    marks = " ".join(filter(None, (others, FEW_BLOCKS if found.few_blocks else "")))
    return Cells(Text(found.name, "bold"), found.median, TIES if found.ties_baseline else found.ratio, marks)


def _heading(records: pd.DataFrame, environment: Mapping[str, Any], device: str, width: int) -> Lines:
    """Return the title, and the line of the machine, the dtype and the number of backends."""
    run_id = records["run_id"].iloc[0]
    title = Text(f"Fastest right way, and times as fast as nn.Bilinear  run {run_id}", "bold")
    asked = records[~not_here_at_all(records)]
    count = asked["backend"].nunique()
    dtypes = {
        dtype if precision == "ieee" else precision for dtype, precision in records[["dtype", "precision"]].values
    }
    words = [
        machine(environment, device) + (" (busy at times)" if busy(records, environment) else ""),
        *(dtypes if len(dtypes) == 1 else ()),
        f"{count} backend{'s' if count != 1 else ''}",
        *(_bad(asked) or ["all right" if count > 1 else "right"]),
    ]
    line = ", ".join(filter(None, words))
    return [*wrapped(title, width), *wrapped(line if device == "cpu" else f"{device}: {line}", width, indent="  ")]


def _bad(records: pd.DataFrame) -> list[str]:
    """Return the number of backends that are wrong, failed or ran out of memory, in words; empty without them."""
    kinds = {
        "wrong": [Status.REJECTED.value],
        "failed": [Status.FAILED.value, Status.TIMEOUT.value],
        "out of memory": [Status.OUT_OF_MEMORY.value],
    }
    bad = {word: records.loc[records["status"].isin(kind), "backend"].nunique() for word, kind in kinds.items()}
    return [f"{count} {word}" for word, count in bad.items() if count]


def _table(winners: Winners, labels: Mapping[str, str], width: int) -> Lines:
    """Return the table, with both modes next to each other if there is room, else one below the other."""
    modes = [mode for mode in form.MODES if any(mode == own for _, _, own in winners)]
    columns = _columns(list(_rows(winners, labels, modes)))
    for gap in GAPS:
        if table_width(columns, gap) <= width:
            return table(columns, width, gap)[1:]
    columns = _columns([row for mode in modes for row in _rows(winners, labels, [mode])])
    return table(columns, table_width(columns))[1:]


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


def _columns(rows: Sequence[tuple[Text, *tuple[Cells, ...]]]) -> list[Column]:
    """Return the columns of the table; the heading is its first row."""
    label, *modes = zip(*rows, strict=True)
    columns = [Column("", label)]
    for cells in modes:
        name, time, ratios, marks = zip(*cells, strict=True)
        columns += [Column("", name), Column("", time, right=True), Column("", ratios, right=True), Column("", marks)]
    return columns


def _legend(used: str, environment: Mapping[str, Any], width: int) -> Lines:
    """Return the lines that say what the marks mean that are used."""
    meanings = {
        OTHERS: f"{OTHERS}N others cannot be told from it",
        FEW_BLOCKS: f"{FEW_BLOCKS} under ten samples",
        TIES: f"{TIES} nor can nn.Bilinear",
    }
    lines = ["   ".join(text for mark, text in meanings.items() if mark in used)]
    lines += [f"{UNKNOWN} too few samples for a ratio: {remedy(environment)}"] if UNKNOWN in used else []
    return [piece for line in lines for piece in wrapped(Text(line, "dim"), width)]


def _more(records: pd.DataFrame, labels: Mapping[str, str], name: str, width: int) -> Lines:
    """Return the line of the layer to use with the range of its ratios, and the command for more."""
    known = records[records["status"] == Status.TIMED.value]
    fused = (known["device"] == "cpu") & known["dtype"].isin(FUSED_DTYPES)
    layer = known[known["backend"] == fused.map({True: FUSED, False: CONTRACTED})]
    ratios = [ratio(row) for _, row in layer.sort_values("speedup").iterrows() if ratio(row) not in ("", UNKNOWN)]
    ends = " to ".join(dict.fromkeys(text.removesuffix("x") for text in (*ratios[:1], *ratios[-1:])))
    words = f"  ({ends} times as fast)" if ratios else ""
    *_, (text, case) = names_of(records["case"].unique(), labels).items()
    case = text if "'" in case else case  # a quote in quotes is hard to read
    more = f"See more:       bilinear-bench report {name} [--case {shlex.quote(case)}] [--plot=FILE]"
    return [
        *wrapped(f"In your model:  from bilinear_bench import Bilinear{words}", width, _INDENT),
        *wrapped(more, width, _INDENT),
    ]

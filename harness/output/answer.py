"""Print the answer, the last thing of a run: for each case the fastest right backend, and its ratio to nn.Bilinear.

Rows come as a data frame with the columns of ``harness.record.Record``.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from rich.text import Text

from harness.output.answer_table import FEW_BLOCKS, OTHERS, Cells, Winners, winner_lines, winners_of
from harness.output.case_labels import names_of
from harness.output.group_line import group_name
from harness.output.header import busy, machine
from harness.output.layout import Lines, wrapped
from harness.output.remarks import not_here_at_all
from harness.output.tables import UNKNOWN, ratio
from harness.record import Status

if TYPE_CHECKING:
    import pandas as pd

#: Backends that compute what ``bilinear_bench.Bilinear`` does: on a CPU in these dtypes, and elsewhere.
FUSED, CONTRACTED = "torch-fused", "torch-contract"
FUSED_DTYPES: Final = ("float32", "float64")
#: Smallest budget, in seconds, that is advised against too few samples.
BUDGET_SECONDS: Final = 60
#: Indent of what follows a word such as ``See more:``.
_INDENT: Final = " " * 16


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
    winners = {str(device): winners_of(rows) for device, rows in records.groupby("device", sort=False)}
    few = _few(winners, labels)
    for device, rows in records.groupby("device", sort=False):
        lines += [
            *_heading(rows, environment, str(device), width),
            *winner_lines(winners[str(device)], labels, width, mark_few=few == ""),
        ]
    cells = [one for own in winners.values() for group in own.values() for one in group]
    lines += [*_legend(cells, few, environment, width), Text(), *_more(records, labels, name, width)]
    return lines + _left_out(environment, width)


def remedy(environment: Mapping[str, Any]) -> str:
    """Return what to do about too few samples."""
    given = float(environment.get("plan", {}).get("budget_seconds", 0))
    return f"--budget {max(BUDGET_SECONDS, 2 * given):g}, or fewer backends"


def resume(records: pd.DataFrame, name: str, width: int) -> Lines:
    """Return the command that completes a run; none if it is complete."""
    stopped = bool((records["status"] == Status.INTERRUPTED.value).any())
    command = f"Complete it:    bilinear-bench run --resume {name}"
    return wrapped(Text(command, "bold"), width, _INDENT) if stopped else []


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


def _few(winners: Mapping[str, Winners], labels: Mapping[str, str]) -> str:
    """Return what is said once if most winners have under ten samples; empty if those that have are marked.

    Args:
        winners: Winners of each device.
        labels: Names of cases, by their text.
    """
    each = [
        (group_name(case, mode, device, labels), one.found.few_blocks)
        for device, own in winners.items()
        for (_, case, mode), group in own.items()
        for one in group
        if one.found
    ]
    others = dict.fromkeys(name for name, few in each if not few)
    count = sum(few for _, few in each)
    if not 2 * count > len(each) > 1:
        return ""
    return f"under ten samples: {count} of {len(each)}, not {', '.join(others)}" if others else "all under ten samples"


def _legend(cells: Sequence[Cells], few: str, environment: Mapping[str, Any], width: int) -> Lines:
    """Return the lines that say what the marks and words mean that are used.

    Args:
        cells: All cells of the tables.
        few: What is said once of under ten samples; empty if winners are marked.
        environment: What ``environment.json`` holds.
        width: Terminal cells of a line.
    """
    found = [one.found for one in cells if one.found]
    marks = [
        f"{OTHERS}N others cannot be told from it" if any(one.others for one in cells) else "",
        "among N: nn.Bilinear is one of the N" if any(one.ties_baseline for one in found) else "",
    ]
    marked = f"{FEW_BLOCKS} under ten samples" if any(one.few_blocks for one in found) else ""
    lines = [
        "   ".join(filter(None, marks)),
        few or marked,
        f"{UNKNOWN} too few samples for a ratio: {remedy(environment)}"
        if any(one.ratio == UNKNOWN for one in cells)
        else "",
    ]
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


def _left_out(environment: Mapping[str, Any], width: int) -> Lines:
    """Return the line that names what is installed and not in the core set; none if all backends were measured."""
    names = environment.get("plan", {}).get("left_out", [])
    words = f"Left out:       {', '.join(names)} (installed; --backend all measures {'them' if names[1:] else 'it'})"
    return wrapped(Text(words, "dim"), width, _INDENT) if names else []

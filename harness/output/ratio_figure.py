"""Draw ratios to nn.Bilinear with their intervals: a panel for each case and mode, a line for each backend.

Rows come as a data frame with the columns of ``harness.record.Record``. This module imports Matplotlib.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from harness.output import figure_style as style
from harness.output import format as form
from harness.output.case_labels import labels_of, names_of
from harness.output.palette import Look, looks
from harness.output.tables import few_samples, groups, timed
from harness.record import Relation, Status

if TYPE_CHECKING:
    import pandas as pd

#: Says how to read the figure.
READING: Final = (
    "Times as fast as nn.Bilinear, with 99 % intervals; the time of a call at the right. "
    "Hollow: ambiguous, or too few samples. Bold: fastest, or cannot be told apart from it."
)
#: Height of a backend's line, and of a panel's title and ticks, in inches.
ROW_INCHES, FRAME_INCHES = 0.115, 0.52
#: Most panels that are stacked in one column of a paper.
MOST_STACKED: Final = 2
#: Letters of a title's line, by the number of panels in a row.
TITLE_LETTERS: Final = {1: 36, 2: 40, 3: 30}
#: An axis shows an interval up to this factor from its ratio; a longer one runs out of the panel.
SHOWN_WITHIN: Final = math.sqrt(10)
#: Factor by which the axis is longer than what it shows, at both ends.
MARGIN: Final = 1.12


def figure(records: pd.DataFrame, caption: str) -> Figure:
    """Return the figure of a run.

    Args:
        records: Rows of a run, at least one of them ranked.
        caption: What the caption says after ``READING``.
    """
    ordered = records.sort_values(["device", "mode"], kind="stable")
    shown = [(key, rows) for key, rows in groups(ordered) if not timed(rows).empty]
    names, ends = _order(records), _ends(records)
    columns = 1 if len(shown) <= MOST_STACKED else 2 if len(shown) == 4 else 3
    lines = math.ceil(len(shown) / columns)
    width = style.COLUMN_INCHES if columns == 1 else style.PAGE_INCHES
    height = lines * (FRAME_INCHES + ROW_INCHES * len(names)) + 2 * style.LINE_INCHES
    drawn = style.new_figure(width, height, f"{READING} {caption}")
    panels = list(drawn.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).flatten())
    look_of, several = looks(names), records["device"].nunique() > 1
    case_names = names_of(records["case"].unique(), labels_of(records))
    for panel, ((device, case, mode), rows) in zip(panels, shown, strict=False):
        where = f"{form.MODES[mode]}, {device}" if several else form.MODES[mode]
        panel.set_title(_title(case_names[case], where, TITLE_LETTERS[columns]), loc="left")
        _fill(panel, rows, names, look_of)
        style.plain_axis(panel.xaxis, ends)
        panel.tick_params(labelbottom=True)
    for panel in panels[max(0, len(shown) - columns) : len(shown)]:  # the lowest of each column
        panel.set_xlabel("times as fast as nn.Bilinear")
    for panel in panels[len(shown) :]:
        panel.set_axis_off()
    style.lay_out(drawn)
    return drawn


def _title(label: str, where: str, letters: int) -> str:
    """Return a panel's title in lines: mode and device on the last one, together with the label if they fit."""
    whole = f"{label}, {where}"
    return whole if len(whole) <= letters else "\n".join((*textwrap.wrap(label, letters), where))


def _ranked(records: pd.DataFrame) -> pd.DataFrame:
    """Return the timed rows without those whose time is impossible."""
    return timed(records).dropna(subset=["rank"])


def _order(records: pd.DataFrame) -> list[str]:
    """Return the backends with a time, the one with the largest median of its ratios first."""
    rows = _ranked(records)
    ratios = [math.nan if form.missing(ratio) else float(ratio) for ratio in rows["speedup"]]
    medians = rows.assign(speedup=ratios).groupby("backend")["speedup"].median()
    return [str(name) for name in medians.sort_values(ascending=False, kind="stable").index]


def _ends(records: pd.DataFrame) -> tuple[float, float]:
    """Return the ends of the axis: 1, all ratios, and their intervals as far as ``SHOWN_WITHIN``."""
    rows = _ranked(records).dropna(subset=["speedup"])
    ratios = rows["speedup"].astype(float)
    low = rows["speedup_low"].fillna(ratios).astype(float).clip(lower=ratios / SHOWN_WITHIN)
    high = rows["speedup_high"].fillna(ratios).astype(float).clip(upper=ratios * SHOWN_WITHIN)
    return min([1.0, *low]) / MARGIN, max([1.0, *high]) * MARGIN


def _fill(panel: Axes, rows: pd.DataFrame, names: list[str], look_of: Mapping[str, Look]) -> None:
    """Draw one panel: a mark and an interval for each backend, its time at the right, and the line at 1."""
    panel.axvline(1, color="black", linewidth=0.8)
    panel.set_yticks(range(len(names)), labels=[style.short_name(name) for name in names])
    panel.set_ylim(len(names) - 0.4, -0.6)
    panel.tick_params(axis="y", length=0)
    several = timed(rows)["precision_class"].nunique(dropna=False) > 1
    places = {name: place for place, name in enumerate(names)}
    for _, row in rows[rows["backend"].isin(names)].iterrows():
        place = places[row["backend"]]
        words, font = _words(row, several)
        across = panel.get_yaxis_transform()
        panel.text(1.02, place, words, transform=across, fontsize=style.SMALL_POINTS, va="center", **font)
        if not form.missing(row["rank"]) and not form.missing(row["speedup"]):
            _draw_ratio(panel, place, row, look_of[row["backend"]])


def _words(row: pd.Series, several: bool) -> tuple[str, dict[str, Any]]:
    """Return what is at the right of a line, with its font: the time, or why there is none.

    Args:
        row: Row of a backend.
        several: True if the panel has several precision classes.
    """
    if row["status"] != Status.TIMED.value:
        return str(row["status"]).replace("_", " "), {"style": "italic"}
    if form.missing(row["rank"]):
        return "implausible", {"style": "italic"}
    time = form.seconds(row["median_seconds"], row["median_low_seconds"], row["median_high_seconds"])
    time = time.replace("us", "µs")  # a terminal may lack the sign; a figure has it
    words = f"{time} {form.text(row['precision_class']) or '?'}" if several else time
    return words, {"weight": "bold" if row["rank"] == 1 else "normal"}


def _draw_ratio(panel: Axes, place: int, row: pd.Series, look: Look) -> None:
    """Draw the mark of a ratio, its distance from 1, and its interval; hollow if it is uncertain."""
    ratio = float(row["speedup"])
    uncertain = few_samples(row) or form.text(row["comparison"]) == Relation.AMBIGUOUS.value
    panel.hlines(place, 1, ratio, colors=look.colour, linewidth=0.6, alpha=0.5)
    if form.half_width(row["speedup_low"], row["speedup_high"]):
        panel.hlines(place, row["speedup_low"], row["speedup_high"], colors=look.colour, linewidth=1.5)
    inside = "white" if uncertain else look.colour
    panel.plot(ratio, place, marker=look.mark, color=look.colour, markerfacecolor=inside, linestyle="none", zorder=3)

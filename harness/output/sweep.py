"""Find how the time of a call grows with one size of the case, all else being the same.

Rows come as a data frame with the columns of ``harness.record.Record``. ``growth_figure`` draws what is found.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from rich.text import Text

from harness.output.format import missing
from harness.output.layout import Lines, wrapped
from harness.record import Status

if TYPE_CHECKING:
    import pandas as pd

#: Fewest sizes of a growth.
FEWEST_SIZES: Final = 5
#: The column that grows, and the columns that stay. Features grow where both inputs have the same number.
_AXES: Final = {
    "batch": ("batch", ("in1_features", "in2_features", "out_features")),
    "features": ("in1_features", ("batch", "out_features")),
    "in1": ("in1_features", ("batch", "in2_features", "out_features")),
    "in2": ("in2_features", ("batch", "in1_features", "out_features")),
    "out": ("out_features", ("batch", "in1_features", "in2_features")),
}
_SHORT: Final = {"batch": "batch", "in1_features": "in1", "in2_features": "in2", "out_features": "out"}
#: Columns that one growth never mixes, with the words for their values; the usual value has no word.
_ALIKE: Final[dict[str, dict[Any, str]]] = {
    "mode": {"forward_backward": "training step"},
    "dtype": {},
    "precision": {"ieee": ""},
    "bias": {True: "", False: "no bias"},
    "device": {},
    "flush_l2": {False: "", True: "L2 flushed"},
}


@dataclasses.dataclass(frozen=True, slots=True)
class Point:
    """A time on a curve.

    Attributes:
        size: The size that grows.
        seconds: Median time of a call, in seconds.
        interval: Ends of the 99 % interval of the median, in seconds; None with too few samples.
        quartiles: Lower and upper quartile of the samples, in seconds; None if they are not known.
        first: True if the backend is the fastest at this size, or cannot be told apart from it.
    """

    size: int
    seconds: float
    interval: tuple[float, float] | None = None
    quartiles: tuple[float, float] | None = None
    first: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Growth:
    """Times of all backends while a size grows.

    Attributes:
        axis: ``batch``, ``features``, ``in1``, ``in2`` or ``out``.
        fixed: The sizes and options that stay, in words.
        curves: Points of each backend, the smallest size first.
        roofline: Least time of the machine in seconds, by size; empty if it was not measured.
    """

    axis: str
    fixed: str
    curves: dict[str, list[Point]]
    roofline: dict[int, float]


def find(records: pd.DataFrame) -> list[Growth]:
    """Return what grows in a run: at least ``FEWEST_SIZES`` ranked cases that differ in a size, or in both features."""
    ranked = records[(records["status"] == Status.TIMED.value) & records["rank"].notna()]
    growths = []
    for axis, (column, stays) in _AXES.items():
        own = ranked[ranked["in1_features"] == ranked["in2_features"]] if axis == "features" else ranked
        for key, rows in own.groupby([*_ALIKE, *stays], sort=False):
            if rows[column].nunique() < FEWEST_SIZES:
                continue
            values = dict(zip((*_ALIKE, *stays), key, strict=True))
            sizes = [f"{_SHORT[name]} {values[name]}" for name in stays]
            words = [names.get(values[name], str(values[name])) for name, names in _ALIKE.items()]
            fixed = ", ".join(word for word in (*sizes, *words) if word)
            growths.append(Growth(axis, fixed, _curves(rows, column), _roofline(rows, column)))
    return growths


def _curves(rows: pd.DataFrame, column: str) -> dict[str, list[Point]]:
    curves: dict[str, list[Point]] = {}
    for _, row in rows.sort_values(column, kind="stable").iterrows():
        point = Point(
            size=int(row[column]),
            seconds=float(row["median_seconds"]),
            interval=_ends(row["median_low_seconds"], row["median_high_seconds"]),
            quartiles=_ends(row["p25_seconds"], row["p75_seconds"]),
            first=bool(row["rank"] == 1),
        )
        curves.setdefault(str(row["backend"]), []).append(point)
    return curves


def _ends(low: float | None, high: float | None) -> tuple[float, float] | None:
    return None if low is None or high is None or missing(low) or missing(high) else (float(low), float(high))


def _roofline(rows: pd.DataFrame, column: str) -> dict[int, float]:
    known = rows.dropna(subset=["roofline_seconds"]).sort_values(column)
    return dict(zip(known[column].astype(int), known["roofline_seconds"].astype(float), strict=True))


def summary(growths: Sequence[Growth], width: int) -> Lines:
    """Return a line for each growth of a run; none without one."""
    lines = Lines() if not growths else [Text("How times grow (report --plot draws it)", style="bold")]
    for growth in growths:
        line = f"  over {growth.axis}: {growth.fixed}; backends: {len(growth.curves)}"
        lines += wrapped(line, width, indent="    ")
    return lines

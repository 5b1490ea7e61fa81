"""How the time of a call grows with a size of the case, all else being the same: curves, their cliffs, a figure.

Rows come as a data frame with the columns of ``harness.record.Record``. Matplotlib is imported only to draw.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rich.console import Group
from rich.text import Text

from harness.record import Status

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from rich.console import RenderableType

#: A growth has so many sizes at least, and a curve in which a cliff can be seen so many.
FEWEST_SIZES, FEWEST_POINTS = 5, 3
#: A time so many times above what the sizes beside it let expect is a cliff.
CLIFF: Final = 1.5
#: The formats that ``draw`` writes, by a file's suffix, with what would differ each time.
FORMATS: Final[dict[str, dict[str, None]]] = {".svg": {"Date": None}, ".png": {}, ".pdf": {"CreationDate": None}}
#: What grows and what stays, by the names of columns. Features grow where both inputs have as many.
_AXES: Final = {
    "batch": ("batch", ("in1_features", "in2_features", "out_features")),
    "features": ("in1_features", ("batch", "out_features")),
    "in1": ("in1_features", ("batch", "in2_features", "out_features")),
    "in2": ("in2_features", ("batch", "in1_features", "out_features")),
    "out": ("out_features", ("batch", "in1_features", "in2_features")),
}
_SHORT: Final = {"batch": "batch", "in1_features": "in1", "in2_features": "in2", "out_features": "out"}
#: What one growth never mixes, and what each is called: nothing where it is what it usually is.
_ALIKE: Final[dict[str, dict[Any, str]]] = {
    "mode": {"forward_backward": "forward + backward"},
    "dtype": {},
    "precision": {"ieee": ""},
    "bias": {True: "", False: "no bias"},
    "device": {},
    "flush_l2": {False: "", True: "L2 flushed"},
}


class GrowthError(ValueError):
    """Nothing that grows, or no way to draw it. The message says what to do."""


@dataclasses.dataclass(frozen=True, slots=True)
class Point:
    """A time on a curve.

    Attributes:
        size: What grows.
        seconds: Of a call.
        gflop: The least work there is.
        case: Name of the case.
    """

    size: int
    seconds: float
    gflop: float
    case: str


@dataclasses.dataclass(frozen=True, slots=True)
class Growth:
    """Times of all backends while a size grows.

    Attributes:
        axis: ``batch``, ``features``, ``in1``, ``in2`` or ``out``.
        fixed: What stays, in words.
        curves: For each backend its points, the smallest size first.
        limit: Size and the least seconds that the machine could take; empty if it was not measured.
    """

    axis: str
    fixed: str
    curves: dict[str, list[Point]]
    limit: dict[int, float]


@dataclasses.dataclass(frozen=True, slots=True)
class Cliff:
    """A time far above what the sizes beside it let expect.

    Attributes:
        backend: Whose.
        point: Where.
        times: How many times what was to be expected.
    """

    backend: str
    point: Point
    times: float


def find(records: pd.DataFrame) -> list[Growth]:
    """Find what grows in a run: at least ``FEWEST_SIZES`` ranked cases that differ in a size, or in both features."""
    ranked = records[(records["status"] == Status.TIMED.value) & records["rank"].notna()]
    found = []
    for axis, (column, stays) in _AXES.items():
        own = ranked[ranked["in1_features"] == ranked["in2_features"]] if axis == "features" else ranked
        for key, rows in own.groupby([*_ALIKE, *stays], sort=False):
            if rows[column].nunique() < FEWEST_SIZES:
                continue
            values = dict(zip((*_ALIKE, *stays), key, strict=True))
            sizes = [f"{_SHORT[name]} {values[name]}" for name in stays]
            words = [names.get(values[name], str(values[name])) for name, names in _ALIKE.items()]
            fixed = ", ".join(word for word in (*sizes, *words) if word)
            found.append(Growth(axis, fixed, _curves(rows, column), _limit(rows, column)))
    return found


def _curves(rows: pd.DataFrame, column: str) -> dict[str, list[Point]]:
    curves: dict[str, list[Point]] = {}
    columns = ("backend", column, "median_seconds", "gflop", "case")
    for name, *point in rows.sort_values(column, kind="stable")[[*columns]].itertuples(index=False):
        curves.setdefault(name, []).append(Point(*point))
    return curves


def _limit(rows: pd.DataFrame, column: str) -> dict[int, float]:
    known = rows.dropna(subset=["roofline_seconds"]).sort_values(column)
    return dict(zip(known[column].astype(int), known["roofline_seconds"].astype(float), strict=True))


def cliffs(growth: Growth) -> list[Cliff]:
    """Find each time that is ``CLIFF`` times as long as the sizes beside it let expect, or longer.

    Two things are expected: a time on the straight line between its neighbours', both axes being logarithmic; and one
    that grows no more than the work since either of the two sizes before. The first finds a single slow size, the
    second a jump that lasts.
    """
    found = []
    for backend, points in growth.curves.items():
        if len(points) < FEWEST_POINTS:
            continue
        for place, here in enumerate(points[1:], start=1):
            earlier = points[max(0, place - 2) : place]
            above = [here.seconds / max(one.seconds / one.gflop for one in earlier) / here.gflop]
            if place + 1 < len(points):
                above.append(here.seconds / _between(points[place - 1], points[place + 1], here.size))
            if max(above) >= CLIFF:
                found.append(Cliff(backend, here, max(above)))
    return found


def _between(before: Point, after: Point, size: int) -> float:
    """Seconds for a size between two others, on a straight line of logarithms."""
    share = math.log(size / before.size) / math.log(after.size / before.size)
    return float(before.seconds ** (1 - share) * after.seconds**share)


def told(growths: Sequence[Growth]) -> RenderableType:
    """What grows in a run, in words, with every cliff."""
    lines = [Text("How it grows (a cliff: a time far above what the sizes beside it let expect)", style="bold")]
    for growth in growths:
        seen = sum(len(points) >= FEWEST_POINTS for points in growth.curves.values())
        steep = cliffs(growth)
        count = {0: "no cliff", 1: "1 cliff"}.get(len(steep), f"{len(steep)} cliffs")
        lines.append(Text(f"  over {growth.axis}; {growth.fixed}; backends {seen}: {count}"))
        lines += [
            Text(f"    {cliff.backend} at {cliff.point.case}: {cliff.times:.1f}x", style="yellow") for cliff in steep
        ]
    return Group(*lines)


def draw(growths: Sequence[Growth], path: Path) -> None:
    """Write a figure with a panel for each growth: seconds of a call by size, and the machine's limit.

    Args:
        growths: What ``find`` has found.
        path: Where; its suffix is one of ``FORMATS``.

    Raises:
        GrowthError: There is nothing to draw, no such format, no Matplotlib, or no way to write there.
    """
    if not growths:
        raise GrowthError(
            f"nothing grows in this run: that takes {FEWEST_SIZES} ranked cases that differ in one size, or in both "
            "features, alone, as in the suites batch-sweep and feature-sweep"
        )
    if path.suffix not in FORMATS:
        raise GrowthError(f"{path} cannot be drawn: expected a name that ends in {', '.join(FORMATS)}")
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise GrowthError(f"a figure needs Matplotlib ({error}): pip install matplotlib") from error
    columns = min(3, len(growths))
    lines = math.ceil(len(growths) / columns)
    names = dict.fromkeys(name for growth in growths for name in growth.curves)
    tints = matplotlib.colormaps["tab10"]
    looks = {name: {"color": tints(n % 10), "linestyle": ("-", ":")[n // 10 % 2]} for n, name in enumerate(names)}
    # Text as text, and the same bytes for the same rows.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "bilinear-bench"}):
        figure = Figure(figsize=(5 * columns + 2, 4.2 * lines), layout="constrained")
        cohorts = figure.subplots(lines, columns, squeeze=False).flatten()
        for panel, growth in zip(cohorts, growths, strict=False):
            _fill(panel, growth, looks)
        for panel in cohorts[len(growths) :]:
            panel.set_axis_off()
        shown: dict[str, Any] = {}
        for panel in cohorts:
            shown |= {str(label): line for line, label in zip(*panel.get_legend_handles_labels(), strict=True)}
        figure.legend(list(shown.values()), list(shown), loc="outside right upper", fontsize="small")
        try:
            figure.savefig(path, metadata=FORMATS[path.suffix])
        except OSError as error:
            raise GrowthError(f"cannot write {path}: {error.strerror}") from error


def _fill(panel: Axes, growth: Growth, looks: dict[str, dict[str, Any]]) -> None:
    """Draw one growth; a cliff has a ring around it."""
    for name, points in growth.curves.items():
        places = [point.size for point in points], [point.seconds for point in points]
        panel.plot(*places, marker=".", label=name, **looks[name])
    if growth.limit:
        panel.plot([*growth.limit], [*growth.limit.values()], color="black", linestyle="--", label="machine's limit")
    for cliff in cliffs(growth):
        place = cliff.point.size, cliff.point.seconds
        panel.plot(*place, "o", markersize=12, fillstyle="none", color="red", label="cliff")
    panel.set_xscale("log", base=2)
    panel.set(yscale="log", xlabel=growth.axis, ylabel="seconds of a call")
    panel.set_title(growth.fixed, fontsize="small")
    panel.grid(alpha=0.3)

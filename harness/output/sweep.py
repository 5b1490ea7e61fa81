"""Show how the time of a call grows with one size of the case, all else being the same: curves and a figure.

Rows come as a data frame with the columns of ``harness.record.Record``. Matplotlib is imported only to draw.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rich.text import Text

from harness.output.layout import Lines, wrapped
from harness.record import Status

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

#: Fewest sizes of a growth.
FEWEST_SIZES: Final = 5
#: The formats that ``draw`` writes, by a file's suffix, with the metadata that would differ each time.
FORMATS: Final[dict[str, dict[str, None]]] = {".svg": {"Date": None}, ".png": {}, ".pdf": {"CreationDate": None}}
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


class GrowthError(ValueError):
    """Nothing grows, or it cannot be drawn. The message says what to do."""


@dataclasses.dataclass(frozen=True, slots=True)
class Point:
    """A time on a curve.

    Attributes:
        size: The size that grows.
        seconds: Time of a call, in seconds.
    """

    size: int
    seconds: float


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
    columns = ("backend", column, "median_seconds")
    for name, *point in rows.sort_values(column, kind="stable")[[*columns]].itertuples(index=False):
        curves.setdefault(name, []).append(Point(*point))
    return curves


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


def draw(growths: Sequence[Growth], path: Path) -> None:
    """Write a figure with a panel for each growth: seconds of a call by size, and the roofline.

    Args:
        growths: What ``find`` returns.
        path: File to write; its suffix is one of ``FORMATS``.

    Raises:
        GrowthError: Nothing grows, the format is unknown, Matplotlib is missing, or the file cannot be written.
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
    # Text as text, and the same bytes for the same rows.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "bilinear-bench"}):
        columns = min(3, len(growths))
        rows = math.ceil(len(growths) / columns)
        figure = Figure(figsize=(5 * columns + 2, 4.2 * rows), layout="constrained")
        panels = list(figure.subplots(rows, columns, squeeze=False).flatten())
        _fill_all(panels, growths, matplotlib.colormaps["tab10"])
        shown: dict[str, Any] = {}
        for panel in panels:
            shown |= {str(label): line for line, label in zip(*panel.get_legend_handles_labels(), strict=True)}
        figure.legend(list(shown.values()), list(shown), loc="outside right upper", fontsize="small")
        try:
            figure.savefig(path, metadata=FORMATS[path.suffix])
        except OSError as error:
            raise GrowthError(f"cannot write {path}: {error.strerror}") from error


def _fill_all(panels: Sequence[Axes], growths: Sequence[Growth], palette: Callable[[int], Any]) -> None:
    """Draw a growth in each panel, a backend in the same style in all of them; clear the panels that are left."""
    names = dict.fromkeys(name for growth in growths for name in growth.curves)
    styles = {name: {"color": palette(n % 10), "linestyle": ("-", ":")[n // 10 % 2]} for n, name in enumerate(names)}
    for panel, growth in zip(panels, growths, strict=False):
        _fill(panel, growth, styles)
    for panel in panels[len(growths) :]:
        panel.set_axis_off()


def _fill(panel: Axes, growth: Growth, styles: Mapping[str, Mapping[str, Any]]) -> None:
    """Draw the curves of one growth, and the roofline."""
    for name, points in growth.curves.items():
        places = [point.size for point in points], [point.seconds for point in points]
        panel.plot(*places, marker=".", label=name, **styles[name])
    if growth.roofline:
        panel.plot([*growth.roofline], [*growth.roofline.values()], color="black", linestyle="--", label="roofline")
    panel.set_xscale("log", base=2)
    panel.set(yscale="log", xlabel=growth.axis, ylabel="seconds of a call")
    panel.set_title(growth.fixed, fontsize="small")
    panel.grid(alpha=0.3)

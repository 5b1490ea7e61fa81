"""How the time of a call grows with one size of the case, the others being the same: curves, their cliffs, a figure.

Rows come as a data frame with the columns of ``harness.record.Record``. Matplotlib is imported only to draw.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from harness.record import Status

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

#: A curve has so many sizes at least.
FEWEST_SIZES: Final = 5
#: A time so much above what its neighbours let expect is a cliff.
CLIFF: Final = 1.5
#: The formats that ``draw`` writes, by a file's suffix.
FORMATS: Final = (".svg", ".png", ".pdf")
#: What grows, and what stays, by the names of columns; features grow where both inputs have as many.
_AXES: Final = {
    "batch": ("batch", ("in1_features", "in2_features", "out_features")),
    "features": ("in1_features", ("batch", "out_features")),
    "outputs": ("out_features", ("batch", "in1_features", "in2_features")),
}
#: What one curve never mixes.
_ALIKE: Final = ("device", "mode", "dtype", "precision", "bias", "cache", "threads")
#: What a column is called beside its number.
_SHORT: Final = {"batch": "batch", "in1_features": "in1", "in2_features": "in2", "out_features": "out"}


class GrowthError(ValueError):
    """Nothing that grows, or no way to draw it. The message says what to do."""


@dataclasses.dataclass(frozen=True, slots=True)
class Growth:
    """Times of all backends while one size grows.

    Attributes:
        axis: ``batch``, ``features`` or ``outputs``.
        fixed: What stays, in words.
        rows: The timed rows, with the size that grows in a column ``size``.
    """

    axis: str
    fixed: str
    rows: pd.DataFrame

    def curve(self, backend: str) -> list[tuple[int, float]]:
        """Size and seconds of a call, the smallest first."""
        own = self.rows[self.rows["backend"] == backend].sort_values("size")
        return [(int(size), float(took)) for size, took in zip(own["size"], own["median_seconds"], strict=True)]

    def limit(self) -> list[tuple[int, float]]:
        """Size and the least seconds that the machine could take; empty if it was not measured."""
        known = self.rows.dropna(subset=["limit_seconds"]).groupby("size")["limit_seconds"].min()
        return [(int(str(size)), float(least)) for size, least in known.items()]

    def backends(self) -> list[str]:
        """Who was timed, in the order of the rows."""
        return list(dict.fromkeys(self.rows["backend"]))


@dataclasses.dataclass(frozen=True, slots=True)
class Cliff:
    """A time far above its neighbours' trend.

    Attributes:
        backend: Whose.
        case: Of which case.
        times: How many times what a straight line between the neighbours says, both axes being logarithmic.
    """

    backend: str
    case: str
    times: float


def find(records: pd.DataFrame) -> list[Growth]:
    """Find what grows in a run: at least ``FEWEST_SIZES`` timed cases that differ in one size alone."""
    timed = records[(records["status"] == Status.TIMED.value) & (records["batch"] > 0)]
    found = []
    for axis, (column, stays) in _AXES.items():
        own = timed[timed["in1_features"] == timed["in2_features"]] if axis == "features" else timed
        for key, rows in own.groupby([*_ALIKE, *stays], sort=False, dropna=False):
            if rows[column].nunique() >= FEWEST_SIZES:
                values = dict(zip((*_ALIKE, *stays), key, strict=True))
                sizes = ", ".join(f"{_SHORT[name]} {values[name]}" for name in stays)
                words = (sizes, str(values["mode"]).replace("_", " + "), values["dtype"], values["device"])
                found.append(Growth(axis, ", ".join(map(str, words)), rows.assign(size=rows[column])))
    return found


def cliffs(growth: Growth) -> list[Cliff]:
    """Find the times that are ``CLIFF`` times as long as their neighbours let expect, or longer."""
    found = []
    for backend in growth.backends():
        points = growth.curve(backend)
        for before, here, after in zip(points, points[1:], points[2:], strict=False):
            share = math.log(here[0] / before[0]) / math.log(after[0] / before[0])
            times = here[1] / (before[1] ** (1 - share) * after[1] ** share)
            if times >= CLIFF:
                rows = growth.rows
                (case,) = rows[(rows["backend"] == backend) & (rows["size"] == here[0])]["case"]
                found.append(Cliff(backend, str(case), times))
    return found


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
            f"nothing grows in this run: a curve needs {FEWEST_SIZES} timed cases that differ in one size alone, "
            "as in the suites batch-sweep and feature-sweep"
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
    names = list(dict.fromkeys(name for growth in growths for name in growth.backends()))
    colours = matplotlib.colormaps["tab20"]
    looks = {name: {"color": colours(place % 20)} for place, name in enumerate(names)}
    # Text as text, and the same bytes for the same rows.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "bilinear-bench"}):
        figure = Figure(figsize=(5 * columns + 2, 4.2 * lines), layout="constrained")
        panels = figure.subplots(lines, columns, squeeze=False).flatten()
        for panel, growth in zip(panels, growths, strict=False):
            _panel(panel, growth, looks)
        for panel in panels[len(growths) :]:
            panel.set_axis_off()
        shown: dict[str, Any] = {}
        for panel in panels:
            shown |= {str(label): line for line, label in zip(*panel.get_legend_handles_labels(), strict=True)}
        figure.legend(list(shown.values()), list(shown), loc="outside right upper", fontsize="small")
        try:
            figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
        except OSError as error:
            raise GrowthError(f"cannot write {path}: {error.strerror}") from error


def _panel(panel: Axes, growth: Growth, looks: dict[str, dict[str, Any]]) -> None:
    """Draw one growth; what is a cliff has a ring around it."""
    for name in growth.backends():
        points = growth.curve(name)
        panel.plot(*zip(*points, strict=True), marker=".", linewidth=1.2, label=name, **looks[name])
    if limit := growth.limit():
        panel.plot(*zip(*limit, strict=True), color="black", linestyle="--", label="limit of the machine")
    rows = growth.rows
    for cliff in cliffs(growth):
        spot = rows[(rows["backend"] == cliff.backend) & (rows["case"] == cliff.case)]
        panel.plot(
            spot["size"], spot["median_seconds"], "o", markersize=12, fillstyle="none", color="red", label="cliff"
        )
    panel.set(xscale="log", yscale="log", xlabel=growth.axis, ylabel="seconds of a call")
    panel.set_xscale("log", base=2)
    panel.set_title(growth.fixed, fontsize="small")
    panel.grid(alpha=0.3)

"""The look of every figure: fonts, sizes, a caption below, axes in plain numbers, labels that do not overlap.

Matplotlib is imported here. So this module is imported only to draw.
"""

from __future__ import annotations

import contextlib
import math
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator
from matplotlib.transforms import Affine2D, BboxTransformTo, ScaledTranslation, blended_transform_factory
from scipy.optimize import isotonic_regression

from harness.output.palette import GREY, Look

if TYPE_CHECKING:
    from matplotlib.typing import RcKeyType

#: Width of one column of a paper, and of two with the gap between them, in inches.
COLUMN_INCHES, PAGE_INCHES = 3.4, 7.0
#: Sizes of letters, in points.
FONT_POINTS, SMALL_POINTS = 7.0, 6.0
#: Height of a line of small letters, in inches.
LINE_INCHES: Final = 1.25 * SMALL_POINTS / 72
#: Mean width of a small letter of a caption, in inches.
LETTER_INCHES: Final = 0.53 * SMALL_POINTS / 72
#: Most letters of a backend's name; a longer one is cut.
MOST_LETTERS: Final = 24
#: Largest quotient of an axis's ends at which the axis is linear.
LINEAR_WITHIN: Final = 8.0

#: Returns the text of a tick.
Words = Callable[[float], str]

#: Text stays text in SVG, and is embedded as TrueType (Type 42) in PDF, as journals ask. DejaVu Sans comes with
#: Matplotlib; a viewer without it takes a font of the same width or a narrower one.
_STYLE: Final[dict[RcKeyType, Any]] = {
    "pdf.fonttype": 42,
    "ps.fonttype": 42,
    "svg.fonttype": "none",
    "svg.hashsalt": "bilinear-bench",  # the same identifiers, and so the same bytes, each time
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial"],
    "font.size": FONT_POINTS,
    "axes.titlesize": FONT_POINTS,
    "axes.labelsize": FONT_POINTS,
    "xtick.labelsize": SMALL_POINTS,
    "ytick.labelsize": SMALL_POINTS,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.unicode_minus": False,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.0,
    "lines.markersize": 3.3,
    "lines.markeredgewidth": 0.7,
    "text.parse_math": False,  # a dollar in a name is a dollar
    "figure.dpi": 300,  # texts are as wide in the layout as in a PNG
    "figure.constrained_layout.w_pad": 0.06,
}


@contextlib.contextmanager
def style() -> Iterator[None]:
    """Draw and save in the look of this project, whatever the user's own settings are; they are put back."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


def new_figure(width: float, height: float, caption: str) -> Figure:
    """Return an empty figure with its caption below.

    Args:
        width: Width in inches.
        height: Height without the caption, in inches.
        caption: Text of the caption; it is broken into lines.
    """
    lines = textwrap.wrap(caption, int((width - 2 * LINE_INCHES) / LETTER_INCHES))
    below = (len(lines) + 1) * LINE_INCHES
    whole = height + below
    figure = Figure(figsize=(width, whole))
    figure.set_layout_engine("constrained", rect=(0, below / whole, 1, height / whole))
    figure.text(
        LINE_INCHES / width,
        LINE_INCHES / 2 / whole,
        "\n".join(lines),
        fontsize=SMALL_POINTS,
        verticalalignment="bottom",
        linespacing=1.2,
    )
    return figure


def run_layout(figure: Figure) -> None:
    """Let the layout place the panels, without drawing."""
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)


def lay_out(figure: Figure) -> None:
    """Place the panels for good, at rounded places: the last digits of the layout's solver differ each time."""
    run_layout(figure)
    figure.set_layout_engine("none")
    for panel in figure.axes:
        panel.set_position(tuple(round(edge, 4) for edge in panel.get_position().bounds))


def plain_axis(axis: Axis, ends: tuple[float, float], words: Words = "{:g}".format) -> None:
    """Set the scale, the limits and the ticks of an axis with positive numbers.

    The scale is logarithmic where the larger end is more than ``LINEAR_WITHIN`` times the smaller one.

    Args:
        axis: The axis of a panel.
        ends: Smallest and largest number to show.
        words: Function of a number that returns the text of its tick.
    """
    low, high = ends
    panel = axis.axes
    across = axis is panel.xaxis
    logarithmic = high > LINEAR_WITHIN * low
    if logarithmic:
        (panel.set_xscale if across else panel.set_yscale)("log")
    (panel.set_xlim if across else panel.set_ylim)(low, high)
    places = _log_places(low, high) if logarithmic else _linear_places(low, high)
    axis.set_ticks(places, labels=[words(place) for place in places])
    axis.set_minor_locator(NullLocator())
    panel.grid(axis="x" if across else "y")


def time_words(seconds: float) -> str:
    """Return a time of few digits in the unit that suits it, as on an axis."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= scale * (1 - 1e-9):
            return f"{seconds / scale:.6g} {unit}"
    return f"{seconds / 1e-9:.6g} ns"


def short_name(name: str) -> str:
    """Return a backend's name, cut if it is long."""
    return name if len(name) <= MOST_LETTERS else f"{name[: MOST_LETTERS - 1]}…"


def label_ends(figure: Figure, panel: Axes, ends: Mapping[str, tuple[float, float]], looks: Mapping[str, Look]) -> None:
    """Write the name of each line to the right of a panel, at the height where the line ends, without overlaps.

    Args:
        figure: The panel's figure, which has its layout: the height of the panel counts.
        panel: Panel with its final limits.
        ends: Last point of each line, by name.
        looks: Looks by name; a name without one is drawn in grey.
    """
    points = panel.get_position().height * figure.get_figheight() * 72
    to_panel = panel.transData + panel.transAxes.inverted()
    places = spread([to_panel.transform(end)[1] for end in ends.values()], 1.15 * SMALL_POINTS / points)
    # In points to the right of the panel, and in shares of its height.
    points_right = (
        Affine2D().scale(1 / 72) + figure.dpi_scale_trans + ScaledTranslation(1, 0, BboxTransformTo(panel.bbox))
    )
    beyond = blended_transform_factory(points_right, panel.transAxes)
    for (name, end), place in zip(ends.items(), places, strict=True):
        colour, mark, dash = looks.get(name) or (GREY, "", ":")
        leader = {"arrowstyle": "-", "color": colour, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 2}
        panel.annotate("", end, (6, place), textcoords=beyond, arrowprops=leader, annotation_clip=False)
        panel.plot(
            [6, 16],
            [place, place],
            transform=beyond,
            clip_on=False,
            color=colour,
            linestyle=dash,
            marker=mark,
            markevery=[1],
        )
        panel.text(20, place, short_name(name), transform=beyond, fontsize=SMALL_POINTS, va="center")


def spread(places: Sequence[float], gap: float) -> list[float]:
    """Return places between 0 and 1 that are at least ``gap`` apart and in the same order, moved as little as possible.

    Args:
        places: Places that may be too near to each other, in any order.
        gap: Least distance of two places; all of them must fit.
    """
    order = np.argsort(places, kind="stable")
    steps = gap * np.arange(len(places))
    # Less their steps, places that are far enough apart never fall: the nearest such sequence is an isotonic one.
    nearest = isotonic_regression(np.asarray(places, dtype=float)[order] - steps).x
    moved = np.empty(len(places))
    moved[order] = np.clip(nearest, 0, max(0.0, 1 - steps[-1])) + steps
    return [round(float(place), 6) for place in moved]


def _log_places(low: float, high: float) -> list[float]:
    """Return round numbers between two ends, few enough for a narrow panel."""
    steps = (1, 2, 5) if high <= 30 * low else (1, 3) if high <= 1000 * low else (1,)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    places = [float(f"{step}e{power}") for power in powers for step in steps]
    return [place for place in places if low <= place <= high]


def _linear_places(low: float, high: float) -> list[float]:
    places = MaxNLocator(5, steps=[1, 2, 5, 10]).tick_values(low, high)
    return [float(place) for place in places if low <= place <= high]

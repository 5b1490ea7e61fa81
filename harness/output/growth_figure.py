"""Draw how times grow with a size: the time of a call, and how many times that is of the fastest backend's.

This module imports Matplotlib.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from harness.output import figure_style as style
from harness.output.palette import GREY, Look, looks
from harness.output.sweep import Growth, Point

#: Says how to read the figure.
READING: Final = (
    "Time of a call by size, and the same as a multiple of the fastest backend's. Filled: fastest, or cannot be told "
    "apart from it."
)
#: Names of the axes.
_SIZES: Final = {
    "batch": "batch",
    "features": "in1 = in2 features",
    "in1": "in1 features",
    "in2": "in2 features",
    "out": "out features",
}
#: Height of a panel's title and ticks, and of a panel at least, in inches.
FRAME_INCHES, LEAST_INCHES = 0.62, 1.5
#: Height of a label at the end of a line, in inches.
LABEL_INCHES: Final = 1.2 * style.SMALL_POINTS / 72
#: Most ticks of the axis of sizes.
MOST_TICKS: Final = 6
#: Share of an axis's range that stays free at both of its ends, as a factor.
MARGIN: Final = 1.25
ROOFLINE: Final = "roofline"
#: The last point of each line of a panel, by name.
Ends = dict[str, tuple[float, float]]


def figure(growths: Sequence[Growth], caption: str) -> Figure:
    """Return a figure with two panels for each growth.

    Args:
        growths: What ``sweep.find`` returns, one or more.
        caption: What the caption says after ``READING``.
    """
    names = list(dict.fromkeys(name for growth in growths for name in growth.curves))
    look_of = looks(names)
    height = max(LEAST_INCHES, LABEL_INCHES * (len(names) + 1)) + FRAME_INCHES
    exact = all(point.interval for growth in growths for point in _points(growth))
    bars = "99 % intervals of the median" if exact else "from the lower to the upper quartile"
    drawn = style.new_figure(style.PAGE_INCHES, len(growths) * height, f"{READING} Bars: {bars}. {caption}")
    panels = drawn.subplots(len(growths), 2, squeeze=False)
    ends = [
        ends
        for growth, (left, right) in zip(growths, panels, strict=True)
        for ends in (_fill_times(left, growth, look_of, exact), _fill_multiples(right, growth, look_of))
    ]
    style.run_layout(drawn)  # the labels need the height of a panel
    for panel, last in zip(panels.flatten(), ends, strict=True):
        style.label_ends(drawn, panel, last, look_of)
    style.lay_out(drawn)
    return drawn


def _points(growth: Growth) -> Iterable[Point]:
    return (point for points in growth.curves.values() for point in points)


def _fill_times(panel: Axes, growth: Growth, look_of: Mapping[str, Look], exact: bool) -> Ends:
    """Draw the times and the roofline; return the last point of each line, by name."""
    panel.set_title(growth.fixed, loc="left")
    panel.set_ylabel("time of a call")
    for name, points in growth.curves.items():
        bars = [(point.interval if exact else point.quartiles) or (point.seconds, point.seconds) for point in points]
        low = [point.seconds - bar[0] for point, bar in zip(points, bars, strict=True)]
        high = [bar[1] - point.seconds for point, bar in zip(points, bars, strict=True)]
        sizes, seconds = [point.size for point in points], [point.seconds for point in points]
        panel.errorbar(sizes, seconds, (low, high), fmt="none", ecolor=look_of[name].colour, elinewidth=0.6)
        _draw(panel, points, seconds, look_of[name])
    ends: Ends = {name: (points[-1].size, points[-1].seconds) for name, points in growth.curves.items()}
    seconds = [point.seconds for point in _points(growth)]
    if growth.roofline:
        panel.plot([*growth.roofline], [*growth.roofline.values()], color=GREY, linestyle=":")
        ends[ROOFLINE] = list(growth.roofline.items())[-1]
        seconds += growth.roofline.values()
    _set_axes(panel, growth, seconds, style.time_words)
    return ends


def _fill_multiples(panel: Axes, growth: Growth, look_of: Mapping[str, Look]) -> Ends:
    """Draw each time over the smallest one of the same size; return the last point of each line, by name."""
    panel.set_ylabel("times as long as the fastest")
    least: dict[int, float] = {}
    for point in _points(growth):
        least[point.size] = min(point.seconds, least.get(point.size, math.inf))
    ends: Ends = {}
    most = 1.0
    for name, points in growth.curves.items():
        multiples = [point.seconds / least[point.size] for point in points]
        _draw(panel, points, multiples, look_of[name])
        ends[name] = (points[-1].size, multiples[-1])
        most = max(most, *multiples)
    _set_axes(panel, growth, [1.0, most], "{:g}".format)
    return ends


def _draw(panel: Axes, points: Sequence[Point], heights: Sequence[float], look: Look) -> None:
    """Draw a line with a mark at each point; the mark is filled where the backend may be the fastest."""
    sizes = [point.size for point in points]
    panel.plot(sizes, heights, look.dash, color=look.colour)
    for first, inside in ((False, "white"), (True, look.colour)):
        shown = [
            (size, height) for size, height, point in zip(sizes, heights, points, strict=True) if point.first is first
        ]
        if shown:
            panel.plot(*zip(*shown, strict=True), look.mark, color=look.colour, markerfacecolor=inside)


def _set_axes(panel: Axes, growth: Growth, heights: Sequence[float], words: style.Words) -> None:
    """Set the scales, limits and ticks of both axes."""
    sizes = sorted({point.size for point in _points(growth)})
    style.plain_axis(panel.yaxis, (min(heights) / MARGIN, max(heights) * MARGIN), words)
    panel.set_xscale("log", base=2)
    shown = sizes[:: math.ceil(len(sizes) / MOST_TICKS)]
    panel.set_xticks(shown, labels=[str(size) for size in shown])
    panel.minorticks_off()
    panel.set_xlabel(_SIZES[growth.axis])

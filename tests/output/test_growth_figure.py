from __future__ import annotations

import numpy as np
import pytest
from drawn import misplaced, words

pytest.importorskip("matplotlib", reason="draws with Matplotlib, which is not installed")

from harness.output import figure_style, growth_figure
from harness.output.sweep import Growth, Point

SIZES = [2**power for power in range(9)]
NAMES = ["torch-bilinear", "numba-fused", "numpy-loop"]


def curve(factor=1.0, sizes=SIZES, first=False, **more):
    """Return a time that is flat while calling takes longer than computing, then grows in proportion."""
    points = []
    for size in sizes:
        seconds = factor * max(20e-6, size * 2e-6)
        points.append(Point(size, seconds, quartiles=(0.9 * seconds, 1.2 * seconds), first=first, **more))
    return points


def growth(curves=None, axis="batch", roofline=True):
    found = curves or {name: curve(1 + number, first=number == 1) for number, name in enumerate(NAMES)}
    return Growth(axis, "in1 4, in2 4, out 8, forward", found, {n: n * 1e-7 for n in SIZES} if roofline else {})


@pytest.fixture
def draw():
    def draw(*growths):
        with figure_style.style():
            figure = growth_figure.figure(growths, "Caption.")
            figure.draw_without_rendering()
        return figure

    return draw


def names_at_ends(panel):
    """Return the texts to the right of a panel, the highest first."""
    return [
        text.get_text() for text in sorted(panel.texts, key=lambda text: -text.get_position()[1]) if text.get_text()
    ]


def test_a_growth_has_a_panel_of_times_and_one_of_multiples(draw):
    times, multiples = draw(growth()).axes
    assert [panel.get_ylabel() for panel in (times, multiples)] == ["time of a call", "times as long as the fastest"]
    assert [panel.get_xlabel() for panel in (times, multiples)] == ["batch", "batch"]
    assert times.get_title(loc="left") == "in1 4, in2 4, out 8, forward"
    (highest,) = {max(line.get_ydata()) for line in multiples.lines if len(line.get_ydata()) == 9} - {1.0, 2.0}
    assert highest == 3.0


def test_the_axis_of_times_has_units(draw):
    times, _ = draw(growth()).axes
    labels = [label.get_text() for label in times.get_yticklabels()]
    assert {"1 µs", "10 µs", "100 µs"} <= set(labels) or {"10 µs", "100 µs", "1 ms"} <= set(labels), labels


def test_each_line_has_its_name_at_its_end_and_the_roofline_too(draw):
    times, multiples = draw(growth()).axes
    assert names_at_ends(times) == ["numpy-loop", "numba-fused", "torch-bilinear", "roofline"]
    assert names_at_ends(multiples) == ["numpy-loop", "numba-fused", "torch-bilinear"]


def test_without_a_roofline_none_is_drawn(draw):
    assert "roofline" not in words(draw(growth(roofline=False)))


def test_names_of_lines_that_end_together_do_not_overlap(draw):
    alike = {f"backend-{number}": curve(1 + 1e-4 * number) for number in range(13)}
    figure = draw(growth(alike), growth(alike, axis="out"))
    assert misplaced(figure) == []
    for panel in figure.axes:
        assert sum(name.startswith("backend-") for name in names_at_ends(panel)) == 13


def test_a_line_that_ends_early_is_named_at_its_last_point(draw):
    figure = draw(growth({"numba-fused": curve(), "numpy-loop": curve(30, SIZES[:5])}))
    assert names_at_ends(figure.axes[1])[0] == "numpy-loop"
    assert misplaced(figure) == []


def test_a_mark_is_filled_only_where_the_backend_may_be_the_fastest(draw):
    times, _ = draw(growth({"numba-fused": curve(first=True), "numpy-loop": curve(2)})).axes
    filled = [line for line in times.lines if line.get_linestyle() == "None" and line.get_marker() == "o"]
    assert [list(line.get_xdata()) for line in filled] == [SIZES]


@pytest.mark.parametrize(
    ("interval", "words_of_bars", "end"),
    [(True, "99 % intervals of the median", 1.1), (False, "from the lower to the upper quartile", 1.2)],
)
def test_bars_are_intervals_where_all_are_known_else_quartiles(interval, words_of_bars, end, draw):
    points = [Point(size, 1e-3, (0.9e-3, 1.1e-3) if interval or size > 1 else None, (0.9e-3, 1.2e-3)) for size in SIZES]
    figure = draw(growth({"numba-fused": points}))
    assert f"Bars: {words_of_bars}." in " ".join(figure.texts[0].get_text().split())
    (bars,) = figure.axes[0].collections
    assert bars.get_segments()[0][1][1] == pytest.approx(end * 1e-3)


def test_axes_name_the_size_and_few_of_its_values(draw):
    figure = draw(
        *(growth({"numba-fused": curve(sizes=[2**n for n in range(17)])}, axis) for axis in growth_figure._SIZES)
    )
    assert [panel.get_xlabel() for panel in figure.axes[::2]] == list(growth_figure._SIZES.values())
    for panel in figure.axes:
        assert 3 <= len(panel.get_xticks()) <= growth_figure.MOST_TICKS
    assert misplaced(figure) == []


@pytest.mark.parametrize("seed", range(20))
def test_places_are_spread_in_order_and_hardly_moved(seed):
    draw = np.random.default_rng(seed)
    places, gap = draw.random(10), 0.08
    moved = np.array(figure_style.spread(places, gap))
    assert np.array_equal(np.argsort(moved), np.argsort(places))
    assert np.diff(np.sort(moved)).min() >= gap - 1e-5
    assert moved.min() >= 0
    assert moved.max() <= 1
    apart = np.linspace(0.05, 0.95, 10)
    assert figure_style.spread(apart, gap) == pytest.approx(apart, abs=1e-5)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(1e-9, "1 ns"), (5e-6, "5 µs"), (1e-3, "1 ms"), (0.2, "200 ms"), (1.0, "1 s"), (1e3, "1000 s")],
)
def test_a_tick_has_the_unit_that_suits_it(seconds, said):
    assert figure_style.time_words(seconds) == said

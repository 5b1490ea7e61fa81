from __future__ import annotations

import pytest
from drawn import misplaced, words
from report_rows import timed, untimed

from harness.record import Status

pytest.importorskip("matplotlib", reason="draws with Matplotlib, which is not installed")

from harness.output import figure_style, ratio_figure


def rows(**changes):
    """Return rows of one panel: nn.Bilinear, a clear winner, and a backend that is ambiguous."""
    changes = {"label": "the example"} | changes
    around = {"speedup_low": 3.2, "speedup_high": 5.0, "comparison": "faster"}
    return [
        timed("torch-bilinear", 4e-3, 3, speedup_low=1.0, speedup_high=1.0, **changes),
        timed("numba-fused", 1e-3, 1, **around, **changes),
        timed("numpy-loop", 3.6e-3, 2, speedup_low=0.7, speedup_high=1.5, comparison="ambiguous", **changes),
    ]


@pytest.fixture
def draw(frame):
    def draw(*records):
        with figure_style.style():
            figure = ratio_figure.figure(frame(*records), "Caption.")
            figure.draw_without_rendering()
        return figure

    return draw


def shown(figure):
    """Return the panels that are drawn."""
    return [panel for panel in figure.axes if panel.axison]


def test_a_panel_has_each_backend_its_time_and_the_line_at_1(draw):
    (panel,) = shown(draw(*rows()))
    assert [label.get_text() for label in panel.get_yticklabels()] == ["numba-fused", "numpy-loop", "torch-bilinear"]
    assert [text.get_text() for text in panel.texts] == ["4.0 ms", "1.0 ms", "3.6 ms"]
    assert panel.get_title(loc="left") == "the example, forward"
    assert any(list(line.get_xdata()) == [1, 1] for line in panel.lines)


def test_a_figure_says_what_its_axis_is_and_ends_with_the_caption(draw):
    figure = draw(*rows())
    assert shown(figure)[0].get_xlabel() == "times as fast as nn.Bilinear"
    assert " ".join(figure.texts[0].get_text().split()) == f"{ratio_figure.READING} Caption."


def test_a_mark_is_hollow_only_where_the_ratio_is_ambiguous(draw):
    (panel,) = shown(draw(*rows()))
    marks = {line.get_ydata()[0]: line.get_markerfacecolor() for line in panel.lines if line.get_marker() in "osX"}
    assert [marks[place] == "white" for place in range(3)] == [False, True, False]


def test_the_times_of_the_first_rank_are_bold(draw):
    (panel,) = shown(draw(*rows()))
    assert [text.get_text() for text in panel.texts if text.get_weight() == "bold"] == ["1.0 ms"]


def test_an_interval_is_drawn_with_its_ends(draw):
    (panel,) = shown(draw(*rows()))
    ends = [bar.get_segments()[0][:, 0].tolist() for bar in panel.collections if bar.get_alpha() is None]
    assert sorted(ends) == [[0.7, 1.5], [3.2, 5.0]]


def test_an_absurd_interval_does_not_stretch_the_axis(draw):
    absurd = timed("numpy-loop", 1e-3, 1, speedup_low=1e-6, speedup_high=7e8, comparison="ambiguous")
    (panel,) = shown(draw(*rows()[:2], absurd))
    low, high = panel.get_xlim()
    assert 0.5 < low < 1
    assert 5 < high < 20


@pytest.mark.parametrize(("fast", "scale"), [(2e-3, "linear"), (1e-4, "log")])
def test_the_scale_is_logarithmic_where_the_range_asks_for_it(fast, scale, draw):
    (panel,) = shown(draw(timed("torch-bilinear", 4e-3, 2), timed("numba-fused", fast, 1)))
    assert panel.get_xscale() == scale
    assert all("e" not in label.get_text() and "$" not in label.get_text() for label in panel.get_xticklabels())


def test_each_case_and_mode_has_a_panel_forward_first(draw):
    other = {"case": "5x2x2x2", "batch": 5, "label": None}
    step = {"mode": "forward_backward"}
    figure = draw(*rows(), *rows(**step), *rows(**other), *rows(**other, **step))
    titles = [panel.get_title(loc="left") for panel in shown(figure)]
    assert titles == [
        *("the example, forward", "5x2x2x2, forward"),
        *("the example, training step", "5x2x2x2, training step"),
    ]


@pytest.mark.parametrize(("cases", "inches"), [(1, 3.4), (2, 3.4), (3, 7.0), (4, 7.0), (7, 7.0)])
def test_a_figure_is_one_column_wide_unless_its_panels_need_two(cases, inches, draw):
    figure = draw(
        *(row for batch in range(1, cases + 1) for row in rows(case=f"{batch}x2x2x2", batch=batch, label=None))
    )
    assert figure.get_figwidth() == inches
    assert len(shown(figure)) == cases
    assert misplaced(figure) == []


def test_a_backend_that_was_not_timed_in_a_panel_says_why(draw):
    other = {"case": "5x2x2x2", "batch": 5, "label": None}
    figure = draw(*rows(), *rows(**other)[:2], untimed("numpy-loop", Status.TOO_SLOW, "slow", **other))
    assert "too slow" in [text.get_text() for text in shown(figure)[1].texts]


def test_an_impossible_time_is_no_ratio(draw):
    impossible = timed("numpy-einsum", 1e-9, None, flags="implausible")
    other = [timed("numpy-einsum", 1e-3, 1, case="5x2x2x2", batch=5)]
    first, _ = shown(draw(*rows(), impossible, *other))
    assert "implausible" in [text.get_text() for text in first.texts]
    assert first.get_xlim()[1] < 100


def test_several_precision_classes_are_named(draw):
    figure = draw(*rows(precision_class="float32"), timed("numpy-einsum", 5e-4, 1, precision_class="tf32"))
    assert {"500 µs tf32", "1.0 ms float32"} <= set(words(figure))


def test_a_panel_without_nn_bilinear_still_has_the_times(draw):
    alone = timed("numba-fused", 1e-3, 1, baseline=None, baseline_median_seconds=None, speedup=None)
    figure = draw(untimed("torch-bilinear", Status.TIMEOUT, "slow"), alone)
    assert [text.get_text() for text in shown(figure)[0].texts] == ["1.0 ms"]


def test_devices_are_named_where_there_are_several(draw):
    titles = [panel.get_title(loc="left") for panel in shown(draw(*rows(), *rows(device="cuda")))]
    assert titles == ["the example, forward, cpu", "the example, forward, cuda"]


def test_a_name_cannot_become_a_formula_or_push_the_panel_away(draw):
    figure = draw(*rows(label="costs $1^2$ " * 5), timed("x" * 100, 1e-3, 1))
    assert misplaced(figure) == []
    assert any("$1^2$" in word for word in words(figure))
    assert f"{'x' * 23}…" in words(figure)


def test_a_mark_is_hollow_where_the_interval_is_too_wide(draw):
    wide = timed("numba-fused", 1e-3, 1, speedup_low=1.1, speedup_high=60.0, comparison="faster")
    (panel,) = shown(draw(timed("torch-bilinear", 4e-3, 2), wide))
    assert [line.get_markerfacecolor() for line in panel.lines if line.get_marker() == "o"] == ["white"]


@pytest.mark.parametrize("kind", [None, object])
def test_missing_ratios_and_intervals_are_no_obstacle(kind, frame):
    alone = {"baseline": None, "baseline_median_seconds": None, "speedup": None}
    records = frame(*rows(), timed("numpy-einsum", 1e-3, 1, **alone), timed("opt-einsum", 1e-3, 1))
    with figure_style.style():
        figure = ratio_figure.figure(records if kind is None else records.astype(kind), "Caption.")
    names = [label.get_text() for label in shown(figure)[0].get_yticklabels()]
    assert names == ["numba-fused", "opt-einsum", "numpy-loop", "torch-bilinear", "numpy-einsum"]

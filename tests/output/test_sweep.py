from __future__ import annotations

import io
import sys

import pytest
from rich.console import Console

from harness.output import sweep
from harness.record import Record, Status

BATCHES = [2**power for power in range(9)]


def row(backend, batch, seconds, **changes):
    sizes = {"batch": batch, "in1_features": 4, "in2_features": 4, "out_features": 8} | changes
    sizes = {name: sizes[name] for name in ("batch", "in1_features", "in2_features", "out_features")}
    fixed = {"run_id": "20260102T030405Z-00ff", "suite": "batch-sweep", "dtype": "float32", "precision": "ieee"}
    more = {
        "bias": True,
        "mode": "forward",
        "seed": 0,
        "device": "cpu",
        "flush_l2": False,
        "roofline_seconds": batch * 1e-7,
    }
    work = {"case": "x".join(map(str, sizes.values())), "gflop": 2e-9 * batch * 16 * 8}
    values = fixed | more | work | {"status": Status.TIMED, "median_seconds": seconds, "rank": 1} | sizes | changes
    if values["status"] is Status.TIMED:
        values |= {"baseline_median_seconds": values["median_seconds"], "speedup": 1.0}
    return Record(backend=backend, **values)


def smooth(batch):
    """Flat at first, as long as calling takes longer than computing, then in proportion."""
    return max(20e-6, batch * 2e-6)


def curve(backend, slower=lambda batch: 1.0, **changes):
    return [row(backend, batch, smooth(batch) * slower(batch), **changes) for batch in BATCHES]


def cliffs(frame, *records):
    (found,) = sweep.find(frame(*records))
    return [(cliff.backend, cliff.point.case, cliff.times) for cliff in sweep.cliffs(found)]


def test_what_grows_is_found_with_the_curves_and_the_limit(frame):
    (found,) = sweep.find(frame(*curve("a"), *reversed(curve("b"))))
    assert (found.axis, found.fixed) == ("batch", "in1 4, in2 4, out 8, forward, float32, cpu")
    for name in ("a", "b"):
        assert [(point.size, point.seconds) for point in found.curves[name]] == [(n, smooth(n)) for n in BATCHES]
    assert found.limit == {batch: pytest.approx(batch * 1e-7) for batch in BATCHES}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mode": "forward_backward"}, "forward + backward, float32, cpu"),
        ({"dtype": "float64"}, "forward, float64, cpu"),
        ({"precision": "tf32"}, "forward, float32, tf32, cpu"),
        ({"bias": False}, "forward, float32, no bias, cpu"),
        ({"device": "cuda"}, "forward, float32, cuda"),
        ({"flush_l2": True}, "forward, float32, cpu, L2 flushed"),
        ({"out_features": 16}, "forward, float32, cpu"),
    ],
)
def test_rows_that_differ_in_anything_else_are_another_growth_that_says_so(frame, changes, words):
    _, other = sweep.find(frame(*curve("a"), *curve("a", **changes)))
    assert other.fixed == f"in1 4, in2 4, out {changes.get('out_features', 8)}, {words}"
    assert len(other.curves["a"]) == len(BATCHES)


@pytest.mark.parametrize(
    ("axis", "columns"),
    [
        ("features", ("in1_features", "in2_features")),
        ("in1", ("in1_features",)),
        ("in2", ("in2_features",)),
        ("out", ("out_features",)),
    ],
)
def test_any_size_can_grow_and_both_features_together(frame, axis, columns):
    records = [row("a", 3, 1e-6 * size, **dict.fromkeys(columns, size)) for size in (16, 32, 64, 128, 256)]
    (found,) = sweep.find(frame(*records))
    assert found.axis == axis
    assert [point.size for point in found.curves["a"]] == [16, 32, 64, 128, 256]


def test_a_few_sizes_are_no_growth_and_who_was_not_timed_or_not_ranked_is_not_in_it(frame):
    failed = {"status": Status.FAILED, "median_seconds": None, "rank": None, "reason": "why"}
    few = curve("a")[: sweep.FEWEST_SIZES - 1]
    assert sweep.find(frame(*few, row("a", 64, None, **failed), row("a", 128, 1e-9, rank=None))) == []


def test_a_knee_is_no_cliff(frame):
    assert cliffs(frame, *curve("a", lambda batch: 1.2 if batch == 4 else 1)) == []


def test_a_single_slow_size_is_a_cliff(frame):
    ((backend, case, times),) = cliffs(frame, *curve("a"), *curve("b", lambda batch: 1.7 if batch == 16 else 1))
    assert (backend, case) == ("b", "16x4x4x8")
    assert 1.5 < times < 1.7


def test_a_jump_that_lasts_is_one_cliff_at_its_edge(frame):
    ((_, case, times),) = cliffs(frame, *curve("a", lambda batch: 1.6 if batch >= 64 else 1))
    assert (case, times) == ("64x4x4x8", pytest.approx(1.6))


def test_the_last_size_can_be_a_cliff(frame):
    ((_, case, _),) = cliffs(frame, *curve("a", lambda batch: 1.6 if batch == 256 else 1))
    assert case == "256x4x4x8"


def test_after_a_size_that_is_fast_the_usual_is_no_cliff(frame):
    assert cliffs(frame, *curve("a", lambda batch: 0.6 if batch == 16 else 1)) == []


def test_where_a_size_is_missing_the_trend_is_that_of_the_sizes_there_are(frame):
    assert cliffs(frame, *(row("a", batch, batch * 1e-6) for batch in (1, 2, 4, 64, 128))) == []


def test_it_is_told_in_words_with_each_cliff_and_how_many_backends_were_looked_at(frame):
    slow = curve("b", lambda batch: 2 if batch == 32 else 1)
    short = curve("c", lambda batch: 4 if batch == 2 else 1)[:2]  # a jump, but too few points to tell
    twice = curve("a", lambda batch: 2 if batch in (8, 256) else 1, mode="forward_backward")
    console = Console(file=io.StringIO(), width=200, color_system=None)
    console.print(sweep.told(sweep.find(frame(*curve("a"), *slow, *short, *twice, *curve("a", bias=False)))))
    assert console.file.getvalue().splitlines()[1:] == [
        "  over batch; in1 4, in2 4, out 8, forward, float32, cpu; backends 2: 1 cliff",
        "    b at 32x4x4x8: 2.0x",
        "  over batch; in1 4, in2 4, out 8, forward + backward, float32, cpu; backends 1: 2 cliffs",
        "    a at 8x4x4x8: 1.6x",
        "    a at 256x4x4x8: 2.0x",
        "  over batch; in1 4, in2 4, out 8, forward, float32, no bias, cpu; backends 1: no cliff",
    ]


def test_a_figure_has_each_backend_the_limit_and_each_cliff(frame, tmp_path):
    pytest.importorskip("matplotlib", reason="draws with Matplotlib, which is not installed")
    slow = curve("b", lambda batch: 2 if batch == 32 else 1)
    found = sweep.find(frame(*curve("a"), *slow, *(one for out in (1, 2, 3) for one in curve("a", out_features=out))))
    assert len(found) == 4  # two of six cohorts stay empty
    sweep.draw(found, tmp_path / "one.svg")
    drawn = (tmp_path / "one.svg").read_text()
    for text in ("a", "b", "machine's limit", "cliff", "batch", "seconds of a call", found[0].fixed):
        assert f">{text}</text>" in drawn
    assert drawn.count(">batch</text>") == 4


@pytest.mark.parametrize("suffix", sweep.FORMATS)
def test_a_figure_is_the_same_each_time(suffix, frame, tmp_path):
    pytest.importorskip("matplotlib", reason="draws with Matplotlib, which is not installed")
    found = sweep.find(frame(*curve("a", lambda batch: 2 if batch == 32 else 1)))
    paths = [tmp_path / f"{name}{suffix}" for name in ("one", "other")]
    for path in paths:
        sweep.draw(found, path)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_without_cliffs_and_without_a_limit_neither_is_drawn(frame, tmp_path):
    pytest.importorskip("matplotlib", reason="draws with Matplotlib, which is not installed")
    sweep.draw(sweep.find(frame(*curve("a", roofline_seconds=None))), tmp_path / "one.svg")
    drawn = (tmp_path / "one.svg").read_text()
    assert "limit" not in drawn
    assert "cliff" not in drawn


def test_what_cannot_be_drawn_is_refused_with_what_to_do(frame, tmp_path, monkeypatch):
    found = sweep.find(frame(*curve("a")))
    with pytest.raises(sweep.GrowthError, match="as in the suites batch-sweep and feature-sweep"):
        sweep.draw([], tmp_path / "one.svg")
    with pytest.raises(sweep.GrowthError, match=r"one.gif cannot be drawn: expected a name that ends in .svg, .png"):
        sweep.draw(found, tmp_path / "one.gif")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(sweep.GrowthError, match="pip install matplotlib"):
        sweep.draw(found, tmp_path / "one.svg")


def test_a_place_that_cannot_be_written_is_refused(frame, tmp_path):
    pytest.importorskip("matplotlib", reason="draws with Matplotlib, which is not installed")
    with pytest.raises(sweep.GrowthError, match="No such file"):
        sweep.draw(sweep.find(frame(*curve("a"))), tmp_path / "nowhere" / "one.svg")

from __future__ import annotations

import io
import sys

import pytest
from rich.console import Console

from harness.output import growth, report, store
from harness.record import Record, Status

BATCHES = [2**power for power in range(7)]


def row(backend, batch, seconds, **changes):
    out = changes.get("out_features", 8)
    given = {"batch": batch, "in1_features": 4, "in2_features": 4, "out_features": out, "case": f"{batch}x4x4x{out}"}
    fixed = {"run_id": "20260102T030405Z-00ff", "suite": "batch-sweep", "dtype": "float32", "precision": "ieee"}
    more = {"bias": True, "mode": "forward", "seed": 0, "device": "cpu", "threads": 2, "limit_seconds": batch * 1e-7}
    values = fixed | more | given | {"status": Status.TIMED, "median_seconds": seconds, "rank": 1} | changes
    if values["status"] is Status.TIMED:
        values |= {"baseline_median_seconds": values["median_seconds"], "speedup": 1.0}
    return Record(backend=backend, **values)


@pytest.fixture
def frame(tmp_path):
    def frame(*records):
        with store.Store.create(tmp_path / "run", {}) as opened:
            for record in records:
                opened.add_record(record)
        return store.read(tmp_path / "run" / store.RECORDS)

    return frame


def smooth(batch):
    """Flat at first, as long as calling takes longer than computing, then in proportion."""
    return max(20e-6, batch * 2e-6)


def curve(backend, **changes):
    return [row(backend, batch, smooth(batch), **changes) for batch in BATCHES]


def test_what_grows_is_found_and_all_else_is_alike(frame):
    records = frame(*curve("a"), *curve("b"), *curve("a", mode="forward_backward"), *curve("a", out_features=16))
    found = growth.find(records)
    assert [(one.axis, one.backends()) for one in found] == [("batch", ["a", "b"]), ("batch", ["a"]), ("batch", ["a"])]
    assert found[0].fixed == "in1 4, in2 4, out 8, forward, float32, cpu"
    assert found[0].curve("b") == [(batch, smooth(batch)) for batch in BATCHES]
    assert found[0].limit() == [(batch, pytest.approx(batch * 1e-7)) for batch in BATCHES]


def test_features_grow_where_both_inputs_have_as_many(frame):
    def features(one, other):
        sizes = {"in1_features": one, "in2_features": other, "case": f"3x{one}x{other}x8"}
        return row("a", 3, 1e-6 * one, **sizes)

    (found,) = growth.find(frame(*(features(size, size) for size in BATCHES), features(128, 64)))
    assert found.axis == "features"
    assert [size for size, _ in found.curve("a")] == BATCHES


def test_a_few_sizes_are_no_curve_and_who_was_not_timed_has_none(frame):
    failed = {"status": Status.FAILED, "median_seconds": None, "rank": None, "reason": "why"}
    records = frame(*curve("a")[: growth.FEWEST_SIZES - 1], row("a", 64, None, **failed), row("a", 0, 1e-6))
    assert growth.find(records) == []


def test_a_knee_is_no_cliff_and_a_time_far_above_its_neighbours_is_one(frame):
    slow = [row("b", batch, smooth(batch) * (1.7 if batch == 16 else 1.2 if batch == 4 else 1)) for batch in BATCHES]
    (found,) = growth.find(frame(*curve("a"), *slow))
    (cliff,) = growth.cliffs(found)
    assert (cliff.backend, cliff.case) == ("b", "16x4x4x8")
    assert 1.5 < cliff.times < 1.7


def test_where_a_size_is_missing_the_trend_is_that_of_the_sizes_there_are(frame):
    line = [row("a", batch, batch * 1e-6) for batch in (1, 2, 4, 64, 128)]
    (found,) = growth.find(frame(*line))
    assert growth.cliffs(found) == []


def test_the_report_names_each_cliff_and_says_where_there_is_none(frame):
    slow = [row("b", batch, smooth(batch) * (2 if batch == 32 else 1)) for batch in BATCHES]
    console = Console(file=io.StringIO(), width=200, color_system=None)
    console.print(report.growth(growth.find(frame(*curve("a"), *slow, *curve("a", mode="forward_backward")))))
    lines = console.file.getvalue().splitlines()
    assert lines[1:] == [
        "  batch grows; in1 4, in2 4, out 8, forward, float32, cpu: a cliff among 2 backends",
        "    b at 32x4x4x8: 2.0x what was to be expected",
        "  batch grows; in1 4, in2 4, out 8, forward + backward, float32, cpu: no cliff among 1 backend",
    ]


def test_a_figure_has_each_backend_the_limit_and_a_ring_around_each_cliff_and_is_the_same_each_time(frame, tmp_path):
    slow = [row("b", batch, smooth(batch) * (2 if batch == 32 else 1)) for batch in BATCHES]
    found = growth.find(frame(*curve("a"), *slow))
    paths = [tmp_path / name for name in ("one.svg", "other.svg")]
    for path in paths:
        growth.draw(found, path)
    drawn = paths[0].read_text()
    assert drawn == paths[1].read_text()
    for text in ("a", "b", "limit of the machine", "cliff", "batch", "seconds of a call", found[0].fixed):
        assert f">{text}</text>" in drawn
    growth.draw(found, tmp_path / "one.png")
    assert (tmp_path / "one.png").read_bytes().startswith(b"\x89PNG")


def test_without_cliffs_and_without_a_limit_neither_is_drawn(frame, tmp_path):
    growth.draw(growth.find(frame(*curve("a", limit_seconds=None))), tmp_path / "one.svg")
    drawn = (tmp_path / "one.svg").read_text()
    assert "limit of the machine" not in drawn
    assert "cliff" not in drawn


def test_what_cannot_be_drawn_is_refused_with_what_to_do(frame, tmp_path, monkeypatch):
    found = growth.find(frame(*curve("a")))
    with pytest.raises(growth.GrowthError, match="differ in one size alone, as in the suites batch-sweep"):
        growth.draw([], tmp_path / "one.svg")
    with pytest.raises(growth.GrowthError, match=r"one.gif cannot be drawn: expected a name that ends in .svg, .png"):
        growth.draw(found, tmp_path / "one.gif")
    with pytest.raises(growth.GrowthError, match="No such file"):
        growth.draw(found, tmp_path / "nowhere" / "one.svg")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(growth.GrowthError, match="pip install matplotlib"):
        growth.draw(found, tmp_path / "one.svg")

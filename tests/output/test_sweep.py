from __future__ import annotations

import pytest

from harness.case import Case
from harness.output import sweep
from harness.output.layout import plain
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
    options = {name: changes[name] for name in ("dtype", "precision", "bias") if name in changes}
    work = {"case": Case(**sizes, **options).name, "gflop": 2e-9 * batch * 16 * 8}
    values = fixed | more | work | {"status": Status.TIMED, "median_seconds": seconds, "rank": 1} | sizes | changes
    if values["status"] is Status.TIMED:
        values |= {"baseline_median_seconds": values["median_seconds"], "speedup": 1.0}
    return Record(backend=backend, **values)


def smooth(batch):
    """Return a time that is flat while calling takes longer than computing, then grows in proportion."""
    return max(20e-6, batch * 2e-6)


def curve(backend, **changes):
    return [row(backend, batch, smooth(batch), **changes) for batch in BATCHES]


def test_a_growth_has_the_curves_and_the_roofline(frame):
    (found,) = sweep.find(frame(*curve("a"), *reversed(curve("b"))))
    assert (found.axis, found.fixed) == ("batch", "in1 4, in2 4, out 8, forward, float32, cpu")
    for name in ("a", "b"):
        assert [(point.size, point.seconds) for point in found.curves[name]] == [(n, smooth(n)) for n in BATCHES]
    assert found.roofline == {batch: pytest.approx(batch * 1e-7) for batch in BATCHES}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mode": "forward_backward"}, "training step, float32, cpu"),
        ({"dtype": "float64"}, "forward, float64, cpu"),
        ({"precision": "tf32"}, "forward, float32, tf32, cpu"),
        ({"bias": False}, "forward, float32, no bias, cpu"),
        ({"device": "cuda"}, "forward, float32, cuda"),
        ({"flush_l2": True}, "forward, float32, cpu, L2 flushed"),
        ({"out_features": 16}, "forward, float32, cpu"),
    ],
)
def test_rows_that_differ_otherwise_are_another_growth(frame, changes, words):
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


def test_few_sizes_are_no_growth_and_unranked_rows_do_not_count(frame):
    failed = {"status": Status.FAILED, "median_seconds": None, "rank": None, "reason": "why"}
    few = curve("a")[: sweep.FEWEST_SIZES - 1]
    assert sweep.find(frame(*few, row("a", 64, None, **failed), row("a", 128, 1e-9, rank=None))) == []


def test_a_summary_has_a_line_for_each_growth(frame):
    steps = curve("a", mode="forward_backward")
    growths = sweep.find(frame(*curve("a"), *curve("b"), *steps))
    assert plain(sweep.summary(growths, 200)).splitlines()[1:] == [
        "  over batch: in1 4, in2 4, out 8, forward, float32, cpu; backends: 2",
        "  over batch: in1 4, in2 4, out 8, training step, float32, cpu; backends: 1",
    ]
    assert sweep.summary([], 200) == []


def test_a_point_has_its_interval_its_quartiles_and_whether_it_is_first(frame):
    known = {"median_low_seconds": 1e-6, "median_high_seconds": 9e-6, "p25_seconds": 2e-6, "p75_seconds": 8e-6}
    (found,) = sweep.find(frame(*curve("a", **known), *curve("b", rank=2)))
    assert {(point.interval, point.quartiles, point.first) for point in found.curves["a"]} == {
        ((1e-6, 9e-6), (2e-6, 8e-6), True)
    }
    assert {(point.interval, point.quartiles, point.first) for point in found.curves["b"]} == {(None, None, False)}

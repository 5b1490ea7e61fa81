"""Rooflines: the least work and memory traffic of a case, and the rates that bound it."""

from __future__ import annotations

import dataclasses
import json

import pytest

from harness.case import Case
from harness.timing import roofline

CASE = Case(7, 5, 3, 2)
STEP = CASE.with_mode("forward_backward")


def test_least_work_is_one_contraction_and_three_for_a_step():
    assert roofline.flop(CASE) == 2 * 7 * 5 * 3 * 2
    assert roofline.flop(STEP) == 3 * roofline.flop(CASE)
    assert roofline.flop(Case(0, 5, 3, 2)) == 0


@pytest.mark.parametrize(("dtype", "itemsize"), [("float64", 8), ("float32", 4), ("bfloat16", 2)])
def test_inputs_and_results_are_counted_once(dtype, itemsize):
    inputs, weight, bias, output = 7 * 5 + 7 * 3, 2 * 5 * 3, 2, 7 * 2
    forward = inputs + weight + bias + output
    step = forward + output + inputs + weight + bias
    assert roofline.array_bytes(dataclasses.replace(CASE, dtype=dtype)) == forward * itemsize
    assert roofline.array_bytes(dataclasses.replace(STEP, dtype=dtype)) == step * itemsize
    assert roofline.array_bytes(dataclasses.replace(CASE, dtype=dtype, bias=False)) == (forward - bias) * itemsize


def test_backend_needs_its_workspace_and_copies_in_the_hosts_dtype():
    assert roofline.backend_bytes(CASE, 1000) - roofline.backend_bytes(CASE, 0) == 1000
    arrays = roofline.array_bytes(CASE)
    half = dataclasses.replace(CASE, dtype="float16")
    # The gate keeps one set of results, and the clock keeps the last one while the next is computed.
    sets = roofline.INPUT_SETS + 2
    assert roofline.backend_bytes(CASE, 0) == roofline.PROCESS_BYTES + sets * arrays + arrays
    assert roofline.backend_bytes(half, 0) == roofline.PROCESS_BYTES + sets * arrays // 2 + arrays


def test_reference_needs_three_float64_copies_and_more_for_a_step():
    elements = roofline.array_bytes(CASE) // 4
    assert roofline.reference_bytes(CASE) >= roofline.PROCESS_BYTES + 3 * 8 * elements
    assert roofline.reference_bytes(STEP) > roofline.reference_bytes(CASE)
    half = dataclasses.replace(CASE, dtype="float16")
    assert roofline.reference_bytes(half) == roofline.reference_bytes(CASE)


PEAKS = roofline.Peaks(
    {"float32": roofline.Rate(1e9, "FMA chains"), "float64": roofline.Rate(5e8, "FMA chains")},
    (roofline.Product("numpy", "float32", 9e8, "OpenBLAS"), roofline.Product("jax", "float64", 4e8, "XLA")),
    (roofline.Level("L1", 1000, 1e9), roofline.Level("L2", 10_000, 1e8), roofline.Level("memory", None, 1e7)),
    ("torch.mm in float32: torch is not installed",),
)


def with_levels(*levels):
    return dataclasses.replace(PEAKS, levels=levels)


def test_roofline_is_the_arithmetics_where_that_takes_longer():
    fast = with_levels(roofline.Level("L1", 10**9, 1e15))
    assert roofline.roofline_seconds(CASE, fast) == roofline.flop(CASE) / 1e9
    assert roofline.roofline_seconds(STEP, fast) == 3 * roofline.flop(CASE) / 1e9
    assert roofline.roofline_seconds(dataclasses.replace(CASE, dtype="float64"), fast) == roofline.flop(CASE) / 5e8


def test_roofline_is_the_bytes_where_they_take_longer():
    slow = with_levels(roofline.Level("L1", 10**9, 1e3))
    assert roofline.roofline_seconds(CASE, slow) == roofline.array_bytes(CASE) / 1e3
    assert roofline.roofline_seconds(STEP, slow) == roofline.array_bytes(STEP) / 1e3


@pytest.mark.parametrize(
    ("shape", "split"),
    [
        ((1, 1, 1, 1), (20, 0, 0)),
        ((1, 10, 10, 2), (896, 0, 0)),
        ((1, 10, 10, 3), (1000, 304, 0)),
        ((1, 50, 50, 3), (1000, 9000, 20_424)),
    ],
)
def test_every_level_is_read_up_to_its_capacity_at_its_own_rate(shape, split):
    case = Case(*shape)
    assert roofline.array_bytes(case) == sum(split)
    bytes_alone = dataclasses.replace(PEAKS, arithmetic={}, levels=PEAKS.levels[::-1])
    seconds = split[0] / 1e9 + split[1] / 1e8 + split[2] / 1e7
    assert roofline.roofline_seconds(case, bytes_alone) == pytest.approx(seconds)


def test_level_that_the_bytes_just_fill_needs_no_next_level():
    size = roofline.array_bytes(CASE)
    for capacity, seconds in ((size, size / 1e3), (size - 1, (size - 1) / 1e3 + 1 / 1e2)):
        peaks = with_levels(roofline.Level("L1", capacity, 1e3), roofline.Level("L2", 10**6, 1e2))
        assert roofline.roofline_seconds(CASE, peaks) == pytest.approx(seconds)


def test_roofline_with_one_unknown_rate_has_the_other():
    assert roofline.roofline_seconds(CASE, with_levels()) == roofline.flop(CASE) / 1e9
    assert (
        roofline.roofline_seconds(CASE, with_levels(roofline.Level("L1", 10, 1.0))) == roofline.flop(CASE) / 1e9
    )  # too small
    bytes_alone = dataclasses.replace(PEAKS, arithmetic={})
    assert roofline.roofline_seconds(CASE, bytes_alone) == roofline.array_bytes(CASE) / 1e9


def test_memorys_rate_is_no_roofline_without_a_known_cache():
    # Caches are faster than memory, so a right backend could be faster than a roofline of memory alone.
    memory = roofline.Level("memory", None, 1.0)
    assert roofline.roofline_seconds(CASE, with_levels(memory)) == roofline.flop(CASE) / 1e9
    assert roofline.roofline_seconds(CASE, roofline.Peaks({}, (), (memory,))) is None


@pytest.mark.parametrize("changes", [{"dtype": "float16"}, {"dtype": "bfloat16"}, {"precision": "tf32"}])
def test_case_whose_rate_is_not_measured_has_no_roofline(changes):
    assert roofline.roofline_seconds(dataclasses.replace(CASE, **changes), PEAKS) is None
    assert roofline.roofline_seconds(CASE, roofline.Peaks({}, (), ())) is None


def test_peaks_survive_json():
    assert roofline.Peaks.from_json(json.loads(json.dumps(PEAKS.as_json()))) == PEAKS
    empty = roofline.Peaks({}, (), ())
    assert roofline.Peaks.from_json(json.loads(json.dumps(empty.as_json()))) == empty


def test_best_of_two_surveys_has_each_higher_rate():
    again = roofline.Peaks(
        {"float32": roofline.Rate(2e9, "quiet now"), "float64": roofline.Rate(4e8, "disturbed")},
        (roofline.Product("numpy", "float32", 8e8, "OpenBLAS"), roofline.Product("torch.mm", "float32", 7e8, "MKL")),
        (roofline.Level("L1", 1000, 2e9), roofline.Level("L2", 10_000, 5e7), roofline.Level("L3", 10**5, 4e7)),
        ("jax in float32: killed",),
    )
    best = PEAKS.best(again)
    assert {dtype: rate.flop_per_second for dtype, rate in best.arithmetic.items()} == {"float32": 2e9, "float64": 5e8}
    assert best.products == (*PEAKS.products, again.products[1])
    assert [(level.name, level.bytes_per_second) for level in best.levels] == [
        *(("L1", 2e9), ("L2", 1e8), ("L3", 4e7), ("memory", 1e7))
    ]
    assert best.missing == ()
    assert PEAKS.best(PEAKS) == PEAKS


def test_tf32_and_half_types_have_a_roofline_from_a_measured_rate():
    bytes_alone = with_levels(roofline.Level("L2", 2**40, 1e15))
    for case, key in [
        (dataclasses.replace(CASE, precision="tf32"), "tf32"),
        (dataclasses.replace(CASE, dtype="bfloat16"), "bfloat16"),
    ]:
        assert roofline.roofline_seconds(case, bytes_alone) is None
        known = dataclasses.replace(bytes_alone, arithmetic={key: roofline.Rate(4e9, "best GEMM")})
        assert roofline.roofline_seconds(case, known) == roofline.flop(CASE) / 4e9

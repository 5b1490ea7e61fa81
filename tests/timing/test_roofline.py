from __future__ import annotations

import dataclasses
import json

import pytest

from harness.case import Case
from harness.timing import cost

CASE = Case(7, 5, 3, 2)
STEP = CASE.with_mode("forward_backward")


def test_the_least_work_is_one_contraction_and_three_for_a_step():
    assert cost.flop(CASE) == 2 * 7 * 5 * 3 * 2
    assert cost.flop(STEP) == 3 * cost.flop(CASE)
    assert cost.flop(Case(0, 5, 3, 2)) == 0


@pytest.mark.parametrize(("dtype", "itemsize"), [("float64", 8), ("float32", 4), ("bfloat16", 2)])
def test_everything_that_goes_in_and_out_is_counted_once(dtype, itemsize):
    inputs, weight, bias, output = 7 * 5 + 7 * 3, 2 * 5 * 3, 2, 7 * 2
    forward = inputs + weight + bias + output
    step = forward + output + inputs + weight + bias
    assert cost.array_bytes(dataclasses.replace(CASE, dtype=dtype)) == forward * itemsize
    assert cost.array_bytes(dataclasses.replace(STEP, dtype=dtype)) == step * itemsize
    assert cost.array_bytes(dataclasses.replace(CASE, dtype=dtype, bias=False)) == (forward - bias) * itemsize


def test_a_contestant_needs_its_workspace_on_top_and_host_copies_in_the_hosts_dtype():
    assert cost.contestant_bytes(CASE, 1000) - cost.contestant_bytes(CASE, 0) == 1000
    arrays = cost.array_bytes(CASE)
    half = dataclasses.replace(CASE, dtype="float16")
    # One set of results more is kept for the gate, and the clock holds the last one while the next is made.
    sets = cost.INPUT_SETS + 2
    assert cost.contestant_bytes(CASE, 0) == cost.PROCESS_BYTES + sets * arrays + arrays
    assert cost.contestant_bytes(half, 0) == cost.PROCESS_BYTES + sets * arrays // 2 + arrays


def test_the_reference_needs_at_least_three_float64_copies_and_more_for_a_step():
    elements = cost.array_bytes(CASE) // 4
    assert cost.reference_bytes(CASE) >= cost.PROCESS_BYTES + 3 * 8 * elements
    assert cost.reference_bytes(STEP) > cost.reference_bytes(CASE)
    half = dataclasses.replace(CASE, dtype="float16")
    assert cost.reference_bytes(half) == cost.reference_bytes(CASE)


PEAKS = cost.Peaks(
    {"float32": cost.Rate(1e9, "FMA chains"), "float64": cost.Rate(5e8, "FMA chains")},
    (cost.Product("numpy", "float32", 9e8, "OpenBLAS"), cost.Product("jax", "float64", 4e8, "XLA")),
    (cost.Level("L1", 1000, 1e9), cost.Level("L2", 10_000, 1e8), cost.Level("memory", None, 1e7)),
    ("torch.mm in float32: torch is not installed",),
)


def with_levels(*levels):
    return dataclasses.replace(PEAKS, levels=levels)


def test_the_limit_is_the_arithmetics_where_that_takes_longer():
    fast = with_levels(cost.Level("L1", 10**9, 1e15))
    assert cost.limit_seconds(CASE, fast) == cost.flop(CASE) / 1e9
    assert cost.limit_seconds(STEP, fast) == 3 * cost.flop(CASE) / 1e9
    assert cost.limit_seconds(dataclasses.replace(CASE, dtype="float64"), fast) == cost.flop(CASE) / 5e8


def test_the_limit_is_the_bytes_where_they_take_longer():
    slow = with_levels(cost.Level("L1", 10**9, 1e3))
    assert cost.limit_seconds(CASE, slow) == cost.array_bytes(CASE) / 1e3
    assert cost.limit_seconds(STEP, slow) == cost.array_bytes(STEP) / 1e3


@pytest.mark.parametrize(
    ("shape", "split"),
    [
        ((1, 1, 1, 1), (20, 0, 0)),
        ((1, 10, 10, 2), (896, 0, 0)),
        ((1, 10, 10, 3), (1000, 304, 0)),
        ((1, 50, 50, 3), (1000, 9000, 20_424)),
    ],
)
def test_every_level_gives_what_it_has_room_for_at_its_own_rate(shape, split):
    case = Case(*shape)
    assert cost.array_bytes(case) == sum(split)
    bytes_alone = dataclasses.replace(PEAKS, arithmetic={}, levels=PEAKS.levels[::-1])
    seconds = split[0] / 1e9 + split[1] / 1e8 + split[2] / 1e7
    assert cost.limit_seconds(case, bytes_alone) == pytest.approx(seconds)


def test_a_level_that_the_bytes_just_fill_holds_them_and_the_next_one_gives_but_what_is_more():
    size = cost.array_bytes(CASE)
    for capacity, seconds in ((size, size / 1e3), (size - 1, (size - 1) / 1e3 + 1 / 1e2)):
        peaks = with_levels(cost.Level("L1", capacity, 1e3), cost.Level("L2", 10**6, 1e2))
        assert cost.limit_seconds(CASE, peaks) == pytest.approx(seconds)


def test_where_one_rate_is_unknown_the_other_is_the_limit():
    assert cost.limit_seconds(CASE, with_levels()) == cost.flop(CASE) / 1e9
    assert cost.limit_seconds(CASE, with_levels(cost.Level("L1", 10, 1.0))) == cost.flop(CASE) / 1e9  # too small
    bytes_alone = dataclasses.replace(PEAKS, arithmetic={})
    assert cost.limit_seconds(CASE, bytes_alone) == cost.array_bytes(CASE) / 1e9


def test_without_a_known_cache_memorys_rate_is_no_limit():
    # What a cache holds comes faster than memory gives it, so a right backend could beat that limit.
    memory = cost.Level("memory", None, 1.0)
    assert cost.limit_seconds(CASE, with_levels(memory)) == cost.flop(CASE) / 1e9
    assert cost.limit_seconds(CASE, cost.Peaks({}, (), (memory,))) is None


@pytest.mark.parametrize("changes", [{"dtype": "float16"}, {"dtype": "bfloat16"}, {"precision": "tf32"}])
def test_a_case_whose_rate_is_not_measured_has_no_limit(changes):
    assert cost.limit_seconds(dataclasses.replace(CASE, **changes), PEAKS) is None
    assert cost.limit_seconds(CASE, cost.Peaks({}, (), ())) is None


def test_peaks_survive_json():
    assert cost.Peaks.from_json(json.loads(json.dumps(PEAKS.as_json()))) == PEAKS
    empty = cost.Peaks({}, (), ())
    assert cost.Peaks.from_json(json.loads(json.dumps(empty.as_json()))) == empty


def test_of_two_surveys_the_higher_rate_of_each_thing_counts_and_what_neither_has_is_missing():
    again = cost.Peaks(
        {"float32": cost.Rate(2e9, "quiet now"), "float64": cost.Rate(4e8, "disturbed")},
        (cost.Product("numpy", "float32", 8e8, "OpenBLAS"), cost.Product("torch.mm", "float32", 7e8, "MKL")),
        (cost.Level("L1", 1000, 2e9), cost.Level("L2", 10_000, 5e7), cost.Level("L3", 10**5, 4e7)),
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


def test_tf32_and_half_types_have_a_limit_where_their_rate_was_measured():
    bytes_alone = with_levels(cost.Level("L2", 2**40, 1e15))
    for case, key in [
        (dataclasses.replace(CASE, precision="tf32"), "tf32"),
        (dataclasses.replace(CASE, dtype="bfloat16"), "bfloat16"),
    ]:
        assert cost.limit_seconds(case, bytes_alone) is None
        known = dataclasses.replace(bytes_alone, arithmetic={key: cost.Rate(4e9, "best GEMM")})
        assert cost.limit_seconds(case, known) == cost.flop(CASE) / 4e9

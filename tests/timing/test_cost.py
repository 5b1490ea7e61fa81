from __future__ import annotations

import dataclasses

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

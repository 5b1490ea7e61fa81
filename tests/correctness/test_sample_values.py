"""Values of a sample: the right results follow from those for the values in rotation, and no two calls are alike."""

from __future__ import annotations

import itertools

import numpy as np
import oracle
import pytest

from harness.case import Case
from harness.correctness.inputs import make_inputs
from harness.correctness.sample_values import SMALL_BATCH, SampleValues

CASES = [
    Case(batch, 5, 7, 3, dtype=dtype, mode=mode, bias=bias)
    for batch in (1, 2, SMALL_BATCH, SMALL_BATCH + 1, 20)
    for dtype in ("float32", "float64", "float16")
    for mode in ("forward", "forward_backward")
    for bias in (True, False)
]
CALLS = 9


def rotating(case, number):
    """Return the values in rotation of an input set."""
    arrays = make_inputs(case, number)
    return {name: array for name, array in arrays.items() if name not in ("weight", "bias")}, arrays


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize(("last", "changing"), [(3, True), (CALLS + 2, True), (3, False)])
def test_results_of_a_call_tell_those_of_the_values_in_rotation(case, last, changing):
    values = SampleValues(case, 12, CALLS, 1, 2)
    for number in range(2):
        inputs, arrays = rotating(case, number)
        turned = arrays | values.inputs(number, last, inputs, changing)
        wide = {name: array.astype(np.float64) for name, array in turned.items()}
        found = values.originals(number, last, oracle.results(case, wide), arrays, changing)
        right = oracle.results(case, {name: array.astype(np.float64) for name, array in arrays.items()})
        for name, result in right.items():
            assert found[name] == pytest.approx(result, rel=1e-11, abs=1e-11), name


@pytest.mark.parametrize("case", CASES, ids=str)
def test_values_of_a_sample_are_numbers_of_the_case_s_dtype(case):
    values = SampleValues(case, 12, CALLS, 0, 2)
    inputs, _ = rotating(case, 0)
    for name, array in values.inputs(0, 5, inputs).items():
        assert array.dtype == inputs[name].dtype
        assert np.isfinite(array).all()
        if case.dtype == "float16":
            assert np.array_equal(array, array.astype(np.float16).astype(np.float32))


@pytest.mark.parametrize("batch", [1, 3, SMALL_BATCH, 40])
def test_no_call_of_a_sample_has_the_input_of_another(batch):
    case = Case(batch, 6, 5, 3)
    values = SampleValues(case, 7, 300, 0, 2)
    inputs, _ = rotating(case, 0)
    made = [values.inputs(0, call, inputs) for call in range(0, 300, 2)]
    seen = {arrays["input1"].tobytes() + arrays["input2"].tobytes() for arrays in made}
    # One row has 324 pairs of factors, so they come again by chance.
    assert len(seen) >= (100 if batch == 1 else 140)


def test_both_halves_of_a_batch_change_before_each_call():
    values = SampleValues(Case(40, 6, 5, 3), 7, 100, 0, 2)
    for first, second in values.rows.tolist():
        assert first < 20 <= second


@pytest.mark.parametrize("batch", [SMALL_BATCH, SMALL_BATCH + 1, 200])
def test_one_input_alone_seldom_comes_again(batch):
    values = SampleValues(Case(batch, 6, 5, 3), 7, 600, 0, 2)
    inputs, _ = rotating(Case(batch, 6, 5, 3), 0)
    made = [values.inputs(0, call, inputs) for call in range(0, 600, 2)]
    for name in ("input1", "input2"):
        assert len({arrays[name].tobytes() for arrays in made}) > 0.85 * len(made)


def test_each_array_changes_before_each_call():
    case = Case(SMALL_BATCH + 3, 6, 5, 3, mode="forward_backward")
    values = SampleValues(case, 7, 100, 0, 2)
    inputs, _ = rotating(case, 0)
    made = [values.inputs(0, call, inputs) for call in range(0, 100, 2)]
    for one, other in itertools.pairwise(made):
        assert not any(np.array_equal(array, other[name]) for name, array in one.items())


@pytest.mark.parametrize("batch", [30, 60])
def test_written_rows_are_those_of_the_call(batch):
    case = Case(batch, 4, 3, 2, mode="forward_backward")
    values = SampleValues(case, 5, 200, 0, 2)  # so many that rows are drawn again
    inputs, _ = rotating(case, 1)
    arrays = {name: values.begin(name, 1, array) for name, array in inputs.items()}
    for call in range(200):
        if call % 2 == 1:
            for name, array in inputs.items():
                arrays[name][values.written(name)[call]] = values.changed_rows(name, 1, array)[call]
        expected = values.inputs(1, call, inputs)
        assert all(np.array_equal(arrays[name], expected[name]) for name in inputs)


def test_samples_of_different_numbers_have_different_values():
    case = Case(60, 4, 3, 2)
    inputs, _ = rotating(case, 0)
    first, second = (SampleValues(case, secret, 8, 0, 2).begin("input1", 0, inputs["input1"]) for secret in (1, 2))
    assert not np.array_equal(first, second)
    for one, other in itertools.pairwise([first, second]):
        assert np.array_equal(np.sort(abs(one), axis=0), np.sort(abs(other), axis=0))

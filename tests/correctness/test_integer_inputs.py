"""The inputs of kinds of integers: what their names say, and nothing else."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from harness.case import DTYPES, Case
from harness.correctness.conduct import same_bits
from harness.correctness.inputs import make_inputs, permutation

CASE = Case(5, 16, 7, 3, mode="forward_backward", seed=4)
KINDS = ("integers", "other integers", "exchanged input1", "added input1", "permuted rows", "zero input1", "one-hot")
#: Arrays that a kind shares with kind ``integers``; the other arrays differ.
SHARED = {
    "other integers": {"input1", "input2", "grad_output"},
    "exchanged input1": {"input2", "weight", "bias", "grad_output"},
    "added input1": {"input2", "weight", "bias", "grad_output"},
    "permuted rows": {"weight", "bias"},
    "zero input1": {"input2", "weight", "bias", "grad_output"},
}


def of_dtype(dtype, **changes):
    return dataclasses.replace(CASE, dtype=dtype, **changes)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_kinds_of_integers_are_integers(dtype, kind):
    made = make_inputs(of_dtype(dtype, bias=kind != "one-hot"), kind=kind)
    for name, array in made.items():
        assert np.array_equal(array, np.rint(array)), name
        if kind != "one-hot":
            assert np.abs(array).max() <= (4 if (kind, name) == ("added input1", "input1") else 2), name


@pytest.mark.parametrize("dtype", DTYPES)
def test_positive_numbers_are_ones_and_twos_equally_often(dtype):
    case = Case(40, 30, 20, 40, dtype=dtype, mode="forward_backward")
    for name, array in make_inputs(case, kind="positive").items():
        assert list(np.unique(array)) == [1, 2], name
        if array.size > 500:
            assert 1.4 < array.mean() < 1.6, name


@pytest.mark.parametrize("kind", SHARED)
@pytest.mark.parametrize("dtype", DTYPES)
def test_kinds_of_integers_differ_only_in_what_they_are_named_for(dtype, kind):
    case = of_dtype(dtype)
    integers, made = make_inputs(case, 2, "integers"), make_inputs(case, 2, kind)
    assert {name for name in made if same_bits(made[name], integers[name])} == SHARED[kind]


@pytest.mark.parametrize("dtype", DTYPES)
def test_input1_is_exchanged_added_or_zero_as_its_kind_says(dtype):
    case = of_dtype(dtype)
    one, next_one = (make_inputs(case, variation, "integers")["input1"] for variation in (2, 3))
    assert same_bits(make_inputs(case, 2, "exchanged input1")["input1"], next_one)
    assert same_bits(make_inputs(case, 2, "added input1")["input1"], one + next_one)
    assert not make_inputs(case, 2, "zero input1")["input1"].any()


def test_permuted_rows_are_the_same_rows_in_one_order_for_all_arrays():
    case = dataclasses.replace(CASE, batch=50)
    order = permutation(case, 1)
    integers, permuted = make_inputs(case, 1, "integers"), make_inputs(case, 1, "permuted rows")
    assert sorted(order) == list(range(50))
    assert not np.array_equal(order, np.arange(50))
    assert not np.array_equal(order, permutation(case, 2))
    for name in ("input1", "input2", "grad_output"):
        assert same_bits(permuted[name], integers[name][order]), name


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_hot_inputs_read_back_weights_that_all_differ(dtype):
    case = of_dtype(dtype, batch=5 * 3, in1_features=5, in2_features=3, out_features=11, bias=False)
    made = make_inputs(case, kind="one-hot")
    weight = made["weight"]
    read = np.einsum("bi,oij,bj->bo", made["input1"], weight, made["input2"])
    assert np.array_equal(read, weight.reshape(11, 15).T)
    assert len(np.unique(weight)) == weight.size
    assert np.abs(weight.mean()) < 1
    gradient = made["grad_output"]
    assert np.array_equal(gradient, np.eye(11, dtype=gradient.dtype)[np.arange(15) % 11])

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from harness.case import DTYPES, Case
from harness.correctness.inputs import make_inputs, round_to

CASE = Case(5, 16, 7, 3, mode="forward_backward", seed=4)


def same(one, other):
    return one.dtype == other.dtype and one.tobytes() == other.tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
def test_arrays_have_the_cases_shapes_and_only_values_that_its_dtype_has(dtype):
    case = dataclasses.replace(CASE, dtype=dtype)
    made = make_inputs(case)
    assert {name: array.shape for name, array in made.items()} == case.shapes()
    for name, array in made.items():
        assert array.dtype == (np.float64 if dtype == "float64" else np.float32), name
        assert array.flags.c_contiguous
        there_and_back = torch.from_numpy(array).to(getattr(torch, dtype)).to(torch.from_numpy(array).dtype)
        assert same(there_and_back.numpy(), array), name


def test_the_same_seed_gives_the_same_bits_and_another_seed_gives_others():
    one, again, other = make_inputs(CASE), make_inputs(CASE), make_inputs(dataclasses.replace(CASE, seed=5))
    for name in one:
        assert same(one[name], again[name]), name
        assert not np.array_equal(one[name], other[name]), name


def test_variations_change_the_inputs_and_keep_the_parameters():
    one, other = make_inputs(CASE, 0), make_inputs(CASE, 1)
    assert {name for name in one if same(one[name], other[name])} == {"weight", "bias"}


def test_no_two_arrays_share_a_stream():
    square = Case(4, 4, 4, 4, mode="forward_backward")
    made = make_inputs(square)
    assert not np.array_equal(made["input1"], made["input2"])
    assert not np.array_equal(made["input1"], made["grad_output"])


def test_dropping_the_bias_changes_no_other_input_of_inference():
    with_bias = make_inputs(CASE.with_mode("forward"))
    without = make_inputs(dataclasses.replace(CASE.with_mode("forward"), bias=False))
    assert set(with_bias) - set(without) == {"bias"}
    assert all(same(without[name], with_bias[name]) for name in without)


def test_parameters_fill_the_range_of_nn_bilinear():
    case = Case(1, 16, 50, 50)
    made = make_inputs(case)
    assert np.abs(made["weight"]).max() <= 0.25
    assert made["weight"].max() > 0.249
    assert made["weight"].min() < -0.249
    assert abs(float(made["weight"].mean())) < 0.005


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_rounding_is_torchs_own_ties_to_even_included(dtype):
    ties = np.array([1 + 2.0**-9, 1 + 3 * 2.0**-9, 1 + 2.0**-8, 1 + 3 * 2.0**-8, 1 + 2.0**-11, 1 + 3 * 2.0**-11])
    random = np.random.default_rng(0).standard_normal(10_000)
    values = np.concatenate([ties, -ties, random, random * 1e-4, [0.0, -0.0]]).astype(np.float32)
    theirs = torch.from_numpy(values).to(getattr(torch, dtype)).float().numpy()
    assert same(round_to(values, dtype), theirs)
    assert not np.array_equal(theirs, values)

"""The inputs of each kind: reproducible, in the case's dtype, and in the range that the kind names."""

from __future__ import annotations

import dataclasses

import numpy as np
import oracle
import pytest
import torch

from harness.case import DTYPES, Case
from harness.correctness import telling
from harness.correctness.conduct import same_bits
from harness.correctness.inputs import LARGE_KINDS, PRECISE_KINDS, make_inputs, round_to

CASE = Case(5, 16, 7, 3, mode="forward_backward", seed=4)
INTEGERS = (
    *("integers", "other integers", "exchanged input1", "added input1", "permuted rows", "zero input1", "one-hot"),
    *telling.KINDS,
)
LARGE = ("large input1", "large input2", "large weight", "large grad_output")
#: The scaled array, by kind; the other arrays are those of kind ``normal``.
SCALED = {kind: kind.removeprefix("large ") for kind in LARGE} | {"small": "input1", "subnormal": "input1"}
KINDS = ("normal", "new weight", *INTEGERS, "positive", *SCALED, "nonfinite")
#: The largest number and the smallest normal one.
RANGES = {
    "float64": (np.finfo(np.float64).max, 2.0**-1022),
    "float32": (np.finfo(np.float32).max, 2.0**-126),
    "float16": (65504.0, 2.0**-14),
    "bfloat16": (float.fromhex("0x1.fep127"), 2.0**-126),
}
#: Exponents of two by which ``normal`` becomes large, and small.
EXPONENTS = {"float64": (1013, -511), "float32": (117, -63), "float16": (5, -7), "bfloat16": (117, -63)}


def of_dtype(dtype, **changes):
    return dataclasses.replace(CASE, dtype=dtype, **changes)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_arrays_have_the_cases_shapes_and_only_values_that_its_dtype_has(dtype, kind):
    case = of_dtype(dtype, bias=kind != "one-hot")
    made = make_inputs(case, kind=kind)
    assert {name: array.shape for name, array in made.items()} == case.shapes()
    for name, array in made.items():
        assert array.dtype == (np.float64 if dtype == "float64" else np.float32), name
        assert array.flags.c_contiguous
        there_and_back = torch.from_numpy(array).to(getattr(torch, dtype)).to(torch.from_numpy(array).dtype)
        assert np.array_equal(there_and_back.numpy(), array, equal_nan=True), name


def test_a_kind_that_does_not_exist_is_an_error():
    with pytest.raises(KeyError, match="of another kind"):
        make_inputs(CASE, kind="of another kind")


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_bits(kind):
    one, again = make_inputs(CASE, 1, kind), make_inputs(CASE, 1, kind)
    assert all(same_bits(one[name], again[name]) for name in one)


@pytest.mark.parametrize("kind", ["normal", "new weight", "integers", "positive"])
def test_another_seed_gives_others(kind):
    case = dataclasses.replace(CASE, out_features=40)
    one, other = make_inputs(case, kind=kind), make_inputs(dataclasses.replace(case, seed=5), kind=kind)
    assert not any(np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("kind", ["normal", "integers", "other integers", *SCALED])
def test_variations_change_the_inputs_and_keep_the_parameters(kind):
    one, other = make_inputs(CASE, 0, kind), make_inputs(CASE, 1, kind)
    assert {name for name in one if same_bits(one[name], other[name])} == {"weight", "bias"}


@pytest.mark.parametrize("dtype", DTYPES)
def test_new_weights_differ_by_variation_and_their_inputs_are_normals(dtype):
    case = of_dtype(dtype)
    made = [make_inputs(case, variation, "new weight") for variation in range(4)]
    for variation, new in enumerate(made[1:], 1):
        normal = make_inputs(case, variation, "normal")
        assert {name for name in new if same_bits(new[name], normal[name])} == {"input1", "input2", "grad_output"}
        assert not any(same_bits(new[name], other[name]) for other in made[:variation] for name in new)


@pytest.mark.parametrize("kind", PRECISE_KINDS)
def test_inputs_judged_by_precision_have_mean_zero_and_usual_size(kind):
    made = make_inputs(Case(200, 25, 40, 40, mode="forward_backward"), 3, kind)
    for name, array in made.items():
        deviation = 0.2 / 3**0.5 if name in ("weight", "bias") else 1.0
        assert abs(array.mean()) < 4 * deviation / array.size**0.5, name
        assert array.std() == pytest.approx(deviation, rel=0.25), name
        assert len(np.unique(array)) > 0.9 * array.size, name


def test_only_random_numbers_are_judged_by_their_precision():
    assert set(PRECISE_KINDS) == {"normal", "new weight"}


def test_each_array_takes_its_turn_in_being_large():
    assert set(LARGE_KINDS) == {f"large {name}" for name in CASE.shapes() if name != "bias"} == set(LARGE)


@pytest.mark.parametrize("kind", ["normal", "new weight", "integers", "positive"])
def test_no_two_arrays_share_a_stream(kind):
    square = Case(4, 4, 4, 4, mode="forward_backward")
    made = make_inputs(square, kind=kind)
    assert not np.array_equal(made["input1"], made["input2"])
    assert not np.array_equal(made["input1"], made["grad_output"])
    assert not np.array_equal(made["input2"], made["grad_output"])


def test_dropping_the_bias_changes_no_other_input_of_inference():
    with_bias = make_inputs(CASE.with_mode("forward"))
    without = make_inputs(dataclasses.replace(CASE.with_mode("forward"), bias=False))
    assert set(with_bias) - set(without) == {"bias"}
    assert all(same_bits(without[name], with_bias[name]) for name in without)


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
    assert same_bits(round_to(values, dtype), theirs)
    assert not np.array_equal(theirs, values)


@pytest.mark.parametrize("kind", SCALED)
@pytest.mark.parametrize("dtype", DTYPES)
def test_one_array_alone_goes_to_the_ends_of_the_range(dtype, kind):
    case, scaled = of_dtype(dtype), SCALED[kind]
    normal, made = make_inputs(case, kind="normal"), make_inputs(case, kind=kind)
    assert {name for name in made if not same_bits(made[name], normal[name])} == {scaled}
    kept = made[scaled] != 0
    assert np.array_equal(np.sign(made[scaled][kept]), np.sign(normal[scaled][kept]))


@pytest.mark.parametrize("kind", [*LARGE, "small"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_large_and_small_numbers_are_normal_ones_times_a_power_of_two(dtype, kind):
    case, scaled = of_dtype(dtype), SCALED[kind]
    normal, made = (make_inputs(case, kind=asked)[scaled] for asked in ("normal", kind))
    # A number keeps all its bits if it is not subnormal, before or after.
    usual = np.abs(normal) > 2.0**-7
    assert usual.mean() > 0.9
    large, small = EXPONENTS[dtype]
    assert np.array_equal(made[usual], np.ldexp(normal[usual], small if kind == "small" else large))


@pytest.mark.parametrize("kind", LARGE)
@pytest.mark.parametrize("dtype", DTYPES)
def test_large_results_come_near_the_largest_number_and_none_can_pass_it(dtype, kind):
    largest, _ = RANGES[dtype]
    for seed in range(20):
        case = of_dtype(dtype, batch=7, in1_features=5, in2_features=3, out_features=11, bias=False, seed=seed)
        made = {name: np.abs(array).astype(np.longdouble) for name, array in make_inputs(case, kind=kind).items()}
        scales = {
            "grad_output" if name == "output" else name.removeprefix("grad_"): scale
            for name, scale in oracle.results(case, made).items()
        }
        for name, scale in scales.items():
            # The large array is a factor of every result but its own gradient.
            assert name == SCALED[kind] or 2.0**-12 * largest < scale.max(), name
            assert scale.max() < largest, name


@pytest.mark.parametrize("dtype", DTYPES)
def test_small_numbers_are_about_the_root_of_the_smallest_normal_one(dtype):
    _, smallest = RANGES[dtype]
    small = make_inputs(of_dtype(dtype, batch=100), kind="small")["input1"].astype(np.longdouble)
    assert 0.5 < np.sqrt(np.mean(small**2)) / np.sqrt(np.longdouble(smallest)) < 2


@pytest.mark.parametrize("dtype", DTYPES)
def test_subnormal_inputs_are_subnormal_and_hardly_ever_zero(dtype):
    _, smallest = RANGES[dtype]
    subnormal = make_inputs(of_dtype(dtype, batch=100), kind="subnormal")["input1"]
    assert np.abs(subnormal).max() < smallest
    assert np.count_nonzero(subnormal) > 0.9 * subnormal.size


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_nan_and_one_infinity_go_in_different_rows_of_different_inputs(dtype):
    made, normal = (make_inputs(of_dtype(dtype), kind=kind) for kind in ("nonfinite", "normal"))
    spoiled = {name: np.argwhere(~np.isfinite(array)) for name, array in made.items()}
    assert {name for name, found in spoiled.items() if len(found)} == {"input1", "input2"}
    ((row1, i),), ((row2, j),) = spoiled["input1"], spoiled["input2"]
    assert np.isnan(made["input1"][row1, i])
    assert made["input2"][row2, j] == np.inf
    assert row1 != row2
    for name, array in made.items():
        assert np.array_equal(array[np.isfinite(array)], normal[name][np.isfinite(array)]), name


@pytest.mark.parametrize("kind", ["normal", "integers", "new weight"])
def test_arrays_drawn_alone_have_the_values_drawn_with_all_others(kind):
    made = make_inputs(CASE, 3, kind)
    for names in (("weight", "bias"), ("input1", "input2", "grad_output"), ()):
        alone = make_inputs(CASE, 3, kind, only=names)
        assert set(alone) == set(names)
        assert all(same_bits(alone[name], made[name]) for name in names)

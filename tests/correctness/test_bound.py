"""The bound on every element: honest techniques stay within it, and it is as narrow as documented."""

from __future__ import annotations

import dataclasses
import functools
import math

import numpy as np
import pytest
from formats import FORMATS
from oracle import to_tf32
from reference_results import expect, question
from techniques import einsum, exactly, outer_product, page_loop, sequential_sum

from harness.case import Case
from harness.correctness.bound import TINY, UNIT_ROUNDOFF, relative_bound, terms, tolerance
from harness.correctness.gate import judge
from harness.correctness.inputs import round_to

STEP = Case(6, 10, 7, 5, mode="forward_backward")
RESULTS = tuple(STEP.result_shapes())
SEEDS = range(15)


def of_format(name, case=STEP, **changes):
    return dataclasses.replace(case, **FORMATS[name], **changes)


@pytest.mark.parametrize("technique", [einsum, page_loop, outer_product, sequential_sum])
@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("sizes", [STEP, Case(40, 3, 16, 2, mode="forward_backward")], ids=lambda case: case.name)
def test_honest_techniques_stay_within_the_bound(sizes, name, technique):
    for seed in SEEDS:
        case = of_format(name, sizes, seed=seed)
        inputs, expected = question(case)
        store, operand = functools.partial(round_to, dtype=case.dtype), to_tf32 if name == "tf32" else exactly
        with np.errstate(under="ignore"):
            results = technique(inputs, operand, store)
        verdict = judge(case, expected, results)
        assert verdict.ok, (seed, verdict.reason)
        assert verdict.absolute_error > 0


def alone(name, **inputs):
    """Return a case with these inputs, and the inputs in the dtype of its arrays."""
    sizes = len(inputs["input1"]), *inputs["weight"].shape[1:], len(inputs["weight"])
    case = Case(*sizes, bias="bias" in inputs, mode="forward_backward", **FORMATS[name])
    wide = np.float64 if name == "float64" else np.float32
    return case, {key: np.asarray(array).astype(wide) for key, array in inputs.items()}


def over_bound(case, inputs, name, result):
    expected = expect(case, inputs)
    value, scale = expected.values[name], expected.scales[name]
    return float((np.abs(result - value) / tolerance(case, name, value, scale)).max())


@pytest.mark.parametrize(
    ("name", "count", "least"), [("float32", 1000, 0.99), ("float32", 30_000, 0.99), ("float64", 1000, 0.49)]
)
def test_a_sum_that_loses_all_terms_but_one_stays_below_the_bound(name, count, least):
    case = Case(1, count, 1, 1, bias=False, **FORMATS[name])
    kind = np.float64 if name == "float64" else np.float32
    terms_summed = np.full(count, UNIT_ROUNDOFF[name], kind)
    terms_summed[0] = 1
    swallowed = np.add.accumulate(terms_summed)[-1]
    assert swallowed == 1, "half a unit in the last place of 1 is a tie, and is lost"
    exact = np.array(math.fsum(terms_summed))
    # The bound of float64 is twice as wide, because the reference rounds, too.
    assert least < (exact - swallowed) / tolerance(case, "output", exact, exact) < 1


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
@pytest.mark.parametrize("result", ["grad_input1", "grad_input2"])
def test_half_precision_sums_of_pages_may_swallow_every_page_but_the_first(name, result):
    pages, unit = 100, UNIT_ROUNDOFF[name]
    weight = np.full((pages, 1, 1), unit)
    weight[0] = 1
    ones = np.ones((1, 1))
    case, inputs = alone(name, input1=ones, input2=ones, weight=weight, grad_output=np.ones((1, pages)))
    total = np.zeros((1, 1), np.float32)
    for page in inputs["weight"]:
        total = round_to(total + page, name)
    assert total == 1
    assert 0.5 < over_bound(case, inputs, result, total) < 1
    fewer = dataclasses.replace(case, out_features=20)
    assert relative_bound(fewer, result) < relative_bound(case, result), "it grows with the pages"
    assert relative_bound(fewer, "output") < 5 * unit, "and only there"


@pytest.mark.parametrize("value", [1 + 2.0**-11, 1 + 3 * 2.0**-11])
def test_tf32_operands_that_all_round_the_same_way_stay_within_the_bound(value):
    one = np.full((1, 1), value)
    case, inputs = alone("tf32", input1=one, input2=one, weight=one[None], grad_output=one)
    rounded = to_tf32(inputs["input1"])
    assert rounded != inputs["input1"]
    for result in ("output", "grad_input1", "grad_input2", "grad_weight"):
        product = to_tf32(rounded * rounded) * rounded
        assert 0.5 < over_bound(case, inputs, result, product) < 1


@pytest.mark.parametrize("result", RESULTS)
@pytest.mark.parametrize("name", FORMATS)
def test_an_element_may_be_off_by_its_bound_and_no_more(name, result):
    case = of_format(name)
    _, expected = question(case)
    allowed = tolerance(case, result, expected.values[result], expected.scales[result])
    for factor, ok in ((0.85, True), (1.15, False), (-0.85, True), (-1.15, False)):
        for position in (0, -1):
            actual = {key: value.copy() for key, value in expected.values.items()}
            actual[result].flat[position] += factor * allowed.flat[position]
            verdict = judge(case, expected, actual)
            assert verdict.ok == ok
            assert ok or verdict.reason.startswith(f"{result}[")


def test_a_bound_follows_the_scale_of_its_element():
    _, expected = question(STEP)
    allowed = tolerance(STEP, "output", expected.values["output"], expected.scales["output"])
    assert allowed.shape == (6, 5)
    wide = tolerance(STEP, "output", expected.values["output"], 2 * expected.scales["output"])
    factor = relative_bound(STEP, "output")
    np.testing.assert_allclose(wide - allowed, factor * expected.scales["output"], rtol=1e-9)


@pytest.mark.parametrize(
    ("name", "unit", "smallest"),
    [
        ("float64", 2.0**-53, np.finfo(np.float64).tiny),
        ("float32", 2.0**-24, np.finfo(np.float32).tiny),
        ("float16", 2.0**-11, np.finfo(np.float16).tiny),
        ("bfloat16", 2.0**-8, np.finfo(np.float32).tiny),
    ],
)
def test_the_bound_includes_the_last_rounding_and_underflow(name, unit, smallest):
    case = of_format(name)
    assert tolerance(case, "output", np.array([0.0]), np.array([0.0])) == smallest == TINY[name]
    assert tolerance(case, "output", np.array([-3.0]), np.array([0.0])) == pytest.approx(3 * unit + smallest, rel=1e-15)
    assert UNIT_ROUNDOFF[name] == unit


def test_tf32_keeps_ten_bits_and_a_tf32_result_is_rounded_to_float32():
    assert UNIT_ROUNDOFF["tf32"] == 2.0**-11
    case = of_format("tf32")
    assert tolerance(case, "output", np.array([1.0]), np.array([0.0])) == pytest.approx(2.0**-24, rel=1e-9)


@pytest.mark.parametrize(
    ("result", "wanted"),
    [("output", 10 * 7), ("grad_input1", 5 * 7), ("grad_input2", 5 * 10), ("grad_weight", 6), ("grad_bias", 6)],
)
def test_terms_are_what_an_element_of_each_result_sums_over(result, wanted):
    assert terms(STEP, result) == wanted


@pytest.mark.parametrize("result", RESULTS)
@pytest.mark.parametrize(
    ("name", "unit", "coarse"),
    [
        ("float32", 2.0**-24, 1),
        ("tf32", 2.0**-24, (1 + 2.0**-11) ** 4),
        ("float16", 2.0**-24, (1 + 2.0**-11) ** 3),
        ("bfloat16", 2.0**-24, (1 + 2.0**-8) ** 3),
        ("float64", 2.0**-53, 1),
    ],
)
def test_the_factor_before_the_scale_is_the_documented_one(name, unit, coarse, result):
    case = of_format(name)
    count = terms(case, result) + 3
    gamma = count * unit / (1 - count * unit)
    if name == "float64":
        gamma *= 2
    elif name in ("float16", "bfloat16") and result in ("grad_input1", "grad_input2"):
        coarse *= (1 + UNIT_ROUNDOFF[name]) ** case.out_features
    assert relative_bound(case, result) == pytest.approx((1 + gamma) * coarse - 1, rel=1e-6, abs=0)


def test_a_sum_too_long_for_any_bound_has_none():
    assert relative_bound(Case(1, 2**12, 2**12, 1), "output") == math.inf
    assert relative_bound(Case(1, 2**12, 2**12, 1, dtype="float64"), "output") < 1e-8

"""Figures and limits of a precision class: what is measured of a result, and how much of it a class allows."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from formats import FORMATS, to_format
from reference_results import question

from harness.case import DTYPES, Case
from harness.correctness.bound import TINY, UNIT_ROUNDOFF
from harness.correctness.precision import Errors, excess, limits, measure, place

STEP = Case(6, 32, 24, 5, mode="forward_backward")
RESULTS = tuple(STEP.result_shapes())
U = 2.0**-24


@pytest.mark.parametrize(
    ("precision_class", "peak", "typical"),
    [
        ("tf32", 4 * 2.0**-11 + 16 * U, 2.33 * 2.0**-11 + 600 * U),
        ("float16", 4 * 2.0**-11 + 16 * U, 2.33 * 2.0**-11 + 600 * U),
        ("bfloat16", 4 * 2.0**-8 + 16 * U, 2.33 * 2.0**-8 + 600 * U),
    ],
)
def test_limits_are_those_of_the_table(precision_class, peak, typical):
    for dtype in DTYPES:
        case = dataclasses.replace(STEP, dtype=dtype)
        for name in RESULTS:
            pages = dtype == precision_class in ("float16", "bfloat16") and name in ("grad_input1", "grad_input2")
            growth = 0.75 * math.sqrt(5) * UNIT_ROUNDOFF[precision_class] if pages else 0
            # The gradient of the bias has five elements, which are few.
            if name == "grad_bias":
                growth = (2.4 / math.sqrt(5) - 1) * 2.33 * UNIT_ROUNDOFF[precision_class]
            allowed = limits(case, name, precision_class)
            assert allowed.peak == pytest.approx(peak, rel=1e-12, abs=0)
            assert allowed.typical == pytest.approx(typical + growth, rel=1e-12, abs=0)


@pytest.mark.parametrize("precision_class", ["float64", "float32"])
def test_typical_limit_grows_with_the_root_of_the_number_of_terms(precision_class):
    unit = UNIT_ROUNDOFF[precision_class]
    for root in (1, 10, 100, 2000):
        allowed = limits(Case(6, root, root, 30, dtype="float64"), "output", precision_class)
        assert allowed.typical == pytest.approx((16 + 0.6 * root) * unit)
        assert allowed.peak == 16 * unit
    few = limits(Case(1, 10, 10, 1), "output", precision_class).typical
    assert few == pytest.approx(2.4 * (16 + 0.6 * 10) * unit)


@pytest.mark.parametrize("name", ["tf32", "float16", "bfloat16"])
@pytest.mark.parametrize(("sizes", "elements"), [((1, 1), 1), ((2, 1), 2), ((1, 3), 3), ((5, 1), 5)])
def test_a_few_elements_may_have_larger_errors_with_rounded_operands(sizes, elements, name):
    batch, pages = sizes
    case = Case(batch, 8, 8, pages, **FORMATS[name])
    many, few = (limits(asked, "output", name) for asked in (dataclasses.replace(case, batch=100), case))
    assert few.peak == many.peak, "no element may be farther off"
    rounded = 2.33 * UNIT_ROUNDOFF[name]
    assert few.typical - many.typical == pytest.approx((2.4 / math.sqrt(elements) - 1) * rounded, rel=1e-9)


def test_six_elements_are_no_longer_few_and_no_elements_are_no_error():
    for name in ("tf32", "float16", "bfloat16"):
        many = limits(Case(100, 8, 8, 1), "output", name)
        assert limits(Case(6, 8, 8, 1), "output", name) == limits(Case(2, 8, 8, 3), "output", name) == many
        assert limits(Case(5, 8, 8, 1), "output", name).typical > many.typical
        assert math.isfinite(limits(Case(0, 8, 8, 1), "output", name).typical)


def test_excess_is_the_larger_figure_over_its_limit():
    allowed = limits(STEP, "output", "float32")
    assert excess(STEP, "output", allowed, "float32") == 1
    assert excess(STEP, "output", Errors(allowed.peak / 4, allowed.typical / 2), "float32") == 0.5
    assert excess(STEP, "output", Errors(allowed.peak * 3, allowed.typical * 2), "float32") == 3
    assert place(STEP, {"output": allowed}) == "float32"
    for beyond in (
        Errors(np.nextafter(allowed.peak, 1), allowed.typical),
        Errors(allowed.peak, np.nextafter(allowed.typical, 1)),
    ):
        assert place(STEP, {"output": beyond}) == "tf32"


def test_peak_leaves_out_the_last_rounding_and_underflow():
    expected, scale = np.array([4.0, -1.0, 0.0]), np.array([8.0, 2.0, 1.0])
    rounding = U * np.abs(expected) + TINY["float32"]
    assert measure(STEP, expected, scale, 1.0, expected + rounding).peak == 0
    beyond = np.array([1.0, 0.5, -0.125]) * 2.0**-10
    found = measure(STEP, expected, scale, 1.0, expected + np.sign(beyond) * rounding + beyond)
    assert found.peak == pytest.approx(2.0**-12, rel=1e-6)


def test_typical_is_the_rms_error_over_that_of_q():
    expected, scale = np.array([[4.0, -1.0, 0.0, 7.0]]), np.ones((1, 4))
    rounding = U * np.abs(expected) + TINY["float32"]
    assert measure(STEP, expected, scale, 0.25, expected - rounding).typical == 0
    beyond = np.array([[3.0, -4.0, 0.0, 0.0]]) * 2.0**-20
    found = measure(STEP, expected, scale, 0.25, expected + np.where(beyond < 0, -rounding, rounding) + beyond)
    assert found.typical == pytest.approx(2.5 * 2.0**-20 / 0.25, rel=1e-9)


@pytest.mark.parametrize("dtype", DTYPES)
def test_results_that_are_rounded_once_to_their_dtype_have_no_error_at_all(dtype):
    case = dataclasses.replace(STEP, dtype=dtype)
    _, expected = question(case)
    for name, exact in expected.values.items():
        scale = expected.scales[name]
        if name in expected.samples:
            positions, exact = expected.samples[name]
            scale = scale.reshape(-1)[positions]
        rounded = to_format(exact, dtype)
        assert np.any(rounded != exact), name
        assert measure(case, exact, scale, expected.quadratics[name], rounded) == Errors(0, 0), name


def test_an_element_expected_as_zero_must_be_zero():
    zero, scale = np.zeros((2, 2)), np.zeros((2, 2))
    assert measure(STEP, zero, scale, 0.0, zero) == Errors(0, 0)
    assert measure(STEP, zero, scale, 0.0, zero + TINY["float32"]) == Errors(0, 0)
    assert measure(STEP, zero, scale, 0.0, zero + 1e-30) == Errors(math.inf, math.inf)
    assert measure(STEP, zero[:0], scale[:0], 0.0, zero[:0]) == Errors(0, 0)


def test_errors_too_large_to_be_squared_are_infinite_and_in_no_class():
    case = dataclasses.replace(STEP, dtype="float64")
    found = measure(case, np.zeros(2), np.ones(2), 1.0, np.array([0.0, 1e300]))
    assert found == Errors(1e300, math.inf)
    assert place(case, {"output": found}) is None

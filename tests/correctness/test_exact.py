"""Exact inputs: the sums of drawn integers are exact in the format, in any order."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from formats import FORMATS, to_format
from hypothesis import given
from hypothesis import strategies as st
from integer_draws import SMALL, draw, several

from harness.case import Case
from harness.correctness import exact, reference
from harness.correctness.inputs import make_inputs

#: The largest number up to which a format has every integer; the gate's integers of float64 are those of float32.
LIMITS = {"float64": 2**24, "float32": 2**24, "tf32": 2**11, "float16": 2**11, "bfloat16": 2**8}
#: Cases whose sums are too long for a format with the largest number in every term; the first five exceed float32.
LARGE = [
    (Case(2, 1200, 1100, 1), ("float64", "float32", "float16")),
    (Case(1, 2200, 2100, 1), ("float64", "float32")),
    (Case(1, 1200, 2, 1100, mode="forward_backward"), ("float32", "bfloat16")),
    (Case(1, 2, 1200, 1100, mode="forward_backward"), ("float32", "bfloat16")),
    (Case(1_100_000, 1, 1, 1, mode="forward_backward"), ("float32",)),
    (Case(3000, 1, 1, 3, mode="forward_backward"), ("tf32", "float16", "bfloat16")),
]


class Largest:
    """A generator that draws the largest number each time, at random positions."""

    def __init__(self, seed):
        self._generator = np.random.default_rng(seed)

    def integers(self, low, high, shape, dtype):
        return np.full(shape, high - 1, dtype)

    def random(self, shape, dtype):
        return self._generator.random(shape, dtype=dtype)


def wide(made):
    return {name: array.astype(np.float64) for name, array in made.items()}


def largest_sums(case, made):
    """Return the largest S of each result."""
    return {name: float(scale.max()) for name, scale in reference.scales(case, made).items() if scale.numel()}


def largest_intermediates(case, made):
    """Return the largest sums that a technique may store before the result, with positive terms."""
    x1, x2, weight = (np.abs(made[name]) for name in ("input1", "input2", "weight"))
    found = [np.tensordot(x1, weight, (1, 1)), np.tensordot(x2, weight, (1, 2))]
    if "grad_output" in made:
        found.append(np.tensordot(np.abs(made["grad_output"]), weight, (1, 0)))
    return [float(array.max()) for array in found if array.size]


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_has_every_integer_up_to_its_limit_and_not_the_next(name):
    limit = LIMITS[name]
    assert exact.LIMITS[name] == limit
    up_to = np.arange(min(limit, 2**16) + 1) + max(0, limit - 2**16)
    assert np.array_equal(to_format(up_to, name), up_to)
    if name != "float64":
        assert float(to_format(np.array([limit + 1]), name)[0]) != limit + 1
    assert exact.LIMITS.keys() == FORMATS.keys()


@pytest.mark.parametrize("name", FORMATS)
@given(case=SMALL)
@several
def test_sums_stay_below_the_limit_for_the_largest_numbers(name, case):
    limit = LIMITS[name]
    case = dataclasses.replace(case, **FORMATS[name])
    generator = Largest(case.seed)
    made, other = wide(draw(case, generator)), wide(draw(case, generator))
    assert all(largest < limit for largest in largest_sums(case, made).values())
    assert all(largest < limit for largest in largest_intermediates(case, made))
    added = made | {"input1": made["input1"] + other["input1"]}
    assert all(largest < limit for largest in largest_sums(case, added).values())
    assert all(largest < limit for largest in largest_intermediates(case, added))


@pytest.mark.parametrize(
    ("case", "name"),
    [pytest.param(case, name, id=f"{case.name}-{name}") for case, names in LARGE for name in names],
)
def test_sums_of_large_cases_stay_below_the_limit(name, case):
    limit = LIMITS[name]
    case = dataclasses.replace(case, **FORMATS[name])
    generator = Largest(0)
    made, other = wide(draw(case, generator)), wide(draw(case, generator))
    assert all(largest < limit for largest in largest_sums(case, made).values())
    added = made | {"input1": made["input1"] + other["input1"]}
    assert all(largest < limit for largest in largest_sums(case, added).values())


@pytest.mark.parametrize("name", FORMATS)
@given(
    case=SMALL,
    kind=st.sampled_from(["integers", "other integers", "exchanged input1", "added input1", "permuted rows"]),
)
@several
def test_drawn_inputs_and_their_sums_are_exact_in_the_format(name, case, kind):
    limit = LIMITS[name]
    case = dataclasses.replace(case, **FORMATS[name])
    made = make_inputs(case, 0, kind)
    assert all(np.array_equal(to_format(array, name), array) for array in made.values())
    assert all(largest < limit for largest in largest_sums(case, made).values())


@pytest.mark.parametrize("name", FORMATS)
def test_a_sum_in_any_order_is_exact_with_rounded_partial_sums(name):
    case = Case(6, 40, 30, 3, **FORMATS[name])
    made = make_inputs(case, kind="integers")
    terms = np.einsum("bi,oij,bj->ijbo", made["input1"], made["weight"], made["input2"]).reshape(-1, 6, 3)
    for seed in range(3):
        total = made["bias"] + np.zeros((6, 1), terms.dtype)
        for term in np.random.default_rng(seed).permutation(terms):
            total = to_format(total + term, name)
        assert np.array_equal(total, reference.expected(case, made)["output"].numpy())


def test_every_element_that_differs_is_marked():
    expected = np.arange(12.0).reshape(3, 4)
    assert exact.differences(expected, expected.astype(np.float32)) is None
    actual = expected.copy()
    actual[2, 3] += 1
    assert np.flatnonzero(exact.differences(expected, actual)).tolist() == [11]
    actual[1, 2] = np.nextafter(actual[1, 2], 0)
    actual[2, 0] = np.inf
    assert np.flatnonzero(exact.differences(expected, actual)).tolist() == [6, 8, 11]


def test_nan_differs_from_everything_and_minus_zero_not_from_zero():
    nan, zero = np.array([0.0, np.nan]), np.array([0.0, 0.0])
    assert exact.differences(zero, nan).tolist() == [False, True]
    assert exact.differences(nan, nan).tolist() == [False, True]
    assert exact.differences(nan, zero).tolist() == [False, True]
    assert exact.differences(zero, -zero) is None
    assert exact.differences(zero[:0], zero[:0]) is None

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import to_tf32

from harness.case import MODES, Case
from harness.correctness import exact, reference
from harness.correctness.inputs import make_inputs, round_to

#: What asks for a format, and the largest number up to which it has every integer.
FORMATS = {
    "float64": ({"dtype": "float64"}, 2**24),
    "float32": ({"dtype": "float32"}, 2**24),
    "tf32": ({"precision": "tf32"}, 2**11),
    "float16": ({"dtype": "float16"}, 2**11),
    "bfloat16": ({"dtype": "bfloat16"}, 2**8),
}
SMALL = st.builds(
    Case,
    st.integers(0, 20),
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(0, 20),
    bias=st.booleans(),
    mode=st.sampled_from(MODES),
    seed=st.integers(0, 2**32),
)
#: Sums so long that a format has no room for the largest number in every term; the first five: not even float32.
LARGE = [
    (Case(2, 1200, 1100, 1), ("float64", "float32", "float16")),
    (Case(1, 2200, 2100, 1), ("float64", "float32")),
    (Case(1, 1200, 2, 1100, mode="forward_backward"), ("float32", "bfloat16")),
    (Case(1, 2, 1200, 1100, mode="forward_backward"), ("float32", "bfloat16")),
    (Case(1_100_000, 1, 1, 1, mode="forward_backward"), ("float32",)),
    (Case(3000, 1, 1, 3, mode="forward_backward"), ("tf32", "float16", "bfloat16")),
]
several = settings(max_examples=25, deadline=None)


def to_format(values, name):
    if name == "tf32":
        return to_tf32(values.astype(np.float32))
    return round_to(values.astype(np.float64 if name == "float64" else np.float32), name)


class Largest:
    """Draws the largest numbers that there are, at positions that are drawn as usual."""

    def __init__(self, seed):
        self._generator = np.random.default_rng(seed)

    def integers(self, low, high, shape, dtype):
        return np.full(shape, high - 1, dtype)

    def random(self, shape, dtype):
        return self._generator.random(shape, dtype=dtype)


def draw(case, generator):
    density = exact.plan(case)
    return {name: exact.integers(generator, name, shape, density) for name, shape in case.shapes().items()}


def wide(made):
    return {name: array.astype(np.float64) for name, array in made.items()}


def largest_sums(case, made):
    """The largest S of each result."""
    return {name: float(scale.max()) for name, scale in reference.scales(case, made).items() if scale.numel()}


def largest_intermediates(case, made):
    """The largest sums that a technique may store on its way to a result, every term positive."""
    x1, x2, weight = (np.abs(made[name]) for name in ("input1", "input2", "weight"))
    found = [np.tensordot(x1, weight, (1, 1)), np.tensordot(x2, weight, (1, 2))]
    if "grad_output" in made:
        found.append(np.tensordot(np.abs(made["grad_output"]), weight, (1, 0)))
    return [float(array.max()) for array in found if array.size]


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_has_every_integer_up_to_its_limit_and_not_the_next(name):
    _, limit = FORMATS[name]
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
    asked, limit = FORMATS[name]
    case = dataclasses.replace(case, **asked)
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
    asked, limit = FORMATS[name]
    case = dataclasses.replace(case, **asked)
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
    asked, limit = FORMATS[name]
    case = dataclasses.replace(case, **asked)
    made = make_inputs(case, 0, kind)
    assert all(np.array_equal(to_format(array, name), array) for array in made.values())
    assert all(largest < limit for largest in largest_sums(case, made).values())


@pytest.mark.parametrize("name", FORMATS)
def test_a_sum_in_any_order_is_exact_with_rounded_partial_sums(name):
    asked, _ = FORMATS[name]
    case = Case(6, 40, 30, 3, **asked)
    made = make_inputs(case, kind="integers")
    terms = np.einsum("bi,oij,bj->ijbo", made["input1"], made["weight"], made["input2"]).reshape(-1, 6, 3)
    for seed in range(3):
        total = made["bias"] + np.zeros((6, 1), terms.dtype)
        for term in np.random.default_rng(seed).permutation(terms):
            total = to_format(total + term, name)
        assert np.array_equal(total, reference.expected(case, made)["output"].numpy())


@given(case=SMALL)
@several
def test_float32_and_float64_are_dense_on_usual_sizes(case):
    for dtype in ("float32", "float64"):
        density = exact.plan(dataclasses.replace(case, dtype=dtype))
        assert density.dense
        assert density.in_row == {
            "input1": case.in1_features,
            "input2": case.in2_features,
            "grad_output": case.out_features,
        }
        assert density.in_column >= case.batch


def test_dense_integers_are_minus_two_to_two_equally_often():
    case = Case(50, 60, 50, 40, mode="forward_backward")
    for name, array in draw(case, np.random.default_rng(0)).items():
        values, counts = np.unique(array, return_counts=True)
        assert list(values) == [-2, -1, 0, 1, 2], name
        if array.size > 1000:
            assert counts.min() > 0.8 * array.size / 5, name


@pytest.mark.parametrize("name", ["tf32", "float16", "bfloat16"])
def test_coarse_formats_have_ones_and_weights_up_to_two_if_they_fit(name):
    case = Case(7, 5, 3, 11, mode="forward_backward", **FORMATS[name][0])
    made = draw(case, np.random.default_rng(0))
    for asked in ("input1", "input2", "grad_output"):
        assert set(np.unique(made[asked])) == {-1, 1}, asked
    assert set(np.unique(made["weight"])) == {-2, -1, 0, 1, 2}


@pytest.mark.parametrize("name", ["tf32", "float16", "bfloat16"])
def test_coarse_formats_are_sparse_if_sums_would_not_fit(name):
    case = Case(9, 300, 200, 100, mode="forward_backward", **FORMATS[name][0])
    density = exact.plan(case)
    made = draw(case, np.random.default_rng(0))
    for asked, full in (("input1", 300), ("input2", 200), ("grad_output", 100)):
        in_row = density.in_row[asked]
        assert 1 <= in_row < full
        assert (np.count_nonzero(made[asked], axis=1) == in_row).all()
        assert set(np.unique(made[asked])) == {-1, 0, 1}
        assert len({tuple(np.flatnonzero(row)) for row in made[asked]}) > 1, "rows differ in where their numbers are"
    assert set(np.unique(made["weight"])) == {-2, -1, 0, 1, 2}


@pytest.mark.parametrize("name", ["float32", "float64"])
def test_float32_and_float64_have_ones_and_zeros_if_sums_would_not_fit(name):
    case = Case(2, 2200, 2100, 1, **FORMATS[name][0])
    density = exact.plan(case)
    made = draw(case, np.random.default_rng(0))
    assert not density.dense
    assert density.in_row["input1"] * density.in_row["input2"] <= density.in_column < 2200 * 2100
    assert set(np.unique(made["input1"])) == {-1, 0, 1}
    assert set(np.unique(made["input2"])) == {-1, 1}
    assert (np.count_nonzero(made["input1"], axis=1) == density.in_row["input1"]).all()


#: Sums of over a million terms, of each result that sums over pages or features.
MILLIONS = [
    Case(2, 1024, 1024, 1),
    Case(2, 1200, 1100, 1),
    Case(2, 2, 1200, 1100, mode="forward_backward"),
    Case(2, 1200, 2, 1100, mode="forward_backward"),
]


@pytest.mark.parametrize("name", ["float32", "float64"])
@pytest.mark.parametrize("case", MILLIONS, ids=lambda case: case.name)
def test_float32_and_float64_have_ones_alone_if_two_a_term_fit(case, name):
    case = dataclasses.replace(case, **FORMATS[name][0])
    made = draw(case, np.random.default_rng(0))
    for asked in ("input1", "input2", "grad_output"):
        if asked in made:
            assert set(np.unique(made[asked])) == {-1, 1}, asked
    assert set(np.unique(made["weight"])) == {-2, -1, 0, 1, 2}


@pytest.mark.parametrize(
    ("case", "dense"),
    [
        (Case(2, 1024, 1023, 1), True),
        (Case(2, 1024, 1024, 1), False),
        # Inference has no sums over the pages.
        (Case(2, 2, 1200, 1100), True),
        (Case(2, 1200, 2, 1100), True),
        (Case(2, 2, 1024, 1023, mode="forward_backward"), True),
        (Case(2, 2, 1200, 1100, mode="forward_backward"), False),
        (Case(2, 1200, 2, 1100, mode="forward_backward"), False),
        # A sum over a long batch takes zeros in grad_output alone.
        (Case(1_100_000, 1, 1, 1, mode="forward_backward"), True),
    ],
    ids=lambda value: f"{value.name}-{value.mode}" if isinstance(value, Case) else str(value),
)
def test_numbers_up_to_two_are_drawn_while_eight_a_term_fit(case, dense):
    assert exact.plan(case).dense == dense


@pytest.mark.parametrize("name", FORMATS)
def test_a_column_of_grad_output_fits_into_a_sum_over_the_batch(name):
    case = Case(3000, 2, 3, 2, mode="forward_backward", **FORMATS[name][0])
    density = exact.plan(case)
    filled = np.count_nonzero(draw(case, np.random.default_rng(0))["grad_output"], axis=0)
    assert (filled <= density.in_column).all()
    if name not in ("float32", "float64"):
        assert (filled == density.in_column).all()
        assert density.in_column > exact.LIMITS[name] / 8


@pytest.mark.parametrize("name", FORMATS)
@given(sizes=st.tuples(*[st.integers(1, 3000)] * 3), mode=st.sampled_from(MODES))
@several
def test_no_more_numbers_are_left_out_than_the_format_demands(name, sizes, mode):
    in1, in2, out = sizes
    density = exact.plan(Case(5, in1, in2, out, mode=mode, **FORMATS[name][0]))
    full = {"input1": in1, "input2": in2, "grad_output": out}
    pairs = [("input1", "input2"), ("grad_output", "input1"), ("grad_output", "input2")]
    for left_out in (asked for asked in full if density.in_row[asked] < full[asked]):
        products = [density.in_row[one] * density.in_row[other] for one, other in pairs if left_out in (one, other)]
        # Numbers are halved until they fit.
        assert max(products) > density.in_column / 4, left_out


def test_inference_leaves_room_for_its_own_sum_alone():
    case = Case(5, 8, 7, 1000, dtype="bfloat16")
    assert exact.plan(case).in_row["input1"] == 8
    assert exact.plan(case).in_row["input2"] == 7
    assert exact.plan(case.with_mode("forward_backward")).in_row["grad_output"] < 1000


def test_the_first_difference_is_told_with_how_many_there_are():
    expected = np.arange(12.0).reshape(3, 4)
    assert exact.first_difference(expected, expected.astype(np.float32)) is None
    actual = expected.copy()
    actual[2, 3] += 1
    assert exact.first_difference(expected, actual) == (11, 1)
    actual[1, 2] = np.nextafter(actual[1, 2], 0)
    actual[2, 0] = np.inf
    assert exact.first_difference(expected, actual) == (6, 3)


def test_nan_differs_from_everything_and_minus_zero_not_from_zero():
    nan, zero = np.array([0.0, np.nan]), np.array([0.0, 0.0])
    assert exact.first_difference(zero, nan) == (1, 1)
    assert exact.first_difference(nan, nan) == (1, 1)
    assert exact.first_difference(nan, zero) == (1, 1)
    assert exact.first_difference(zero, -zero) is None
    assert exact.first_difference(zero[:0], zero[:0]) is None

"""The density of exact inputs: zeros are drawn only where the format demands them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from formats import FORMATS
from hypothesis import given
from hypothesis import strategies as st
from integer_draws import SMALL, draw, several

from harness.case import MODES, Case
from harness.correctness import exact


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
    case = Case(7, 5, 3, 11, mode="forward_backward", **FORMATS[name])
    made = draw(case, np.random.default_rng(0))
    for asked in ("input1", "input2", "grad_output"):
        assert set(np.unique(made[asked])) == {-1, 1}, asked
    assert set(np.unique(made["weight"])) == {-2, -1, 0, 1, 2}


@pytest.mark.parametrize("name", ["tf32", "float16", "bfloat16"])
def test_coarse_formats_are_sparse_if_sums_would_not_fit(name):
    case = Case(9, 300, 200, 100, mode="forward_backward", **FORMATS[name])
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
    case = Case(2, 2200, 2100, 1, **FORMATS[name])
    density = exact.plan(case)
    made = draw(case, np.random.default_rng(0))
    assert not density.dense
    assert density.in_row["input1"] * density.in_row["input2"] <= density.in_column < 2200 * 2100
    assert set(np.unique(made["input1"])) == {-1, 0, 1}
    assert set(np.unique(made["input2"])) == {-1, 1}
    assert (np.count_nonzero(made["input1"], axis=1) == density.in_row["input1"]).all()


#: Cases with sums of over a million terms, one for each result that sums over pages or features.
MILLIONS = [
    Case(2, 1024, 1024, 1),
    Case(2, 1200, 1100, 1),
    Case(2, 2, 1200, 1100, mode="forward_backward"),
    Case(2, 1200, 2, 1100, mode="forward_backward"),
]


@pytest.mark.parametrize("name", ["float32", "float64"])
@pytest.mark.parametrize("case", MILLIONS, ids=lambda case: case.name)
def test_float32_and_float64_have_ones_alone_if_two_a_term_fit(case, name):
    case = dataclasses.replace(case, **FORMATS[name])
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
        # Inference has no sum over the pages.
        (Case(2, 2, 1200, 1100), True),
        (Case(2, 1200, 2, 1100), True),
        (Case(2, 2, 1024, 1023, mode="forward_backward"), True),
        (Case(2, 2, 1200, 1100, mode="forward_backward"), False),
        (Case(2, 1200, 2, 1100, mode="forward_backward"), False),
        # For a sum over a long batch only grad_output has zeros.
        (Case(1_100_000, 1, 1, 1, mode="forward_backward"), True),
    ],
    ids=lambda value: f"{value.name}-{value.mode}" if isinstance(value, Case) else str(value),
)
def test_numbers_up_to_two_are_drawn_while_eight_a_term_fit(case, dense):
    assert exact.plan(case).dense == dense


@pytest.mark.parametrize("name", FORMATS)
def test_a_column_of_grad_output_fits_into_a_sum_over_the_batch(name):
    case = Case(3000, 2, 3, 2, mode="forward_backward", **FORMATS[name])
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
    density = exact.plan(Case(5, in1, in2, out, mode=mode, **FORMATS[name]))
    full = {"input1": in1, "input2": in2, "grad_output": out}
    pairs = [("input1", "input2"), ("grad_output", "input1"), ("grad_output", "input2")]
    for left_out in (asked for asked in full if density.in_row[asked] < full[asked]):
        products = [density.in_row[one] * density.in_row[other] for one, other in pairs if left_out in (one, other)]
        # The plan halves the count until the sum fits, so twice the count would not.
        assert max(products) > density.in_column / 4, left_out


def test_inference_leaves_room_for_its_own_sum_alone():
    case = Case(5, 8, 7, 1000, dtype="bfloat16")
    assert exact.plan(case).in_row["input1"] == 8
    assert exact.plan(case).in_row["input2"] == 7
    assert exact.plan(case.with_mode("forward_backward")).in_row["grad_output"] < 1000

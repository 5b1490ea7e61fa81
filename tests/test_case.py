"""Which cases are refused; and that a case's name has all that the command line can state."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.case import DTYPES, Case, CaseError

SIZES = st.integers(1, 10**6)


@given(SIZES, SIZES, SIZES, SIZES, st.sampled_from(sorted(DTYPES)), st.booleans(), st.booleans())
def test_case_is_read_back_from_its_name(batch, in1, in2, out, dtype, bias, tf32):
    precision = "tf32" if tf32 and dtype == "float32" else "ieee"
    case = Case(batch, in1, in2, out, dtype, precision, bias)
    assert Case.parse(case.name) == case


@given(st.text(max_size=30))
def test_text_that_names_no_case_raises_only_a_case_error(text):
    try:
        Case.parse(text)
    except CaseError:
        return
    # Texts that are other spellings of a name.
    assert Case.parse(Case.parse(text).name) == Case.parse(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3x4", "does not read as BATCHxIN1xIN2xOUT"),
        ("0x3x4x5", "a size below 1"),
        ("3x4x-5x6", "a size below 1"),
        ("3x4x5x6:float8", "unknown option 'float8'"),
        ("3x4x5x6:nobias:nobias", "gives its bias twice"),
        ("3x4x5x6:float64:float16", "gives its dtype twice"),
        ("3x4x5x6:float64:tf32", "tf32 is a way to multiply float32 numbers"),
    ],
)
def test_message_states_what_is_wrong(text, expected):
    with pytest.raises(CaseError, match=expected.replace("(", r"\(")):
        Case.parse(text)


@pytest.mark.parametrize(
    ("field", "value"),
    [("batch", -1), ("in1_features", 0), ("in2_features", 0), ("out_features", -1), ("mode", "backward")],
)
def test_case_that_nn_bilinear_refuses_cannot_be_built(field, value):
    with pytest.raises(CaseError, match=f"{field} is {value!r}"):
        dataclasses.replace(Case(1, 1, 1, 1), **{field: value})


def test_shapes_are_those_of_nn_bilinear():
    case = Case(7, 5, 3, 11)
    assert case.shapes() == {"input1": (7, 5), "input2": (7, 3), "weight": (11, 5, 3), "bias": (11,)}
    assert case.result_shapes() == {"output": (7, 11)}


def test_step_takes_grad_output_and_returns_a_gradient_of_each_input():
    case = Case(7, 5, 3, 11, bias=False, mode="forward_backward")
    assert case.shapes()["grad_output"] == (7, 11)
    assert list(case.result_shapes()) == ["output", "grad_input1", "grad_input2", "grad_weight"]
    assert case.result_shapes()["grad_weight"] == (11, 5, 3)


def test_case_without_rows_or_outputs_is_empty():
    assert Case(0, 1, 1, 1).empty
    assert Case(1, 1, 1, 0).empty
    assert not Case(1, 1, 1, 1).empty

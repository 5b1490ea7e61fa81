"""The gate's judgement of precision: the class of all results, and the reason of a refusal."""

from __future__ import annotations

import dataclasses

import pytest

from harness.case import Case
from harness.correctness import precision
from harness.correctness.gate import judge_precision
from harness.correctness.verdict import Verdict, passed

STEP = Case(6, 32, 24, 5, mode="forward_backward")
TF32 = dataclasses.replace(STEP, precision="tf32")


def verdict_with(case, **typical):
    """Return a yes whose typical errors are given in units of what the class of the case allows."""
    errors = {}
    for name in case.result_shapes():
        allowed = precision.limits(case, name, precision.asked_class(case))
        errors[name] = precision.Errors(0.5 * allowed.peak, typical.get(name, 0.5) * allowed.typical)
    return Verdict(ok=True, reason="", probe="bound", errors=errors)


def test_one_bad_answer_among_good_ones_places_them_all():
    good, bad = verdict_with(STEP), verdict_with(STEP, grad_input2=1.1)
    assert judge_precision(STEP, [good, good]) == ("float32", passed("precision"))
    for order in ([good, bad], [bad, good], [good, bad, good]):
        found, verdict = judge_precision(STEP, order)
        assert (found, verdict.ok) == ("tf32", False)
        assert verdict.reason.startswith("grad_input2 was computed in tf32, expected float32: typical error 25.9 u")


def test_the_result_that_is_farthest_off_is_named():
    _, verdict = judge_precision(STEP, [verdict_with(STEP, output=1.1, grad_bias=1.3, grad_weight=1.2)])
    assert verdict.reason.startswith("grad_bias ")


def test_results_in_no_class_are_said_to_be_in_less_than_bfloat16():
    found, verdict = judge_precision(STEP, [verdict_with(STEP, output=1e6)])
    assert found is None
    assert verdict.reason.startswith("output was computed in less than bfloat16, expected float32")


def test_one_wrong_element_of_an_exact_result_is_rejected():
    few = {**verdict_with(STEP).errors, "output": precision.Errors(20 * 2.0**-24, 10 * 2.0**-24)}
    _, verdict = judge_precision(STEP, [Verdict(ok=True, reason="", errors=few)])
    assert not verdict.ok
    assert verdict.reason.startswith("output is as exact as float32 as a whole, but not in some element: typical ")
    assert "largest 20 u of S, allowed 16 u" in verdict.reason


def test_the_range_of_float16_is_too_small_for_tf32_and_named_as_reason():
    narrower = verdict_with(TF32)
    assert judge_precision(TF32, [narrower]) == ("tf32", passed("precision"))
    placed, verdict = judge_precision(TF32, [narrower], wide_range=False)
    assert placed == "float16"
    assert verdict.reason == "was computed in float16: numbers beyond float16's range came out wrong"


@pytest.mark.parametrize("wide_range", [True, False])
@pytest.mark.parametrize(("typical", "found"), [(1.1, "bfloat16"), (1e6, "less than bfloat16")])
def test_errors_that_are_too_large_are_the_reason_in_any_range(typical, found, wide_range):
    _, verdict = judge_precision(TF32, [verdict_with(TF32, grad_weight=typical)], wide_range)
    assert verdict.reason.startswith(f"grad_weight was computed in {found}, expected tf32: typical error ")
    assert verdict.reason.endswith("(u = 0.00049; seed 0)")


def test_float32_passes_for_tf32_with_the_range_of_float32():
    errors = {name: precision.limits(TF32, name, "float32") for name in TF32.result_shapes()}
    exact_enough = Verdict(ok=True, reason="", errors=errors)
    assert judge_precision(TF32, [exact_enough], wide_range=False) == ("float32", passed("precision"))


def test_where_nothing_was_rounded_nothing_is_wrong_with_the_precision():
    assert judge_precision(STEP, []) == ("float32", passed("precision"))

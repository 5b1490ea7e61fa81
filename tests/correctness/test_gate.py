"""The gate's judgements of values: each element by the bound, integers exactly, and all by their precision."""

from __future__ import annotations

import dataclasses

import numpy as np
import oracle
import pytest
from reference_results import expect

from harness.case import DTYPES, Case
from harness.correctness import bound, precision
from harness.correctness.gate import judge, judge_exactly, judge_precision, mean_absolute_difference
from harness.correctness.inputs import make_inputs, round_to
from harness.correctness.verdict import Verdict, passed, refused

STEP = Case(6, 32, 24, 5, mode="forward_backward")
FORWARD = STEP.with_mode("forward")
TF32 = dataclasses.replace(STEP, precision="tf32")
ASKED = [*(dataclasses.replace(STEP, dtype=dtype) for dtype in DTYPES), TF32]


def question(case, kind="normal"):
    """Return what the reference computes, and the results of an honest backend."""
    inputs = make_inputs(case, kind=kind)
    return expect(case, inputs), {
        name: round_to(value, case.dtype) for name, value in oracle.results(case, inputs).items()
    }


def last_index(name):
    return ", ".join(str(size - 1) for size in STEP.result_shapes()[name])


@pytest.mark.parametrize("case", ASKED, ids=lambda case: case.name)
@pytest.mark.parametrize("bias", [True, False])
def test_an_honest_computation_passes_and_says_how_near_the_bound_it_was(case, bias):
    case = dataclasses.replace(case, bias=bias)
    verdict = judge(case, *question(case))
    assert verdict.ok, verdict.reason
    assert (verdict.reason, verdict.probe) == ("", "bound")
    assert 0 < verdict.error_over_bound < 1
    assert verdict.absolute_error > 0
    assert set(verdict.errors) == set(case.result_shapes())
    found, placed = judge_precision(case, [verdict])
    assert placed == passed("precision")
    assert found == case.dtype


@pytest.mark.parametrize("name", STEP.result_shapes())
def test_one_wrong_element_in_the_last_place_is_rejected_by_name_and_index(name):
    expected, actual = question(STEP)
    wide = actual[name].astype(np.float64)
    wide.flat[-1] += 3 * bound.tolerance(STEP, name, expected.values[name], expected.scales[name]).flat[-1]
    actual[name] = wide.astype(np.float32)
    verdict = judge(STEP, expected, actual, "conduct")
    assert not verdict.ok
    assert verdict.probe == "conduct"
    assert verdict.reason.startswith(f"{name}[{last_index(name)}] is {actual[name].flat[-1]:.9g}, expected ")
    assert f"times the bound; 1 of {wide.size} elements is wrong, the last one (seed 0)" in verdict.reason
    assert verdict.error_over_bound > 2
    assert verdict.absolute_error == max(np.abs(actual[one] - value).max() for one, value in expected.values.items())


@pytest.mark.parametrize("name", [name for name in STEP.result_shapes() if name != "output"])
def test_a_gradient_with_the_wrong_sign_is_rejected_and_no_other_is_blamed(name):
    expected, actual = question(STEP)
    actual[name] = -actual[name]
    verdict = judge(STEP, expected, actual)
    assert not verdict.ok
    assert verdict.reason.startswith(f"{name}[")
    assert verdict.reason.partition("elements are wrong")[2] == " (seed 0)"


def test_every_wrong_result_is_named():
    expected, actual = question(STEP)
    verdict = judge(STEP, expected, {name: -result for name, result in actual.items()})
    assert all(f"{name}[" in verdict.reason for name in STEP.result_shapes())


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_result_that_is_not_finite_is_rejected_where_it_is(value):
    for kind, asked in (("normal", judge), ("integers", judge_exactly)):
        expected, actual = question(STEP, kind)
        actual["grad_weight"][2, 3, 4] = value
        verdict = asked(STEP, expected, actual)
        assert not verdict.ok
        assert verdict.reason.startswith(f"grad_weight[2, 3, 4] is {value}, expected a finite number; 1 of ")


def narrow(case, rounding):
    return oracle.results(case, {name: rounding(array) for name, array in make_inputs(case).items()})


def wrong_outputs():
    inputs = make_inputs(FORWARD)
    right = oracle.results(FORWARD, inputs)["output"]
    return {
        "bias dropped": right - inputs["bias"],
        "zeros": np.zeros_like(right),
        "rows reversed": np.ascontiguousarray(right[::-1]),
        "operands rounded to bfloat16": narrow(FORWARD, lambda array: round_to(array, "bfloat16"))["output"],
        "result rounded to bfloat16": round_to(right, "bfloat16"),
        "huge": np.full_like(right, 3e38),
    }


@pytest.mark.parametrize("fault", wrong_outputs())
def test_a_wrong_float32_output_is_rejected_at_its_first_wrong_index(fault):
    expected, _ = question(FORWARD)
    wrong = wrong_outputs()[fault]
    verdict = judge(FORWARD, expected, {"output": wrong})
    allowed = bound.tolerance(FORWARD, "output", expected.values["output"], expected.scales["output"])
    beyond = np.abs(wrong - expected.values["output"]) > allowed
    row, column = np.argwhere(beyond)[0]
    assert not verdict.ok
    assert verdict.reason.startswith(f"output[{row}, {column}] is {wrong[row, column]:.9g}, expected ")
    assert f"{beyond.sum()} of 30 elements are wrong" in verdict.reason
    assert verdict.error_over_bound > 1


@pytest.mark.parametrize(("factor", "few"), [(2, False), (100, True)])
def test_one_element_far_beyond_its_bound_is_a_fault_of_few_elements(factor, few):
    expected, actual = question(FORWARD)
    output = actual["output"].astype(np.float64)
    output[1, 2] += factor * bound.tolerance(FORWARD, "output", output, expected.scales["output"])[1, 2]
    verdict = judge(FORWARD, expected, {"output": output.astype(np.float32)})
    assert (verdict.ok, verdict.few_are_wrong) == (False, few)


def test_a_coarse_arithmetic_is_no_fault_of_few_elements():
    expected, _ = question(FORWARD)
    for fault in ("operands rounded to bfloat16", "result rounded to bfloat16", "zeros"):
        verdict = judge(FORWARD, expected, {"output": wrong_outputs()[fault]})
        assert (verdict.ok, verdict.few_are_wrong) == (False, False)


def test_tf32_operands_pass_the_bound_of_float32_and_fail_its_class():
    case = Case(6, 64, 64, 3)
    expected, _ = question(case)
    verdict = judge(case, expected, narrow(case, oracle.to_tf32))
    assert verdict.ok
    assert verdict.error_over_bound > 1, "the larger of bound and precision counts"
    found, placed = judge_precision(case, [verdict])
    assert (found, placed.ok, placed.probe) == ("tf32", False, "precision")
    assert placed.reason.startswith("output was computed in tf32, expected float32: typical error ")
    assert "allowed 54.4 u; largest " in placed.reason
    assert "allowed 16 u (u = 6e-08; seed 0)" in placed.reason


def test_tf32_operands_pass_where_the_case_asks_for_tf32():
    expected, _ = question(TF32)
    verdict = judge(TF32, expected, narrow(TF32, oracle.to_tf32))
    assert verdict.ok
    assert verdict.error_over_bound < 1
    assert judge_precision(TF32, [verdict]) == ("tf32", passed("precision"))
    zeros = {name: np.zeros(shape, np.float32) for name, shape in TF32.result_shapes().items()}
    assert not judge(TF32, expected, zeros).ok


def test_float32_arithmetic_in_a_float64_case_is_rejected():
    case = dataclasses.replace(STEP, dtype="float64")
    expected, _ = question(case)
    coarse = narrow(case, lambda array: array.astype(np.float32))
    verdict = judge(case, expected, {name: result.astype(np.float64) for name, result in coarse.items()})
    assert not verdict.ok
    assert judge_precision(case, [verdict])[0] == "float32"


def test_an_absurdly_large_float64_result_is_rejected_without_overflow():
    case = dataclasses.replace(FORWARD, dtype="float64")
    expected, actual = question(case)
    actual["output"][0, 0] = 1e300
    verdict = judge(case, expected, actual)
    assert not verdict.ok
    assert verdict.reason.startswith("output[0, 0] is 1e+300")


@pytest.mark.parametrize("which", ["values", "scales"])
def test_a_reference_that_is_not_finite_raises_and_judges_nothing(which):
    expected, actual = question(FORWARD)
    getattr(expected, which)["output"][0, 0] = np.nan
    with pytest.raises(ValueError, match="the reference for output is not finite"):
        judge(FORWARD, expected, actual)


def test_exact_answers_pass_bit_for_bit_and_no_rounding_is_reported():
    verdict = judge_exactly(STEP, *question(STEP, "integers"))
    assert verdict == passed("exact")
    assert verdict.error_over_bound is None


@pytest.mark.parametrize("name", STEP.result_shapes())
def test_one_integer_off_by_the_least_that_float32_can_be_off_is_rejected(name):
    expected, actual = question(STEP, "integers")
    actual[name].flat[-1] = np.nextafter(actual[name].flat[-1], np.float32(np.inf))
    verdict = judge_exactly(STEP, expected, actual, "edge_cases")
    assert not verdict.ok
    assert verdict.probe == "edge_cases"
    assert verdict.reason.startswith(f"{name}[{last_index(name)}] is {actual[name].flat[-1]:.9g}, expected ")
    assert f"; 1 of {actual[name].size} elements is wrong, the last one (seed 0)" in verdict.reason


def test_every_result_that_is_not_exact_is_named_and_counted():
    expected, actual = question(STEP, "integers")
    actual["grad_input2"] += 1
    actual["grad_bias"][1:3] -= 1
    verdict = judge_exactly(STEP, expected, actual)
    assert "grad_input2[0, 0] is " in verdict.reason
    assert "; 144 of 144 elements are wrong (seed 0); grad_bias[1] is " in verdict.reason
    assert verdict.reason.endswith("; 2 of 5 elements are wrong, all of outputs 1 and 2 (seed 0)")


def test_an_empty_batch_passes_with_its_gradients_all_zero_and_only_so():
    case = Case(0, 4, 3, 2, mode="forward_backward")
    for kind, asked in (("normal", judge), ("integers", judge_exactly)):
        expected, actual = question(case, kind)
        assert asked(case, expected, actual).ok
        actual["grad_weight"][1, 3, 2] = 1e-3
        assert asked(case, expected, actual).reason.startswith("grad_weight[1, 3, 2] is ")


def test_float64_results_are_judged_by_elements_of_the_wider_reference():
    case = dataclasses.replace(FORWARD, dtype="float64")
    expected, actual = question(case)
    positions = np.array([2, 29])
    wide = actual["output"].reshape(-1)[positions].astype(np.longdouble)
    asked = dataclasses.replace(expected, samples={"output": (positions, wide)})
    verdict = judge(case, asked, actual)
    assert verdict.errors["output"] == precision.Errors(0, 0)
    assert verdict.absolute_error > 0, "the bound is on every element, against the reference in float64"
    # The last rounding is no error; what exceeds it is one, even below the resolution of float64.
    unit = np.longdouble(2.0**-53)
    wide += np.sign(wide) * unit * np.abs(wide) / (1 - unit)
    assert judge(case, asked, actual).errors["output"].typical < 2.0**-60
    wide += np.sign(wide) * np.ldexp(np.longdouble(expected.quadratics["output"]), -55)
    found = judge(case, asked, actual).errors["output"].typical
    assert found == pytest.approx(2.0**-55, rel=1e-2, abs=0)


def test_a_verdict_is_no_until_it_is_earned():
    assert not Verdict().ok
    assert Verdict().reason, "a no without a reason cannot become a row"


def test_a_yes_has_no_reason_and_a_no_has_no_remark():
    assert passed("exact", "odd") == Verdict(ok=True, reason="", probe="exact", remark="odd")
    assert refused("exact", "why") == Verdict(ok=False, reason="why", probe="exact", remark="")


def test_the_mean_absolute_difference_never_broadcasts():
    one = np.array([[1.0, 2.0]], np.float32)
    assert mean_absolute_difference(one, one + np.float32(0.5)) == 0.5
    assert mean_absolute_difference(one, one[:, :1]) is None
    assert mean_absolute_difference(one[:0], one[:0]) is None
    assert mean_absolute_difference(one, one * np.float32(np.nan)) is None

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from harness.case import DTYPES, Case
from harness.correctness.gate import Facts, Verdict, combine, judge, judge_facts, mean_absolute_difference
from harness.correctness.inputs import make_inputs, round_to

STEP = Case(6, 32, 24, 5, mode="forward_backward")
FORWARD = STEP.with_mode("forward")


def compute(case, inputs):
    """All results by einsum, in the dtype of the inputs."""
    x1, x2, weight = inputs["input1"], inputs["input2"], inputs["weight"]
    results = {"output": np.einsum("bi,oij,bj->bo", x1, weight, x2)}
    if case.bias:
        results["output"] = results["output"] + inputs["bias"]
    if case.mode == "forward_backward":
        gradient = inputs["grad_output"]
        results["grad_input1"] = np.einsum("bo,oij,bj->bi", gradient, weight, x2)
        results["grad_input2"] = np.einsum("bo,oij,bi->bj", gradient, weight, x1)
        results["grad_weight"] = np.einsum("bo,bi,bj->oij", gradient, x1, x2)
        if case.bias:
            results["grad_bias"] = gradient.sum(0)
    return results


def question(case):
    """Expected values, their scales, and what an honest contestant brings back."""
    inputs = make_inputs(case)
    wide = {name: array.astype(np.longdouble) for name, array in inputs.items()}
    expected, scales = (
        {name: value.astype(np.float64) for name, value in compute(case, given).items()}
        for given in (wide, {name: abs(array) for name, array in wide.items()})
    )
    honest = {name: round_to(value, case.dtype) for name, value in compute(case, inputs).items()}
    return expected, scales, honest


def facts(case, **changes):
    """What an honest contestant's results say; `changes` replace attributes of ``output``."""
    made = {name: Facts("ndarray", case.dtype, shape, "cpu") for name, shape in case.result_shapes().items()}
    made["output"] = dataclasses.replace(made["output"], **changes)
    return made


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bias", [True, False])
def test_an_honest_computation_passes_and_says_how_near_the_bound_it_was(dtype, bias):
    case = dataclasses.replace(STEP, dtype=dtype, bias=bias)
    verdict = judge(case, *question(case))
    assert verdict.ok, verdict.reason
    assert verdict.reason == ""
    assert 0 < verdict.error_over_bound < 1
    assert verdict.absolute_error > 0
    assert judge_facts(case, "cpu", facts(case)) == Verdict(ok=True, reason="")


@pytest.mark.parametrize("name", STEP.result_shapes())
def test_one_wrong_element_in_the_last_place_is_rejected_by_name_and_index(name):
    expected, scales, actual = question(STEP)
    # The tolerance is 16 to 17 unit roundoffs of the scale.
    actual[name].flat[-1] += 24 * 2.0**-24 * scales[name].flat[-1]
    verdict = judge(STEP, expected, scales, actual)
    last = ", ".join(str(size - 1) for size in STEP.result_shapes()[name])
    assert not verdict.ok
    assert verdict.reason.startswith(f"{name}[{last}] is ")
    assert f"1 of {actual[name].size} elements are wrong" in verdict.reason
    assert verdict.error_over_bound > 1


@pytest.mark.parametrize("name", [name for name in STEP.result_shapes() if name != "output"])
def test_a_gradient_with_the_wrong_sign_is_rejected_and_no_other_is_blamed(name):
    expected, scales, actual = question(STEP)
    actual[name] = -actual[name]
    verdict = judge(STEP, expected, scales, actual)
    first = ", ".join("0" for _ in STEP.result_shapes()[name])
    assert not verdict.ok
    assert verdict.reason.startswith(f"{name}[{first}] is ")
    assert ";" not in verdict.reason.partition("elements are wrong")[2]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_result_that_is_not_finite_is_rejected_where_it_is(value):
    expected, scales, actual = question(STEP)
    actual["grad_weight"][2, 3, 4] = value
    verdict = judge(STEP, expected, scales, actual)
    assert (verdict.ok, verdict.reason) == (False, f"grad_weight[2, 3, 4] is {value}, expected a finite number")


def tf32(array):
    """Round to TF32's 10 stored mantissa bits, ties away."""
    return ((array.view(np.uint32) + np.uint32(0x1000)) & np.uint32(0xFFFFE000)).view(np.float32)


def wrong_outputs():
    inputs = make_inputs(FORWARD)
    right = compute(FORWARD, inputs)["output"]
    narrow = {name: tf32(array) for name, array in inputs.items()}
    return {
        "bias dropped": right - inputs["bias"],
        "zeros": np.zeros_like(right),
        "rows reversed": np.ascontiguousarray(right[::-1]),
        "operands rounded to tf32": compute(FORWARD, narrow)["output"],
        "operands rounded to bfloat16": compute(
            FORWARD, {name: round_to(array, "bfloat16") for name, array in inputs.items()}
        )["output"],
        "result rounded to float16": round_to(right, "float16"),
        "huge": np.full_like(right, 3e38),
    }


@pytest.mark.parametrize("fault", wrong_outputs())
def test_a_wrong_float32_output_is_rejected_at_its_first_wrong_index(fault):
    expected, scales, _ = question(FORWARD)
    wrong = wrong_outputs()[fault]
    verdict = judge(FORWARD, expected, scales, {"output": wrong})
    far = np.abs(wrong - expected["output"]) > 1e-4 * scales["output"]
    assert not verdict.ok
    assert verdict.reason.startswith("output[")
    if far.all():
        assert verdict.reason.startswith("output[0, 0] is ")
    assert verdict.error_over_bound > 1
    assert "(seed 0)" in verdict.reason


def test_tf32_operands_pass_where_the_case_asks_for_tf32():
    case = dataclasses.replace(FORWARD, precision="tf32")
    expected, scales, _ = question(case)
    assert judge(case, expected, scales, {"output": wrong_outputs()["operands rounded to tf32"]}).ok
    assert not judge(case, expected, scales, {"output": wrong_outputs()["zeros"]}).ok


def test_float32_arithmetic_in_a_float64_case_is_rejected():
    case = dataclasses.replace(FORWARD, dtype="float64")
    expected, scales, _ = question(case)
    inputs = {name: array.astype(np.float32) for name, array in make_inputs(case).items()}
    verdict = judge(case, expected, scales, {"output": compute(case, inputs)["output"].astype(np.float64)})
    assert not verdict.ok


def test_an_absurdly_large_float64_result_is_rejected_without_overflow():
    case = dataclasses.replace(FORWARD, dtype="float64")
    expected, scales, actual = question(case)
    actual["output"][0, 0] = 1e300
    verdict = judge(case, expected, scales, actual)
    assert not verdict.ok
    assert verdict.reason.startswith("output[0, 0] is 1e+300")


@pytest.mark.parametrize("shape", [(5, 6), (1, 5), (6, 1), (1, 1), (), (30,), (6, 5, 1), (1, 6, 5)])
def test_a_transposed_flattened_or_broadcastable_shape_is_rejected(shape):
    verdict = judge_facts(FORWARD, "cpu", facts(FORWARD, shape=shape))
    said = "x".join(map(str, shape)) or "()"
    assert (verdict.ok, verdict.reason) == (False, f"output has shape {said}, expected 6x5")
    expected, scales, _ = question(FORWARD)
    verdict = judge(FORWARD, expected, scales, {"output": np.zeros(shape, np.float32)})
    assert (verdict.ok, verdict.reason) == (False, f"output came back with shape {said}, expected 6x5")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"dtype": "float16"}, "output has dtype float16, expected float32"),
        ({"dtype": "float64"}, "output has dtype float64, expected float32"),
        ({"device": "cuda"}, "output is on cuda, expected cpu"),
        ({"device": None}, "output is on None, expected cpu"),
        ({"type": "list", "dtype": None, "shape": None}, "output is a list, expected an array"),
    ],
)
def test_facts_that_differ_are_rejected_by_name(changes, reason):
    assert judge_facts(STEP, "cpu", facts(STEP, **changes)) == Verdict(ok=False, reason=reason)


def test_no_facts_a_missing_gradient_and_one_too_many_are_rejected():
    assert judge_facts(FORWARD, "cpu", {}) == Verdict(reason="returned nothing, expected output")
    missing = facts(STEP)
    del missing["grad_bias"]
    assert not judge_facts(STEP, "cpu", missing).ok
    without = dataclasses.replace(STEP, bias=False)
    assert not judge_facts(without, "cpu", facts(STEP)).ok


@pytest.mark.parametrize("which", [0, 1])
def test_a_reference_that_is_not_finite_raises_and_judges_nobody(which):
    asked = question(FORWARD)
    asked[which]["output"][0, 0] = np.nan
    with pytest.raises(ValueError, match="the reference for output is not finite"):
        judge(FORWARD, *asked)


def test_an_empty_batch_passes_with_its_gradients_all_zero_and_only_so():
    case = Case(0, 4, 3, 2, mode="forward_backward")
    expected, scales, actual = question(case)
    assert judge(case, expected, scales, actual).ok
    actual["grad_weight"][1, 3, 2] = 1e-3
    assert judge(case, expected, scales, actual).reason.startswith("grad_weight[1, 3, 2] is ")


def test_a_verdict_is_no_until_it_is_earned():
    assert not Verdict().ok
    assert Verdict().reason
    assert not combine().ok
    assert combine().reason, "a no without a reason cannot become a row"


def test_one_no_among_verdicts_is_the_answer_with_the_largest_errors_of_all():
    yes, no, later = Verdict(True, "", 0.5, 2.0), Verdict(False, "first", 3.0, 1.0), Verdict(False, "second")
    assert combine(yes, no, later) == Verdict(False, "first", 3.0, 2.0)
    assert combine(yes, Verdict(True, "", 0.1, 4.0)) == Verdict(True, "", 0.5, 4.0)


def test_the_mean_absolute_difference_never_broadcasts():
    one = np.array([[1.0, 2.0]], np.float32)
    assert mean_absolute_difference(one, one + np.float32(0.5)) == 0.5
    assert mean_absolute_difference(one, one[:, :1]) is None
    assert mean_absolute_difference(one[:0], one[:0]) is None
    assert mean_absolute_difference(one, one * np.float32(np.nan)) is None

from __future__ import annotations

import dataclasses

import numpy as np
import oracle
import pytest

from harness.case import DTYPES, Case
from harness.correctness import bound, precision, reference
from harness.correctness.gate import (
    judge,
    judge_exactly,
    judge_facts,
    judge_given,
    judge_precision,
    mean_absolute_difference,
)
from harness.correctness.inputs import make_inputs, round_to
from harness.correctness.verdict import Expected, Facts, Verdict, passed, refused

STEP = Case(6, 32, 24, 5, mode="forward_backward")
FORWARD = STEP.with_mode("forward")
TF32 = dataclasses.replace(STEP, precision="tf32")
ASKED = [*(dataclasses.replace(STEP, dtype=dtype) for dtype in DTYPES), TF32]


def arrays(tensors):
    return {name: tensor.numpy() for name, tensor in tensors.items()}


def question(case, kind="normal"):
    """What is expected, and what an honest backend brings back."""
    inputs = make_inputs(case, kind=kind)
    expected = Expected(
        arrays(reference.expected(case, inputs)),
        arrays(reference.scales(case, inputs)),
        reference.quadratics(case, inputs),
        reference.wide_samples(case, inputs) if case.dtype == "float64" else {},
    )
    return expected, {name: round_to(value, case.dtype) for name, value in oracle.results(case, inputs).items()}


def facts(case, **changes):
    """What an honest backend's results say; `changes` replace attributes of ``output``."""
    made = {name: Facts("numpy.ndarray", case.dtype, shape, "cpu") for name, shape in case.result_shapes().items()}
    made["output"] = dataclasses.replace(made["output"], **changes)
    return made


def judged_facts(case, found):
    return judge_facts(case, "cpu", "numpy.ndarray", found, "bound")


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
    assert judged_facts(case, facts(case)) == passed("bound")
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
    assert f"times the bound; 1 of {wide.size} elements are wrong (seed 0)" in verdict.reason
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
        assert (verdict.ok, verdict.reason) == (False, f"grad_weight[2, 3, 4] is {value}, expected a finite number")


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
    assert f"{beyond.sum()} of 30 elements are wrong (seed 0)" in verdict.reason
    assert verdict.error_over_bound > 1


def test_tf32_operands_pass_the_bound_of_float32_and_fail_its_class():
    case = Case(6, 64, 64, 3)
    expected, _ = question(case)
    verdict = judge(case, expected, narrow(case, oracle.to_tf32))
    assert verdict.ok
    assert verdict.error_over_bound > 1, "the larger of bound and precision counts"
    found, placed = judge_precision(case, [verdict])
    assert (found, placed.ok, placed.probe) == ("tf32", False, "precision")
    assert placed.reason.startswith("output was computed in tf32, expected float32: typical error ")
    assert "allowed 600 u; largest " in placed.reason
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


@pytest.mark.parametrize("shape", [(5, 6), (1, 5), (6, 1), (1, 1), (), (30,), (6, 5, 1), (1, 6, 5)])
def test_a_transposed_flattened_or_broadcastable_shape_is_rejected(shape):
    verdict = judged_facts(FORWARD, facts(FORWARD, shape=shape))
    said = "x".join(map(str, shape)) or "()"
    assert verdict == refused("bound", f"output has shape {said}, expected 6x5")
    zeros = {"output": np.zeros((6, 5))}
    for asked in (judge, judge_exactly):
        verdict = asked(FORWARD, Expected(zeros, zeros), {"output": np.zeros(shape, np.float32)})
        assert (verdict.ok, verdict.reason) == (False, f"output came back with shape {said}, expected 6x5")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"dtype": "float16"}, "output has dtype float16, expected float32"),
        ({"dtype": "float64"}, "output has dtype float64, expected float32"),
        ({"device": "cuda"}, "output is on cuda, expected cpu"),
        ({"device": None}, "output is on None, expected cpu"),
        ({"type": "builtins.list", "dtype": None, "shape": None}, "output is a builtins.list, expected an array"),
        ({"shape": None}, "output is a numpy.ndarray, expected an array"),
        ({"type": "late.Array"}, "output is a late.Array, expected a numpy.ndarray, as the inputs are"),
    ],
)
def test_facts_that_differ_are_rejected_by_name(changes, reason):
    assert judged_facts(STEP, facts(STEP, **changes)) == refused("bound", reason)


def test_no_facts_a_missing_gradient_and_one_too_many_are_rejected():
    assert judged_facts(FORWARD, {}) == refused("bound", "returned nothing, expected output")
    missing = facts(STEP)
    del missing["grad_bias"]
    verdict = judged_facts(STEP, missing)
    assert not verdict.ok
    assert verdict.reason.startswith("returned grad_input1, grad_input2, grad_weight, output, expected grad_bias, ")
    assert not judged_facts(dataclasses.replace(STEP, bias=False), facts(STEP)).ok


def given(case, **changes):
    """What the arrays that a backend was given say; `changes` replace attributes of the array of that name."""
    made = {name: Facts("torch.Tensor", case.dtype, shape, "cuda") for name, shape in case.shapes().items()}
    return made | {name: dataclasses.replace(made[name], **changed) for name, changed in changes.items()}


@pytest.mark.parametrize("case", ASKED, ids=lambda case: case.name)
def test_inputs_of_the_cases_dtype_shapes_and_device_are_accepted(case):
    for asked in (case, case.with_mode("forward"), dataclasses.replace(case, bias=False)):
        assert judge_given(asked, "cuda", given(asked)) == passed("conduct")


@pytest.mark.parametrize("name", STEP.shapes())
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"dtype": "bfloat16"}, "bfloat16, {shape}, on cuda"),
        ({"dtype": "float64"}, "float64, {shape}, on cuda"),
        ({"dtype": None}, "None, {shape}, on cuda"),
        ({"device": "cpu"}, "float32, {shape}, on cpu"),
        ({"device": None}, "float32, {shape}, on None"),
        ({"shape": (1,)}, "float32, 1, on cuda"),
        ({"shape": ()}, "float32, (), on cuda"),
        ({"shape": None}, "float32, (), on cuda"),
    ],
)
def test_an_input_of_another_dtype_shape_or_device_is_refused_by_name(name, changes, said):
    shape = "x".join(map(str, STEP.shapes()[name]))
    assert judge_given(STEP, "cuda", given(STEP, **{name: changes})) == refused(
        "conduct",
        f"to_device made {name} a torch.Tensor of {said.format(shape=shape)}; expected float32, {shape}, on cuda",
    )


def test_a_transposed_weight_is_not_what_was_to_be_made():
    verdict = judge_given(STEP, "cuda", given(STEP, weight={"shape": (5, 24, 32)}))
    assert verdict.reason.endswith("a torch.Tensor of float32, 5x24x32, on cuda; expected float32, 5x32x24, on cuda")


@pytest.mark.parametrize("which", ["values", "scales"])
def test_a_reference_that_is_not_finite_raises_and_judges_nobody(which):
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
    assert verdict.reason.startswith(f"{name}[{last_index(name)}] is {actual[name].flat[-1]:.9g}, expected exactly ")
    assert verdict.reason.endswith(f"; 1 of {actual[name].size} elements are wrong (seed 0)")


def test_every_result_that_is_not_exact_is_named_and_counted():
    expected, actual = question(STEP, "integers")
    actual["grad_input2"] += 1
    actual["grad_bias"][1:3] -= 1
    verdict = judge_exactly(STEP, expected, actual)
    assert "grad_input2[0, 0] is " in verdict.reason
    assert "; 144 of 144 elements are wrong (seed 0); grad_bias[1] is " in verdict.reason
    assert verdict.reason.endswith("; 2 of 5 elements are wrong (seed 0)")


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
    # Their last rounding is no error; what is beyond it is one, though no float64 could tell it apart.
    unit = np.longdouble(2.0**-53)
    wide += np.sign(wide) * unit * np.abs(wide) / (1 - unit)
    assert judge(case, asked, actual).errors["output"].typical < 2.0**-60
    wide += np.sign(wide) * np.ldexp(np.longdouble(expected.quadratics["output"]), -55)
    found = judge(case, asked, actual).errors["output"].typical
    assert found == pytest.approx(2.0**-55, rel=1e-2, abs=0)


def verdict_with(case, **typical):
    """A yes with figures in units of what the class asked for allows."""
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
        assert verdict.reason.startswith("grad_input2 was computed in tf32, expected float32: typical error 660 u")


def test_the_result_that_is_farthest_off_is_named():
    _, verdict = judge_precision(STEP, [verdict_with(STEP, output=1.1, grad_bias=1.3, grad_weight=1.2)])
    assert verdict.reason.startswith("grad_bias ")


def test_results_in_no_class_are_said_to_be_in_less_than_bfloat16():
    found, verdict = judge_precision(STEP, [verdict_with(STEP, output=1e6)])
    assert found is None
    assert verdict.reason.startswith("output was computed in less than bfloat16, expected float32")


def test_one_wrong_element_of_an_exact_result_is_rejected():
    few = {**verdict_with(STEP).errors, "output": precision.Errors(20 * 2.0**-24, 100 * 2.0**-24)}
    _, verdict = judge_precision(STEP, [Verdict(ok=True, reason="", errors=few)])
    assert not verdict.ok
    assert verdict.reason.startswith("output is as exact as float32 as a whole, but not in some element: typical ")
    assert "largest 20 u of S, allowed 16 u" in verdict.reason


def test_the_range_of_float16_is_too_small_for_tf32_and_named_as_reason():
    narrower = verdict_with(TF32)
    assert judge_precision(TF32, [narrower]) == ("tf32", passed("precision"))
    assert judge_precision(TF32, [narrower], wide_range=False) == (
        "float16",
        refused("precision", "was computed in float16: numbers beyond float16's range came out wrong"),
    )


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

"""The gate's judgements of facts: names, shapes, dtypes, types and devices of results and inputs."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from harness.case import DTYPES, Case
from harness.correctness.gate import judge, judge_exactly, judge_facts, judge_given
from harness.correctness.verdict import Expected, Facts, passed, refused

STEP = Case(6, 32, 24, 5, mode="forward_backward")
FORWARD = STEP.with_mode("forward")
ASKED = [
    *(dataclasses.replace(STEP, dtype=dtype) for dtype in DTYPES),
    dataclasses.replace(STEP, precision="tf32"),
]


def facts(case, **changes):
    """Return the facts of an honest backend's results; ``changes`` replace attributes of ``output``."""
    made = {name: Facts("numpy.ndarray", case.dtype, shape, "cpu") for name, shape in case.result_shapes().items()}
    made["output"] = dataclasses.replace(made["output"], **changes)
    return made


def judged_facts(case, found):
    return judge_facts(case, "cpu", "numpy.ndarray", found, "bound")


@pytest.mark.parametrize("case", ASKED, ids=lambda case: case.name)
@pytest.mark.parametrize("bias", [True, False])
def test_results_of_the_cases_dtype_shapes_and_device_are_accepted(case, bias):
    case = dataclasses.replace(case, bias=bias)
    assert judged_facts(case, facts(case)) == passed("bound")


@pytest.mark.parametrize("shape", [(5, 6), (1, 5), (6, 1), (1, 1), (), (30,), (6, 5, 1), (1, 6, 5)])
def test_a_transposed_flattened_or_broadcastable_shape_is_rejected(shape):
    verdict = judged_facts(FORWARD, facts(FORWARD, shape=shape))
    said = "x".join(map(str, shape)) or "()"
    assert (verdict.ok, verdict.probe) == (False, "bound")
    assert verdict.reason == f"output has shape {said}, expected 6x5"
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
        ({"type": "builtins.list", "dtype": None, "shape": None}, "output is a list, expected an array"),
        ({"shape": None}, "output is a numpy.ndarray, expected an array"),
        ({"type": "late.Array"}, "output is a late.Array, expected a numpy.ndarray, as the inputs are"),
    ],
)
def test_facts_that_differ_are_rejected_by_name(changes, reason):
    verdict = judged_facts(STEP, facts(STEP, **changes))
    assert (verdict.ok, verdict.probe, verdict.reason) == (False, "bound", reason)


def test_no_facts_a_missing_gradient_and_one_too_many_are_rejected():
    assert judged_facts(FORWARD, {}).reason == "output is None, expected an array"
    missing = facts(STEP)
    del missing["grad_bias"]
    verdict = judged_facts(STEP, missing)
    assert not verdict.ok
    assert verdict.reason == "grad_bias is None, expected an array"
    more = judged_facts(dataclasses.replace(STEP, bias=False), facts(STEP))
    assert more.reason == "grad_bias came back, expected None: this case has none"


def given(case, **changes):
    """Return the facts of a backend's inputs; ``changes`` replace attributes of the array of that name."""
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


def test_a_transposed_weight_is_refused():
    verdict = judge_given(STEP, "cuda", given(STEP, weight={"shape": (5, 24, 32)}))
    assert verdict.reason.endswith("a torch.Tensor of float32, 5x24x32, on cuda; expected float32, 5x32x24, on cuda")

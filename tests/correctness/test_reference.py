from __future__ import annotations

import dataclasses

import pytest
import torch

from harness.case import Case
from harness.correctness import reference
from harness.correctness.inputs import make_inputs

STEP = Case(5, 4, 3, 2, mode="forward_backward")
CASES = [
    STEP,
    dataclasses.replace(STEP, bias=False),
    dataclasses.replace(STEP, dtype="float64"),
    Case(1, 1, 1, 1, mode="forward_backward"),
    Case(0, 4, 3, 2, mode="forward_backward"),
    Case(5, 4, 3, 0, mode="forward_backward"),
]


def exact(case):
    return {name: torch.from_numpy(array).double() for name, array in make_inputs(case).items()}


def close(one, other):
    torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("case", CASES, ids=repr)
def test_values_are_those_of_nn_bilinear_with_the_names_and_shapes_of_the_case(case):
    values, scales = reference.expected(case, make_inputs(case))
    shapes = case.result_shapes()
    for found in (values, scales):
        assert {name: tuple(tensor.shape) for name, tensor in found.items()} == shapes
        assert all(tensor.dtype == torch.float64 for tensor in found.values())
    inputs = exact(case)
    output = torch.einsum("bi,oij,bj->bo", inputs["input1"], inputs["weight"], inputs["input2"])
    close(values["output"], output + inputs["bias"] if case.bias else output)


@pytest.mark.parametrize("case", CASES, ids=repr)
@pytest.mark.parametrize("block_elements", [1, 30, reference.BLOCK_ELEMENTS])
def test_contracted_gradients_are_those_of_autograd_whatever_the_block(case, block_elements, monkeypatch):
    monkeypatch.setattr(reference, "BLOCK_ELEMENTS", block_elements)
    inputs = exact(case)
    contracted, autograd = reference.contract_gradients(inputs), reference.autograd_gradients(case, inputs)
    assert set(contracted) == set(autograd) == set(case.result_shapes()) - {"output"}
    for name in autograd:
        close(contracted[name], autograd[name])


@pytest.mark.parametrize("case", CASES, ids=repr)
def test_scales_are_the_same_function_on_absolute_values(case):
    _, scales = reference.expected(case, make_inputs(case))
    absolute, _ = reference.expected(case, {name: abs(array) for name, array in make_inputs(case).items()})
    for name, scale in scales.items():
        close(scale, absolute[name])


def test_a_case_too_large_for_autograd_takes_the_contractions(monkeypatch):
    def forbidden(*_):
        raise AssertionError("autograd was asked for a large temporary")

    autograd, _ = reference.expected(STEP, make_inputs(STEP))
    monkeypatch.setattr(reference, "autograd_gradients", forbidden)
    with pytest.raises(AssertionError, match="autograd was asked"):
        reference.expected(STEP, make_inputs(STEP))
    monkeypatch.setattr(reference, "AUTOGRAD_BYTES", 8 * 5 * 4 * 3 * 2 - 1)
    contracted, _ = reference.expected(STEP, make_inputs(STEP))
    for name in autograd:
        close(contracted[name], autograd[name])


def test_inference_has_the_output_alone():
    values, scales = reference.expected(STEP.with_mode("forward"), make_inputs(STEP.with_mode("forward")))
    assert set(values) == set(scales) == {"output"}

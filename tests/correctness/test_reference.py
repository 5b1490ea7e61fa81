"""The reference: nn.Bilinear in float64, its scales and quadratics, and samples in a wider format."""

from __future__ import annotations

import dataclasses
import math
from fractions import Fraction

import numpy as np
import oracle
import pytest
import torch

from harness.case import Case
from harness.correctness import drawn, reference
from harness.correctness.inputs import make_inputs
from harness.machine import memory
from harness.process.protocol import Expect
from harness.worker.reference_worker import ReferenceWorker

STEP = Case(5, 4, 3, 2, mode="forward_backward")
CASES = [
    STEP,
    dataclasses.replace(STEP, bias=False),
    dataclasses.replace(STEP, dtype="float64"),
    Case(1, 1, 1, 1, mode="forward_backward"),
    Case(0, 4, 3, 2, mode="forward_backward"),
    Case(5, 4, 3, 0, mode="forward_backward"),
]


def close(one, other):
    torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)


def brute_force(case):
    """Return the terms of every element of every result as fractions, by the operator's definition."""
    given = {
        name: np.array([Fraction(float(value)) for value in array.flat], object).reshape(array.shape)
        for name, array in make_inputs(case).items()
    }
    x1, x2, weight = given["input1"], given["input2"], given["weight"]
    terms = {name: {index: [] for index in np.ndindex(shape)} for name, shape in case.result_shapes().items()}
    for b, o in np.ndindex(case.batch, case.out_features):
        for i, j in np.ndindex(case.in1_features, case.in2_features):
            terms["output"][b, o].append(x1[b, i] * weight[o, i, j] * x2[b, j])
            if case.mode == "forward_backward":
                gradient = given["grad_output"][b, o]
                terms["grad_input1"][b, i].append(gradient * weight[o, i, j] * x2[b, j])
                terms["grad_input2"][b, j].append(gradient * weight[o, i, j] * x1[b, i])
                terms["grad_weight"][o, i, j].append(gradient * x1[b, i] * x2[b, j])
        if case.bias:
            terms["output"][b, o].append(given["bias"][o])
        if "grad_bias" in terms:
            terms["grad_bias"][(o,)].append(given["grad_output"][b, o])
    return terms


def summed(case, of):
    """Apply ``of`` to the terms of each element; return arrays in float64."""
    return {
        name: np.array([float(of(elements[index])) for index in np.ndindex(shape)]).reshape(shape)
        for (name, elements), shape in zip(brute_force(case).items(), case.result_shapes().values(), strict=True)
    }


def in_both_modes(cases):
    return [case.with_mode(mode) for case in cases for mode in ("forward", "forward_backward")]


@pytest.mark.parametrize("case", CASES, ids=repr)
def test_values_names_and_shapes_are_those_of_nn_bilinear(case):
    values = reference.expected(case, make_inputs(case))
    assert {name: tuple(tensor.shape) for name, tensor in values.items()} == case.result_shapes()
    assert all(tensor.dtype == torch.float64 for tensor in values.values())
    inputs = {name: array.astype(np.float64) for name, array in make_inputs(case).items()}
    for name, result in oracle.results(case, inputs).items():
        close(values[name], torch.from_numpy(result))


@pytest.mark.parametrize("case", in_both_modes(CASES), ids=repr)
def test_values_are_the_sums_that_the_operator_is_defined_by(case):
    values = reference.expected(case, make_inputs(case))
    wanted = summed(case, sum)
    assert set(values) == set(wanted)
    for name, value in values.items():
        close(value, torch.from_numpy(wanted[name]))


@pytest.mark.parametrize("elements", [1, 50, reference.PRODUCT_ELEMENTS])
@pytest.mark.parametrize("case", in_both_modes(CASES), ids=repr)
def test_matrix_products_are_what_nn_bilinear_and_its_autograd_give(case, elements, monkeypatch):
    monkeypatch.setattr(reference, "PRODUCT_ELEMENTS", elements)  # groups of one page, of some pages, of all pages
    inputs = make_inputs(case)
    own, values = reference.nn_bilinear(case, inputs), reference.expected(case, inputs)
    assert set(own) == set(values) == set(case.result_shapes())
    for name in own:
        close(values[name], own[name])
    reference.hold(own, values, reference.scales(case, inputs))


@pytest.mark.parametrize("name", STEP.result_shapes())
def test_products_that_differ_from_nn_bilinear_are_no_reference(name):
    inputs = make_inputs(STEP)
    own, values, scales = (f(STEP, inputs) for f in (reference.nn_bilinear, reference.expected, reference.scales))
    values[name].view(-1)[-1] += 1e-10
    with pytest.raises(RuntimeError, match=rf"matrix products in float64 give {name} .* cannot be the reference"):
        reference.hold(own, values, scales)


@pytest.mark.parametrize("name", STEP.result_shapes())
def test_one_result_asked_for_alone_is_the_same(name):
    inputs = make_inputs(STEP)
    for ask in (reference.expected, reference.scales):
        alone = ask(STEP, inputs, names=(name,))
        assert set(alone) == {name}
        close(alone[name], ask(STEP, inputs)[name])


@pytest.mark.parametrize("case", in_both_modes(CASES), ids=repr)
def test_scales_are_the_sums_of_the_absolute_values_of_the_terms(case):
    scales = reference.scales(case, make_inputs(case))
    wanted = summed(case, lambda parts: sum(map(abs, parts)))
    assert {name: tuple(tensor.shape) for name, tensor in scales.items()} == case.result_shapes()
    for name, scale in scales.items():
        assert scale.dtype == torch.float64
        close(scale, torch.from_numpy(wanted[name]))


@pytest.mark.parametrize("case", in_both_modes(CASES), ids=repr)
def test_quadratics_are_root_mean_squares_of_the_terms(case):
    found = reference.quadratics(case, make_inputs(case))
    assert set(found) == set(case.result_shapes())
    for name, squared in summed(case, lambda parts: sum(part**2 for part in parts)).items():
        assert found[name] == pytest.approx(math.sqrt(squared.mean()) if squared.size else 0.0, rel=1e-12), name


@pytest.mark.parametrize("case", in_both_modes(CASES), ids=repr)
def test_wide_samples_are_elements_of_each_result_more_exact_than_float64(case):
    case = dataclasses.replace(case, dtype="float64")
    found = reference.wide_samples(case, make_inputs(case))
    shapes = case.result_shapes()
    assert set(found) == {name for name, shape in shapes.items() if math.prod(shape)}
    wanted = brute_force(case)
    for name, (positions, values) in found.items():
        assert values.dtype == np.longdouble
        assert positions.shape == values.shape
        for position, value in zip(positions, values, strict=True):
            index = tuple(int(axis) for axis in np.unravel_index(position, shapes[name]))
            parts = wanted[name][index]
            high = float(value)
            error = Fraction(high) + Fraction(float(value - np.longdouble(high))) - sum(parts)
            assert abs(error) <= Fraction(2) ** -63 * (len(parts) + 3) * sum(map(abs, parts)), (name, index)


def test_wide_samples_are_different_positions_and_the_last_element():
    case = Case(40, 20, 15, 10, dtype="float64", mode="forward_backward")
    for name, (positions, _) in reference.wide_samples(case, make_inputs(case)).items():
        size = math.prod(case.result_shapes()[name])
        assert len(set(positions)) == len(positions)
        assert positions.max() == size - 1
        assert positions.min() >= 0
        assert min(size, reference.SAMPLE_ELEMENTS) / 2 < len(positions) <= reference.SAMPLE_ELEMENTS, name


def test_a_platform_without_a_wider_format_cannot_judge_float64(monkeypatch):
    monkeypatch.setattr(np, "longdouble", np.float64)
    with pytest.raises(RuntimeError, match="nothing can judge a float64 case"):
        reference.wide_samples(STEP, make_inputs(STEP))


def test_nn_bilinear_gives_no_gradients_where_their_temporary_is_large(monkeypatch):
    monkeypatch.setattr(reference, "AUTOGRAD_BYTES", 8 * 5 * 4 * 3 * 2 - 1)
    assert set(reference.nn_bilinear(STEP, make_inputs(STEP))) == {"output"}


def test_inference_has_the_output_alone():
    case = dataclasses.replace(STEP.with_mode("forward"), dtype="float64")
    for ask in (reference.expected, reference.scales, reference.quadratics, reference.wide_samples):
        assert set(ask(case, make_inputs(case))) == {"output"}


def test_a_reference_on_a_gpu_is_compared_with_the_cpu():
    inputs = make_inputs(STEP)
    values, scales = reference.expected(STEP, inputs), reference.scales(STEP, inputs)
    reference.spot_check(STEP, inputs, values, scales)
    for name in values:
        # The relative error of products in float32.
        wrong = values | {name: values[name] * (1 + 1e-7)}
        with pytest.raises(RuntimeError, match=rf"the GPU's float64 gives {name} .* it cannot be the reference"):
            reference.spot_check(STEP, inputs, wrong, scales)


def test_the_reference_falls_back_to_the_cpu_when_full_or_in_float64(tmp_path, monkeypatch):
    asked, trimmed, ours = [], [], reference.expected

    def expected(case, inputs, device, names):
        asked.append(device)
        if device == "meta":
            raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)")
        return ours(case, inputs, device, names)

    monkeypatch.setattr(reference, "expected", expected)
    monkeypatch.setattr(memory, "trim", lambda: trimmed.append(asked[-2:]))
    for case in (dataclasses.replace(STEP, dtype="float64"), STEP):
        ReferenceWorker().expect(Expect(case, 0, "normal", tmp_path, device="meta"))
    assert asked == ["cpu", "meta", "cpu"]
    assert trimmed == [["meta", "cpu"]]  # the worker frees the GPU's memory once the CPU has computed
    assert np.array_equal(np.load(tmp_path / "output.npy"), ours(STEP, make_inputs(STEP))["output"].numpy())


def test_large_case_is_held_against_nn_bilinear_on_a_few_rows(tmp_path, monkeypatch):
    case, asked, ours = dataclasses.replace(STEP, batch=9), [], reference.nn_bilinear
    for name, value in (("LARGE_FLOP", 0), ("ROWS", 3)):
        monkeypatch.setattr(drawn, name, value)
    monkeypatch.setattr(reference, "nn_bilinear", lambda few, *given: asked.append(few) or ours(few, *given))
    ReferenceWorker().expect(Expect(case, 0, "normal", tmp_path))
    assert [(few.batch, few.mode) for few in asked] == [(3, "forward")]
    monkeypatch.setattr(reference, "nn_bilinear", lambda *given: {"output": ours(*given)["output"] + 1e-9})
    with pytest.raises(RuntimeError, match="cannot be the reference"):
        ReferenceWorker().expect(Expect(case, 0, "normal", tmp_path))


def test_worker_holds_a_case_against_nn_bilinear_once(tmp_path, monkeypatch):
    held, worker, larger = [], ReferenceWorker(), dataclasses.replace(STEP, batch=6)
    monkeypatch.setattr(reference, "hold", lambda own, values, sizes: held.append(set(own) & set(sizes)))
    for case, kind in ((STEP, "nonfinite"), (STEP, "integers"), (STEP, "normal"), (larger, "normal")):
        worker.expect(Expect(case, 0, kind, tmp_path))
    assert held == [set(STEP.result_shapes())] * 2, "NaN and infinity cannot be compared"

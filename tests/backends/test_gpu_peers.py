"""The backends of CuPy and FlagGems without a GPU: NumPy and PyTorch compute in place of the packages."""

from __future__ import annotations

import dataclasses
import importlib
import sys
import types

import numpy as np
import pytest
import torch

from harness.case import Case
from harness.correctness import reference
from harness.correctness.inputs import make_inputs

STEP = Case(5, 4, 3, 2, mode="forward_backward")


@pytest.fixture
def backend_of(monkeypatch):
    """Return a function that imports a backend with these modules in place of a package."""

    def backend_of(module: str, label: str, **packages: types.ModuleType):
        for name, package in packages.items():
            monkeypatch.setitem(sys.modules, name.replace("__", "."), package)
        monkeypatch.delitem(sys.modules, module, raising=False)
        backend = getattr(importlib.import_module(module), label)
        monkeypatch.delitem(sys.modules, module)
        return backend

    return backend_of


def cupy(count: int = 1) -> types.ModuleType:
    module = types.ModuleType("cupy")
    module.__version__, module.einsum, module.asarray, module.asnumpy = "14", np.einsum, np.asarray, np.asarray
    runtime = types.SimpleNamespace(getDeviceCount=lambda: count, CUDARuntimeError=RuntimeError)
    module.cuda = types.SimpleNamespace(runtime=runtime)
    return module


@pytest.mark.parametrize("bias", [True, False])
def test_cupys_einsum_returns_the_output_and_every_gradient(backend_of, bias):
    backend = backend_of("backends.cupy_einsum", "CupyEinsum", cupy=cupy())("cuda")
    case = dataclasses.replace(STEP, bias=bias)
    inputs = make_inputs(case)
    expected = reference.expected(case, inputs)
    step = backend.prepare_forward_backward(case)
    output = step.forward(inputs["input1"], inputs["input2"], inputs["weight"], inputs.get("bias"))
    results = [result for result in (output, *step.backward(inputs["grad_output"])) if result is not None]
    for (name, right), result in zip(expected.items(), results, strict=True):
        np.testing.assert_allclose(result, right, rtol=1e-5, atol=1e-6, err_msg=name)
    kernel = backend.prepare_forward(case.with_mode("forward"), inputs["weight"], inputs.get("bias"))
    np.testing.assert_array_equal(kernel(inputs["input1"], inputs["input2"]), output)


def test_cupy_says_what_it_lacks(backend_of):
    kind = backend_of("backends.cupy_einsum", "CupyEinsum", cupy=cupy(count=0))
    assert kind.available("cuda").reason == "CuPy 14 sees no GPU"
    assert kind("cuda").supports(dataclasses.replace(STEP, dtype="bfloat16")).reason == "CuPy has no bfloat16"
    assert (
        kind("cuda").supports(dataclasses.replace(STEP, precision="tf32")).reason == "CuPy has no tf32 for one product"
    )
    assert kind("cuda").supports(STEP).ok


def test_flaggems_is_called_unchanged_and_only_forward(backend_of):
    package, ops, module = (types.ModuleType(name) for name in ("flag_gems", "flag_gems.ops", "flag_gems.ops.bilinear"))
    module.bilinear = torch.nn.functional.bilinear
    modules = {"flag_gems": package, "flag_gems__ops": ops, "flag_gems__ops__bilinear": module}
    backend = backend_of("backends.flaggems", "FlagGems", **modules)("cuda")
    case = STEP.with_mode("forward")
    tensors = {name: torch.from_numpy(array) for name, array in make_inputs(case).items()}
    output = backend.prepare_forward(case, tensors["weight"], tensors["bias"])(tensors["input1"], tensors["input2"])
    torch.testing.assert_close(output, torch.nn.functional.bilinear(*tensors.values()))
    assert backend.supports(case).ok
    assert backend.supports(STEP).reason == "FlagGems has no backward for it"
    for changes in ({"dtype": "float64"}, {"precision": "tf32"}):
        answer = backend.supports(dataclasses.replace(case, **changes))
        assert answer.reason == "FlagGems computes in float32, whatever it is given"

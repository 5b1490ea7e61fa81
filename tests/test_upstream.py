"""Restate PyTorch's tests of nn.Bilinear, and FlagGems' tests of its kernel, for every available backend.

Length: all tests of both projects, each with its shapes.

Shapes, ranges and promises are those of the two projects: the operator's samples (torch/testing/_internal/
common_methods_invocations.py), the module's inputs (common_modules.py), the five tests in test/test_nn.py, and
FlagGems' tests/test_bilinear.py. The tolerances are the gate's, which are narrower than those of both projects.

A backend gets two-dimensional contiguous arrays. Here ``run`` flattens leading dimensions and copies strided arrays, so
the tests pass what nn.Bilinear takes. A backend's interface has first derivatives only, so PyTorch's gradgradcheck has
no counterpart.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import os

import numpy as np
import oracle
import pytest
import torch

from harness.backend import backend_class
from harness.case import Case, CaseError
from harness.catalog.registry import entries
from harness.correctness import gate
from harness.correctness.inputs import round_to
from harness.correctness.verdict import Expected
from harness.worker import integrity
from harness.worker.arrays import to_host
from harness.worker.calls import call

# Warnings are errors in our tests, but not the deprecations that a framework raises while it compiles.
pytestmark = [pytest.mark.filterwarnings("default::DeprecationWarning"), pytest.mark.usefixtures("one_thread")]

BACKENDS = [name for name, entry in entries().items() if entry.distribution.startswith("bilinear-bench")]
#: Layers for torch-compile, which takes seconds to compile a shape; `make gate` has all layers.
COMPILED = ("sample, 8 rows of 3x4x5",)
ALL = os.environ.get("BILINEAR_BENCH_ALL") == "1"


@dataclasses.dataclass(frozen=True)
class Layer:
    """A layer of an upstream test.

    Attributes:
        label: Source of the layer.
        leading: Leading dimensions of both inputs; () for a single row.
        sizes: in1_features, in2_features, out_features.
        bias: True if there is a bias vector (out,).
        dtype: Element type of inputs, parameters and output.
    """

    label: str
    leading: tuple[int, ...]
    sizes: tuple[int, int, int]
    bias: bool = True
    dtype: str = "float32"

    @property
    def name(self) -> str:
        """Return label and sizes, then the differences from a float32 layer with a bias."""
        rows = f"{_times(self.leading)} rows" if self.leading else "a single row"
        others = ("" if self.bias else ", no bias") + ("" if self.dtype == "float32" else f", {self.dtype}")
        return f"{self.label}, {rows} of {_times(self.sizes)}{others}"

    @property
    def case(self) -> Case:
        """Return the case with the leading dimensions flattened; a single row is a batch of 1."""
        return Case(math.prod(self.leading), *self.sizes, dtype=self.dtype, bias=self.bias, mode="forward_backward")

    def draw(self) -> dict[str, np.ndarray]:
        """Draw arrays in the caller's shapes, uniform from -2 to 2 as upstream does."""
        generator, (in1, in2, out) = np.random.default_rng(0), self.sizes
        shapes = {"input1": (*self.leading, in1), "input2": (*self.leading, in2), "weight": (out, in1, in2)}
        shapes |= {"bias": (out,)} if self.bias else {}
        shapes |= {"grad_output": (*self.leading, out)}
        host = np.float64 if self.dtype == "float64" else np.float32
        drawn = {name: generator.uniform(-2, 2, shape).astype(host) for name, shape in shapes.items()}
        return {name: round_to(array, self.dtype) for name, array in drawn.items()}


def _times(sizes: tuple[int, ...]) -> str:
    return "x".join(map(str, sizes))


SAMPLES = [
    Layer("sample", leading, sizes, bias)
    for sizes in ((3, 4, 5), (8, 8, 8))
    for leading in ((), (0,), (8,), (2, 3))
    for bias in (True, False)
]
MODULES = [
    Layer("module", leading, (2, 3, 4), bias, dtype)
    for leading, bias in (((8,), True), ((8,), False), ((), True))
    for dtype in ("float32", "float64")
]
FLAGGEMS = [
    Layer("FlagGems", leading, sizes, bias, dtype)
    for leading, sizes in (
        ((8,), (16, 24, 32)),
        ((4,), (1, 1, 1)),
        ((128,), (64, 48, 16)),
        ((2, 8), (32, 32, 64)),
        ((16,), (17, 13, 7)),
        ((3, 5, 4), (8, 6, 10)),
    )
    for bias in (True, False)
    for dtype in ("float16", "float32", "bfloat16")
]
TESTS = {
    "test_bilinear": Layer("test_bilinear", (4,), (10, 10, 8)),
    "test_bilinear_no_bias": Layer("test_bilinear_no_bias", (4,), (10, 10, 8), bias=False, dtype="float64"),
    "test_bilinear_non_contiguous": Layer("test_bilinear_non_contiguous", (4, 10), (7, 7, 5)),
    "test_bilinear_broadcasting": Layer("test_bilinear_broadcasting", (2, 3), (5, 6, 8)),
}


@functools.cache
def instance(name: str):
    """Return the backend on the CPU; skip with the reason if it is not available."""
    entry = entries()[name]
    if not (installed := entry.installed()).ok:
        pytest.skip(installed.reason)
    kind = backend_class(entry.name, entry.target)
    if "cpu" not in kind.devices:
        pytest.skip(f"{name} runs on {', '.join(kind.devices)}")
    if not (available := kind.available("cpu")).ok:
        pytest.skip(available.reason)
    return kind("cpu")


@functools.cache
def step(name: str, case: Case):
    """Prepare a backend's training step, once for all calls: some compile for seconds."""
    return instance(name).prepare_forward_backward(case)


def run(name: str, layer: Layer, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Take one training step on flattened arrays; return all results in the caller's shapes, or skip."""
    backend, case = instance(name), layer.case
    if not (supported := backend.supports(case)).ok:
        pytest.skip(supported.reason)
    if name == "torch-compile" and not ALL and layer.name not in COMPILED:
        pytest.skip("compiling each shape takes long: make gate does it")
    shapes = case.shapes()
    inputs = {key: backend.to_device(array.reshape(shapes[key]), case.dtype) for key, array in arrays.items()}
    results = call(case, step(name, case), inputs, inputs)
    backend.synchronize(tuple(results.values()))
    assert {key: integrity.describe(result).shape for key, result in results.items()} == case.result_shapes()
    wanted = {f"grad_{key}": array.shape for key, array in arrays.items()} | {"output": arrays["grad_output"].shape}
    return {key: to_host(result, backend).reshape(wanted[key]) for key, result in results.items()}


def upstream(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return output and gradients of nn.functional.bilinear and its autograd, in float64 and the caller's shapes."""
    leaves = {key: torch.from_numpy(array).double() for key, array in arrays.items()}
    grad_output = leaves.pop("grad_output")
    output = torch.nn.functional.bilinear(*(leaf.requires_grad_() for leaf in leaves.values()))
    gradients = torch.autograd.grad(output, list(leaves.values()), grad_output)
    named = {f"grad_{key}": gradient for key, gradient in zip(leaves, gradients, strict=True)}
    return {key: value.detach().numpy() for key, value in ({"output": output} | named).items()}


def judge(layer: Layer, arrays: dict[str, np.ndarray], results: dict[str, np.ndarray]) -> None:
    """Compare results with PyTorch's: each element by the gate's bound, and all by their precision."""
    case, shapes = layer.case, layer.case.result_shapes()
    squares = upstream({key: np.square(array, dtype=np.float64) for key, array in arrays.items()})
    expected = Expected(
        {key: value.reshape(shapes[key]) for key, value in upstream(arrays).items()},
        {key: value.reshape(shapes[key]) for key, value in upstream({k: abs(a) for k, a in arrays.items()}).items()},
        {key: math.sqrt(value.mean()) if value.size else 0.0 for key, value in squares.items()},
    )
    verdict = gate.judge(case, expected, {key: result.reshape(shapes[key]) for key, result in results.items()})
    assert verdict.ok, verdict.reason
    _, verdict = gate.judge_precision(case, [verdict])
    assert verdict.ok, verdict.reason


@pytest.mark.parametrize("layer", [*SAMPLES, *MODULES, *FLAGGEMS], ids=lambda layer: layer.name)
@pytest.mark.parametrize("name", BACKENDS)
def test_output_and_gradients_are_those_of_nn_bilinear_on_their_shapes(name, layer):
    arrays = layer.draw()
    judge(layer, arrays, run(name, layer, arrays))


@pytest.mark.parametrize("name", BACKENDS)
def test_bilinear_and_its_four_gradients_are_the_einsums(name):
    layer = TESTS["test_bilinear"]
    arrays = layer.draw()
    results = run(name, layer, arrays)
    formulas = oracle.results(layer.case, {key: array.astype(np.float64) for key, array in arrays.items()})
    assert set(results) == set(formulas)
    for key, value in formulas.items():
        # Upstream's tolerance for float32. A sum of 100 terms of up to 8 is about 30, so 1e-5 alone is too little.
        torch.testing.assert_close(results[key].astype(np.float64), value, rtol=1.3e-6, atol=1e-4)
    judge(layer, arrays, results)


@pytest.mark.parametrize("name", BACKENDS)
def test_bilinear_non_contiguous_inputs_give_the_bits_of_contiguous_ones(name):
    layer = TESTS["test_bilinear_non_contiguous"]
    arrays = layer.draw()
    strided = arrays | {  # the same values, as (4, 7, 10) with two axes exchanged
        key: np.ascontiguousarray(arrays[key].transpose(0, 2, 1)).transpose(0, 2, 1) for key in ("input1", "input2")
    }
    assert not strided["input1"].flags.c_contiguous
    results, again = run(name, layer, arrays), run(name, layer, strided)
    judge(layer, arrays, results)
    for key, result in results.items():
        np.testing.assert_array_equal(again[key], result, err_msg=key)


@pytest.mark.parametrize("name", BACKENDS)
def test_bilinear_no_bias_is_a_bias_of_zeros(name):
    layer = TESTS["test_bilinear_no_bias"]
    without = layer.draw()
    results = run(name, layer, without)
    judge(layer, without, results)
    zeros = {key: without[key] for key in ("input1", "input2", "weight")} | {"bias": np.zeros(8)}
    biased = run(name, dataclasses.replace(layer, bias=True), zeros | {"grad_output": without["grad_output"]})
    assert set(biased) - set(results) == {"grad_bias"}
    for key, result in results.items():
        np.testing.assert_allclose(biased[key], result, rtol=1e-12, atol=1e-12, err_msg=key)


@pytest.mark.parametrize("name", BACKENDS)
def test_bilinear_broadcasting_is_leading_dimensions_row_by_row(name):
    layer = TESTS["test_bilinear_broadcasting"]
    arrays = layer.draw()
    rows = [key for key in arrays if key not in ("weight", "bias")]
    flat = arrays | {key: arrays[key].reshape(6, -1) for key in rows}
    results, flattened = run(name, layer, arrays), run(name, dataclasses.replace(layer, leading=(6,)), flat)
    judge(layer, arrays, results)
    for key, result in results.items():
        np.testing.assert_array_equal(result.reshape(flattened[key].shape), flattened[key], err_msg=key)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", BACKENDS)
def test_gradcheck_accepts_the_gradients_of_every_backend(name, bias):
    layer = dataclasses.replace(TESTS["test_bilinear_no_bias"], bias=bias)
    assert gradcheck(name, layer)


def test_gradcheck_rejects_half_a_gradient():
    with pytest.raises(RuntimeError, match="Jacobian mismatch"):
        gradcheck("numpy-loop", TESTS["test_bilinear_no_bias"], {"grad_input2": 0.5})


def gradcheck(name: str, layer: Layer, factors: dict[str, float] | None = None) -> bool:
    """Run PyTorch's gradcheck on a backend in any framework, with respect to every input array.

    Args:
        name: Name of the backend.
        layer: Layer in float64, which finite differences need.
        factors: Factors of wrong gradients by name, to make the check fail.
    """
    keys = [key for key in layer.draw() if key != "grad_output"]

    class Checked(torch.autograd.Function):
        @staticmethod
        def forward(context, *tensors):
            context.save_for_backward(*tensors)
            return torch.from_numpy(answer(tensors, torch.zeros(*layer.leading, layer.sizes[2]))["output"])

        @staticmethod
        def backward(context, grad_output):
            results = answer(context.saved_tensors, grad_output)
            return tuple(
                torch.from_numpy(results[f"grad_{key}"] * (factors or {}).get(f"grad_{key}", 1)) for key in keys
            )

    def answer(tensors, grad_output):
        arrays = [tensor.detach().double().numpy() for tensor in (*tensors, grad_output)]
        with torch.enable_grad():  # a custom function's body is outside autograd; backends in PyTorch need it
            return run(name, layer, dict(zip([*keys, "grad_output"], arrays, strict=True)))

    leaves = [torch.from_numpy(layer.draw()[key]).requires_grad_() for key in keys]
    return torch.autograd.gradcheck(Checked.apply, leaves, check_undefined_grad=False, fast_mode=True)


#: Sizes and dtypes that nn.Bilinear refuses, with its error and the message of a case.
REFUSED = [
    # test_bilinear_value_error
    ({"in1_features": 0}, lambda: torch.nn.Bilinear(0, 3, 4), ValueError, "in1_features is 0, expected at least 1"),
    (
        {"in2_features": 0},
        lambda: torch.nn.functional.bilinear(torch.ones(2, 3), torch.ones(2, 0), torch.ones(4, 3, 0)),
        RuntimeError,
        "in2_features is 0, expected at least 1",
    ),
    (
        {"in1_features": -1},
        lambda: torch.nn.Bilinear(-1, 3, 4),
        RuntimeError,
        "in1_features is -1, expected at least 1",
    ),
    (
        {"out_features": -1},
        lambda: torch.nn.Bilinear(2, 3, -1),
        RuntimeError,
        "out_features is -1, expected at least 0",
    ),
    ({"batch": -1}, lambda: torch.ones(-1, 2), RuntimeError, "batch is -1, expected at least 0"),
    (
        {"dtype": "bool"},
        lambda: torch.nn.functional.bilinear(
            *(torch.ones(size, dtype=torch.bool) for size in ((2, 3), (2, 3), (4, 3, 3)))
        ),
        NotImplementedError,
        "dtype is 'bool', expected one of: float32, float64, float16, bfloat16",
    ),
]


@pytest.mark.parametrize(
    ("sizes", "refused_call", "error", "message"), REFUSED, ids=[str(refused[0]) for refused in REFUSED]
)
def test_case_refuses_what_nn_bilinear_refuses(sizes, refused_call, error, message):
    with pytest.raises(error):
        refused_call()
    accepted = {"batch": 8, "in1_features": 2, "in2_features": 3, "out_features": 4}
    with pytest.raises(CaseError) as raised:
        Case(**(accepted | sizes))
    assert str(raised.value).startswith(message)


def test_shapes_of_a_case_always_match():
    for layer in (*SAMPLES, *MODULES, *FLAGGEMS):
        shapes = layer.case.shapes()
        assert shapes["input1"][0] == shapes["input2"][0] == shapes["grad_output"][0]
        assert shapes["weight"] == (shapes["grad_output"][1], shapes["input1"][1], shapes["input2"][1])


def test_layers_for_torch_compile_are_among_all_layers():
    names = [layer.name for layer in itertools.chain(SAMPLES, MODULES, FLAGGEMS)]
    assert len(names) == len(set(names)) == 16 + 6 + 36
    assert set(COMPILED) <= set(names)

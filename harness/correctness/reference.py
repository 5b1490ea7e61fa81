"""Compute the right results in float64 by matrix products, and the scale of each element.

The CPU computes the reference of rows on the CPU. A GPU computes that of rows on the GPU, where large layers take
seconds instead of minutes; ``spot_check`` then compares some elements with the CPU.

This module imports a framework, so it runs in a worker of its own and never in a backend's process.
Axes: ``b`` batch, ``i`` in1, ``j`` in2, ``o`` out.

nn.Bilinear's page loop takes longer, and its autograd builds a (b, i, j) temporary for every page: gigabytes and
minutes on real layers. So it computes the first question of a case alone, and ``hold`` compares the products with it:
with its output, of a large case on a few rows, and with its gradients where that temporary is small.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

if TYPE_CHECKING:
    import numpy.typing as npt

    from harness.case import Case

    Arrays = dict[str, npt.NDArray[np.floating]]
    Samples = dict[str, tuple[npt.NDArray[np.integer], npt.NDArray[np.floating]]]

#: Largest (b, i, j) float64 temporary, times out_features, for which autograd is used, in bytes.
AUTOGRAD_BYTES: Final = 16 * 2**20
#: Elements of each result of a float64 case that are judged in a wider format.
SAMPLE_ELEMENTS: Final = 64
#: Largest error of another order of summation or of a GPU, in units of float64's epsilon times the element's scale.
#: Sums of thousands of terms are off by a few units; a sum in another precision is off by millions.
ULPS: Final = 1000
#: Elements of a product of several pages: small pages are multiplied together.
PRODUCT_ELEMENTS: Final = 2**20

Tensors = dict[str, torch.Tensor]


def sees(device: str) -> bool:
    """True if PyTorch can compute on the device."""
    return device != "cuda" or torch.cuda.is_available()


def expected(case: Case, inputs: Arrays, device: str = "cpu", names: Collection[str] | None = None) -> Tensors:
    """Return results of the case in float64, by matrix products.

    Args:
        case: The case, for its mode and shapes.
        inputs: Arrays of ``correctness.inputs.make_inputs``.
        device: The device that computes and that holds the results.
        names: Keys of ``case.result_shapes()``; None for all.
    """
    return _contracted(_double(inputs, device), case.result_shapes() if names is None else names)


def scales(case: Case, inputs: Arrays, device: str = "cpu", names: Collection[str] | None = None) -> Tensors:
    """Return the scale S of each element: the same sum with every term replaced by its absolute value.

    Rounding errors of any order of summation are bounded by a multiple of S, and by nothing smaller in general (Higham,
    Accuracy and Stability of Numerical Algorithms, 2nd ed., section 3.1).
    """
    absolute = {name: tensor.abs() for name, tensor in _double(inputs, device).items()}
    return _contracted(absolute, case.result_shapes() if names is None else names)


def nn_bilinear(case: Case, inputs: Arrays, device: str = "cpu") -> Tensors:
    """Return nn.Bilinear's own results in float64: the output, and gradients where autograd's temporary is small."""
    exact = _double(inputs, device)
    values = {"output": torch.nn.functional.bilinear(*_operands(exact))}  # all that nn.Bilinear.forward does
    temporary = case.batch * case.in1_features * case.in2_features * 8
    if case.mode == "forward_backward" and temporary * max(case.out_features, 1) <= AUTOGRAD_BYTES:
        values |= autograd_gradients(case, exact)
    return values


def hold(own: Tensors, values: Tensors, sizes: Tensors) -> None:
    """Hold the results of matrix products against nn.Bilinear's own.

    Args:
        own: Results of ``nn_bilinear``.
        values: Results of ``expected``.
        sizes: Results of ``scales``.

    Raises:
        RuntimeError: An element is off by more than ``ULPS``: the products cannot be the reference.
    """
    epsilon, tiny = torch.finfo(torch.float64).eps, torch.finfo(torch.float64).tiny
    for name, value in values.items():
        if name in own and value.numel():
            excess = (value - own[name]).abs() - (ULPS * epsilon * sizes[name] + tiny)
            if not bool((excess <= 0).all()):
                worst = int(excess.argmax())
                one, other = float(value.flatten()[worst]), float(own[name].flatten()[worst])
                raise RuntimeError(
                    f"matrix products in float64 give {name} {one:.17g} where nn.Bilinear gives {other:.17g}: "
                    "they cannot be the reference"
                )


def spot_check(case: Case, inputs: Arrays, values: Tensors, sizes: Tensors) -> None:
    """Compare some elements of results from a GPU with the CPU's.

    Args:
        case: The case of the results.
        inputs: Arrays that the results were computed from.
        values: Results of ``expected``.
        sizes: Results of ``scales``.

    Raises:
        RuntimeError: An element is off by more than ``ULPS``: the GPU cannot be the reference.
    """
    for name, (positions, wide) in wide_samples(case, inputs, values).items():
        computed = values[name].cpu().numpy().reshape(-1)[positions]
        scale = sizes[name].cpu().numpy().reshape(-1)[positions]
        if not (np.abs(computed - wide) <= ULPS * np.finfo(np.float64).eps * scale).all():
            worst = int(np.argmax(np.abs(computed - wide)))
            raise RuntimeError(
                f"the GPU's float64 gives {name} {computed[worst]:.17g} where the CPU gives {wide[worst]:.17g}: "
                "it cannot be the reference"
            )


def quadratics(case: Case, inputs: Arrays) -> dict[str, float]:
    """Return for each result the root of the mean, over its elements, of Q squared: the sum of its squared terms.

    The mean needs no single element, so the sums over the free axes come first. Then all of it costs no more than one
    page of the forward.
    """
    squared = {name: tensor.square() for name, tensor in _double(inputs).items()}
    input1, input2, weight = squared["input1"], squared["input2"], squared["weight"]
    batch, pages = input1.shape[0], weight.shape[0]
    totals = {"output": ((input1 @ weight.sum(0)) * input2).sum()}  # sum over b, o, i, j
    if "bias" in squared:
        totals["output"] += batch * squared["bias"].sum()
    sizes = {"output": batch * pages}
    if case.mode == "forward_backward":
        grad_output = squared["grad_output"]
        totals |= {
            "grad_input1": ((grad_output @ weight.sum(1)) * input2).sum(),  # (b, o) @ (o, j), then with (b, j)
            "grad_input2": ((grad_output @ weight.sum(2)) * input1).sum(),  # (b, o) @ (o, i), then with (b, i)
            "grad_weight": (grad_output.sum(1) * input1.sum(1) * input2.sum(1)).sum(),
        }
        sizes |= {"grad_input1": input1.numel(), "grad_input2": input2.numel(), "grad_weight": weight.numel()}
        if "bias" in squared:
            totals["grad_bias"], sizes["grad_bias"] = grad_output.sum(), pages
    return {name: float((total / max(sizes[name], 1)).sqrt()) for name, total in totals.items()}


def wide_samples(case: Case, inputs: Arrays, names: Collection[str] | None = None) -> Samples:
    """Return, for each result, positions of some of its elements and their values in the C compiler's long double.

    For float64 cases: nn.Bilinear in float64 rounds as much as the backend does. On x86 a long double has 64 bits of
    precision, on ARM under Linux 113.

    Args:
        case: The case, for its shapes and seed.
        inputs: Arrays of ``correctness.inputs.make_inputs``.
        names: Keys of ``case.result_shapes()``; None for all.

    Raises:
        RuntimeError: This platform's long double is no wider than float64.
    """
    if np.finfo(np.longdouble).nmant <= np.finfo(np.float64).nmant:
        raise RuntimeError("long double is no wider than float64 here: nothing can judge a float64 case")
    wide = np.longdouble
    x1, x2, weight = inputs["input1"], inputs["input2"], inputs["weight"]
    g = inputs.get("grad_output", np.empty((0, 0)))
    bias = inputs["bias"] if "bias" in inputs else np.zeros(weight.shape[0])
    # Widen the slices of one element alone: a whole wide weight would take up to four times its memory.
    # Each formula takes the indices of one element and sums over the other axes.
    formulas: dict[str, Callable[..., Any]] = {
        "output": lambda b, o: ((x1[b].astype(wide) @ weight[o].astype(wide)) * x2[b]).sum() + bias[o],
        "grad_input1": lambda b, i: ((g[b].astype(wide) @ weight[:, i, :].astype(wide)) * x2[b]).sum(),
        "grad_input2": lambda b, j: ((g[b].astype(wide) @ weight[:, :, j].astype(wide)) * x1[b]).sum(),
        "grad_weight": lambda o, i, j: (g[:, o].astype(wide) * x1[:, i] * x2[:, j]).sum(),
        "grad_bias": lambda o: g[:, o].astype(wide).sum(),
    }
    samples = {}
    for name, shape in case.result_shapes().items():
        size = math.prod(shape)
        if size and (names is None or name in names):
            generator = np.random.default_rng([case.seed, len(name)])
            positions = np.unique(np.append(generator.integers(0, size, SAMPLE_ELEMENTS - 1), size - 1))
            indices = zip(*np.unravel_index(positions, shape), strict=True)
            values = np.array([formulas[name](*index) for index in indices], np.longdouble)
            samples[name] = positions, values
    return samples


def _double(inputs: Arrays, device: str = "cpu") -> Tensors:
    return {name: torch.from_numpy(array).to(device).double() for name, array in inputs.items()}


def autograd_gradients(case: Case, inputs: Tensors) -> Tensors:
    """Return the gradients of nn.Bilinear's own autograd, named ``grad_<input>``."""
    names = ("input1", "input2", "weight", *(("bias",) if case.bias else ()))
    leaves = [tensor.detach().clone().requires_grad_() for tensor in _operands(inputs)]
    # The gradient of this sum is that of the output times grad_output. Given grad_output, PyTorch would import SymPy.
    total = (torch.nn.functional.bilinear(*leaves) * inputs["grad_output"]).sum()
    return {f"grad_{name}": gradient for name, gradient in zip(names, torch.autograd.grad(total, leaves), strict=True)}


def _operands(inputs: Tensors) -> list[torch.Tensor]:
    return [inputs[name] for name in ("input1", "input2", "weight", "bias") if name in inputs]


def _contracted(inputs: Tensors, names: Collection[str]) -> Tensors:
    """Return results by matrix products; on absolute values these are scales.

    A group of pages has two arrays (o, i, b) that all results need: ``inner`` is the product of W and input2, ``outer``
    is input1 times grad_output. The group has as many pages as ``PRODUCT_ELEMENTS`` hold, at least one.
    """
    input1, input2, weight = inputs["input1"].T.contiguous(), inputs["input2"], inputs["weight"]  # (i, b), (b, j)
    (in1, batch), pages = input1.shape, weight.shape[0]
    grad_output = inputs.get("grad_output", input2).T.contiguous()  # (o, b), where gradients are asked for
    shapes = {"output": (batch, pages), "grad_input1": (batch, in1), "grad_input2": input2.shape}
    shapes |= {"grad_weight": weight.shape, "grad_bias": (pages,)}
    results = {name: input1.new_zeros(shapes[name]) for name in names}
    group = max(1, PRODUCT_ELEMENTS // max(in1 * batch, 1))
    for start in range(0, pages, group):
        count = min(group, pages - start)
        some = slice(start, start + count)
        matrix = weight[some].reshape(count * in1, -1)  # (o i, j)
        if "output" in names or "grad_input1" in names:
            inner = (matrix @ input2.T).view(count, in1, batch)
            if "output" in names:
                results["output"][:, some] = (inner * input1).sum(1).T
            if "grad_input1" in names:
                results["grad_input1"] += (inner * grad_output[some, None]).sum(0).T
        if "grad_input2" in names or "grad_weight" in names:
            outer = (input1 * grad_output[some, None]).view(count * in1, batch)  # (o i, b)
            if "grad_input2" in names:
                results["grad_input2"] += outer.T @ matrix
            if "grad_weight" in names:
                results["grad_weight"][some] = (outer @ input2).view(count, *weight.shape[1:])
    if "output" in names and "bias" in inputs:
        results["output"] += inputs["bias"]
    if "grad_bias" in names:
        results["grad_bias"] = grad_output.sum(1)
    return results

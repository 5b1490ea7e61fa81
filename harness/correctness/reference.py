"""Turn inputs into the right answer: nn.Bilinear in float64 on the CPU, and the scale of each element.

This is the only file of the harness that imports a framework, so it runs in a worker of its own and never beside a
contestant. Axes: ``b`` batch, ``i`` in1, ``j`` in2, ``o`` out.

nn.Bilinear's own autograd builds a (b, i, j) temporary for every output page, gigabytes and minutes on real layers. So
its gradients are the reference only where that temporary is small; elsewhere they are float64 contractions written as
matrix products, which a test holds against autograd.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from harness.case import Case

#: Largest (b, i, j) float64 temporary, times out_features, that autograd is asked to move, in bytes.
AUTOGRAD_BYTES: Final = 256 * 2**20
#: Rows of the batch that a contraction takes at a time hold at most this many float64 elements in its intermediate.
BLOCK_ELEMENTS: Final = 16 * 2**20

Tensors = dict[str, torch.Tensor]


def expected(case: Case, inputs: dict[str, npt.NDArray[np.floating]]) -> tuple[Tensors, Tensors]:
    """Return the results of the case in float64, and the scale of each of their elements.

    The scale S of an element is the same sum with every term replaced by its absolute value: rounding errors of any
    order of summation are bounded by a small multiple of S, and by nothing smaller in general (Higham, Accuracy and
    Stability of Numerical Algorithms, 2nd ed., section 3.1).

    Args:
        case: Decides mode and shapes.
        inputs: What ``correctness.inputs.make_inputs`` gave.

    Returns:
        Two mappings with the keys of ``case.result_shapes()``.
    """
    exact = {name: torch.from_numpy(array).double() for name, array in inputs.items()}
    absolute = {name: tensor.abs() for name, tensor in exact.items()}
    values = {"output": _module(case, exact)}
    scales = {"output": contract_output(absolute)}
    if case.mode == "forward_backward":
        temporary = case.batch * case.in1_features * case.in2_features * 8
        small = temporary * max(case.out_features, 1) <= AUTOGRAD_BYTES
        values |= autograd_gradients(case, exact) if small else contract_gradients(exact)
        scales |= contract_gradients(absolute)
    return values, scales


def _module(case: Case, inputs: Tensors) -> torch.Tensor:
    """Output (b, o) by torch.nn.Bilinear itself."""
    module = torch.nn.Bilinear(
        case.in1_features, case.in2_features, case.out_features, bias=case.bias, dtype=torch.float64, device="meta"
    )
    module.weight = torch.nn.Parameter(inputs["weight"], requires_grad=False)
    if case.bias:
        module.bias = torch.nn.Parameter(inputs["bias"], requires_grad=False)
    with torch.no_grad():
        return module(inputs["input1"], inputs["input2"])


def autograd_gradients(case: Case, inputs: Tensors) -> Tensors:
    """Gradients by nn.Bilinear's own autograd, named ``grad_<input>``."""
    names = ("input1", "input2", "weight", *(("bias",) if case.bias else ()))
    leaves = [inputs[name].detach().clone().requires_grad_() for name in names]
    output = torch.nn.functional.bilinear(*leaves)
    gradients = torch.autograd.grad(output, leaves, inputs["grad_output"])
    return {f"grad_{name}": gradient for name, gradient in zip(names, gradients, strict=True)}


def contract_output(inputs: Tensors) -> torch.Tensor:
    """Output (b, o) as ``x1 @ W[o]``, times x2, summed over j: page by page."""
    input1, input2, weight = inputs["input1"], inputs["input2"], inputs["weight"]
    output = input1.new_zeros(input1.shape[0], weight.shape[0])
    for page in range(weight.shape[0]):
        output[:, page] = ((input1 @ weight[page]) * input2).sum(1)  # (b, i) @ (i, j) -> (b, j) -> (b,)
    return output + inputs["bias"] if "bias" in inputs else output


def contract_gradients(inputs: Tensors) -> Tensors:
    """Gradients as matrix products, named ``grad_<input>``; the same function on absolute values gives their scales."""
    input1, input2, weight, grad_output = (inputs[name] for name in ("input1", "input2", "weight", "grad_output"))
    pages, in1, in2 = weight.shape
    grad_input1, grad_input2 = torch.empty_like(input1), torch.empty_like(input2)
    flat = weight.reshape(pages, in1 * in2)
    rows = max(1, BLOCK_ELEMENTS // (in1 * in2))
    for start in range(0, input1.shape[0], rows):
        block = slice(start, start + rows)
        # dZ[b, i, j] = sum_o grad_output[b, o] weight[o, i, j]
        gradient = (grad_output[block] @ flat).view(-1, in1, in2)
        grad_input1[block] = (gradient @ input2[block, :, None]).squeeze(2)  # (b, i, j) @ (b, j, 1)
        grad_input2[block] = (input1[block, None, :] @ gradient).squeeze(1)  # (b, 1, i) @ (b, i, j)
    grad_weight = torch.empty_like(weight)
    for page in range(pages):
        grad_weight[page] = (input1 * grad_output[:, page, None]).T @ input2  # (i, b) @ (b, j)
    gradients = {"grad_input1": grad_input1, "grad_input2": grad_input2, "grad_weight": grad_weight}
    if "bias" in inputs:
        gradients["grad_bias"] = grad_output.sum(0)
    return gradients

"""Plain PyTorch as fast as it goes: GEMMs in the cheapest order, in pieces that stay in cache.

Formula: one of the three orders in ``contraction.py``, chosen for each case by the cost model there.

Axes: ``b`` batch, ``i`` in1_features, ``j`` in2_features, ``o`` out_features.

* Work: 2 b i j o flop forward; backward 4 b i j o if both inputs are multiplied first, else 6.
* Written between: ``PIECE_BYTES`` at a time of (b, o, i), (b, o, j) or (b, i, j), and a piece of grad_weight.
* Prepared outside the clock: the order; for inference, the weight with its last two axes swapped if "input1" is first.
* Products: PyTorch gives float32 to its BLAS. On some CPUs that is MKL with kernels for others, at half the speed of
  oneDNN in the same process; so both are timed once, and the faster one has the large products.
* Batched dot products are written as row times matrix: as matrix times column PyTorch (2.13) takes five times as long.

``bilinear`` is differentiable, twice too: then by einsum.
"""

from __future__ import annotations

import contextlib
import functools
import math
import time
from typing import Any, Final

import torch

from backends.contraction import PIECE_ROWS, First, Rates, first, pieces
from backends.torch_tensor import AutogradStep, Formula, TorchBackend, einsum_bilinear, set_precision
from harness.backend import Kernel
from harness.case import Case

Tensor = Any
#: A gradient is None where nobody asks for it.
Gradients = tuple[Tensor | None, Tensor | None, Tensor | None]

#: Of what comes between, at a time: on a CPU it stays in the caches, on a GPU it keeps launches few.
PIECE_BYTES: Final = {"cpu": 4 * 2**20, "cuda": 256 * 2**20}
#: Fitted to the three orders on eleven cases, two cores of a Zen 3; a GPU's differ, but keep the order of the orders.
RATES: Final = Rates(contracted=60, multiplied=30, narrow=16, swapped=60)
#: Smaller products are not worth oneDNN's call (some 50 us).
ONEDNN_FLOP: Final = 20e6
#: How much faster oneDNN has to be: what is less may be noise; and how often both are timed, the least of which counts.
ONEDNN_GAIN, ROUNDS = 1.3, 9


class TorchContract(TorchBackend):
    """GEMMs in the cheapest order; gradients written by hand, as GEMMs too."""

    name = "torch-contract"

    def formula(self) -> Formula:
        """The contraction, differentiable."""
        return bilinear

    def prepare_forward(self, case: Case, weight: Tensor, bias: Tensor | None) -> Kernel:
        """Choose the order and lay the weight out for it."""
        set_precision(case)
        _onednn_is_faster()
        order = first(case.sizes, backward=False, packed=True, rates=RATES)
        laid = weight.transpose(1, 2).contiguous().transpose(1, 2) if order == "input1" else weight

        def kernel(input1: Tensor, input2: Tensor) -> Tensor:
            output = contract(order, input1, input2, laid)
            return output if bias is None else output.add_(bias)

        return kernel

    def prepare_forward_backward(self, case: Case) -> AutogradStep:
        """Return the contraction with autograd."""
        _onednn_is_faster()
        return super().prepare_forward_backward(case)

    def workspace_bytes(self, case: Case) -> int:
        """A piece and its gradient, and a piece of the weight and of its gradient; an upper figure."""
        row = case.in1_features * case.in2_features * case.itemsize
        piece = PIECE_BYTES[self.device] + PIECE_ROWS * max(case.in1_features, case.in2_features) * case.itemsize
        weight = case.out_features * row
        return 2 * piece + 3 * weight

    def version(self) -> str:
        """Version of PyTorch, and whose products are used on a CPU."""
        products = ", products by oneDNN" if self.device == "cpu" and _onednn_is_faster() else ""
        return f"{super().version()}{products}"


class _Contraction(torch.autograd.Function):
    """``contract`` with ``gradients`` as its derivative."""

    @staticmethod
    def forward(ctx: Any, input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(input1, input2, weight, bias)
        with _full_precision(input1):
            output = contract(_first(_sizes(input1, weight), backward=False), input1, input2, weight)
        return output if bias is None else output.add_(bias)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        input1, input2, weight, bias = ctx.saved_tensors
        if torch.is_grad_enabled():  # somebody will differentiate the gradients
            return differentiable_gradients(input1, input2, weight, bias, grad_output, ctx.needs_input_grad)
        order = _first(_sizes(input1, weight), backward=True)
        with _full_precision(input1):
            found = gradients(order, input1, input2, weight, grad_output, ctx.needs_input_grad[:3])
        return *found, grad_output.sum(0) if ctx.needs_input_grad[3] else None


def bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return output (b, o) of input1 (b, i), input2 (b, j), weight (o, i, j) and bias (o,) or None; differentiable."""
    return _Contraction.apply(input1, input2, weight, bias)


def differentiable_gradients(
    input1: Tensor,
    input2: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    grad_output: Tensor,
    needed: tuple[bool, ...],
) -> tuple[Tensor | None, ...]:
    """Return the gradients of what is needed by autograd over the einsum, itself differentiable."""
    given = (input1, input2, weight, bias)
    asked = [tensor for tensor, need in zip(given, needed, strict=True) if need]
    with torch.enable_grad(), _full_precision(input1):
        found = iter(torch.autograd.grad(einsum_bilinear(*given), asked, grad_output, create_graph=True))
    return tuple(next(found) if need else None for need in needed)


def contract(order: First, input1: Tensor, input2: Tensor, weight: Tensor) -> Tensor:
    """Return output (b, o), without bias, of input1 (b, i), input2 (b, j) and weight (o, i, j)."""
    if order == "input1":
        return contract("input2", input2, input1, weight.transpose(1, 2))
    (batch, in1), (out, in2) = input1.shape, weight.shape[::2]
    if 0 in (batch, out, in1, in2):
        return input1.new_zeros((batch, out))
    if order == "input2":
        output = input1.new_empty((batch, out))
        rows, most = _piece(input1, in1)
        room = input1.new_empty(rows * min(most, out) * in1)
        for pages in pieces(out, most):
            part = weight[pages].reshape(-1, in2)  # (o i, j)
            for b in pieces(batch, rows):
                between = _product(input2[b], part.t(), room).view(-1, pages.stop - pages.start, in1)  # (b, o, i)
                output[b, pages] = _dots(input1[b], between)
        return output
    output = input1.new_zeros((batch, out), dtype=_wide(input1))
    rows, most = _piece(input1, in2)
    room = input1.new_empty(rows * min(most, in1) * in2)
    for features in pieces(in1, most):
        part = weight[:, features].reshape(out, -1)  # (o, i j)
        for b in pieces(batch, rows):
            _add_product(output[b], _multiplied(input1[b, features], input2[b], room), part.t())
    return output.to(input1.dtype)


def gradients(
    order: First, input1: Tensor, input2: Tensor, weight: Tensor, grad_output: Tensor, needed: tuple[bool, bool, bool]
) -> Gradients:
    """Return the gradients of input1 (b, i), input2 (b, j) and weight (o, i, j), each if it is needed."""
    if order == "input1":
        swapped = needed[1], needed[0], needed[2]
        grad2, grad1, grad3 = gradients("input2", input2, input1, weight.transpose(1, 2), grad_output, swapped)
        return grad1, grad2, None if grad3 is None else grad3.transpose(1, 2).contiguous()
    if 0 in (*input1.shape, *weight.shape):
        given = (input1, input2, weight)
        return tuple(torch.zeros_like(one) if need else None for one, need in zip(given, needed, strict=True))  # type: ignore[return-value]  # three
    by_order = _gradients_of_contracted if order == "input2" else _gradients_of_multiplied
    return by_order(input1, input2, weight, grad_output, needed)


def _gradients_of_contracted(
    input1: Tensor, input2: Tensor, weight: Tensor, grad_output: Tensor, needed: tuple[bool, bool, bool]
) -> Gradients:
    """With (b, o, i) between: contracted anew for grad_input1, and its gradient for the other two."""
    (batch, in1), (out, in2) = input1.shape, weight.shape[::2]
    grad1, grad2 = (torch.zeros_like(one, dtype=_wide(one)) for one in (input1, input2))
    grad3 = weight.new_empty(weight.shape)
    rows, most = _piece(input1, in1)
    room = input1.new_empty(rows * min(most, out) * in1)
    for pages in pieces(out, most):
        part = weight[pages].reshape(-1, in2)  # (o i, j)
        part_grad = torch.zeros_like(part, dtype=_wide(part)) if needed[2] else None
        for b in pieces(batch, rows):
            gradient = grad_output[b, pages]  # (b, o)
            if needed[0]:
                between = _product(input2[b], part.t(), room).view(*gradient.shape, in1)  # (b, o, i)
                grad1[b] += torch.bmm(gradient.unsqueeze(1), between).squeeze(1)
            if needed[1] or needed[2]:
                scaled = _multiplied(gradient, input1[b], room)  # (b, o i)
            if needed[1]:
                _add_product(grad2[b], scaled, part)
            if part_grad is not None:
                _add_product(part_grad, scaled.t(), input2[b])
        if part_grad is not None:
            grad3[pages] = part_grad.view(-1, in1, in2)
    return _kept((grad1.to(input1.dtype), grad2.to(input2.dtype), grad3), needed)


def _gradients_of_multiplied(
    input1: Tensor, input2: Tensor, weight: Tensor, grad_output: Tensor, needed: tuple[bool, bool, bool]
) -> Gradients:
    """With (b, i, j) between: its gradient has both inputs', and what it was grad_weight."""
    (batch, in1), (out, in2) = input1.shape, weight.shape[::2]
    grad1 = input1.new_empty(input1.shape)
    grad2 = torch.zeros_like(input2, dtype=_wide(input2))
    grad3 = weight.new_empty(weight.shape)
    rows, most = _piece(input1, in2)
    room = input1.new_empty(rows * min(most, in1) * in2)
    for features in pieces(in1, most):
        part = weight[:, features].reshape(out, -1)  # (o, i j)
        part_grad = torch.zeros_like(part, dtype=_wide(part)) if needed[2] else None
        for b in pieces(batch, rows):
            one, other = input1[b, features], input2[b]
            if needed[0] or needed[1]:
                gradient = _product(grad_output[b], part, room).view(*one.shape, in2)  # (b, i, j)
            if needed[0]:
                grad1[b, features] = _dots(other, gradient)
            if needed[1]:
                grad2[b] += torch.bmm(one.unsqueeze(1), gradient).squeeze(1)
            if part_grad is not None:
                _add_product(part_grad, grad_output[b].t(), _multiplied(one, other, room))  # (o, b) @ (b, i j)
        if part_grad is not None:
            grad3[:, features] = part_grad.view(out, -1, in2)
    return _kept((grad1, grad2.to(input2.dtype), grad3), needed)


def _kept(found: tuple[Tensor, Tensor, Tensor], needed: tuple[bool, bool, bool]) -> Gradients:
    return tuple(one if need else None for one, need in zip(found, needed, strict=True))  # type: ignore[return-value]  # three


def _full_precision(tensor: Tensor) -> contextlib.AbstractContextManager[Any]:
    """As nn.Bilinear, what is float32 stays so under autocast, which would round the operands of every product."""
    kind = tensor.device.type
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else contextlib.nullcontext()


@functools.lru_cache(1024)
def _first(sizes: tuple[int, int, int, int], *, backward: bool) -> First:
    return first(sizes, backward=backward, packed=False, rates=RATES)


def _sizes(input1: Tensor, weight: Tensor) -> tuple[int, int, int, int]:
    """batch, in1_features, in2_features, out_features."""
    return input1.shape[0], weight.shape[1], weight.shape[2], weight.shape[0]


def _piece(tensor: Tensor, width: int) -> tuple[int, int]:
    """Rows of a piece, and how often this width fits into a row of it: at least once.

    On a GPU it has all the rows that there is room for, since each piece is a launch.
    """
    room: int = PIECE_BYTES[tensor.device.type] // tensor.element_size()
    rows = min(len(tensor), PIECE_ROWS if tensor.device.type == "cpu" else max(1, room // width))
    return rows, max(1, room // (rows * width))


def _wide(tensor: Tensor) -> torch.dtype:
    """The dtype that pieces are added up in: half types would be rounded after each."""
    return torch.promote_types(tensor.dtype, torch.float32)


def _dots(rows: Tensor, matrices: Tensor) -> Tensor:
    """The dot product of each row (b, f) with each row of its matrix (b, n, f), as (b, n)."""
    return torch.bmm(rows.unsqueeze(1), matrices.transpose(1, 2)).squeeze(1)


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """``total += left @ right``."""
    if total.dtype == left.dtype and not _for_onednn(left, right):
        total.addmm_(left, right)
    else:
        total += _product(left, right)


def _product(left: Tensor, right: Tensor, room: Tensor | None = None) -> Tensor:
    """``left @ right`` by the faster library; at the beginning of ``room`` if that library can.

    New memory of a piece's size would come from the system page by page, each time anew.
    """
    if _for_onednn(left, right):
        return _onednn_product(left, right)
    if room is None:
        return torch.mm(left, right)
    shape = left.shape[0], right.shape[1]
    return torch.mm(left, right, out=room[: math.prod(shape)].view(shape))


def _multiplied(one: Tensor, other: Tensor, room: Tensor) -> Tensor:
    """Every product of a row's elements, (b, m) and (b, n) as (b, m n), at the beginning of ``room``."""
    shape = *one.shape, other.shape[1]
    made = torch.mul(one.unsqueeze(2), other.unsqueeze(1), out=room[: math.prod(shape)].view(shape))
    return made.flatten(1)


def _for_onednn(left: Tensor, right: Tensor) -> bool:
    if left.device.type != "cpu" or left.dtype != torch.float32:
        return False
    return 2 * left.shape[0] * left.shape[1] * right.shape[1] >= ONEDNN_FLOP and _onednn_is_faster()


def _onednn_product(left: Tensor, right: Tensor) -> Tensor:
    # A part of wider rows would go to oneDNN's reference code, over 100 times slower (3.12; (512, 32) @ (32, 2048)).
    if not (right.is_contiguous() or right.t().is_contiguous()):
        right = right.contiguous()
    # What TorchInductor calls for a linear layer: left @ weight^T, with no bias and nothing done to the result.
    return torch.ops.mkldnn._linear_pointwise(left, right.t(), None, "none", [], "")


@functools.cache
def _onednn_is_faster() -> bool:
    """Time both in turns on a product of some milliseconds; False where PyTorch has no oneDNN."""
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    left, right = torch.ones(384, 384), torch.ones(384, 1536)
    least = dict.fromkeys((torch.mm, _onednn_product), math.inf)
    for _ in range(ROUNDS):
        for product in least:
            start = time.perf_counter()
            product(left, right)
            least[product] = min(least[product], time.perf_counter() - start)
    return least[torch.mm] > ONEDNN_GAIN * least[_onednn_product]

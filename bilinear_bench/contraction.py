"""The bilinear form in plain PyTorch: GEMMs in the cheapest order, in pieces that stay in cache; any float, any device.

The three orders and the names of their intermediates are in ``order.py``.

Axes: ``b`` batch, ``i`` in1_features, ``j`` in2_features, ``o`` out_features.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Sequence
from typing import Any, Final

import torch

from bilinear_bench.gemm import add_product, product, row_dots
from bilinear_bench.order import PIECE_ROWS, Order, Rates, cheapest, pieces

Tensor = Any
#: Gradients of input1, input2 and weight; None where one is not needed.
Gradients = tuple[Tensor | None, Tensor | None, Tensor | None]
Needed = tuple[bool, bool, bool]

#: Bytes of an intermediate at a time, by device: on a CPU it stays in the caches, on a GPU it keeps launches few.
PIECE_BYTES: Final = {"cpu": 4 * 2**20, "cuda": 256 * 2**20}
#: Fitted on a CPU. A GPU's rates differ, but rank the orders alike.
RATES: Final = Rates(contracted=60, multiplied=30, narrow=16, swapped=60)


def forward(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None, stores: bool) -> tuple[Tensor, None]:
    """Return output (b, o) of input1 (b, i), input2 (b, j), weight (o, i, j), bias (o,) or None; nothing is stored."""
    with full_precision(input1):
        output = contract(_order(_sizes(input1, input2, len(weight)), backward=False), input1, input2, weight)
    return output if bias is None else output.add_(bias), None


def einsum_bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return output (b, o) by one torch.einsum."""
    output = torch.einsum("bi,oij,bj->bo", input1, weight, input2)  # (b, i), (o, i, j), (b, j) -> (b, o)
    return output if bias is None else output + bias


def contract(order: Order, input1: Tensor, input2: Tensor, weight: Tensor) -> Tensor:
    """Return output (b, o), without bias, of input1 (b, i), input2 (b, j) and weight (o, i, j)."""
    if order == "input1":
        return contract("input2", input2, input1, weight.transpose(1, 2))
    (batch, in1), (out, in2) = input1.shape, weight.shape[::2]
    if 0 in (batch, out, in1, in2):
        return input1.new_zeros((batch, out))
    if order == "input2":
        output = input1.new_empty((batch, out))
        rows, most = _piece(input1, in1)
        buffer = input1.new_empty(rows * min(most, out) * in1)
        for pages in pieces(out, most):
            part = weight[pages].reshape(-1, in2)  # (o i, j)
            for b in pieces(batch, rows):
                between = product(input2[b], part.t(), buffer).view(-1, pages.stop - pages.start, in1)  # (b, o, i)
                output[b, pages] = row_dots(input1[b], between)
        return output
    output = input1.new_zeros((batch, out), dtype=_sum_dtype(input1))
    rows, most = _piece(input1, in2)
    buffer = input1.new_empty(rows * min(most, in1) * in2)
    for features in pieces(in1, most):
        part = weight[:, features].reshape(out, -1)  # (o, i j)
        for b in pieces(batch, rows):
            add_product(output[b], _outer(input1[b, features], input2[b], buffer), part.t())
    return output.to(input1.dtype)


def gradients(
    input1: Tensor,
    input2: Tensor,
    weight: Tensor | None,
    grad_output: Tensor,
    needed: Needed,
    tiles: None = None,
    order: Order | None = None,
) -> Gradients:
    """Return the needed gradients of input1 (b, i), input2 (b, j) and weight (o, i, j), None for the others.

    Args:
        input1: Tensor (b, i).
        input2: Tensor (b, j).
        weight: Tensor (o, i, j); None if the inputs' gradients are not needed.
        grad_output: Tensor (b, o).
        needed: Which of the three gradients are needed.
        tiles: None: a forward stores nothing.
        order: The order of contraction; None for the cheapest.
    """
    out = grad_output.shape[1]
    if 0 in (*input1.shape, *input2.shape, out):
        shapes = input1.shape, input2.shape, (out, input1.shape[1], input2.shape[1])
        return _only([input1.new_zeros(shape) for shape in shapes], needed)
    order = order or _order(_sizes(input1, input2, out), backward=True)
    with full_precision(input1):
        if order == "both":
            return _gradients_of_outer(input1, input2, weight, grad_output, needed)
        if order == "input2":
            return _gradients_of_contracted(input1, input2, weight, grad_output, needed)
        swapped = None if weight is None else weight.transpose(1, 2)
        exchanged = needed[1], needed[0], needed[2]
        grad2, grad1, grad3 = _gradients_of_contracted(input2, input1, swapped, grad_output, exchanged)
        return grad1, grad2, None if grad3 is None else grad3.transpose(1, 2).contiguous()


def _gradients_of_contracted(
    input1: Tensor, input2: Tensor, weight: Any, grad_output: Tensor, needed: Needed
) -> Gradients:
    """Return the gradients of order "input2".

    The intermediate (b, o, i) is recomputed for grad_input1; its gradient leads to the other two.
    """
    (batch, in1), in2, out = input1.shape, input2.shape[1], grad_output.shape[1]
    # Not zeros_like: strides of transposed inputs are not for their gradients.
    grad1, grad2 = (one.new_zeros(one.shape, dtype=_sum_dtype(one)) for one in (input1, input2))
    grad3 = input1.new_empty((out, in1, in2) if needed[2] else 0)
    rows, most = _piece(input1, in1)
    buffer = input1.new_empty(rows * min(most, out) * in1)
    for pages in pieces(out, most):
        part: Any = weight[pages].reshape(-1, in2) if needed[0] or needed[1] else None  # (o i, j)
        part_shape = (pages.stop - pages.start) * in1, in2
        part_grad = input1.new_zeros(part_shape, dtype=_sum_dtype(input1)) if needed[2] else None
        for b in pieces(batch, rows):
            gradient = grad_output[b, pages]  # (b, o)
            if needed[0]:
                between = product(input2[b], part.t(), buffer).view(*gradient.shape, in1)  # (b, o, i)
                grad1[b] += torch.bmm(gradient.unsqueeze(1), between).squeeze(1)
            if needed[1] or needed[2]:
                scaled = _outer(gradient, input1[b], buffer)  # (b, o i)
            if needed[1]:
                add_product(grad2[b], scaled, part)
            if part_grad is not None:
                add_product(part_grad, scaled.t(), input2[b])
        if part_grad is not None:
            grad3[pages] = part_grad.view(-1, in1, in2)
    return _only((grad1.to(input1.dtype), grad2.to(input2.dtype), grad3), needed)


def _gradients_of_outer(input1: Tensor, input2: Tensor, weight: Any, grad_output: Tensor, needed: Needed) -> Gradients:
    """Return the gradients of order "both".

    The gradient of the intermediate (b, i, j) leads to both inputs' gradients, the intermediate itself to grad_weight.
    """
    (batch, in1), in2, out = input1.shape, input2.shape[1], grad_output.shape[1]
    grad1 = input1.new_empty(input1.shape)
    grad2 = input2.new_zeros(input2.shape, dtype=_sum_dtype(input2))
    grad3 = input1.new_empty((out, in1, in2) if needed[2] else 0)
    rows, most = _piece(input1, in2)
    buffer = input1.new_empty(rows * min(most, in1) * in2)
    for features in pieces(in1, most):
        part: Any = weight[:, features].reshape(out, -1) if needed[0] or needed[1] else None  # (o, i j)
        part_shape = out, (features.stop - features.start) * in2
        part_grad = input1.new_zeros(part_shape, dtype=_sum_dtype(input1)) if needed[2] else None
        for b in pieces(batch, rows):
            one, other = input1[b, features], input2[b]
            if needed[0] or needed[1]:
                gradient = product(grad_output[b], part, buffer).view(*one.shape, in2)  # (b, i, j)
            if needed[0]:
                grad1[b, features] = row_dots(other, gradient)
            if needed[1]:
                grad2[b] += torch.bmm(one.unsqueeze(1), gradient).squeeze(1)
            if part_grad is not None:
                add_product(part_grad, grad_output[b].t(), _outer(one, other, buffer))  # (o, b) @ (b, i j)
        if part_grad is not None:
            grad3[:, features] = part_grad.view(out, -1, in2)
    return _only((grad1, grad2.to(input2.dtype), grad3), needed)


def _only(results: Sequence[Tensor], needed: Needed) -> Gradients:
    """Return the needed ones of three gradients, None for the others."""
    return tuple(one if need else None for one, need in zip(results, needed, strict=True))  # type: ignore[return-value]  # three


def full_precision(tensor: Tensor) -> contextlib.AbstractContextManager[Any]:
    """Keep float32 under autocast, as nn.Bilinear does; autocast would round the operands of every product."""
    kind = tensor.device.type
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else contextlib.nullcontext()


@functools.lru_cache(1024)
def _order(sizes: tuple[int, int, int, int], *, backward: bool) -> Order:
    """Return the cheapest order; the weight is not packed ahead."""
    return cheapest(sizes, backward=backward, packed=False, rates=RATES)


def _sizes(input1: Tensor, input2: Tensor, out: int) -> tuple[int, int, int, int]:
    """Return batch, in1_features, in2_features, out_features."""
    return *input1.shape, input2.shape[1], out


def _piece(tensor: Tensor, width: int) -> tuple[int, int]:
    """Return the rows of a piece, and the number of times (at least 1) that ``width`` columns fit into a row of it.

    On a GPU a piece has all rows that fit, since each piece is a launch.
    """
    elements: int = PIECE_BYTES[tensor.device.type] // tensor.element_size()
    rows = min(len(tensor), PIECE_ROWS if tensor.device.type == "cpu" else max(1, elements // width))
    return rows, max(1, elements // (rows * width))


def _sum_dtype(tensor: Tensor) -> torch.dtype:
    """Return the dtype in which pieces are added up: half types would be rounded after each."""
    return torch.promote_types(tensor.dtype, torch.float32)


def _outer(one: Tensor, other: Tensor, buffer: Tensor) -> Tensor:
    """Return every product of a row's elements, (b, m) and (b, n) as (b, m n), at the beginning of ``buffer``."""
    shape = *one.shape, other.shape[1]
    products = torch.mul(one.unsqueeze(2), other.unsqueeze(1), out=buffer[: math.prod(shape)].view(shape))
    return products.flatten(1)

"""Plain NumPy products in the cheapest order, in pieces that stay in cache.

Over 120 lines: the output and both kinds of gradients are written out, as loops over pieces with their BLAS products.

Formula: one of the three orders in ``bilinear_bench/order.py``, chosen for each case by the cost model there.

Axes: ``b`` batch, ``i`` in1_features, ``j`` in2_features, ``o`` out_features.

* Work: 2 b i j o flop forward; backward 4 b i j o if both inputs are multiplied first, else 6. Only the products use
  several threads; every other operation of NumPy uses one.
* Written between: ``PIECE_BYTES`` at a time of (b, o, i), (b, o, j) or (b, i, j), always in the same buffer, and a
  piece of grad_weight.
* Prepared outside the clock: the order; for inference, the weight with its last two axes swapped if "input1" is first.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from backends._step import Backward, ClosureStep
from bilinear_bench.order import PIECE_ROWS, Order, Rates, cheapest, pieces
from harness.backend import Backend, Kernel
from harness.case import Case

Array = npt.NDArray[np.floating]

#: Bytes of an intermediate at a time.
PIECE_BYTES: Final = 2 * 2**20
#: Fitted to NumPy's own passes over an array, in flop of its BLAS.
RATES: Final = Rates(contracted=50, multiplied=90, narrow=16, swapped=120)


class NumpyContract(Backend):
    """BLAS products in the cheapest order; gradients as products too. float32 and float64: BLAS has no others."""

    name = "numpy-contract"

    def workspace_bytes(self, case: Case) -> int:
        """Return a piece, its gradient, and a piece of the weight and of its gradient; an upper figure."""
        row = case.in1_features * case.in2_features * case.itemsize
        piece = PIECE_BYTES + PIECE_ROWS * max(case.in1_features, case.in2_features) * case.itemsize
        return 2 * piece + 3 * case.out_features * row

    def prepare_forward(self, case: Case, weight: Array, bias: Array | None) -> Kernel:
        """Choose the order and copy the weight for it."""
        order = cheapest(case.sizes, backward=False, packed=True, rates=RATES)
        packed = np.ascontiguousarray(weight.transpose(0, 2, 1)).transpose(0, 2, 1) if order == "input1" else weight

        def kernel(input1: Array, input2: Array) -> Array:
            output = contract(order, input1, input2, packed)
            if bias is not None:
                output += bias
            return output

        return kernel

    def prepare_forward_backward(self, case: Case) -> ClosureStep:
        """Choose the orders."""
        forward_order = cheapest(case.sizes, backward=False, packed=False, rates=RATES)
        backward_order = cheapest(case.sizes, backward=True, packed=False, rates=RATES)

        def step(input1: Array, input2: Array, weight: Array, bias: Array | None) -> tuple[Array, Backward]:
            def backward(grad_output: Array) -> tuple[Array, Array, Array, Array | None]:
                results = gradients(backward_order, input1, input2, weight, grad_output)
                return *results, None if bias is None else grad_output.sum(0)

            output = contract(forward_order, input1, input2, weight)
            if bias is not None:
                output += bias
            return output, backward

        return ClosureStep(step)


def contract(order: Order, input1: Array, input2: Array, weight: Array) -> Array:
    """Return output (b, o), without bias, of input1 (b, i), input2 (b, j) and weight (o, i, j)."""
    if order == "input1":
        return contract("input2", input2, input1, weight.transpose(0, 2, 1))
    (batch, in1), (out, in2) = input1.shape, weight.shape[::2]
    output = np.zeros((batch, out), input1.dtype)
    if order == "input2":
        rows, most, buffer = _buffer(input1, in1, out)
        for pages in pieces(out, most):
            part = weight[pages].reshape(-1, in2)  # (o i, j)
            for b in pieces(batch, rows):
                between = _piece(buffer, b, len(part))
                np.matmul(input2[b], part.T, out=between)
                output[b, pages] = _row_dots(input1[b], between.reshape(len(between), -1, in1))
        return output
    rows, most, buffer = _buffer(input1, in2, in1)
    for features in pieces(in1, most):
        part = weight[:, features].reshape(out, (features.stop - features.start) * in2)  # (o, i j)
        for b in pieces(batch, rows):
            output[b] += _outer(input1[b, features], input2[b], buffer) @ part.T
    return output


def gradients(
    order: Order, input1: Array, input2: Array, weight: Array, grad_output: Array
) -> tuple[Array, Array, Array]:
    """Return the gradients of input1 (b, i), input2 (b, j) and weight (o, i, j)."""
    if order == "input1":
        grad2, grad1, grad3 = gradients("input2", input2, input1, weight.transpose(0, 2, 1), grad_output)
        return grad1, grad2, np.ascontiguousarray(grad3.transpose(0, 2, 1))
    by_order = _gradients_of_contracted if order == "input2" else _gradients_of_outer
    return by_order(input1, input2, weight, grad_output)


def _gradients_of_contracted(
    input1: Array, input2: Array, weight: Array, grad_output: Array
) -> tuple[Array, Array, Array]:
    """Recompute (b, o, i) for grad_input1; its gradient leads to the other two."""
    (batch, in1), (out, in2) = input1.shape, weight.shape[::2]
    grad1, grad2, grad3 = np.zeros_like(input1), np.zeros_like(input2), np.empty(weight.shape, weight.dtype)
    rows, most, buffer = _buffer(input1, in1, out)
    for pages in pieces(out, most):
        part = weight[pages].reshape(-1, in2)  # (o i, j)
        part_grad = np.zeros(part.shape, part.dtype)
        for b in pieces(batch, rows):
            gradient = grad_output[b, pages]  # (b, o)
            between = _piece(buffer, b, len(part))  # (b, o i)
            np.matmul(input2[b], part.T, out=between)
            grad1[b] += (gradient[:, None] @ between.reshape(*gradient.shape, in1))[:, 0]
            scaled = _outer(gradient, input1[b], buffer)  # (b, o i), in the place of ``between``
            grad2[b] += scaled @ part
            part_grad += scaled.T @ input2[b]
        grad3[pages] = part_grad.reshape(-1, in1, in2)
    return grad1, grad2, grad3


def _gradients_of_outer(input1: Array, input2: Array, weight: Array, grad_output: Array) -> tuple[Array, Array, Array]:
    """Compute the gradient of (b, i, j) for both inputs' gradients, and (b, i, j) itself for grad_weight."""
    (batch, in1), (out, in2) = input1.shape, weight.shape[::2]
    grad1, grad2, grad3 = np.zeros_like(input1), np.zeros_like(input2), np.empty(weight.shape, weight.dtype)
    rows, most, buffer = _buffer(input1, in2, in1)
    for features in pieces(in1, most):
        part = weight[:, features].reshape(out, (features.stop - features.start) * in2)  # (o, i j)
        part_grad = np.zeros(part.shape, part.dtype)
        for b in pieces(batch, rows):
            one, other = input1[b, features], input2[b]
            between = _piece(buffer, b, part.shape[1])  # (b, i j)
            np.matmul(grad_output[b], part, out=between)
            gradient = between.reshape(*one.shape, in2)
            grad1[b, features] = _row_dots(other, gradient)
            grad2[b] += (one[:, None] @ gradient)[:, 0]
            part_grad += grad_output[b].T @ _outer(one, other, buffer)
        grad3[:, features] = part_grad.reshape(grad3[:, features].shape)
    return grad1, grad2, grad3


def _buffer(array: Array, width: int, total: int) -> tuple[int, int, Array]:
    """Return rows of a piece, ``width`` columns that fit into its row (at least once), and the buffer of a piece.

    Args:
        array: Input (b, f), for the batch and the dtype.
        width: Columns that belong together.
        total: Times that ``width`` columns are needed for the whole intermediate.
    """
    rows = max(1, min(len(array), PIECE_ROWS))
    most = max(1, PIECE_BYTES // array.itemsize // (rows * width))
    return rows, most, np.empty(rows * min(most, total) * width, array.dtype)


def _piece(buffer: Array, rows: slice, width: int) -> Array:
    """Return the beginning of a buffer as rows of ``width`` elements."""
    count = rows.stop - rows.start
    return buffer[: count * width].reshape(count, width)


def _outer(one: Array, other: Array, buffer: Array) -> Array:
    """Return every product of a row's elements, (b, m) and (b, n) as (b, m n), at the beginning of a buffer."""
    products = buffer[: one.size * other.shape[1]].reshape(*one.shape, other.shape[1])
    np.multiply(one[:, :, None], other[:, None], out=products)
    return products.reshape(len(one), -1)


def _row_dots(rows: Array, matrices: Array) -> Array:
    """Return the dot product of each row (b, f) with each row of its matrix (b, n, f), as (b, n)."""
    products: Array = (rows[:, None] @ matrices.transpose(0, 2, 1))[:, 0]
    return products

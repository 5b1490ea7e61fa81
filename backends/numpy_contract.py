"""Plain NumPy as fast as it goes: BLAS products in the cheapest order, in pieces that stay in cache.

Formula: one of the three orders in ``contraction.py``, chosen for each case by the cost model there.

Axes: ``b`` batch, ``i`` in1_features, ``j`` in2_features, ``o`` out_features.

* Work: 2 b i j o flop forward; backward 4 b i j o if both inputs are multiplied first, else 6. Only the products have
  threads; all else in NumPy has one.
* Written between: ``PIECE_BYTES`` at a time of (b, o, i), (b, o, j) or (b, i, j), always to the same place, and a piece
  of grad_weight.
* Prepared outside the clock: the order; for inference, the weight with its last two axes swapped if "input1" is first.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from backends.contraction import PIECE_ROWS, First, Rates, first, pieces
from harness.backend import Backend, Kernel
from harness.case import Case

Array = npt.NDArray[np.floating]

#: Of what comes between, at a time.
PIECE_BYTES: Final = 2 * 2**20
#: From NumPy's own passes over an array, 0.15 to 0.6 ns an element beside 110 GFLOP/s on two cores of a Zen 3.
RATES: Final = Rates(contracted=50, multiplied=90, narrow=16, swapped=120)


class NumpyContract(Backend):
    """BLAS products in the cheapest order; gradients as products too. float32 and float64: BLAS has no others."""

    name = "numpy-contract"

    def workspace_bytes(self, case: Case) -> int:
        """A piece, its gradient, and a piece of the weight and of its gradient; an upper figure."""
        row = case.in1_features * case.in2_features * case.itemsize
        piece = PIECE_BYTES + PIECE_ROWS * max(case.in1_features, case.in2_features) * case.itemsize
        return 2 * piece + 3 * case.out_features * row

    def prepare_forward(self, case: Case, weight: Array, bias: Array | None) -> Kernel:
        """Choose the order and lay the weight out for it."""
        order = first(case.sizes, backward=False, packed=True, rates=RATES)
        laid = np.ascontiguousarray(weight.transpose(0, 2, 1)).transpose(0, 2, 1) if order == "input1" else weight

        def kernel(input1: Array, input2: Array) -> Array:
            output = contract(order, input1, input2, laid)
            if bias is not None:
                output += bias
            return output

        return kernel

    def prepare_forward_backward(self, case: Case) -> ContractStep:
        """Choose the orders."""
        return ContractStep(
            first(case.sizes, backward=False, packed=False, rates=RATES),
            first(case.sizes, backward=True, packed=False, rates=RATES),
        )


class ContractStep:
    """The contraction and its gradients, each in its order."""

    def __init__(self, ahead: First, back: First) -> None:
        self._ahead, self._back = ahead, back
        self._saved: tuple[Array, Array, Array, bool] | None = None

    def forward(self, input1: Array, input2: Array, weight: Array, bias: Array | None) -> Array:
        """Return output (b, o)."""
        self._saved = input1, input2, weight, bias is not None
        output = contract(self._ahead, input1, input2, weight)
        if bias is not None:
            output += bias
        return output

    def backward(self, grad_output: Array) -> tuple[Array, Array, Array, Array | None]:
        """Return the gradients."""
        if self._saved is None:
            raise RuntimeError("backward without a forward: call forward first")
        (input1, input2, weight, has_bias), self._saved = self._saved, None
        found = gradients(self._back, input1, input2, weight, grad_output)
        return *found, grad_output.sum(0) if has_bias else None


def contract(order: First, input1: Array, input2: Array, weight: Array) -> Array:
    """Return output (b, o), without bias, of input1 (b, i), input2 (b, j) and weight (o, i, j)."""
    if order == "input1":
        return contract("input2", input2, input1, weight.transpose(0, 2, 1))
    (batch, in1), (out, in2) = input1.shape, weight.shape[::2]
    output = np.zeros((batch, out), input1.dtype)
    rows = max(1, min(batch, PIECE_ROWS))
    if order == "input2":
        most = max(1, _room(input1) // (rows * in1))
        between = np.empty(rows * min(most, out) * in1, input1.dtype)
        for pages in pieces(out, most):
            part = weight[pages].reshape(-1, in2)  # (o i, j)
            for b in pieces(batch, rows):
                here = _piece(between, b, len(part))
                np.matmul(input2[b], part.T, out=here)
                output[b, pages] = _dots(input1[b], here.reshape(len(here), -1, in1))
        return output
    most = max(1, _room(input1) // (rows * in2))
    between = np.empty(rows * min(most, in1) * in2, input1.dtype)
    for features in pieces(in1, most):
        part = weight[:, features].reshape(out, (features.stop - features.start) * in2)  # (o, i j)
        for b in pieces(batch, rows):
            here = _multiplied(input1[b, features], input2[b], between)
            output[b] += here @ part.T
    return output


def gradients(
    order: First, input1: Array, input2: Array, weight: Array, grad_output: Array
) -> tuple[Array, Array, Array]:
    """Return the gradients of input1 (b, i), input2 (b, j) and weight (o, i, j)."""
    if order == "input1":
        grad2, grad1, grad3 = gradients("input2", input2, input1, weight.transpose(0, 2, 1), grad_output)
        return grad1, grad2, np.ascontiguousarray(grad3.transpose(0, 2, 1))
    by_order = _gradients_of_contracted if order == "input2" else _gradients_of_multiplied
    return by_order(input1, input2, weight, grad_output)


def _gradients_of_contracted(
    input1: Array, input2: Array, weight: Array, grad_output: Array
) -> tuple[Array, Array, Array]:
    """With (b, o, i) between: contracted anew for grad_input1, and its gradient for the other two."""
    (batch, in1), (out, in2) = input1.shape, weight.shape[::2]
    grad1, grad2, grad3 = np.zeros_like(input1), np.zeros_like(input2), np.empty(weight.shape, weight.dtype)
    rows = max(1, min(batch, PIECE_ROWS))
    most = max(1, _room(input1) // (rows * in1))
    between = np.empty(rows * min(most, out) * in1, input1.dtype)
    for pages in pieces(out, most):
        part = weight[pages].reshape(-1, in2)  # (o i, j)
        part_grad = np.zeros(part.shape, part.dtype)
        for b in pieces(batch, rows):
            gradient = grad_output[b, pages]  # (b, o)
            here = _piece(between, b, len(part))  # (b, o i)
            np.matmul(input2[b], part.T, out=here)
            grad1[b] += (gradient[:, None] @ here.reshape(*gradient.shape, in1))[:, 0]
            _multiplied(gradient, input1[b], between)
            grad2[b] += here @ part
            part_grad += here.T @ input2[b]
        grad3[pages] = part_grad.reshape(-1, in1, in2)
    return grad1, grad2, grad3


def _gradients_of_multiplied(
    input1: Array, input2: Array, weight: Array, grad_output: Array
) -> tuple[Array, Array, Array]:
    """With (b, i, j) between: its gradient has both inputs', and what it was grad_weight."""
    (batch, in1), (out, in2) = input1.shape, weight.shape[::2]
    grad1, grad2, grad3 = np.zeros_like(input1), np.zeros_like(input2), np.empty(weight.shape, weight.dtype)
    rows = max(1, min(batch, PIECE_ROWS))
    most = max(1, _room(input1) // (rows * in2))
    between = np.empty(rows * min(most, in1) * in2, input1.dtype)
    for features in pieces(in1, most):
        part = weight[:, features].reshape(out, (features.stop - features.start) * in2)  # (o, i j)
        part_grad = np.zeros(part.shape, part.dtype)
        for b in pieces(batch, rows):
            one, other = input1[b, features], input2[b]
            here = _piece(between, b, part.shape[1])  # (b, i j)
            np.matmul(grad_output[b], part, out=here)
            gradient = here.reshape(*one.shape, in2)
            grad1[b, features] = _dots(other, gradient)
            grad2[b] += (one[:, None] @ gradient)[:, 0]
            part_grad += grad_output[b].T @ _multiplied(one, other, between)
        grad3[:, features] = part_grad.reshape(grad3[:, features].shape)
    return grad1, grad2, grad3


def _room(array: Array) -> int:
    """Elements of what comes between, at a time."""
    return PIECE_BYTES // array.itemsize


def _piece(between: Array, rows: slice, width: int) -> Array:
    """The beginning of a buffer, as so many rows of ``width`` elements."""
    count = rows.stop - rows.start
    return between[: count * width].reshape(count, width)


def _multiplied(one: Array, other: Array, between: Array) -> Array:
    """Every product of a row's elements, (b, m) and (b, n) as (b, m n), at the beginning of a buffer."""
    here = between[: one.size * other.shape[1]].reshape(*one.shape, other.shape[1])
    np.multiply(one[:, :, None], other[:, None], out=here)
    return here.reshape(len(one), -1)


def _dots(rows: Array, matrices: Array) -> Array:
    """The dot product of each row (b, f) with each row of its matrix (b, n, f), as (b, n)."""
    products: Array = (rows[:, None] @ matrices.transpose(0, 2, 1))[:, 0]
    return products

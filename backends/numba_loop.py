"""The plain loops of the formula, compiled by Numba, parallel over the batch; no BLAS and no library.

Over 120 lines: the three loop nests, forward and backward, are written out.

Formula, for one row ``b`` and one page ``o``::

    row[j]       = sum_i input1[b, i] * weight[o, i, j]
    output[b, o] = sum_j row[j] * input2[b, j] + bias[o]                    einsum: bi,oij,bj->bo

Axes: ``b`` batch, ``i`` in1_features, ``j`` in2_features, ``o`` out_features.

* Work: 2 b i j o flop and 2 b j o for the sums along a row. The step: 6 b i j o, since one pass over
  ``dZ[b,i,j] = sum_o grad_output[b,o] weight[o,i,j]`` gives both input gradients.
* Written between: one row of j elements a batch row, which stays in L1. The weight is read again for every row of
  the batch.
* Prepared outside the clock: nothing. Numba compiles at the first call, or loads from its cache.
* Order of the loops: i outside, j inside, so that ``row[j] += x * weight[o, i, j]`` has no sum to reassociate and the
  compiler may use vectors without fastmath. With i inside, each element would be one serial sum.
"""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt

from backends._step import Backward, ClosureStep
from harness.backend import Backend, Kernel
from harness.case import Case

Array = npt.NDArray[np.floating]


class NumbaLoop(Backend):
    """Jitted loops over C-contiguous arrays; float32 and float64."""

    name = "numba-loop"

    def workspace_bytes(self, case: Case) -> int:
        """Return one row of j elements for each thread."""
        return int(numba.get_num_threads()) * case.in2_features * case.itemsize

    def version(self) -> str:
        """Return the version of Numba."""
        return f"numba {numba.__version__}"

    def prepare_forward(self, case: Case, weight: Array, bias: Array | None) -> Kernel:
        """Return the loops over this weight."""
        addend = _bias_or_zeros(weight, bias)

        def kernel(input1: Array, input2: Array) -> Array:
            return _output(input1, input2, weight, addend)

        return kernel

    def prepare_forward_backward(self, case: Case) -> ClosureStep:
        """Return the loops of the output and of the gradients."""
        return ClosureStep(step)


def step(input1: Array, input2: Array, weight: Array, bias: Array | None) -> tuple[Array, Backward]:
    """Return output (b, o) and the backward: a pass for both input gradients, and one for those of weight and bias."""

    def backward(grad_output: Array) -> tuple[Array, Array, Array, Array | None]:
        grad_input1, grad_input2 = np.empty_like(input1), np.zeros_like(input2)
        _grad_inputs(input1, input2, weight, grad_output, grad_input1, grad_input2)
        grad_weight, grad_bias = np.zeros_like(weight), np.empty(weight.shape[0], dtype=weight.dtype)
        _grad_parameters(input1, input2, grad_output, grad_weight, grad_bias)
        return grad_input1, grad_input2, grad_weight, None if bias is None else grad_bias

    return _output(input1, input2, weight, _bias_or_zeros(weight, bias)), backward


def _output(input1: Array, input2: Array, weight: Array, addend: Array) -> Array:
    output = np.empty((input1.shape[0], weight.shape[0]), dtype=input1.dtype)
    _forward(input1, input2, weight, addend, output)
    return output


def _bias_or_zeros(weight: Array, bias: Array | None) -> Array:
    """Return the bias (o,), or zeros: the loops then need one compiled version, not two."""
    return np.zeros(weight.shape[0], dtype=weight.dtype) if bias is None else bias


# A scalar that sums starts as ``dtype.type(0)``: from the literal 0.0 Numba would make it, and the sum, float64.


@numba.njit(parallel=True, cache=True, fastmath=False)
def _forward(input1: Array, input2: Array, weight: Array, bias: Array, output: Array) -> None:
    batch, in1 = input1.shape
    pages, in2 = weight.shape[0], weight.shape[2]
    for b in numba.prange(batch):
        row = np.empty(in2, input1.dtype)
        for o in range(pages):
            row[:] = 0
            for i in range(in1):  # row (j,): i disappears
                scale = input1[b, i]
                for j in range(in2):
                    row[j] += scale * weight[o, i, j]
            total = input1.dtype.type(0)
            for j in range(in2):  # j disappears
                total += row[j] * input2[b, j]
            output[b, o] = total + bias[o]


@numba.njit(parallel=True, cache=True, fastmath=False)
def _grad_inputs(
    input1: Array, input2: Array, weight: Array, grad_output: Array, grad_input1: Array, grad_input2: Array
) -> None:
    batch, in1 = input1.shape
    pages, in2 = weight.shape[0], weight.shape[2]
    for b in numba.prange(batch):
        row = np.empty(in2, input1.dtype)  # dZ[b, i, :]
        for i in range(in1):
            row[:] = 0
            for o in range(pages):  # row (j,): o disappears
                scale = grad_output[b, o]
                for j in range(in2):
                    row[j] += scale * weight[o, i, j]
            total = input1.dtype.type(0)
            factor = input1[b, i]
            for j in range(in2):
                total += row[j] * input2[b, j]  # j disappears
                grad_input2[b, j] += row[j] * factor  # i disappears
            grad_input1[b, i] = total


@numba.njit(parallel=True, cache=True, fastmath=False)
def _grad_parameters(input1: Array, input2: Array, grad_output: Array, grad_weight: Array, grad_bias: Array) -> None:
    batch, in1 = input1.shape
    pages, in2 = grad_weight.shape[0], grad_weight.shape[2]
    for o in numba.prange(pages):  # over the outputs, so that no two threads add to one page
        total = input1.dtype.type(0)
        for b in range(batch):  # b disappears
            total += grad_output[b, o]
            for i in range(in1):
                scale = grad_output[b, o] * input1[b, i]
                for j in range(in2):
                    grad_weight[o, i, j] += scale * input2[b, j]
        grad_bias[o] = total

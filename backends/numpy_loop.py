"""The page loop in NumPy: one matrix product for each output feature. The readable specification of the operator.

Formula, page ``o`` of the weight at a time::

    output[:, o] = sum_j((input1 @ weight[o]) * input2) + bias[o]          einsum: bi,oij,bj->bo

Axes: ``b`` batch, ``i`` in1_features, ``j`` in2_features, ``o`` out_features.

* Work: 2 b i j o flop in the matrix products and 2 b j o in the row sums. The step does that 4 times: the forward, and
  a product of the same size for each of grad_input1, grad_input2 and grad_weight.
* Written between: one page ``input1 @ weight[o]`` of (b, j), o times, and its product with input2. The products over
  the pages are never all alive.
* Prepared outside the clock: nothing.
* Source: this is the loop of the article that started the project, and the one in Lua Torch (torch/nn, PR 582).

NumPy has no BLAS for float16, and rounds every page to float16 before the row sum. Sums over the pages and over the
batch are float32 then, since NumPy would round every partial sum to float16.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from backends._step import Backward, ClosureStep
from harness.backend import Backend, Kernel, Support
from harness.case import Case

Array = npt.NDArray[np.floating]

#: Dtypes of a case that NumPy has.
DTYPES: Final = ("float16", "float32", "float64")


class NumpyLoop(Backend):
    """One matrix product and one row sum for each output feature."""

    name = "numpy-loop"

    def supports(self, case: Case) -> Support:
        """Return yes for float16, float32 and float64; NumPy has no tf32."""
        if case.dtype not in DTYPES:
            return Support(False, f"NumPy has no {case.dtype}")
        return self.supports_mode_and_precision(case)

    def workspace_bytes(self, case: Case) -> int:
        """Return a page (b, j), its product with input2 and as much for BLAS; backward pages (b, i) and (i, j) too."""
        elements = 3 * case.batch * case.in2_features
        if case.mode == "forward_backward":
            elements += 2 * case.batch * case.in1_features + case.in1_features * case.in2_features
        return elements * case.itemsize

    def prepare_forward(self, case: Case, weight: Array, bias: Array | None) -> Kernel:
        """Return the page loop over this weight."""

        def kernel(input1: Array, input2: Array) -> Array:
            return bilinear(input1, input2, weight, bias)

        return kernel

    def prepare_forward_backward(self, case: Case) -> ClosureStep:
        """Return the page loop with gradients written by hand."""
        return ClosureStep(step)


def bilinear(input1: Array, input2: Array, weight: Array, bias: Array | None) -> Array:
    """Return output (b, o), page by page."""
    batch, pages = input1.shape[0], weight.shape[0]
    output = np.empty((batch, pages), dtype=input1.dtype)
    for page in range(pages):
        product = input1 @ weight[page]  # (b, i) @ (i, j) -> (b, j)
        output[:, page] = (product * input2).sum(axis=1)  # (b, j) -> (b,)
    if bias is not None:
        output += bias  # (b, o) + (o,)
    return output


def step(input1: Array, input2: Array, weight: Array, bias: Array | None) -> tuple[Array, Backward]:
    """Return output (b, o) and the backward, in which each gradient is a matrix product a page.

    Page ``o`` of the output is ``sum_ij input1[b,i] weight[o,i,j] input2[b,j]``. Each gradient is that sum without one
    of its factors, times ``grad_output[b,o]``; the inputs' gradients are summed over the pages.
    """

    def backward(grad_output: Array) -> tuple[Array, Array, Array, Array | None]:
        dtype = input1.dtype
        accumulator = np.result_type(dtype, np.float32)  # float64 for float64
        grad_input1 = np.zeros_like(input1, dtype=accumulator)
        grad_input2 = np.zeros_like(input2, dtype=accumulator)
        grad_weight = np.empty_like(weight)
        for page, grad in zip(range(weight.shape[0]), grad_output.T[:, :, None], strict=True):  # grad: (b, 1)
            grad_input1 += grad * (input2 @ weight[page].T)  # (b, j) @ (j, i) -> (b, i)
            grad_input2 += grad * (input1 @ weight[page])  # (b, i) @ (i, j) -> (b, j)
            grad_weight[page] = (grad * input1).T @ input2  # (i, b) @ (b, j) -> (i, j)
        grad_bias = None
        if bias is not None:
            grad_bias = grad_output.sum(axis=0, dtype=accumulator).astype(dtype, copy=False)  # (b, o) -> (o,)
        grad_input1, grad_input2 = (grad.astype(dtype, copy=False) for grad in (grad_input1, grad_input2))
        return grad_input1, grad_input2, grad_weight, grad_bias

    return bilinear(input1, input2, weight, bias), backward

"""The fused CPU kernel of ``bilinear_bench.cpu`` as a backend: tiles of the intermediate stay in vector registers.

Formula: that of ``bilinear_bench/cpu/forward.py``; gradients as in ``grad_inputs.py`` and ``grad_weight.py`` there.

* Work: 2 b i j o flop forward; 6 b i j o a step, the least possible.
* Written between: inputs in strips; nothing of size b i j, b o j or b o i, but the forward's tiles of few outputs.
* Prepared outside the clock: how to divide the work. The weight is read where it is stored.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from bilinear_bench.cpu import forward, grad_inputs, grad_weight
from bilinear_bench.cpu.packing import aligned, bias_or_zeros, column_sums
from bilinear_bench.cpu.sizes import Sizes
from bilinear_bench.cpu.workspace import workspace_bytes
from harness.backend import Backend, Kernel
from harness.case import Case

Array = npt.NDArray[np.floating[Any]]


class NumbaFused(Backend):
    """Fused tiles in vector code; float32 and float64."""

    name = "numba-fused"

    def workspace_bytes(self, case: Case) -> int:
        """Return the kernels' upper figure."""
        return workspace_bytes(_sizes(case), _threads())

    def version(self) -> str:
        """Return the version of Numba."""
        return f"numba {numba.__version__}"

    def prepare_forward(self, case: Case, weight: Array, bias: Array | None) -> Kernel:
        """Divide the case; return the kernel over this weight."""
        plan = forward.plan(_sizes(case), _threads())
        addend = bias_or_zeros(weight, bias)

        def kernel(input1: Array, input2: Array) -> Array:
            return plan.run(input1, input2, weight, addend)

        return kernel

    def prepare_forward_backward(self, case: Case) -> FusedStep:
        """Divide the case."""
        return FusedStep(_sizes(case), _threads())


class FusedStep:
    """A training step: the forward, both input gradients, and the gradient of the weight.

    Args:
        sizes: Sizes of the layer and its batch.
        threads: Threads, at least 1.
    """

    def __init__(self, sizes: Sizes, threads: int) -> None:
        self._forward = forward.plan(sizes, threads)
        self._grad_inputs = grad_inputs.plan(sizes, threads)
        self._grad_weight = grad_weight.plan(sizes, threads)
        self._saved: tuple[Array, Array, Array, Array, bool] | None = None

    def forward(self, input1: Array, input2: Array, weight: Array, bias: Array | None) -> Array:
        """Return output (b, o)."""
        tiles = aligned(self._grad_inputs.forward_tiles, weight)
        self._saved = input1, input2, weight, tiles, bias is not None
        return self._forward.run(input1, input2, weight, bias_or_zeros(weight, bias), tiles)

    def backward(self, grad_output: Array) -> tuple[Array, Array, Array, Array | None]:
        """Return the gradients."""
        if self._saved is None:
            raise RuntimeError("backward without a forward: call forward first")
        (input1, input2, weight, tiles, has_bias), self._saved = self._saved, None
        grad_input1, grad_input2 = self._grad_inputs.run(input1, input2, weight, grad_output, tiles)
        gradient = self._grad_weight.run(input1, input2, grad_output)
        return grad_input1, grad_input2, gradient, column_sums(grad_output) if has_bias else None


def _sizes(case: Case) -> Sizes:
    return Sizes(*case.sizes, case.dtype)


def _threads() -> int:
    return int(numba.get_num_threads())

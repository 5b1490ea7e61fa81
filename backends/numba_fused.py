"""The fused CPU kernel of ``bilinear_bench.cpu`` as a backend: tiles of the intermediate stay in vector registers.

Formula: that of ``bilinear_bench/cpu/forward.py``; gradients as in ``grad_inputs.py`` and ``grad_weight.py`` there.

* Work: 2 b i j o flop forward; 6 b i j o a step, the least possible.
* Written between: inputs in strips; nothing of size b i j, b o j or b o i, but the forward's tiles of few outputs.
* Prepared outside the clock: how to divide the work. The weight is read where it is stored.
* float16 and bfloat16: as in ``bilinear_bench/cpu/half.py``.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from bilinear_bench.cpu.cpu import HOST
from bilinear_bench.cpu.packing import aligned, bias_or_zeros, column_sums
from bilinear_bench.cpu.plans import call_bytes, forward_plan, grad_inputs_plan, grad_weight_plan
from bilinear_bench.cpu.sizes import HALF_TYPES, Sizes
from harness.backend import Backend, Kernel, Support
from harness.case import Case

Array = npt.NDArray[Any]


class NumbaFused(Backend):
    """Fused tiles in vector code; float16, bfloat16, float32 and float64."""

    name = "numba-fused"

    def supports(self, case: Case) -> Support:
        """Return yes for every dtype; bfloat16 needs the package that knows it in NumPy."""
        if case.dtype == "float16" and not HOST.converts_float16:
            return Support(False, "this CPU, or NUMBA_CPU_NAME, has no instructions for float16")
        if case.dtype == "bfloat16" and importlib.util.find_spec("ml_dtypes") is None:
            return Support(False, "NumPy has no bfloat16: install ml_dtypes")
        return self.supports_mode_and_precision(case)

    def workspace_bytes(self, case: Case) -> int:
        """Return the kernels' upper figure."""
        return call_bytes(_sizes(case), _threads())

    def version(self) -> str:
        """Return the version of Numba."""
        return f"numba {numba.__version__}"

    def to_device(self, array: npt.NDArray[np.floating], dtype: str) -> Array:
        """Copy a host array."""
        if dtype == "bfloat16":
            import ml_dtypes  # gives NumPy the name

            return np.array(array, dtype=ml_dtypes.bfloat16, order="C")
        return super().to_device(array, dtype)

    def prepare_forward(self, case: Case, weight: Array, bias: Array | None) -> Kernel:
        """Divide the case; return the kernel over this weight."""
        plan = forward_plan(_sizes(case), _threads())
        addend = bias_or_zeros(weight, bias)
        if case.dtype in HALF_TYPES:
            return _on_bits(plan, weight, addend)

        def kernel(input1: Array, input2: Array) -> Array:
            return plan.run(input1, input2, weight, addend)

        return kernel

    def prepare_forward_backward(self, case: Case) -> FusedStep:
        """Divide the case."""
        return (HalfStep if case.dtype in HALF_TYPES else FusedStep)(_sizes(case), _threads())


class FusedStep:
    """A training step: the forward, both input gradients, and the gradient of the weight.

    Args:
        sizes: Sizes of the layer and its batch.
        threads: Threads, at least 1.
    """

    def __init__(self, sizes: Sizes, threads: int) -> None:
        self._forward = forward_plan(sizes, threads)
        self._grad_inputs = grad_inputs_plan(sizes, threads)
        self._grad_weight = grad_weight_plan(sizes, threads)
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
        return grad_input1, grad_input2, gradient, self._sums(grad_output) if has_bias else None

    def _sums(self, grad_output: Array) -> Array:
        """Return the sums over the rows of grad_output (b, o)."""
        return column_sums(grad_output)


class HalfStep(FusedStep):
    """The same for half types, whose kernels take bits."""

    def forward(self, input1: Array, input2: Array, weight: Array, bias: Array | None) -> Array:
        """Return output (b, o)."""
        self._dtype = input1.dtype
        addend = None if bias is None else _bits(bias)
        return super().forward(_bits(input1), _bits(input2), _bits(weight), addend).view(self._dtype)

    def backward(self, grad_output: Array) -> tuple[Array, Array, Array, Array | None]:
        """Return the gradients."""
        of1, of2, of_weight, of_bias = super().backward(_bits(grad_output))
        of1, of2, of_weight = (one.view(self._dtype) for one in (of1, of2, of_weight))
        return of1, of2, of_weight, None if of_bias is None else of_bias.view(self._dtype)

    def _sums(self, grad_output: Array) -> Array:
        """Return the sums over the rows of the bits of grad_output (b, o), rounded once."""
        return _bits(column_sums(grad_output.view(self._dtype).astype(np.float32)).astype(self._dtype))


def _on_bits(plan: Any, weight: Array, bias: Array) -> Kernel:
    """Return the kernel of a half type."""
    pages, addend = _bits(weight), _bits(bias)

    def kernel(input1: Array, input2: Array) -> Array:
        return plan.run(_bits(input1), _bits(input2), pages, addend).view(input1.dtype)

    return kernel


def _bits(array: Array) -> Array:
    """Return a half type's array as the kernels take it."""
    return array.view(np.uint16)


def _sizes(case: Case) -> Sizes:
    return Sizes(*case.sizes, case.dtype)


def _threads() -> int:
    return int(numba.get_num_threads())

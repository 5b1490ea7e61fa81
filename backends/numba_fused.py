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
from bilinear_bench.cpu.packing import bias_or_zeros, column_sums
from bilinear_bench.cpu.plans import call_bytes, forward_plan, grad_inputs_plan, grad_weight_plan
from bilinear_bench.cpu.sizes import Sizes
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
        pages, addend = _stored(weight), _stored(bias_or_zeros(weight, bias))

        def kernel(input1: Array, input2: Array) -> Array:
            return plan.run(_stored(input1), _stored(input2), pages, addend).view(input1.dtype)

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
        self._forward = forward_plan(sizes, threads)
        self._grad_inputs = grad_inputs_plan(sizes, threads)
        self._grad_weight = grad_weight_plan(sizes, threads)
        self._saved: tuple[Array, Array, Array, Array, bool] | None = None

    def forward(self, input1: Array, input2: Array, weight: Array, bias: Array | None) -> Array:
        """Return output (b, o)."""
        given = _stored(input1), _stored(input2), _stored(weight)
        tiles = np.empty(self._grad_inputs.forward_tiles, given[2].dtype)
        self._saved = *given, tiles, bias is not None
        return self._forward.run(*given, _stored(bias_or_zeros(weight, bias)), tiles).view(input1.dtype)

    def backward(self, grad_output: Array) -> tuple[Array, Array, Array, Array | None]:
        """Return the gradients."""
        if self._saved is None:
            raise RuntimeError("backward without a forward: call forward first")
        (input1, input2, weight, tiles, has_bias), self._saved = self._saved, None
        given = _stored(grad_output)
        both = self._grad_inputs.run(input1, input2, weight, given, tiles)
        of1, of2, of_weight = (
            one.view(grad_output.dtype) for one in (*both, self._grad_weight.run(input1, input2, given))
        )
        return of1, of2, of_weight, _column_sums(grad_output) if has_bias else None


def _stored(array: Array) -> Array:
    """Return an array as the kernels take it: half types as their bits."""
    return array.view(np.uint16) if array.itemsize == 2 else array


def _column_sums(values: Array) -> Array:
    """Return the sums over the rows of values (b, o), rounded once."""
    wide = values.astype(np.float32) if values.itemsize == 2 else values
    return column_sums(wide).astype(values.dtype, copy=False)


def _sizes(case: Case) -> Sizes:
    return Sizes(*case.sizes, case.dtype)


def _threads() -> int:
    return int(numba.get_num_threads())

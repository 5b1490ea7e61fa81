"""One cupy.einsum along the cheapest path: NumPy's code, on a GPU.

Formula::

    output = einsum("bi,oij,bj->bo", input1, weight, input2) + bias

Axes: ``b`` batch, ``i`` in1_features, ``j`` in2_features, ``o`` out_features.

* Work: 2 b i j o flop and, by the path, 2 b j o, 2 b i o or b i j more. The step does that 4 times: the forward,
  and one einsum for each of grad_input1, grad_input2 and grad_weight.
* Written between: the intermediate of the path: (b, o, j), (b, o, i) or the outer product (b, i, j); and copies
  wherever axes have to be reordered for cuBLAS.
* Prepared outside the clock: the paths (NumPy's, as in ``numpy-einsum``).
* Source: cupy.einsum, which contracts pairs through cuBLAS; cuTENSOR only where CUPY_ACCELERATORS asks for it.
"""

from __future__ import annotations

import functools
from typing import Any

import cupy
import numpy as np
import numpy.typing as npt

from backends._einsum import OUTPUT, contraction, einsum_kernel, einsum_step, smallest_intermediate, weight_size
from backends._step import ClosureStep
from harness.backend import Backend, Kernel, Support
from harness.case import Case

Array = Any


class CupyEinsum(Backend):
    """cupy.einsum along a path computed in advance; float16, float32 and float64."""

    name = "cupy-einsum"
    devices = ("cuda",)

    @classmethod
    def available(cls, device: str) -> Support:
        """Return whether CuPy sees a GPU."""
        try:
            count = cupy.cuda.runtime.getDeviceCount()
        except cupy.cuda.runtime.CUDARuntimeError as error:
            return Support(False, f"CuPy {cupy.__version__} sees no GPU: {error}")
        return Support(True) if count else Support(False, f"CuPy {cupy.__version__} sees no GPU")

    def supports(self, case: Case) -> Support:
        """Return no for bfloat16 and for tf32, which CuPy has for a whole process only (CUPY_TF32 at import)."""
        if case.dtype == "bfloat16" or case.precision == "tf32":
            return Support(False, f"CuPy has no {case.dtype if case.dtype == 'bfloat16' else 'tf32 for one product'}")
        return self.supports_mode_and_precision(case)

    def workspace_bytes(self, case: Case) -> int:
        """Return twice the smallest intermediate with its copies, and two reordered weights; an upper figure."""
        return (4 * smallest_intermediate(case) + 2 * weight_size(case)) * case.itemsize

    def version(self) -> str:
        """Return the version of CuPy."""
        return f"cupy {cupy.__version__}"

    def prepare_forward(self, case: Case, weight: Array, bias: Array | None) -> Kernel:
        """Return the einsum with its path."""
        return einsum_kernel(contraction(case, OUTPUT, cupy.einsum), weight, bias)

    def prepare_forward_backward(self, case: Case) -> ClosureStep:
        """Return one einsum for the output and one for each gradient."""
        return einsum_step(functools.partial(contraction, case, einsum=cupy.einsum))

    def to_device(self, array: npt.NDArray[np.floating], dtype: str) -> Array:
        """Copy a host array to the GPU."""
        return cupy.asarray(np.array(array, dtype=dtype, order="C"))

    def synchronize(self, result: Array) -> None:
        """Wait for the GPU."""
        cupy.cuda.Device().synchronize()

    def to_numpy(self, result: Array) -> npt.NDArray[np.floating]:
        """Copy a result back."""
        return np.array(cupy.asnumpy(result), dtype=np.float64 if result.dtype == np.float64 else np.float32)

"""One cupy.einsum along the cheapest path: NumPy's code, on a GPU.

Formula::

    output = einsum("bi,oij,bj->bo", input1, weight, input2) + bias

Axes: ``b`` batch, ``i`` in1_features, ``j`` in2_features, ``o`` out_features.

* Work: 2 b i j o flop and, by the path, 2 b j o, 2 b i o or b i j more. The step does that 4 times over: the forward,
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

from backends.numpy_einsum import OUTPUT, EinsumStep, contraction, einsum_kernel
from harness.backend import Backend, Kernel, Support
from harness.case import Case

Array = Any


class CupyEinsum(Backend):
    """cupy.einsum along a path found in advance; float16, float32 and float64."""

    name = "cupy-einsum"
    devices = ("cuda",)

    @classmethod
    def available(cls, device: str) -> Support:
        """Whether CuPy sees a GPU."""
        try:
            count = cupy.cuda.runtime.getDeviceCount()
        except cupy.cuda.runtime.CUDARuntimeError as error:
            return Support(False, f"CuPy {cupy.__version__} sees no GPU: {error}")
        return Support(True) if count else Support(False, f"CuPy {cupy.__version__} sees no GPU")

    def supports(self, case: Case) -> Support:
        """CuPy has no bfloat16; tf32 it would take for the whole process, by CUPY_TF32 before it is imported."""
        if case.dtype == "bfloat16" or case.precision == "tf32":
            return Support(False, f"CuPy has no {case.dtype if case.dtype == 'bfloat16' else 'tf32 for one product'}")
        return self.supports_mode_and_precision(case)

    def workspace_bytes(self, case: Case) -> int:
        """Twice the smallest intermediate, and two reordered weights; an upper figure, as for ``numpy-einsum``."""
        batch, in1, in2, out = case.sizes
        pairs = min(in1 * in2, in1 * out, in2 * out)
        return (4 * batch * pairs + 2 * in1 * in2 * out) * case.itemsize

    def version(self) -> str:
        """Version of CuPy."""
        return f"cupy {cupy.__version__}"

    def prepare_forward(self, case: Case, weight: Array, bias: Array | None) -> Kernel:
        """Return the einsum with its path."""
        return einsum_kernel(contraction(case, OUTPUT, cupy.einsum), weight, bias)

    def prepare_forward_backward(self, case: Case) -> EinsumStep:
        """Return one einsum for the output and one for each gradient."""
        return EinsumStep(functools.partial(contraction, case, einsum=cupy.einsum))

    def to_device(self, array: npt.NDArray[np.floating], dtype: str) -> Array:
        """Copy a host array to the GPU."""
        return cupy.asarray(np.array(array, dtype=dtype, order="C"))

    def synchronize(self, result: Array) -> None:
        """Wait for the GPU."""
        cupy.cuda.Device().synchronize()

    def to_numpy(self, result: Array) -> npt.NDArray[np.floating]:
        """Copy a result back."""
        return np.array(cupy.asnumpy(result), dtype=np.float64 if result.dtype == np.float64 else np.float32)

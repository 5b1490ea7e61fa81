"""One np.einsum, along the contraction path with the fewest flop.

Formula::

    output = einsum("bi,oij,bj->bo", input1, weight, input2) + bias

Axes: ``b`` batch, ``i`` in1_features, ``j`` in2_features, ``o`` out_features.

* Work: 2 b i j o flop and, by the path, 2 b j o, 2 b i o or b i j more. The step does that 4 times: the forward, and
  one einsum for each of grad_input1, grad_input2 and grad_weight, each along a path of its own.
* Written between: the intermediate of the path: (b, o, j), (b, o, i) or the outer product (b, i, j); and a copy of the
  weight wherever its axes have to be reordered for BLAS.
* Prepared outside the clock: the paths, from the shapes alone.
* Source: numpy.einsum_path.

Without a path NumPy runs one naive C loop over b i j o, with no BLAS. ``optimize="optimal"`` alone has the same effect
on real layers: it refuses every intermediate larger than the largest operand, finds no path, and silently takes the
naive loop. So ``_einsum.contraction`` lifts the limit on the intermediate.
"""

from __future__ import annotations

import functools
from typing import Final

import numpy as np
import numpy.typing as npt

from backends._einsum import OUTPUT, contraction, einsum_kernel, einsum_step, smallest_intermediate, weight_size
from backends._step import ClosureStep
from harness.backend import Backend, Kernel, Support
from harness.case import Case

Array = npt.NDArray[np.floating]

#: Dtypes of a case that NumPy has.
DTYPES: Final = ("float16", "float32", "float64")


class NumpyEinsum(Backend):
    """np.einsum along a path computed in advance."""

    name = "numpy-einsum"

    def supports(self, case: Case) -> Support:
        """Return yes for float16, float32 and float64; NumPy has no tf32."""
        if case.dtype not in DTYPES:
            return Support(False, f"NumPy has no {case.dtype}")
        return self.supports_mode_and_precision(case)

    def workspace_bytes(self, case: Case) -> int:
        """Return twice the smallest intermediate, and a reordered weight; an upper figure.

        The gradients are computed one after the other, so the step needs no more.
        """
        return (2 * smallest_intermediate(case) + weight_size(case)) * case.itemsize

    def prepare_forward(self, case: Case, weight: Array, bias: Array | None) -> Kernel:
        """Return the einsum with its path."""
        return einsum_kernel(contraction(case, OUTPUT), weight, bias)

    def prepare_forward_backward(self, case: Case) -> ClosureStep:
        """Return one einsum for the output and one for each gradient."""
        return einsum_step(functools.partial(contraction, case))

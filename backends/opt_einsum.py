"""opt_einsum, as its documentation says for repeated calls: an expression built once from the shapes; NumPy arrays.

Formula::

    output = contract("bi,oij,bj->bo", input1, weight, input2) + bias

Axes: ``b`` batch, ``i`` in1_features, ``j`` in2_features, ``o`` out_features.

* Work: 2 b i j o flop and, by the path, 2 b j o, 2 b i o or b i j more. The step does that 4 times: the forward, and
  one expression for each of grad_input1, grad_input2 and grad_weight.
* Written between: the intermediate of the path: (b, o, j), (b, o, i) or the outer product (b, i, j); and copies
  wherever axes have to be reordered for BLAS.
* Prepared outside the clock: the paths.
* Source: opt_einsum.contract_expression (Smith and Gray, Journal of Open Source Software 3(26), 753, 2018).

Pairs of operands go to NumPy's tensordot where that can contract them, else to its einsum.
"""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt
import opt_einsum

from backends._einsum import OUTPUT, Contraction, einsum_kernel, einsum_step, smallest_intermediate, weight_size
from backends._step import ClosureStep
from harness.backend import Backend, Kernel
from harness.case import Case

Array = npt.NDArray[np.floating]


class OptEinsum(Backend):
    """opt_einsum.contract_expression on NumPy; float32 and float64."""

    name = "opt-einsum"

    def workspace_bytes(self, case: Case) -> int:
        """Return twice the smallest intermediate with its copies, and two reordered weights; an upper figure."""
        return (4 * smallest_intermediate(case) + 2 * weight_size(case)) * case.itemsize

    def version(self) -> str:
        """Return the versions of opt_einsum and NumPy."""
        return f"opt_einsum {opt_einsum.__version__}, numpy {np.__version__}"

    def prepare_forward(self, case: Case, weight: Array, bias: Array | None) -> Kernel:
        """Build the expression."""
        return einsum_kernel(expression(case, OUTPUT), weight, bias)

    def prepare_forward_backward(self, case: Case) -> ClosureStep:
        """Build an expression for the output and one for each gradient."""
        return einsum_step(functools.partial(expression, case))


def expression(case: Case, subscripts: str) -> Contraction:
    """Return the expression with the path of fewest flop for the sizes of ``case``."""
    sizes = dict(zip("bijo", case.sizes, strict=True))
    shapes = [tuple(sizes[axis] for axis in term) for term in subscripts.partition("->")[0].split(",")]
    built: Contraction = opt_einsum.contract_expression(subscripts, *shapes, optimize="optimal")
    return built

"""opt_einsum, as its documentation says for repeated calls: an expression built once from the shapes; NumPy arrays.

Formula::

    output = contract("bi,oij,bj->bo", input1, weight, input2) + bias

Axes: ``b`` batch, ``i`` in1_features, ``j`` in2_features, ``o`` out_features.

* Work: 2 b i j o flop and, by the path, 2 b j o, 2 b i o or b i j more. The step does that 4 times over: the forward,
  and one expression for each of grad_input1, grad_input2 and grad_weight.
* Written between: the intermediate of the path: (b, o, j), (b, o, i) or the outer product (b, i, j); and copies
  wherever axes have to be reordered for BLAS.
* Prepared outside the clock: the paths.
* Source: opt_einsum.contract_expression (Smith and Gray, Journal of Open Source Software 3(26), 753, 2018).

Pairs of operands go to NumPy's tensordot where that can do them, else to its einsum.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import opt_einsum

from harness.backend import Backend, Kernel
from harness.case import Case

Array = npt.NDArray[np.floating]
#: An expression: operands in, result out.
Expression = Callable[..., Array]


class OptEinsum(Backend):
    """opt_einsum.contract_expression on NumPy; float32 and float64."""

    name = "opt-einsum"

    def workspace_bytes(self, case: Case) -> int:
        """Twice the smallest intermediate, and two reordered weights; an upper figure, as for ``numpy-einsum``."""
        sizes = case.in1_features, case.in2_features, case.out_features
        pairs = min(sizes[0] * sizes[1], sizes[0] * sizes[2], sizes[1] * sizes[2])
        return (4 * case.batch * pairs + 2 * sizes[0] * sizes[1] * sizes[2]) * case.itemsize

    def version(self) -> str:
        """Versions of opt_einsum and NumPy."""
        return f"opt_einsum {opt_einsum.__version__}, numpy {np.__version__}"

    def prepare_forward(self, case: Case, weight: Array, bias: Array | None) -> Kernel:
        """Build the expression."""
        contract = expression(case, "bi,oij,bj->bo")

        def kernel(input1: Array, input2: Array) -> Array:
            output = contract(input1, weight, input2)
            return output if bias is None else output + bias

        return kernel

    def prepare_forward_backward(self, case: Case) -> ExpressionStep:
        """Build an expression for the output and one for each gradient."""
        return ExpressionStep(case)


class ExpressionStep:
    """Four expressions, each with its own path."""

    def __init__(self, case: Case) -> None:
        self._output = expression(case, "bi,oij,bj->bo")
        self._grad_input1 = expression(case, "bo,oij,bj->bi")
        self._grad_input2 = expression(case, "bo,oij,bi->bj")
        self._grad_weight = expression(case, "bo,bi,bj->oij")
        self._saved: tuple[Array, Array, Array, bool] | None = None

    def forward(self, input1: Array, input2: Array, weight: Array, bias: Array | None) -> Array:
        """Return output (b, o)."""
        self._saved = input1, input2, weight, bias is not None
        output = self._output(input1, weight, input2)
        return output if bias is None else output + bias

    def backward(self, grad_output: Array) -> tuple[Array, Array, Array, Array | None]:
        """Return the gradients: the same contraction with grad_output in the place of what it is the gradient of."""
        if self._saved is None:
            raise RuntimeError("backward without a forward: call forward first")
        (input1, input2, weight, has_bias), self._saved = self._saved, None
        return (
            self._grad_input1(grad_output, weight, input2),  # (b, i)
            self._grad_input2(grad_output, weight, input1),  # (b, j)
            self._grad_weight(grad_output, input1, input2),  # (o, i, j)
            grad_output.sum(0) if has_bias else None,
        )


def expression(case: Case, subscripts: str) -> Expression:
    """Return the expression with the path of fewest flop for the sizes of ``case``."""
    sizes = dict(zip("bijo", case.sizes, strict=True))
    shapes = [tuple(sizes[axis] for axis in term) for term in subscripts.partition("->")[0].split(",")]
    built: Expression = opt_einsum.contract_expression(subscripts, *shapes, optimize="optimal")
    return built

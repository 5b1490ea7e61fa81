"""One np.einsum, along the contraction path with the fewest flop.

Formula::

    output = einsum("bi,oij,bj->bo", input1, weight, input2) + bias

Axes: ``b`` batch, ``i`` in1_features, ``j`` in2_features, ``o`` out_features.

* Work: 2 b i j o flop and, by the path, 2 b j o, 2 b i o or b i j more. The step does that 4 times over: the forward,
  and one einsum for each of grad_input1, grad_input2 and grad_weight, each along a path of its own.
* Written between: the intermediate of the path: (b, o, j), (b, o, i) or the outer product (b, i, j); and a copy of the
  weight wherever its axes have to be reordered for BLAS.
* Prepared outside the clock: the paths, from the shapes alone.
* Source: numpy.einsum_path.

Without a path NumPy runs one naive C loop over b i j o, with no BLAS. ``optimize="optimal"`` comes to the same on real
layers: it refuses every intermediate larger than the largest operand, finds no path that is left, and silently takes
the naive loop. So the limit on the intermediate is lifted here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

from harness.backend import Backend, Kernel, Support
from harness.case import Case

Array = npt.NDArray[np.floating]
#: An einsum with its path: operands in, result out.
Contraction = Callable[..., Array]

#: The operator without its bias.
OUTPUT: Final = "bi,oij,bj->bo"
#: What NumPy has of the case's dtypes.
DTYPES: Final = ("float16", "float32", "float64")
#: More elements than any memory holds: the limit on the intermediate that means none.
NO_LIMIT: Final = 2**62


class NumpyEinsum(Backend):
    """np.einsum along a path found in advance."""

    name = "numpy-einsum"

    def supports(self, case: Case) -> Support:
        """NumPy has float16, float32 and float64, and no tf32."""
        if case.dtype not in DTYPES:
            return Support(False, f"NumPy has no {case.dtype}")
        return self.supports_mode_and_precision(case)

    def workspace_bytes(self, case: Case) -> int:
        """Twice the smallest intermediate, and a reordered weight; an upper figure.

        The path with the fewest flop need not have the smallest intermediate, but has one of at most twice its size: an
        outer product costs one flop an element, a contraction two. The gradients run one after the other, so the step
        needs no more.
        """
        pairs = (
            case.out_features * case.in2_features,
            case.out_features * case.in1_features,
            case.in1_features * case.in2_features,
        )
        weight = case.out_features * case.in1_features * case.in2_features
        return (2 * case.batch * min(pairs) + weight) * case.itemsize

    def prepare_forward(self, case: Case, weight: Array, bias: Array | None) -> Kernel:
        """Return the einsum with its path."""
        return einsum_kernel(contraction(case, OUTPUT), weight, bias)

    def prepare_forward_backward(self, case: Case) -> EinsumStep:
        """Return one einsum for the output and one for each gradient."""
        return EinsumStep(functools.partial(contraction, case))


def einsum_kernel(contract: Contraction, weight: Array, bias: Array | None) -> Kernel:
    """Return the kernel of an einsum of ``OUTPUT``."""

    def kernel(input1: Array, input2: Array) -> Array:
        output = contract(input1, weight, input2)  # (b, i), (o, i, j), (b, j) -> (b, o)
        return output if bias is None else output + bias

    return kernel


class EinsumStep:
    """Four einsums, each with its own path.

    Args:
        build: Makes a contraction of its subscripts.
    """

    def __init__(self, build: Callable[[str], Contraction]) -> None:
        self._output = build(OUTPUT)
        self._grad_input1 = build("bo,oij,bj->bi")
        self._grad_input2 = build("bo,oij,bi->bj")
        self._grad_weight = build("bo,bi,bj->oij")
        self._saved: tuple[Array, Array, Array, bool] | None = None

    def forward(self, input1: Array, input2: Array, weight: Array, bias: Array | None) -> Array:
        """Return output (b, o)."""
        self._saved = input1, input2, weight, bias is not None
        output = self._output(input1, weight, input2)  # (b, i), (o, i, j), (b, j) -> (b, o)
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
            sum_over_batch(grad_output) if has_bias else None,
        )


def contraction(case: Case, subscripts: str, einsum: Contraction = np.einsum) -> Contraction:
    """Return an einsum with the path of fewest flop for the sizes of ``case``.

    Args:
        case: Has the sizes.
        subscripts: As np.einsum takes them.
        einsum: np.einsum, or another library's that takes the same path.
    """
    # An axis of size 0 has a path as good as any, and no flop to compare paths by.
    sizes = {
        "b": max(case.batch, 1),
        "i": case.in1_features,
        "j": case.in2_features,
        "o": max(case.out_features, 1),
    }
    terms = subscripts.partition("->")[0].split(",")
    # Only the shapes matter, so no operand is really allocated.
    shapes = [np.broadcast_to(np.float32(0), tuple(sizes[axis] for axis in term)) for term in terms]
    path = np.einsum_path(subscripts, *shapes, optimize=("optimal", NO_LIMIT))[0]

    def contract(*operands: Array) -> Array:
        return einsum(subscripts, *operands, optimize=path)

    return contract


def sum_over_batch(grad_output: Array) -> Array:
    """Return grad_bias (o,); float16 is summed in float32, for NumPy would round every partial sum to float16."""
    total = grad_output.sum(axis=0, dtype=np.result_type(grad_output.dtype, np.float32))  # (b, o) -> (o,)
    return total.astype(grad_output.dtype, copy=False)

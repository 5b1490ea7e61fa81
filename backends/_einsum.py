"""What the einsum backends share: sizes; for NumPy, opt_einsum and CuPy subscripts, paths and the training step too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np

from backends._step import Backward, ClosureStep
from harness.backend import Kernel
from harness.case import Case

#: NumPy's array, or CuPy's.
Array = Any
#: An einsum with its path: operands in, result out.
Contraction = Callable[..., Array]

#: The operator without its bias, and its gradients: grad_output replaces the operand that a gradient belongs to.
OUTPUT: Final = "bi,oij,bj->bo"
GRAD_INPUT1: Final = "bo,oij,bj->bi"
GRAD_INPUT2: Final = "bo,oij,bi->bj"
GRAD_WEIGHT: Final = "bo,bi,bj->oij"
#: Limit on the elements of an intermediate, above the memory of any machine: no limit.
NO_LIMIT: Final = 2**62


def einsum_kernel(contract: Contraction, weight: Array, bias: Array | None) -> Kernel:
    """Return the kernel of an einsum of ``OUTPUT``."""

    def kernel(input1: Array, input2: Array) -> Array:
        output = contract(input1, weight, input2)  # (b, i), (o, i, j), (b, j) -> (b, o)
        return output if bias is None else output + bias

    return kernel


def einsum_step(build: Callable[[str], Contraction]) -> ClosureStep:
    """Return the step of four einsums, each with its own path.

    Args:
        build: Function from subscripts to their contraction.
    """
    contract, contract1, contract2, contract3 = map(build, (OUTPUT, GRAD_INPUT1, GRAD_INPUT2, GRAD_WEIGHT))

    def step(input1: Array, input2: Array, weight: Array, bias: Array | None) -> tuple[Array, Backward]:
        output = contract(input1, weight, input2)  # (b, i), (o, i, j), (b, j) -> (b, o)

        def backward(grad_output: Array) -> tuple[Array, Array, Array, Array | None]:
            return (
                contract1(grad_output, weight, input2),  # (b, i)
                contract2(grad_output, weight, input1),  # (b, j)
                contract3(grad_output, input1, input2),  # (o, i, j)
                None if bias is None else _sum_over_batch(grad_output),  # (o,)
            )

        return output if bias is None else output + bias, backward

    return ClosureStep(step)


def contraction(case: Case, subscripts: str, einsum: Contraction = np.einsum) -> Contraction:
    """Return an einsum with the path of fewest flop for the sizes of ``case``.

    Args:
        case: Case whose sizes decide the path.
        subscripts: Subscripts as np.einsum takes them.
        einsum: np.einsum, or another library's function that takes the same path.
    """
    # An axis of size 0 has no flop to compare paths by: every path is as good.
    sizes = {axis: max(size, 1) for axis, size in zip("bijo", case.sizes, strict=True)}
    terms = subscripts.partition("->")[0].split(",")
    # The path depends on the shapes alone, so no operand is allocated.
    shapes = [np.broadcast_to(np.float32(0), tuple(sizes[axis] for axis in term)) for term in terms]
    path = np.einsum_path(subscripts, *shapes, optimize=("optimal", NO_LIMIT))[0]

    def contract(*operands: Array) -> Array:
        return einsum(subscripts, *operands, optimize=path)

    return contract


def smallest_intermediate(case: Case) -> int:
    """Return the elements of the smallest intermediate: (b, o, j), (b, o, i) or (b, i, j).

    The path with the fewest flop need not have the smallest intermediate, but has one of at most twice its size: an
    outer product costs one flop an element, a contraction two.
    """
    batch, in1, in2, out = case.sizes
    return batch * min(out * in2, out * in1, in1 * in2)


def weight_size(case: Case) -> int:
    """Return the elements of the weight (o, i, j)."""
    return case.out_features * case.in1_features * case.in2_features


def _sum_over_batch(grad_output: Array) -> Array:
    """Return grad_bias (o,); float16 is summed in float32, since NumPy would round every partial sum to float16."""
    total = grad_output.sum(axis=0, dtype=np.result_type(grad_output.dtype, np.float32))  # (b, o) -> (o,)
    return total.astype(grad_output.dtype, copy=False)

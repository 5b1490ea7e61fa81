"""What a case costs at the least: a case in, floating-point operations and bytes out. Pure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from harness.case import Case

#: Forward is one contraction. A step needs three: the output, both input gradients out of one pass over
#: dZ[b,i,j] = sum_o grad_output[b,o] weight[o,i,j], and the weight's gradient.
CONTRACTIONS: Final = {"forward": 1, "forward_backward": 3}

#: Sets of inputs that a contestant holds during timing.
INPUT_SETS: Final = 2
#: What an interpreter with a framework in it takes before any array, BLAS buffers and compiling included, in bytes.
PROCESS_BYTES: Final = 650 * 2**20


def flop(case: Case) -> int:
    """Least number of floating-point operations: 2 batch in1 in2 out for each contraction."""
    size = case.batch * case.in1_features * case.in2_features * case.out_features
    return 2 * size * CONTRACTIONS[case.mode]


def array_bytes(case: Case) -> int:
    """Bytes of everything that goes in and comes out once, in the case's dtype."""
    shapes = [*case.shapes().values(), *case.result_shapes().values()]
    return sum(math.prod(shape) for shape in shapes) * case.itemsize


def contestant_bytes(case: Case, workspace_bytes: int) -> int:
    """Predicted memory of one worker while it holds the case, in bytes.

    The device's arrays, with ``INPUT_SETS`` input sets and two sets of results more than is returned (the clock holds
    the last result while the next is made, and one for the gate; the gate holds a second weight before); the float32
    host copies they are made from and compared through; the technique's workspace; the process.
    """
    host = array_bytes(case) // case.itemsize * (8 if case.dtype == "float64" else 4)
    return PROCESS_BYTES + (INPUT_SETS + 2) * array_bytes(case) + host + workspace_bytes


def reference_bytes(case: Case) -> int:
    """Predicted memory of the reference's worker: values, absolute values, results and scales, all in float64."""
    elements = array_bytes(case) // case.itemsize
    page = case.in1_features * case.in2_features + case.batch * (case.in1_features + 2 * case.in2_features)
    block = 16 * 2**20 if case.mode == "forward_backward" else 0
    return PROCESS_BYTES + 8 * (3 * elements + 3 * page + 2 * block)

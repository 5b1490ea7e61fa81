"""What tests compare with: the operator by einsum, coarse roundings, and an honest backend in NumPy."""

from __future__ import annotations

import numpy as np

from harness import Backend

#: Subscripts and operands of each result; axes: b batch, i in1, j in2, o out.
EINSUMS = {
    "output": ("bi,oij,bj->bo", "input1", "weight", "input2"),
    "grad_input1": ("bo,oij,bj->bi", "grad_output", "weight", "input2"),
    "grad_input2": ("bo,oij,bi->bj", "grad_output", "weight", "input1"),
    "grad_weight": ("bo,bi,bj->oij", "grad_output", "input1", "input2"),
    "grad_bias": ("bo->o", "grad_output"),
}


def results(case, inputs):
    """Return all results of a case by einsum, in the dtype of the inputs.

    Args:
        case: Mode and bias, as in ``case.result_shapes()``.
        inputs: Arrays by the operator's names, as in ``case.shapes()``.
    """
    found = {}
    for name in case.result_shapes():
        subscripts, *operands = EINSUMS[name]
        found[name] = np.einsum(subscripts, *(inputs[operand] for operand in operands))
    return found | ({"output": found["output"] + inputs["bias"]} if case.bias else {})


def to_tf32(array):
    """Round float32 to the 10 stored bits of mantissa that tf32 has, ties away from zero."""
    return ((array.view(np.uint32) + np.uint32(0x1000)) & np.uint32(0xFFFFE000)).view(np.float32)


def to_bfloat16(array):
    """Round float32 to the 7 stored bits of mantissa that bfloat16 has, ties away from zero."""
    return ((array.view(np.uint32) + np.uint32(0x8000)) & np.uint32(0xFFFF0000)).view(np.float32)


def to_float16(array):
    """Round float32 to float16, 10 stored bits of mantissa and 5 of exponent; larger values become infinite."""
    with np.errstate(over="ignore"):
        return array.astype(np.float16).astype(np.float32)


def output(input1, input2, weight, bias):
    """Return output (b, o) by one matrix product per page of the weight."""
    pages = (np.matmul(input1, weight) * input2).sum(2, dtype=weight.dtype)  # (o, b)
    right = np.ascontiguousarray(pages.T)
    return right if bias is None else right + bias


def gradients(grad_output, input1, input2, weight, bias):
    """Return the gradients of input1 (b, i), input2 (b, j), weight (o, i, j), and bias (o,) or None."""
    batch, (out, in1, in2) = len(input1), weight.shape
    outer = (grad_output @ weight.reshape(out, in1 * in2)).reshape(batch, in1, in2)
    scaled = grad_output.T[:, :, None] * input1  # (o, b, i)
    return (
        np.matmul(outer, input2[:, :, None])[:, :, 0],
        np.matmul(input1[:, None, :], outer)[:, 0, :],
        np.matmul(scaled.transpose(0, 2, 1), input2),
        None if bias is None else grad_output.sum(0),
    )


class HonestBackend(Backend):
    """A backend with the right results; a test's backend has a name, and replaces ``output`` or ``gradients``."""

    def prepare_forward(self, case, weight, bias):
        return lambda input1, input2: self.output(input1, input2, weight, bias)

    def prepare_forward_backward(self, case):
        return HonestStep(self)

    def output(self, input1, input2, weight, bias):
        """Return output (b, o)."""
        return output(input1, input2, weight, bias)

    def gradients(self, grad_output, input1, input2, weight, bias):
        """Return the gradients of the arguments after ``grad_output``."""
        return gradients(grad_output, input1, input2, weight, bias)


class HonestStep:
    """One training step of an ``HonestBackend``: its ``output``, then its ``gradients`` of the same arguments."""

    def __init__(self, backend):
        self.backend = backend

    def forward(self, *arguments):
        self.arguments = arguments
        return self.backend.output(*arguments)

    def backward(self, grad_output):
        return self.backend.gradients(grad_output, *self.arguments)

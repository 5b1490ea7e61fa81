"""What the gate compares with, computed by the reference in this process."""

from __future__ import annotations

import functools

from harness.correctness import reference
from harness.correctness.inputs import make_inputs
from harness.correctness.verdict import Expected


def arrays(tensors):
    return {name: tensor.numpy() for name, tensor in tensors.items()}


def expect(case, inputs):
    """Return values, scales and quadratics of all results; in float64 also samples in a wider format."""
    return Expected(
        arrays(reference.expected(case, inputs)),
        arrays(reference.scales(case, inputs)),
        reference.quadratics(case, inputs),
        reference.wide_samples(case, inputs) if case.dtype == "float64" else {},
    )


@functools.cache
def question(case):
    """Return the inputs of a case, and what the reference computes from them."""
    inputs = make_inputs(case)
    return inputs, expect(case, inputs)

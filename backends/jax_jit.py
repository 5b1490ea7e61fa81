"""One jitted jnp.einsum: XLA picks the order, fuses and compiles for CPU or GPU.

Formula::

    output = einsum("bi,oij,bj->bo", input1, weight, input2) + bias

Axes: ``b`` batch, ``i`` in1_features, ``j`` in2_features, ``o`` out_features.

* Work: 2 b i j o flop, and 2 b j o, 2 b i o or b i j more by the order. JAX picks it by fewest flop (opt_einsum).
* Written between: (b, o, j), (b, o, i) or the outer product (b, i, j), unless XLA fuses it away. The gradients
  (jax.vjp) keep the forward's intermediate, and make one more of its size.
* Prepared outside the clock: nothing. XLA compiles at the first call.
* Precision: written out at every einsum. JAX's default would compute float32 cases in tf32 on recent GPUs.
"""

from __future__ import annotations

import jax.numpy as jnp

from backends._einsum import smallest_intermediate, weight_size
from backends._jax import Formula, JaxBackend, with_bias
from harness.backend import NativeArray
from harness.case import Case


class JaxJit(JaxBackend):
    """jax.jit of an einsum; gradients by jax.vjp."""

    name = "jax-jit"

    def formula(self) -> Formula:
        """Return the einsum."""
        return bilinear

    def workspace_bytes(self, case: Case) -> int:
        """Return twice the smallest intermediate and a reordered weight, in the step three times that; an upper figure.

        The step keeps the forward's intermediate, makes its gradient, and reorders one of the two.
        """
        alive = 1 if case.mode == "forward" else 3
        return alive * (2 * smallest_intermediate(case) + weight_size(case)) * case.itemsize


def bilinear(
    precision: str, input1: NativeArray, input2: NativeArray, weight: NativeArray, bias: NativeArray | None
) -> NativeArray:
    """Return output (b, o) by one einsum."""
    # (b, i), (o, i, j), (b, j) -> (b, o), in the dtype of the operands
    return with_bias(jnp.einsum("bi,oij,bj->bo", input1, weight, input2, precision=precision), bias)

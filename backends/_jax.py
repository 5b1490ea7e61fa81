"""What the backends of JAX share: arrays, devices, precision, and the training step by jax.vjp.

Over 120 lines: the step hands the forward's arrays through two jitted functions without copies of its inputs.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

# JAX would take three quarters of the GPU's memory at its first use, from the other workers. Read at import.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import jax
import jax.numpy as jnp

from harness.backend import Backend, Kernel, NativeArray, Support
from harness.case import Case

# Without this JAX makes float32 of every float64. All arrays here have explicit dtypes, so nothing else changes.
jax.config.update("jax_enable_x64", True)

#: JAX's names for the case's precision.
PRECISIONS: Final = {"ieee": "highest", "tf32": "tensorfloat32"}

#: ``(precision, input1 (b, i), input2 (b, j), weight (o, i, j), bias (o,) or None) -> output (b, o)``, differentiable.
Formula = Callable[[str, NativeArray, NativeArray, NativeArray, NativeArray | None], NativeArray]
Gradients = tuple[NativeArray, NativeArray, NativeArray, NativeArray | None]


class JaxBackend(Backend):
    """A backend that is one jitted formula; write ``name``, ``formula`` and ``workspace_bytes``.

    The weights are arguments of the compiled function. If captured, XLA would compile them in, fold and copy them.
    """

    devices = ("cpu", "cuda")

    def formula(self) -> Formula:
        """Return the formula, the same function each time: JAX keeps compiled code by function."""
        raise NotImplementedError(f"{self.name} has no formula")

    @classmethod
    def available(cls, device: str) -> Support:
        """Return whether JAX has a backend for the device."""
        try:
            jax.devices(device)
        except RuntimeError as error:
            hint = ' (install it with: pip install "jax[cuda13]")' if device == "cuda" else ""
            return Support(False, f"JAX has no {device} here: {error}{hint}")
        return Support(True)

    def supports(self, case: Case) -> Support:
        """Return yes for every dtype; tf32 only on a GPU."""
        return self.supports_mode_and_precision(case)

    def version(self) -> str:
        """Return the version of JAX."""
        return f"jax {jax.__version__}"

    def prepare_forward(self, case: Case, weight: NativeArray, bias: NativeArray | None) -> Kernel:
        """Return the jitted formula; it compiles at the first call with these shapes in this process."""
        compiled = _compiled(self.formula(), PRECISIONS[case.precision])

        def kernel(input1: NativeArray, input2: NativeArray) -> NativeArray:
            return compiled(input1, input2, weight, bias)

        return kernel

    def prepare_forward_backward(self, case: Case) -> VjpStep:
        """Return two jitted functions; each compiles at its first call."""
        return VjpStep(functools.partial(self.formula(), PRECISIONS[case.precision]))

    def to_device(self, array: npt.NDArray[np.floating], dtype: str) -> NativeArray:
        """Copy a host array to the device; bfloat16 is JAX's own type of NumPy array."""
        # On a CPU device_put may keep using the host array, so it gets a copy.
        return jax.device_put(np.array(array, dtype=jnp.dtype(dtype)), jax.devices(self.device)[0])

    def synchronize(self, result: NativeArray) -> None:
        """Wait for every array in ``result``; None is passed over."""
        jax.block_until_ready(result)

    def to_numpy(self, result: NativeArray) -> npt.NDArray[np.floating]:
        """Copy a result back: float32 for the half types."""
        return np.array(result, dtype=np.float64 if result.dtype == jnp.float64 else np.float32)


class VjpStep:
    """A jitted forward that also returns what the backward needs, and a jitted backward.

    ``jax.vjp`` returns a function whose captured arrays are the leaves of a pytree, so it can leave a jitted function.
    Leaves that are inputs are not returned but taken from the caller: XLA would copy them, the weight among them. The
    tree's structure is stored when the forward is traced, so that no call compares it.
    """

    def __init__(self, formula: Callable[..., NativeArray]) -> None:
        self._formula = formula
        self._structure: Any = None
        #: Position of each leaf among the inputs, or None for an array of the forward itself.
        self._sources: list[int | None] = []
        self._forward = jax.jit(self._traced_forward)
        self._backward = jax.jit(self._traced_backward)
        self._leaves: list[NativeArray] | None = None

    def forward(
        self, input1: NativeArray, input2: NativeArray, weight: NativeArray, bias: NativeArray | None
    ) -> NativeArray:
        """Return output (b, o)."""
        inputs = (input1, input2, weight, bias)
        output, captured = self._forward(*inputs)
        arrays = iter(captured)
        self._leaves = [next(arrays) if source is None else inputs[source] for source in self._sources]
        return output

    def backward(self, grad_output: NativeArray) -> Gradients:
        """Return the gradients."""
        if self._leaves is None:
            raise RuntimeError("backward without a forward: call forward first")
        leaves, self._leaves = self._leaves, None
        return self._backward(leaves, grad_output)

    def _traced_forward(self, *inputs: NativeArray) -> tuple[NativeArray, list[NativeArray]]:
        """Run when JAX traces, once: a step has one case and so one set of shapes."""
        output, pullback = jax.vjp(self._formula, *inputs)
        leaves, self._structure = jax.tree_util.tree_flatten(pullback)
        self._sources = [_position(leaf, inputs) for leaf in leaves]
        return output, [leaf for leaf, source in zip(leaves, self._sources, strict=True) if source is None]

    def _traced_backward(self, leaves: Sequence[NativeArray], grad_output: NativeArray) -> Gradients:
        """Run when JAX traces, after the forward is traced."""
        pullback = jax.tree_util.tree_unflatten(self._structure, leaves)
        return pullback(grad_output)


def _position(leaf: NativeArray, inputs: Sequence[NativeArray]) -> int | None:
    """Return the position of a leaf among the inputs; None if it is none of them."""
    return next((position for position, array in enumerate(inputs) if array is leaf), None)


@functools.cache
def _compiled(formula: Formula, precision: str) -> Callable[..., NativeArray]:
    """Return one function for all weights and shapes: JAX compiles it for each set of shapes and dtypes, once."""
    return jax.jit(functools.partial(formula, precision))


def with_bias(output: NativeArray, bias: NativeArray | None) -> NativeArray:
    """Return output (b, o) plus bias (o,)."""
    if bias is None:
        return output
    # In half precision the sum is taken in float32: its value is the same, and so bias's gradient is summed in float32,
    # where XLA would round to half after each row of the batch.
    wide = jnp.promote_types(output.dtype, jnp.float32)
    return (output.astype(wide) + bias.astype(wide)).astype(output.dtype)

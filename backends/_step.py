"""A training step made of one function, as ``jax.vjp`` has it: ``step(operands) -> (output, backward)``."""

from __future__ import annotations

from collections.abc import Callable

from harness.backend import NativeArray

Gradients = tuple[NativeArray, NativeArray, NativeArray, NativeArray | None]
#: ``grad_output (b, o) -> gradients of input1, input2, weight, and bias or None``; holds what the forward kept.
Backward = Callable[[NativeArray], Gradients]
#: ``(input1 (b, i), input2 (b, j), weight (o, i, j), bias (o,) or None) -> output (b, o), backward``.
Run = Callable[[NativeArray, NativeArray, NativeArray, NativeArray | None], tuple[NativeArray, Backward]]


class ClosureStep:
    """The harness's two calls, ``forward`` and ``backward``, of one function; keeps nothing beyond such a pair.

    Args:
        run: The function.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._backward: Backward | None = None

    def forward(
        self, input1: NativeArray, input2: NativeArray, weight: NativeArray, bias: NativeArray | None
    ) -> NativeArray:
        """Return output (b, o)."""
        output, self._backward = self._run(input1, input2, weight, bias)
        return output

    def backward(self, grad_output: NativeArray) -> Gradients:
        """Return the gradients of input1 (b, i), input2 (b, j), weight (o, i, j), bias (o,) or None."""
        if self._backward is None:
            raise RuntimeError("backward without a forward: call forward first")
        backward, self._backward = self._backward, None
        return backward(grad_output)

"""How a kernel or a training step is called: once by name, or as a closure that the clock calls."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.backend import NativeArray
    from harness.case import Case
    from harness.timing.clock import Call

    NativeArrays = dict[str, NativeArray]


def call(case: Case, kernel: Any, parameters: NativeArrays, inputs: NativeArrays) -> NativeArrays:
    """Call once and return the results by name, without those that are None.

    Args:
        case: The case; its mode says what the kernel is.
        kernel: A kernel in mode ``forward``, else a step.
        parameters: Weight and bias on the device.
        inputs: input1, input2 and, for a step, grad_output on the device.

    Raises:
        TypeError: ``backward`` returned something else than 4 gradients.
    """
    if case.mode == "forward":
        return {"output": kernel(inputs["input1"], inputs["input2"])}
    output = kernel.forward(inputs["input1"], inputs["input2"], parameters["weight"], parameters.get("bias"))
    gradients = kernel.backward(inputs["grad_output"])
    if not isinstance(gradients, tuple) or len(gradients) != 4:
        raise TypeError(f"backward returned {type(gradients).__name__}, expected a tuple of 4 gradients")
    return named((output, *gradients))


def named(results: tuple[Any, ...]) -> NativeArrays:
    """Return the five results of a step by name, without those that are None."""
    names = ("output", "grad_input1", "grad_input2", "grad_weight", "grad_bias")
    return {name: result for name, result in zip(names, results, strict=True) if result is not None}


def timed_call(case: Case, kernel: Any, parameters: NativeArrays, inputs: NativeArrays) -> Call:
    """Return the callable that is timed: the kernel alone, or forward then backward with nothing between."""
    if case.mode == "forward":
        return functools.partial(kernel, inputs["input1"], inputs["input2"])
    forward, backward = kernel.forward, kernel.backward
    input1, input2, grad_output = inputs["input1"], inputs["input2"], inputs["grad_output"]
    weight, bias = parameters["weight"], parameters.get("bias")

    def step() -> tuple[Any, ...]:
        output = forward(input1, input2, weight, bias)
        return (output, *backward(grad_output))

    return step


def timed_forward(kernel: Any, parameters: NativeArrays, inputs: NativeArrays) -> Call:
    """Return the callable that times the forward of a step alone."""
    return functools.partial(
        kernel.forward, inputs["input1"], inputs["input2"], parameters["weight"], parameters.get("bias")
    )

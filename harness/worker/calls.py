"""How a kernel or a training step is called: once by name, or as a closure that the clock calls."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from harness.worker.failures import InterfaceError, kind_of
from harness.worker.source import definition_of

if TYPE_CHECKING:
    from harness.backend import NativeArray
    from harness.case import Case
    from harness.timing.clock import Call

    NativeArrays = dict[str, NativeArray]

#: Gradients that ``backward`` returns, in order.
GRADIENTS: Final = ("grad_input1", "grad_input2", "grad_weight", "grad_bias")


def call(case: Case, kernel: Any, parameters: NativeArrays, inputs: NativeArrays) -> NativeArrays:
    """Call once and return the results by name, without those that are None.

    Args:
        case: The case; its mode says what the kernel is.
        kernel: A kernel in mode ``forward``, else a step.
        parameters: Weight and bias on the device.
        inputs: input1, input2 and, for a step, grad_output on the device.

    Raises:
        InterfaceError: It does not take these arguments, or ``backward`` returned something else than 4 gradients.
    """
    first = {name: inputs[name] for name in ("input1", "input2")}
    if case.mode == "forward":
        return {"output": called(kernel, "the kernel", first)}
    weights = {"weight": parameters["weight"], "bias": parameters.get("bias")}
    output = called(kernel.forward, "forward", first | weights)
    gradients = called(kernel.backward, "backward", {"grad_output": inputs["grad_output"]})
    if not isinstance(gradients, tuple) or len(gradients) != len(GRADIENTS):
        raise InterfaceError(f"backward returned {_misses(gradients)}", definition_of(kernel.backward))
    return named((output, *gradients))


def _misses(gradients: Any) -> str:
    """Return what is wrong with what ``backward`` returned, in words."""
    if not isinstance(gradients, tuple):
        return f"{kind_of(gradients)}, expected a tuple of 4 gradients"
    if len(gradients) == len(GRADIENTS) - 1:
        return "3 gradients, grad_bias is missing (None where there is no bias)"
    return f"{len(gradients)} gradients, expected 4: {', '.join(GRADIENTS)}"


def called(function: Callable[..., Any], name: str, arguments: Mapping[str, Any]) -> Any:
    """Call a function of the backend; one that does not take these arguments is told how it is called."""
    try:
        return function(*arguments.values())
    except TypeError as error:
        if error.__traceback__ is not None and error.__traceback__.tb_next is None:  # it was not even entered
            text = f"{error}; {name} is called with ({', '.join(arguments)})"
            raise InterfaceError(text, definition_of(function)) from error
        raise


def named(results: tuple[Any, ...]) -> NativeArrays:
    """Return the five results of a step by name, without those that are None."""
    return {name: result for name, result in zip(("output", *GRADIENTS), results, strict=True) if result is not None}


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

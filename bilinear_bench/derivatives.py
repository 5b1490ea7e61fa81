"""The derivatives of the three operators of ``registered``, made of the same three.

Axes: ``b`` batch, ``i`` in1_features, ``j`` in2_features, ``o`` out_features.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any, Final

import torch

from bilinear_bench import contraction
from bilinear_bench.plain_call import are_memory, is_plain_call, may_store

try:
    from bilinear_bench import fused
except ImportError:  # the backend torch-contract needs no Numba
    fused = None  # type: ignore[assignment]  # a module, or None

Tensor = Any

#: The operators; ``registered`` defines them.
OPS: Final = torch.ops.bilinear_bench


def kernels_of(tensor: Tensor) -> ModuleType:
    """Return the module that computes: the fused kernel, or plain products."""
    if fused is None or not fused.AVAILABLE or not tensor.is_cpu or tensor.dtype not in fused.TAKES:
        return contraction
    return fused


def differentiable(
    kernels: ModuleType | None, input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None
) -> Tensor:
    """Return output (b, o), differentiable; by ``fused`` or ``contraction``, or by the operator if None is given."""
    return _Bilinear.apply(kernels, input1, input2, weight, bias)


class _Bilinear(torch.autograd.Function):
    """The output, and the gradients that are needed."""

    @staticmethod
    def forward(
        ctx: Any, kernels: ModuleType | None, input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None
    ) -> Tensor:
        _, needs1, needs2, needs_weight, _ = ctx.needs_input_grad
        if kernels is None:
            output, tiles = below_autograd(OPS.bilinear, input1, input2, weight, bias), None
        else:
            output, tiles = kernels.forward(input1, input2, weight, bias, (needs1 or needs2) and may_store())
        # What is not saved may be changed in place before the backward.
        ctx.save_for_backward(
            input1 if needs2 or needs_weight else None,
            input2 if needs1 or needs_weight else None,
            weight if needs1 or needs2 else None,
            tiles,
        )
        ctx.kernels = kernels or kernels_of(weight)
        ctx.set_materialize_grads(False)  # None stays None
        return output

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor | None) -> tuple[Tensor | None, ...]:
        if grad_output is None:
            return (None,) * 5
        input1, input2, weight, tiles = ctx.saved_tensors
        _, *needed, needs_bias = ctx.needs_input_grad
        # One input alone is not saved if its gradient alone is needed: that does not depend on it.
        if any(needed) and input1 is None:
            input1 = grad_output.new_zeros((grad_output.shape[0], weight.shape[1]))
        if any(needed) and input2 is None:
            input2 = grad_output.new_zeros((grad_output.shape[0], weight.shape[2]))
        calls_kernels = any(needed) and not torch.is_grad_enabled() and is_plain_call()
        given = (input1, input2, grad_output) if weight is None else (input1, input2, weight, grad_output)
        if calls_kernels and are_memory(*given):
            results = ctx.kernels.gradients(input1, input2, weight, grad_output, tuple(needed), tiles)
        else:
            results = [None] * 3
            if needed[0] or needed[1]:
                both = OPS.grad_inputs(grad_output, input1, input2, weight)
                results[:2] = (one if need else None for one, need in zip(both, needed, strict=False))
            if needed[2]:
                results[2] = OPS.grad_weight(grad_output, input1, input2)
        return None, *results, grad_output.sum(0) if needs_bias else None


class GradInputs(torch.autograd.Function):
    """The gradients of both inputs, with their derivatives."""

    @staticmethod
    def forward(ctx: Any, grad_output: Tensor, input1: Tensor, input2: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradients of input1 (b, i) and input2 (b, j)."""
        ctx.save_for_backward(grad_output, input1, input2, weight)
        ctx.set_materialize_grads(False)
        return below_autograd(OPS.grad_inputs, grad_output, input1, input2, weight)

    @staticmethod
    def backward(ctx: Any, tangent1: Tensor | None, tangent2: Tensor | None) -> tuple[Tensor | None, ...]:
        """Return the derivatives in the order of the arguments, for the gradients of both results."""
        grad_output, input1, input2, weight = ctx.saved_tensors
        if tangent1 is None and tangent2 is None:
            return (None,) * 4
        needs_output, needs1, needs2, needs_weight = ctx.needs_input_grad
        # input1 has no part in its own gradient, nor input2: there the gradients of the results stand in their places.
        both = (tangent1, input2), (input1, tangent2)
        pairs = [(one, other) for one, other in both if one is not None and other is not None]
        of_output = sum(OPS.bilinear(*pair, weight) for pair in pairs) if needs_output else None
        of_weight = sum(OPS.grad_weight(grad_output, *pair) for pair in pairs) if needs_weight else None
        of1 = of2 = None
        if needs1 or needs2:
            zeros1, zeros2 = (
                torch.zeros_like(one) if given is None else given
                for one, given in ((input1, tangent1), (input2, tangent2))
            )
            of1, of2 = OPS.grad_inputs(grad_output, zeros1, zeros2, weight)
        return of_output, of1 if needs1 else None, of2 if needs2 else None, of_weight


class GradWeight(torch.autograd.Function):
    """The gradient of the weight, with its derivatives."""

    @staticmethod
    def forward(ctx: Any, grad_output: Tensor, input1: Tensor, input2: Tensor) -> Tensor:
        """Return the gradient of the weight (o, i, j)."""
        ctx.save_for_backward(grad_output, input1, input2)
        ctx.set_materialize_grads(False)
        return below_autograd(OPS.grad_weight, grad_output, input1, input2)

    @staticmethod
    def backward(ctx: Any, tangent: Tensor | None) -> tuple[Tensor | None, ...]:
        """Return the derivatives in the order of the arguments, for the gradient of the result."""
        if tangent is None:
            return (None,) * 3
        grad_output, input1, input2 = ctx.saved_tensors
        needs_output, needs1, needs2 = ctx.needs_input_grad
        of_output = OPS.bilinear(input1, input2, tangent) if needs_output else None
        of1 = of2 = None
        if needs1 or needs2:
            of1, of2 = OPS.grad_inputs(grad_output, input1, input2, tangent)
        return of_output, of1 if needs1 else None, of2 if needs2 else None


def below_autograd(operator: Callable[..., Any], *given: Tensor | None) -> Any:
    """Call an operator below autograd."""
    with torch._C._AutoDispatchBelowAutograd():
        return operator(*given)

"""The operator as PyTorch knows it: ``torch.ops.bilinear_bench``, closed under differentiation.

::

    bilinear(input1, input2, weight, bias)                output (b, o)
    grad_inputs(grad_output, input1, input2, weight)      the gradients of both inputs, (b, i) and (b, j)
    grad_weight(grad_output, input1, input2)              the gradient of the weight, (o, i, j)

All are parts of one form in four arguments, so each derivative is made of the same three again.

* Each has a kernel for CPU and CUDA, shapes for tracing, derivatives of any order, a rule for vmap, and its flop.
* Under ``torch.func.grad``, ``jvp`` and dual numbers PyTorch's own operations answer: they know those derivatives.
* Where nobody watches, the layer calls the kernels without PyTorch's dispatcher.

Axes: ``b`` batch, ``i`` in1_features, ``j`` in2_features, ``o`` out_features.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, Final

import torch
from torch.utils.flop_counter import register_flop_formula

from bilinear_bench import contraction, fused
from bilinear_bench.memory import DTYPES

Tensor = Any
Shape = Sequence[int]

#: nn.functional.bilinear as it is now: users may put ours in its place.
BUILTIN: Final = torch.nn.functional.bilinear

_LIBRARY: Final = torch.library.Library("bilinear_bench", "DEF")
_LIBRARY.define("bilinear(Tensor input1, Tensor input2, Tensor weight, Tensor? bias=None) -> Tensor")
_LIBRARY.define("grad_inputs(Tensor grad_output, Tensor input1, Tensor input2, Tensor weight) -> (Tensor, Tensor)")
_LIBRARY.define("grad_weight(Tensor grad_output, Tensor input1, Tensor input2) -> Tensor")
OPS: Final = torch.ops.bilinear_bench
_BILINEAR: Final = OPS.bilinear.default
_GRAD_INPUTS: Final = OPS.grad_inputs.default
_GRAD_WEIGHT: Final = OPS.grad_weight.default


#: Tells a tensor of ``is_grads_batched``.
_is_batched: Final = torch._C._functorch.is_legacy_batchedtensor
#: Types of tensors without operations of their own.
PLAIN_TYPES: Final = (torch.Tensor, torch.nn.Parameter)


def nobody_watches() -> bool:
    """True if nothing but numbers is asked for: no mode, no transform, no tracer and no profiler.

    Most of these have no public name in PyTorch; its own ``torch.autograd.function`` and ``torch.jit`` ask the same.
    """
    return not (
        torch.compiler.is_compiling()
        or torch._C._len_torch_dispatch_stack()
        or is_transformed()
        or torch._C._get_tracing_state() is not None
        or torch._C._autograd._profiler_enabled()
    )


def are_memory(*tensors: Tensor | None) -> bool:
    """True if tensors are what their memory holds: no subclasses, without negative bits, no batch of gradients."""
    for one in tensors:
        if one is not None and (type(one) not in PLAIN_TYPES or one.is_neg() or _is_batched(one)):
            return False
    return True


def is_transformed() -> bool:
    """True under ``torch.func`` and forward-mode differentiation."""
    transformed: bool = torch._C._are_functorch_transforms_active()
    return transformed or torch.autograd.forward_ad._current_level >= 0  # no public name either


#: Whether one of its arguments that are tensors requires a gradient.
any_requires_grad: Final[Callable[..., bool]] = torch._C._any_requires_grad


def kernels_of(tensor: Tensor) -> ModuleType:
    """Return the module that computes: the fused kernel, or plain products."""
    return fused if tensor.is_cpu and tensor.dtype in DTYPES and fused.AVAILABLE else contraction


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
            output, tiles = _below(_BILINEAR, input1, input2, weight, bias), None
        else:
            output, tiles = kernels.forward(input1, input2, weight, bias, needs1 or needs2)
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
        calls_kernels = not torch.is_grad_enabled() and nobody_watches()
        if calls_kernels and are_memory(input1, input2, weight, grad_output):
            results = ctx.kernels.gradients(input1, input2, weight, grad_output, tuple(needed), tiles)
        else:
            results = [None] * 3
            if needed[0] or needed[1]:
                both = _GRAD_INPUTS(grad_output, input1, input2, weight)
                results[:2] = (one if need else None for one, need in zip(both, needed, strict=False))
            if needed[2]:
                results[2] = _GRAD_WEIGHT(grad_output, input1, input2)
        return None, *results, grad_output.sum(0) if needs_bias else None


class _GradInputs(torch.autograd.Function):
    """The gradients of both inputs, with their derivatives."""

    @staticmethod
    def forward(ctx: Any, grad_output: Tensor, input1: Tensor, input2: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(grad_output, input1, input2, weight)
        ctx.set_materialize_grads(False)
        return _below(_GRAD_INPUTS, grad_output, input1, input2, weight)

    @staticmethod
    def backward(ctx: Any, tangent1: Tensor | None, tangent2: Tensor | None) -> tuple[Tensor | None, ...]:
        grad_output, input1, input2, weight = ctx.saved_tensors
        if tangent1 is None and tangent2 is None:
            return (None,) * 4
        needs_output, needs1, needs2, needs_weight = ctx.needs_input_grad
        of_output: Tensor | None = None
        of_weight: Tensor | None = None
        for one, other, tangent in ((tangent1, input2, 1), (input1, tangent2, 2)):
            if (tangent1 if tangent == 1 else tangent2) is None:
                continue
            if needs_output:
                of_output = _sum(of_output, _BILINEAR(one, other, weight))
            if needs_weight:
                of_weight = _sum(of_weight, _GRAD_WEIGHT(grad_output, one, other))
        of1 = of2 = None
        if needs1 or needs2:
            zeros1, zeros2 = (
                torch.zeros_like(one) if given is None else given
                for one, given in ((input1, tangent1), (input2, tangent2))
            )
            of1, of2 = _GRAD_INPUTS(grad_output, zeros1, zeros2, weight)
        return of_output, of1 if needs1 else None, of2 if needs2 else None, of_weight


class _GradWeight(torch.autograd.Function):
    """The gradient of the weight, with its derivatives."""

    @staticmethod
    def forward(ctx: Any, grad_output: Tensor, input1: Tensor, input2: Tensor) -> Tensor:
        ctx.save_for_backward(grad_output, input1, input2)
        ctx.set_materialize_grads(False)
        return _below(_GRAD_WEIGHT, grad_output, input1, input2)

    @staticmethod
    def backward(ctx: Any, tangent: Tensor | None) -> tuple[Tensor | None, ...]:
        if tangent is None:
            return (None,) * 3
        grad_output, input1, input2 = ctx.saved_tensors
        needs_output, needs1, needs2 = ctx.needs_input_grad
        of_output = _BILINEAR(input1, input2, tangent) if needs_output else None
        of1 = of2 = None
        if needs1 or needs2:
            of1, of2 = _GRAD_INPUTS(grad_output, input1, input2, tangent)
        return of_output, of1 if needs1 else None, of2 if needs2 else None


def _sum(total: Tensor | None, more: Tensor) -> Tensor:
    return more if total is None else total + more


def _below(operator: Callable[..., Any], *given: Tensor | None) -> Any:
    """Call an operator below autograd."""
    with torch._C._AutoDispatchBelowAutograd():
        return operator(*given)


# Plain PyTorch, for transforms.


def _plain_grad_inputs(grad_output: Tensor, input1: Tensor, input2: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    of1 = torch.einsum("bo,oij,bj->bi", grad_output, weight, input2)
    return of1, torch.einsum("bo,oij,bi->bj", grad_output, weight, input1)


def _plain_grad_weight(grad_output: Tensor, input1: Tensor, input2: Tensor) -> Tensor:
    return torch.einsum("bo,bi,bj->oij", grad_output, input1, input2)


def _autograd(
    operator: Callable[..., Any], function: Callable[..., Any], plain: Callable[..., Any]
) -> Callable[..., Any]:
    """Return an operator's kernel for autograd."""

    def kernel(*given: Tensor | None) -> Any:
        if is_transformed():
            return plain(*given)
        if torch.is_grad_enabled() and any_requires_grad(*given):
            return function(*given)
        return _below(operator, *given)

    return kernel


def _differentiable(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return differentiable(None, input1, input2, weight, bias)


_LIBRARY.impl("bilinear", _autograd(_BILINEAR, _differentiable, BUILTIN), "Autograd")
_LIBRARY.impl("grad_inputs", _autograd(_GRAD_INPUTS, _GradInputs.apply, _plain_grad_inputs), "Autograd")
_LIBRARY.impl("grad_weight", _autograd(_GRAD_WEIGHT, _GradWeight.apply, _plain_grad_weight), "Autograd")


# Kernels. The public function asks for what fits; here errors are those of whoever calls the operator itself.


def _bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    _check((input1, "bi"), (input2, "bj"), (weight, "oij"), (bias, "o"))
    output: Tensor = kernels_of(weight).forward(input1, input2, weight, bias, False)[0]
    return output


def _grad_inputs(grad_output: Tensor, input1: Tensor, input2: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    _check((grad_output, "bo"), (input1, "bi"), (input2, "bj"), (weight, "oij"))
    needed = True, True, False
    return tuple(kernels_of(weight).gradients(input1, input2, weight, grad_output, needed, None)[:2])


def _grad_weight(grad_output: Tensor, input1: Tensor, input2: Tensor) -> Tensor:
    _check((grad_output, "bo"), (input1, "bi"), (input2, "bj"))
    return kernels_of(input1).gradients(input1, input2, None, grad_output, (False, False, True), None)[2]


def _check(*given: tuple[Tensor | None, str]) -> None:
    """Do nothing if tensors have these axes, one dtype of floats, and one device.

    Raises:
        RuntimeError: They do not; it says what was given.
    """
    tensors = [(tensor, axes) for tensor, axes in given if tensor is not None]
    sizes: dict[str, int] = {}
    fits = all(tensor.dim() == len(axes) for tensor, axes in tensors) and all(
        sizes.setdefault(axis, size) == size
        for tensor, axes in tensors
        for axis, size in zip(axes, tensor.shape, strict=True)
    )
    kinds = {(tensor.dtype, tensor.device) for tensor, _ in tensors}
    if not fits or len(kinds) > 1 or not tensors[0][0].is_floating_point():
        said = ", ".join(f"({', '.join(axes)}) as {tuple(t.shape)} of {t.dtype} on {t.device}" for t, axes in tensors)
        raise RuntimeError(f"expected tensors of one floating-point dtype on one device that fit, got {said}")


for _name, _kernel in (("bilinear", _bilinear), ("grad_inputs", _grad_inputs), ("grad_weight", _grad_weight)):
    for _key in ("CPU", "CUDA"):
        _LIBRARY.impl(_name, _kernel, _key)


# Shapes, for tracing.


@torch.library.register_fake("bilinear_bench::bilinear", lib=_LIBRARY)
def _(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return input1.new_empty((input1.shape[0], weight.shape[0]))


@torch.library.register_fake("bilinear_bench::grad_inputs", lib=_LIBRARY)
def _(grad_output: Tensor, input1: Tensor, input2: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    return input1.new_empty(input1.shape), input2.new_empty(input2.shape)


@torch.library.register_fake("bilinear_bench::grad_weight", lib=_LIBRARY)
def _(grad_output: Tensor, input1: Tensor, input2: Tensor) -> Tensor:
    return input1.new_empty((grad_output.shape[1], input1.shape[1], input2.shape[1]))


# vmap: more rows of a batch, where the weight is one; else call after call.


def _vmap(operator: Callable[..., Any], rows: int, merges: bool) -> Callable[..., Any]:
    """Return an operator's rule.

    Args:
        operator: The operator.
        rows: Number of its first arguments that have rows of a batch, and so has each result, if ``merges``.
        merges: Whether rows of all calls may be one batch.
    """

    def rule(info: Any, in_dims: tuple[int | None, ...], *given: Tensor) -> tuple[Any, Any]:
        count = info.batch_size
        firsts = [
            one if one is None or dim is None else one.movedim(dim, 0) for one, dim in zip(given, in_dims, strict=True)
        ]
        mapped = [dim is not None for dim in in_dims]
        if merges and not any(mapped[rows:]):
            whole = [
                (one if is_mapped else one.expand(count, *one.shape)).flatten(0, 1)
                for one, is_mapped in zip(firsts[:rows], mapped, strict=False)
            ]
            results = operator(*whole, *firsts[rows:])
            split = [one.unflatten(0, (count, -1)) for one in (results if isinstance(results, tuple) else (results,))]
        else:
            calls = [
                operator(*(one[n] if is_mapped else one for one, is_mapped in zip(firsts, mapped, strict=True)))
                for n in range(count)
            ]
            each = [one if isinstance(one, tuple) else (one,) for one in calls]
            split = [torch.stack(parts) for parts in zip(*each, strict=True)]
        return (split[0], 0) if len(split) == 1 else (tuple(split), (0,) * len(split))

    return rule


torch.library.register_vmap("bilinear_bench::bilinear", _vmap(_BILINEAR, 2, True), lib=_LIBRARY)
torch.library.register_vmap("bilinear_bench::grad_inputs", _vmap(_GRAD_INPUTS, 3, True), lib=_LIBRARY)
torch.library.register_vmap("bilinear_bench::grad_weight", _vmap(_GRAD_WEIGHT, 3, False), lib=_LIBRARY)


# Work, for torch.utils.flop_counter: 2 b i j o for each contraction.


@register_flop_formula(OPS.bilinear)
def _(input1: Shape, input2: Shape, weight: Shape, *_: Any, **__: Any) -> int:
    return 2 * input1[0] * math.prod(weight)


@register_flop_formula(OPS.grad_inputs)
def _(grad_output: Shape, input1: Shape, input2: Shape, weight: Shape, *_: Any, **__: Any) -> int:
    return 2 * input1[0] * math.prod(weight)


@register_flop_formula(OPS.grad_weight)
def _(grad_output: Shape, input1: Shape, input2: Shape, *_: Any, **__: Any) -> int:
    return 2 * input1[0] * grad_output[1] * input1[1] * input2[1]

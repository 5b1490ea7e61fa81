"""The operator as PyTorch knows it: ``torch.ops.bilinear_bench``, closed under differentiation.

::

    bilinear(input1, input2, weight, bias)                output (b, o)
    grad_inputs(grad_output, input1, input2, weight)      the gradients of both inputs, (b, i) and (b, j)
    grad_weight(grad_output, input1, input2)              the gradient of the weight, (o, i, j)

All are parts of one form in four arguments, so each derivative is made of the same three again.

* Each has a kernel for CPU and CUDA, shapes for tracing, derivatives of any order, a rule for vmap, and its flop.
* Under ``torch.func.grad``, ``jvp`` and dual numbers PyTorch's own operations answer: they know those derivatives.
* A plain call goes to the kernels directly (``plain_call``); ``derivatives`` has the formulas.

Axes: ``b`` batch, ``i`` in1_features, ``j`` in2_features, ``o`` out_features.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final

import torch
from torch.utils.flop_counter import register_flop_formula

from bilinear_bench.derivatives import OPS, GradInputs, GradWeight, below_autograd, differentiable, kernels_of
from bilinear_bench.plain_call import BUILTIN, any_requires_grad, is_transformed

Tensor = Any
Shape = Sequence[int]

_LIBRARY: Final = torch.library.Library("bilinear_bench", "DEF")
_LIBRARY.define("bilinear(Tensor input1, Tensor input2, Tensor weight, Tensor? bias=None) -> Tensor")
_LIBRARY.define("grad_inputs(Tensor grad_output, Tensor input1, Tensor input2, Tensor weight) -> (Tensor, Tensor)")
_LIBRARY.define("grad_weight(Tensor grad_output, Tensor input1, Tensor input2) -> Tensor")
_BILINEAR: Final = OPS.bilinear.default
_GRAD_INPUTS: Final = OPS.grad_inputs.default
_GRAD_WEIGHT: Final = OPS.grad_weight.default


# Plain PyTorch, for transforms.


def _plain_grad_inputs(grad_output: Tensor, input1: Tensor, input2: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    of1 = torch.einsum("bo,oij,bj->bi", grad_output, weight, input2)
    return of1, torch.einsum("bo,oij,bi->bj", grad_output, weight, input1)


def _plain_grad_weight(grad_output: Tensor, input1: Tensor, input2: Tensor) -> Tensor:
    return torch.einsum("bo,bi,bj->oij", grad_output, input1, input2)


#: By the operator's name.
PLAIN: Final = {"bilinear": BUILTIN, "grad_inputs": _plain_grad_inputs, "grad_weight": _plain_grad_weight}


def _autograd(operator: Any, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return an operator's kernel for autograd."""
    name = operator.overloadpacket.__name__

    def kernel(*given: Tensor | None) -> Any:
        if is_transformed():
            return PLAIN[name](*given)
        if torch.is_grad_enabled() and any_requires_grad(*given):
            return function(*given)
        return below_autograd(operator, *given)

    return kernel


def _differentiable(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return differentiable(None, input1, input2, weight, bias)


_LIBRARY.impl("bilinear", _autograd(_BILINEAR, _differentiable), "Autograd")
_LIBRARY.impl("grad_inputs", _autograd(_GRAD_INPUTS, GradInputs.apply), "Autograd")
_LIBRARY.impl("grad_weight", _autograd(_GRAD_WEIGHT, GradWeight.apply), "Autograd")


# Kernels. The public function asks for what fits; here errors are for direct calls.


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

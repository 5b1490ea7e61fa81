"""Whether a call of the layer asks for numbers alone: then its kernels are called without PyTorch's dispatcher."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import torch

Tensor = Any

#: nn.functional.bilinear as it is now: users may put ours in its place.
BUILTIN: Final = torch.nn.functional.bilinear
#: Tells a tensor of ``is_grads_batched``.
_is_batched: Final = torch._C._functorch.is_legacy_batchedtensor
#: Types of tensors without operations of their own.
PLAIN_TYPES: Final = (torch.Tensor, torch.nn.Parameter)


def is_plain_call() -> bool:
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


def are_memory(*tensors: Tensor) -> bool:
    """True if tensors are what their memory holds: no subclasses, no negative bits, no batch of gradients."""
    for one in tensors:
        if type(one) not in PLAIN_TYPES or one.is_neg() or one._is_zerotensor() or _is_batched(one):
            return False
    return True


def may_store() -> bool:
    """True if a forward may store more for its backward than another one of the same layer.

    Checkpointing compares what two forwards store, and offloading counts on PyTorch's own sizes: both set hooks.
    """
    return torch._C._autograd._top_saved_tensors_default_hooks(True) is None


def is_transformed() -> bool:
    """True under ``torch.func`` and forward-mode differentiation."""
    transformed: bool = torch._C._are_functorch_transforms_active()
    return transformed or torch.autograd.forward_ad._current_level >= 0  # no public name either


#: Whether one of its arguments that are tensors requires a gradient.
any_requires_grad: Final[Callable[..., bool]] = torch._C._any_requires_grad

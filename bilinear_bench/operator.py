"""``torch.nn.functional.bilinear``, faster: which kernel takes which tensors.

* float32 and float64 on a CPU go to the fused kernel, with PyTorch's number of threads, on the tensors' own memory:
  nothing is copied but what is not contiguous.
* Other floats and CUDA go to ``contraction``, plain products.
* Integers, complex numbers, other devices, forward-mode derivatives and ``torch.func`` go to nn.functional.bilinear.
  So does all that does not fit: errors are in PyTorch's own words.
* Where something watches or traces, it sees one operator: ``registered``.
* With few outputs a forward stores up to 16 MiB until its graph is freed (``cpu/few_outputs.py``).
* A child that was forked takes one thread (``numba_threads``).
"""

from __future__ import annotations

from typing import Any, Final

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch._subclasses.functional_tensor import FunctionalTensor

from bilinear_bench.registered import BUILTIN, OPS, _is_transformed, differentiable, kernels_of, plain_call

Tensor = Any

#: Types without operations of their own, and those of PyTorch's tracers; other subclasses may redefine each operation.
_PLAIN: Final = (torch.Tensor, torch.nn.Parameter)
_TRACED: Final = (FakeTensor, FunctionalTensor)


def bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return what ``torch.nn.functional.bilinear`` returns, faster.

    Args:
        input1: (*, i).
        input2: (*, j), with the same leading dimensions.
        weight: (o, i, j).
        bias: (o,) or None.

    Returns:
        (*, o), differentiable.

    Raises:
        RuntimeError: The sizes, dtypes or devices do not fit; the words are PyTorch's own.
    """
    tensors = (input1, input2, weight) if bias is None else (input1, input2, weight, bias)
    if any(type(one) not in _PLAIN for one in tensors):
        if any(isinstance(one, torch.fx.Proxy) for one in tensors):  # torch.fx.symbolic_trace: one node
            return torch.overrides.handle_torch_function(bilinear, tensors, *tensors)
        if any(type(one) not in _PLAIN and not isinstance(one, _TRACED) for one in tensors):
            return BUILTIN(input1, input2, weight, bias)
    if not _fits(input1, input2, weight, bias, tensors):
        return BUILTIN(input1, input2, weight, bias)
    rows1, rows2 = input1, input2
    if input1.dim() != 2:
        rows1, rows2 = input1.reshape(-1, input1.shape[-1]), input2.reshape(-1, input2.shape[-1])
    if not plain_call():
        if not torch.compiler.is_compiling() and _is_transformed():
            return BUILTIN(input1, input2, weight, bias)
        output = OPS.bilinear(rows1, rows2, weight, bias)
    elif any(one.is_neg() for one in tensors):
        output = OPS.bilinear(rows1, rows2, weight, bias)  # the dispatcher knows of negative bits
    elif torch.is_grad_enabled() and any(one.requires_grad for one in tensors):
        output = differentiable(kernels_of(weight), rows1, rows2, weight, bias)
    else:
        output = kernels_of(weight).forward(rows1, rows2, weight, bias, None)
    return output if input1.dim() == 2 else output.view(*input1.shape[:-1], weight.shape[0])


def _fits(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None, tensors: tuple[Tensor, ...]) -> bool:
    """True if PyTorch would refuse nothing, and the tensors need nothing that only its own function knows."""
    shape1, shape2, shape = input1.shape, input2.shape, weight.shape
    if len(shape1) < 1 or len(shape) != 3 or len(shape2) < 1 or shape1[:-1] != shape2[:-1]:
        return False
    if shape1[-1] != shape[1] or shape2[-1] != shape[2] or shape[1] == 0 or shape[2] == 0:
        return False
    if bias is not None and bias.shape != shape[:1]:
        return False
    dtype, device = weight.dtype, weight.device
    if not dtype.is_floating_point or device.type not in ("cpu", "cuda"):
        return False
    return all(one.dtype == dtype and one.device == device and one.layout == torch.strided for one in tensors)

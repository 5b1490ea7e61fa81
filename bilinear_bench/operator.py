"""``torch.nn.functional.bilinear``, faster: which kernel takes which tensors.

* float32, float64, float16 and bfloat16 on a CPU go to the fused kernel, with PyTorch's number of threads, on the
  tensors' own memory: nothing is copied but what is not contiguous. Half types are summed up in float32 and rounded
  once.
* CUDA goes to ``contraction``, plain products.
* Integers, complex numbers, other devices and other subclasses of Tensor go to nn.functional.bilinear. So does all that
  does not fit: errors are in PyTorch's own words.
* Where something watches, traces or transforms, it sees one operator: ``registered``.
* With few outputs, a forward whose inputs need gradients stores up to 16 MiB until its graph is freed
  (``cpu/few_outputs.py``).
* A child that was forked takes one thread (``numba_threads``).
"""

from __future__ import annotations

from typing import Any, Final

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch._subclasses.functional_tensor import FunctionalTensor

from bilinear_bench import contraction, registered  # noqa: F401  # registers the operators
from bilinear_bench.derivatives import OPS, differentiable, kernels_of
from bilinear_bench.plain_call import BUILTIN, PLAIN_TYPES, any_requires_grad, are_memory, is_plain_call

Tensor = Any

#: Types of PyTorch's tracers; other subclasses may redefine each operation.
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
    plain = is_plain_call() and not torch._C._is_torch_function_mode_enabled() and are_memory(*tensors)
    if not plain:
        if not torch.compiler.is_compiling() and torch._C._is_torch_function_mode_enabled():
            return torch.overrides.handle_torch_function(bilinear, tensors, input1, input2, weight, bias)
        if any(isinstance(one, torch.fx.Proxy) for one in tensors):  # torch.fx.symbolic_trace: one node
            return torch.overrides.handle_torch_function(bilinear, tensors, *tensors)
        if any(type(one) not in PLAIN_TYPES and not isinstance(one, _TRACED) for one in tensors):
            return BUILTIN(input1, input2, weight, bias)
    if not _fits(input1, input2, weight, bias):
        return BUILTIN(input1, input2, weight, bias)
    rows1, rows2 = input1, input2
    if input1.dim() != 2:
        rows1, rows2 = input1.reshape(-1, input1.shape[-1]), input2.reshape(-1, input2.shape[-1])
    if not plain:
        output = OPS.bilinear(rows1, rows2, weight, bias)
    elif torch.is_grad_enabled() and any_requires_grad(*tensors):
        output = differentiable(kernels_of(weight), rows1, rows2, weight, bias)
    else:
        output = kernels_of(weight).forward(rows1, rows2, weight, bias, False)[0]
    if input1.dim() == 2:
        return output
    # As nn.Bilinear's, it is no view for autograd.
    return torch.ops.aten._unsafe_view(output, (*input1.shape[:-1], weight.shape[0]))


def contracted(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return output (b, o) of input1 (b, i), input2 (b, j), weight (o, i, j), bias (o,) or None by plain products."""
    return differentiable(contraction, input1, input2, weight, bias)


def _fits(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """True if PyTorch would refuse nothing, and the tensors need nothing that only its own function knows."""
    shape1, shape2, shape = input1.shape, input2.shape, weight.shape
    if len(shape1) < 1 or len(shape) != 3 or len(shape2) < 1 or shape1[:-1] != shape2[:-1]:
        return False
    if shape1[-1] != shape[1] or shape2[-1] != shape[2] or shape[1] == 0 or shape[2] == 0:
        return False
    if bias is not None and bias.shape != shape[:1]:
        return False
    dtype, device = weight.dtype, weight.device
    if not dtype.is_floating_point or not (weight.is_cpu or weight.is_cuda):
        return False
    for one in (input1, input2, weight, bias):
        if one is not None and (one.dtype != dtype or one.device != device or one.layout != torch.strided):
            return False
    return True

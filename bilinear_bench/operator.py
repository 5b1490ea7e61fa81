"""``torch.nn.functional.bilinear``, faster: which kernel takes which tensors, and the gradients.

The fused CPU kernel runs on the tensors' own memory; nothing is copied but inputs that are not contiguous.

* float32 and float64 on a CPU go to the fused kernel, with PyTorch's number of threads.
* Other floats and other devices go to ``contraction``, plain products.
* Integers, complex numbers, forward-mode derivatives and ``torch.func`` go to nn.functional.bilinear.
* ``torch.compile`` sees an einsum. Gradients that are to be differentiated again come from an einsum.
* Errors, leading dimensions, an empty batch and ``bias=None`` are nn.functional.bilinear's.
* With few outputs a forward stores up to 16 MiB until its graph is freed (``cpu/few_outputs.py``).
* A process that has called the kernel must not fork and call it in the child: GNU OpenMP, which runs Numba's threads,
  ends such a child.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Iterator
from typing import Any, Final, Protocol

import numba
import numpy as np
import numpy.typing as npt
import torch

from bilinear_bench import contraction
from bilinear_bench.cpu import forward, grad_inputs, grad_weight
from bilinear_bench.cpu.packing import bias_or_zeros, column_sums
from bilinear_bench.cpu.sizes import Sizes

Tensor = Any

#: The dtypes of the fused kernel, by PyTorch's name and ours.
DTYPES: Final = {torch.float32: "float32", torch.float64: "float64"}

#: Types without operations of their own; other subclasses of Tensor may redefine each operation.
_PLAIN: Final = (torch.Tensor, torch.nn.Parameter)
# GNU OpenMP's threading layer can be entered by two Python threads at a time; Numba's "workqueue" ends the process.
_ENTERED = threading.Lock()


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
    compiling = torch.compiler.is_compiling()
    if not _fits(input1, input2, weight, bias, compiling) or (not compiling and _is_transformed()):
        return torch.nn.functional.bilinear(input1, input2, weight, bias)
    rows1, rows2 = (one if one.dim() == 2 else one.reshape(-1, one.shape[-1]) for one in (input1, input2))
    if compiling:
        output = contraction.einsum_bilinear(rows1, rows2, weight, bias)
    elif weight.device.type != "cpu" or weight.dtype not in DTYPES:
        output = contraction.bilinear(rows1, rows2, weight, bias)
    elif torch.is_grad_enabled() and _any_requires_grad(input1, input2, weight, bias):
        output = _Fused.apply(rows1, rows2, weight, bias)
    else:
        output = _forward(rows1, rows2, weight, bias)
    return output if input1.dim() == 2 else output.view(*input1.shape[:-1], len(weight))


class _Fused(torch.autograd.Function):
    """The fused kernel and its gradients, each only if it is needed."""

    @staticmethod
    def forward(ctx: Any, input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        tiles = None
        if ctx.needs_input_grad[0] or ctx.needs_input_grad[1]:
            tiles = weight.new_empty(_grad_inputs_plan(*_key(input1, weight)).forward_tiles)
        ctx.save_for_backward(input1, input2, weight, bias, tiles)
        return _forward(input1, input2, weight, bias, tiles)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        input1, input2, weight, bias, tiles = ctx.saved_tensors
        needed = ctx.needs_input_grad
        if torch.is_grad_enabled():  # the caller will differentiate the gradients
            return contraction.differentiable_gradients(input1, input2, weight, bias, grad_output, needed)
        key = _key(input1, weight)
        rows1, rows2, pages, gradient = (_array(tensor) for tensor in (input1, input2, weight, grad_output))
        gradients: list[Tensor | None] = [None] * 4
        if needed[0] or needed[1]:
            plan = _grad_inputs_plan(*key)
            with _threads(plan):
                both = plan.run(rows1, rows2, pages, gradient, _array(tiles))
            gradients[:2] = (torch.from_numpy(one) if need else None for one, need in zip(both, needed, strict=False))
        if needed[2]:
            weight_plan = _grad_weight_plan(*key)
            with _threads(weight_plan):
                gradients[2] = torch.from_numpy(weight_plan.run(rows1, rows2, gradient))
        if needed[3]:
            gradients[3] = torch.from_numpy(column_sums(gradient))
        return tuple(gradients)


def _forward(
    input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None, tiles: Tensor | None = None
) -> Tensor:
    plan = _forward_plan(*_key(input1, weight))
    pages = _array(weight)
    addend = bias_or_zeros(pages, None if bias is None else _array(bias))
    stored = None if tiles is None else _array(tiles)
    with _threads(plan):
        return torch.from_numpy(plan.run(_array(input1), _array(input2), pages, addend, stored))


def _fits(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None, compiling: bool) -> bool:
    """True if PyTorch would refuse nothing, and the tensors need nothing that only its own function knows."""
    if input1.dim() < 1 or weight.dim() != 3 or input1.shape[:-1] != input2.shape[:-1]:
        return False
    if input2.dim() < 1 or (input1.shape[-1], input2.shape[-1]) != weight.shape[1:] or 0 in weight.shape[1:]:
        return False
    if bias is not None and bias.shape != weight.shape[:1]:
        return False
    dtype, device = weight.dtype, weight.device
    if not dtype.is_floating_point or device.type not in ("cpu", "cuda"):
        return False
    if compiling and torch.is_autocast_enabled(device.type):  # an einsum would be rounded to half
        return False
    tensors = (input1, input2, weight) if bias is None else (input1, input2, weight, bias)
    return all(
        one.dtype == dtype and one.device == device and one.layout == torch.strided and type(one) in _PLAIN
        for one in tensors
    )


def _any_requires_grad(*tensors: Tensor | None) -> bool:
    return any(one is not None and one.requires_grad for one in tensors)


def _is_transformed() -> bool:
    """True under ``torch.func`` or forward-mode differentiation, which do not see into our function.

    PyTorch checks the same in ``torch.autograd.function`` and ``forward_ad``; there is no public way.
    """
    transformed: bool = torch._C._are_functorch_transforms_active()
    return transformed or torch.autograd.forward_ad._current_level >= 0


def _array(tensor: Tensor) -> npt.NDArray[np.floating[Any]]:
    """Return the tensor's memory as an array; a copy only if it is not contiguous."""
    array: npt.NDArray[np.floating[Any]] = tensor.detach().contiguous().numpy()
    return array


# Plans depend on sizes, dtype and threads alone. A step asks for the same three again and again.
_forward_plan = functools.lru_cache(1024)(forward.plan)
_grad_inputs_plan = functools.lru_cache(1024)(grad_inputs.plan)
_grad_weight_plan = functools.lru_cache(1024)(grad_weight.plan)


def _key(input1: Tensor, weight: Tensor) -> tuple[Sizes, int]:
    """Return what a plan depends on."""
    out, in1, in2 = weight.shape
    return Sizes(len(input1), in1, in2, out, DTYPES[weight.dtype]), _thread_count()


def _thread_count() -> int:
    """Return PyTorch's number of threads; Numba started a number of threads at import, and takes no more."""
    return min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS)


class _Divided(Protocol):
    """A plan, as far as threads are concerned."""

    @property
    def workers(self) -> int: ...


@contextlib.contextmanager
def _threads(plan: _Divided) -> Iterator[None]:
    """Run Numba with PyTorch's number of threads, and keep other Python threads out of the parallel loops."""
    if plan.workers == 1:
        yield
        return
    with _ENTERED:
        count, before = _thread_count(), numba.get_num_threads()
        if count != before:
            numba.set_num_threads(count)
        try:
            yield
        finally:
            if count != before:
                numba.set_num_threads(before)  # the caller's own number


def run_kernels(sizes: Sizes, threads: int, training: bool) -> None:
    """Run the kernels of one call on ones, so that they are compiled.

    Args:
        sizes: Sizes and dtype of the call.
        threads: Number of threads of its plans, at least 1.
        training: True to include the kernels of the gradients.
    """
    batch, in1, in2, out, dtype = sizes
    shapes = (batch, in1), (batch, in2), (out, in1, in2), (out,), (batch, out)
    rows1, rows2, pages, addend, gradient = (np.ones(shape, dtype) for shape in shapes)
    tiles = np.empty(_grad_inputs_plan(sizes, threads).forward_tiles if training else 0, dtype)
    plan = _forward_plan(sizes, threads)
    with _threads(plan):
        plan.run(rows1, rows2, pages, addend, tiles)
    if training:
        inputs_plan, weight_plan = _grad_inputs_plan(sizes, threads), _grad_weight_plan(sizes, threads)
        with _threads(inputs_plan):
            inputs_plan.run(rows1, rows2, pages, gradient, tiles)
        with _threads(weight_plan):
            weight_plan.run(rows1, rows2, gradient)
        column_sums(gradient)

"""``torch.nn.Bilinear`` with the fused kernel inside: a module to put in its place in a model.

::

    from backends.torch_fused import Bilinear   # instead of torch.nn.Bilinear

Formula and work: those of ``numba_fused``, which runs on the tensors' own memory; nothing is copied but inputs that are
not contiguous.

* What it keeps of nn.Bilinear: constructor, parameters, their first values, ``state_dict`` (it is a subclass), errors,
  leading dimensions, no batch at all, ``bias=False``, autograd. PyTorch's number of threads is Numba's here.
* float32 and float64 on a CPU are the fused kernel's. Other floats and other devices go to ``torch_contract``; whole
  and complex numbers, forward-mode derivatives and ``torch.func`` to nn.functional.bilinear; ``torch.compile`` sees an
  einsum. Gradients that are to be differentiated again come from an einsum.
* With few outputs (``numba_fused.FEW_PAGES``) a forward keeps up to 16 MiB until its graph is freed.
* A process that has called it may not fork and call it in the child: GNU OpenMP, which Numba's threads are, ends that.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Iterator
from typing import Any, Final

import numba
import numpy as np
import numpy.typing as npt
import torch

from backends import numba_fused, torch_contract
from backends.numba_fused import Plan
from backends.torch_tensor import Formula, TorchBackend, einsum_bilinear
from harness.backend import Support
from harness.case import Case, Mode

Tensor = Any

#: The dtypes of the fused kernel, by PyTorch's name and ours.
DTYPES: Final = {torch.float32: "float32", torch.float64: "float64"}

#: Types that are nothing but tensors; others may have their own mind about every operation.
_PLAIN: Final = (torch.Tensor, torch.nn.Parameter)
# Not every threading layer of Numba can be entered by two Python threads at a time; GNU OpenMP's can, "workqueue" ends
# the process.
_ENTERED = threading.Lock()


class Bilinear(torch.nn.Bilinear):
    """``torch.nn.Bilinear``, computed by ``bilinear`` below.

    Args:
        in1_features: Size i of the first input's last dimension.
        in2_features: Size j of the second input's.
        out_features: Size o of the output's.
        bias: Whether to learn a bias (o,).
        device: Where the parameters are.
        dtype: Of the parameters.
    """

    def forward(self, input1: Tensor, input2: Tensor) -> Tensor:
        """Return output (*, o) of input1 (*, i) and input2 (*, j), with the same leading dimensions or none.

        Raises:
            RuntimeError: The sizes, dtypes or devices do not fit; the words are PyTorch's own.
        """
        return bilinear(input1, input2, self.weight, self.bias)


class TorchFused(TorchBackend):
    """The module's function as a backend: the fused kernel with PyTorch around it; gradients by autograd."""

    name = "torch-fused"
    devices = ("cpu",)

    def formula(self) -> Formula:
        """The module's function."""
        return bilinear

    def supports(self, case: Case) -> Support:
        """What the fused kernel has: other dtypes would be another backend's."""
        if case.dtype not in DTYPES.values():
            return Support(
                False, f"the fused kernel has no {case.dtype}: torch-contract has, and the module goes there"
            )
        return self.supports_mode_and_precision(case)

    def workspace_bytes(self, case: Case) -> int:
        """The fused kernel's."""
        return numba_fused.NumbaFused().workspace_bytes(case)

    def version(self) -> str:
        """Versions of PyTorch and Numba."""
        return f"{super().version()}, numba {numba.__version__}"


def bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Do as ``torch.nn.functional.bilinear``, faster.

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
        output = einsum_bilinear(rows1, rows2, weight, bias)
    elif weight.device.type != "cpu" or weight.dtype not in DTYPES:
        output = torch_contract.bilinear(rows1, rows2, weight, bias)
    elif torch.is_grad_enabled() and _any_requires_grad(input1, input2, weight, bias):
        output = _Fused.apply(rows1, rows2, weight, bias)
    else:
        output = _forward(rows1, rows2, weight, bias)
    return output if input1.dim() == 2 else output.view(*input1.shape[:-1], len(weight))


class _Fused(torch.autograd.Function):
    """The fused kernel and its gradients, each only if it is needed."""

    @staticmethod
    def forward(ctx: Any, input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        kept = None
        if ctx.needs_input_grad[0] or ctx.needs_input_grad[1]:
            kept = weight.new_empty(_plan("forward_backward", input1, weight).kept)
        ctx.save_for_backward(input1, input2, weight, bias, kept)
        return _forward(input1, input2, weight, bias, kept)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        input1, input2, weight, bias, kept = ctx.saved_tensors
        needed = ctx.needs_input_grad
        if torch.is_grad_enabled():  # somebody will differentiate the gradients
            return torch_contract.differentiable_gradients(input1, input2, weight, bias, grad_output, needed)
        divided = _plan("forward_backward", input1, weight)
        one, other, pages, gradient = (_array(tensor) for tensor in (input1, input2, weight, grad_output))
        found: list[Tensor | None] = [None] * 4
        with _threads(divided):
            if needed[0] or needed[1]:
                both = numba_fused.input_gradients(divided, one, other, pages, gradient, _array(kept))
                found[:2] = (torch.from_numpy(got) if need else None for got, need in zip(both, needed, strict=False))
            if needed[2]:
                found[2] = torch.from_numpy(numba_fused.weight_gradient(divided, one, other, gradient))
        if needed[3]:
            found[3] = torch.from_numpy(numba_fused.column_sums(gradient))
        return tuple(found)


def _forward(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None, kept: Tensor | None = None) -> Tensor:
    divided = _plan("forward", input1, weight)
    pages = _array(weight)
    addend = numba_fused.bias_or_zeros(pages, None if bias is None else _array(bias))
    with _threads(divided):
        room = None if kept is None else _array(kept)
        return torch.from_numpy(numba_fused.forward(divided, _array(input1), _array(input2), pages, addend, room))


def _fits(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None, compiling: bool) -> bool:
    """Whether there is nothing for PyTorch to complain about, and nothing that only its own function knows."""
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
    given = (input1, input2, weight) if bias is None else (input1, input2, weight, bias)
    return all(
        one.dtype == dtype and one.device == device and one.layout == torch.strided and type(one) in _PLAIN
        for one in given
    )


def _any_requires_grad(*tensors: Tensor | None) -> bool:
    return any(one is not None and one.requires_grad for one in tensors)


def _is_transformed() -> bool:
    """Whether ``torch.func`` or forward-mode differentiation is at work, which see operators and not what is in ours.

    PyTorch asks the same of itself in ``torch.autograd.function`` and ``forward_ad``; there is no public way.
    """
    transformed: bool = torch._C._are_functorch_transforms_active()
    return transformed or torch.autograd.forward_ad._current_level >= 0


def _array(tensor: Tensor) -> npt.NDArray[np.floating]:
    """The tensor's memory as an array; a copy only of what is not contiguous."""
    array: npt.NDArray[np.floating] = tensor.detach().contiguous().numpy()
    return array


def _plan(mode: Mode, input1: Tensor, weight: Tensor) -> Plan:
    out, in1, in2 = weight.shape
    return _divided(len(input1), in1, in2, out, DTYPES[weight.dtype], mode, _thread_count())


def _thread_count() -> int:
    """PyTorch's; Numba has made room for so many at import, and takes no more."""
    return min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS)


@functools.lru_cache(1024)
def _divided(batch: int, in1: int, in2: int, out: int, dtype: str, mode: Mode, threads: int) -> Plan:
    return numba_fused.plan(Case(batch, in1, in2, out, dtype=dtype, mode=mode), threads)


@contextlib.contextmanager
def _threads(divided: Plan) -> Iterator[None]:
    """PyTorch's number of threads for Numba, and nobody else in the parallel loops."""
    if not divided.parallel:
        yield
        return
    with _ENTERED:
        numba.set_num_threads(_thread_count())
        yield

"""PyTorch's memory as the kernels see it: tensors as arrays, and new tensors for results."""

from __future__ import annotations

import ctypes
import functools
import sys
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

Tensor = Any

#: The dtypes of the fused kernel, by PyTorch's name and ours.
DTYPES: Final = {torch.float32: "float32", torch.float64: "float64"}
#: Bytes of a tensor from which huge pages are worth their request, as in NumPy.
HUGE_BYTES: Final = 4 * 2**20
#: Linux's number for "use huge pages here" (``man madvise``).
MADV_HUGEPAGE: Final = 14
PAGE_BYTES: Final = 4096


class _Memory:
    """Where an array is, in NumPy's array interface."""

    __slots__ = ("__array_interface__",)


def array_of(tensor: Tensor) -> npt.NDArray[np.floating[Any]]:
    """Return the memory of a contiguous tensor on a CPU as an array of its shape.

    The array does not keep the tensor alive: its caller does. ``Tensor.numpy`` would, but marks the storage as not
    resizable for good, and FSDP and offloading resize storages.
    """
    if tensor.numel() == 0:
        return np.empty(tuple(tensor.shape), DTYPES[tensor.dtype])
    memory = _Memory()
    memory.__array_interface__ = {
        "data": (tensor.data_ptr(), False),
        "shape": tuple(tensor.shape),
        "typestr": "<f4" if tensor.dtype == torch.float32 else "<f8",
        "version": 3,
    }
    return np.asarray(memory)


def new_tensor(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Return a tensor with unwritten memory of PyTorch's own, of like's dtype; large memory in huge pages."""
    tensor = like.new_empty(shape)
    size = tensor.numel() * tensor.element_size()
    if size >= HUGE_BYTES:
        advise = _madvise()
        if advise is not None:
            skipped = -tensor.data_ptr() % PAGE_BYTES
            advise(ctypes.c_void_p(tensor.data_ptr() + skipped), ctypes.c_size_t(size - skipped), MADV_HUGEPAGE)
    return tensor


@functools.cache
def _madvise() -> Callable[..., int] | None:
    """Return the system's function for advice about memory, or None where it is not Linux."""
    return ctypes.CDLL(None).madvise if sys.platform == "linux" else None  # type: ignore[no-any-return]  # ctypes' own

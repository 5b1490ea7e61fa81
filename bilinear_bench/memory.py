"""PyTorch's memory as the kernels see it: tensors as arrays, and new tensors for results."""

from __future__ import annotations

import ctypes
import functools
import math
import sys
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from bilinear_bench.cpu.sizes import HALF_TYPES

Tensor = Any

#: The dtypes of the fused kernel, by PyTorch's name and ours.
DTYPES: Final = {
    torch.float32: "float32",
    torch.float64: "float64",
    torch.float16: "float16",
    torch.bfloat16: "bfloat16",
}


def stored_as(dtype: str) -> str:
    """Return NumPy's dtype of the arrays of a kernel: half types are given as their bits."""
    return "uint16" if dtype in HALF_TYPES else dtype


_STORED: Final = {dtype: stored_as(name) for dtype, name in DTYPES.items()}
#: Bytes of a tensor from which huge pages are worth their request, as in NumPy.
HUGE_BYTES: Final = 4 * 2**20
#: Linux's number for "use huge pages here" (``man madvise``).
MADV_HUGEPAGE: Final = 14
PAGE_BYTES: Final = 4096


class _Memory:
    """Where an array is, in NumPy's array interface."""

    __slots__ = ("__array_interface__",)
    __array_interface__: dict[str, Any]


def array_of(tensor: Tensor) -> npt.NDArray[np.floating[Any]]:
    """Return the memory of a contiguous tensor on a CPU as an array of its shape; half types as their bits.

    The array does not keep the tensor alive: its caller does. ``Tensor.numpy`` would, but marks the storage as not
    resizable for good, and FSDP and offloading resize storages.
    """
    return _array_at(tensor.data_ptr(), tensor.shape, _STORED[tensor.dtype])


@functools.lru_cache(1024)
def _array_at(address: int, shape: tuple[int, ...], dtype: str) -> npt.NDArray[np.floating[Any]]:
    """Return an array at an address. It owns nothing, so a kept one is right for whatever tensor is there now."""
    if 0 in shape:
        return np.empty(shape, dtype)
    memory = _Memory()
    memory.__array_interface__ = {
        "data": (address, False),
        "shape": shape,
        "typestr": np.dtype(dtype).str,
        "version": 3,
    }
    return np.asarray(memory)


def new_tensor(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Return a tensor with unwritten memory of PyTorch's own, of like's dtype; large memory in huge pages."""
    tensor = like.new_empty(shape)
    size = math.prod(shape) * like.itemsize
    if size >= HUGE_BYTES:
        advise = _madvise()
        if advise is not None:
            skipped = -tensor.data_ptr() % PAGE_BYTES
            advise(ctypes.c_void_p(tensor.data_ptr() + skipped), ctypes.c_size_t(size - skipped), MADV_HUGEPAGE)
    return tensor


@functools.cache
def _madvise() -> Callable[..., int] | None:
    """Return the system's function for advice about memory, or None where it is not Linux."""
    return ctypes.CDLL(None).madvise if sys.platform == "linux" else None

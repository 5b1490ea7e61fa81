"""Poison fresh memory: it then holds neither zeros nor an earlier result, so that reading it spoils a sum."""

from __future__ import annotations

import ctypes
import sys
from typing import TYPE_CHECKING, Final

import numpy as np

from harness.machine import memory

if TYPE_CHECKING:
    from harness.case import Case
    from harness.worker.arrays import DeviceArrays

#: mallopt(3), M_PERTURB: freed memory is filled with this byte, and what malloc returns with its complement.
_M_PERTURB: Final = -6
#: Byte that fills freed memory: 3.0 in float32; fresh memory is then -1.5. In every dtype both spoil a sum.
POISON: Final = 0x40
#: Number of freed blocks of each small size that NumPy keeps, so that malloc never sees them again.
SMALL_BLOCKS: Final = 7
#: Size below which NumPy keeps freed blocks, in bytes.
SMALL_BYTES: Final = 1024
#: Blocks of a device's memory that are spoilt for each result: one for the result, one for its intermediate.
DEVICE_BLOCKS: Final = 2


class Poisoned:
    """While entered, fresh memory of the host holds a pattern; with glibc only."""

    def __init__(self, case: Case) -> None:
        self._itemsize = case.itemsize

    def __enter__(self) -> None:
        # NaN: a factor of zero does not hide it.
        pattern = np.full(SMALL_BYTES, 0xFF, np.uint8)
        for size in range(self._itemsize, SMALL_BYTES, self._itemsize):
            blocks = [pattern[:size].copy() for _ in range(SMALL_BLOCKS)]
            del blocks
        self._set(POISON)

    def __exit__(self, *_: object) -> None:
        self._set(0)

    @staticmethod
    def _set(byte: int) -> None:
        if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "mallopt"):
            library.mallopt(_M_PERTURB, byte)


def poison_device(arrays: DeviceArrays, trim: bool = False) -> None:
    """Fill the memory of a device that the next results will get with NaN; on the CPU ``Poisoned`` does it.

    Frameworks keep what is freed and hand it out again, where it may still hold an earlier result, a right one.

    Args:
        arrays: Arrays of the case whose results come next.
        trim: True if all freed memory is given back first, which takes a while.
    """
    if arrays.backend.device == "cpu":
        return
    if trim:
        memory.trim()
    dtype = np.float64 if arrays.case.dtype == "float64" else np.float32
    shapes = [shape for shape in arrays.case.result_shapes().values() for _ in range(DEVICE_BLOCKS)]
    blocks = [arrays.place(np.full(shape, np.nan, dtype)) for shape in shapes]
    del blocks

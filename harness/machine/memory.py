"""Measure the peak memory of a call, recognise errors when memory runs out, and return freed memory to the system."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

#: Text for clear_refs that resets the high-water mark of the resident set (VmHWM) to its present size (proc(5)).
_RESET: Final = "5"
#: Parts of the messages of PyTorch, CUDA, cuBLAS, XLA and C++ when memory runs out, in lower case.
_SIGNS: Final = (
    *("out of memory", "alloc_failed", "resource_exhausted", "can't allocate memory", "not enough memory"),
    "std::bad_alloc",
)


def trim() -> None:
    """Return freed memory to the system and to the GPU; otherwise glibc and the frameworks keep it.

    JAX has no function for it.
    """
    gc.collect()
    torch: Any = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    if (cupy := sys.modules.get("cupy")) is not None:
        cupy.get_default_memory_pool().free_all_blocks()
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "malloc_trim"):
        library.malloc_trim(0)


def ran_out(error: BaseException) -> bool:
    """True if an exception means that memory ran out; frameworks have no common type for it."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(sign in text for sign in _SIGNS)


def peak_bytes(call: Callable[[], Any], device: str, proc: Path = Path("/proc/self")) -> int | None:
    """Return the bytes that one call adds to the memory in use at its peak, results included; None if unknown.

    On the CPU it is the high-water mark of this process's resident set, reset before the call. Memory that a framework
    keeps between calls (a scratch buffer that is never freed) is not counted. On a CUDA device it is the peak of
    PyTorch's allocator; the allocators of other frameworks have no peak that can be reset.

    Args:
        call: Function that calls the kernel and waits for the result.
        device: ``cpu`` or ``cuda``.
        proc: Folder of this process in the proc file system.
    """
    if device == "cuda":
        return _cuda_peak_bytes(call)
    trim()
    before, peak = None, None
    with contextlib.suppress(OSError, LookupError):  # not Linux, or a sandbox that does not allow it
        (proc / "clear_refs").write_text(_RESET)
        before = _status_bytes(proc, "VmRSS")
    call()
    with contextlib.suppress(OSError, LookupError):
        peak = _status_bytes(proc, "VmHWM")
    return None if before is None or peak is None else max(0, peak - before)


def _cuda_peak_bytes(call: Callable[[], Any]) -> int | None:
    """Return the peak of PyTorch's allocator in a call, in bytes; None without PyTorch on CUDA."""
    torch: Any = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        call()
        return None
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = int(torch.cuda.memory_allocated())
    call()
    torch.cuda.synchronize()
    return max(0, int(torch.cuda.max_memory_allocated()) - before)


def _status_bytes(proc: Path, name: str) -> int:
    """Return a size from the process's status file, in bytes.

    Raises:
        LookupError: The file has no such line.
    """
    match = re.search(rf"^{name}:\s+(\d+) kB", (proc / "status").read_text(), re.MULTILINE)
    if match is None:
        raise LookupError(name)
    return int(match[1]) * 1024

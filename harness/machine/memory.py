"""Memory: how much a call takes at its peak, whether it ran out, and how what was freed is given back."""

from __future__ import annotations

import ctypes
import gc
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

#: proc(5): writing 5 sets the high-water mark of the resident set (VmHWM) to what is resident now.
_RESET: Final = "5"
#: What is in the message when memory ran out, in small letters: of PyTorch, CUDA, cuBLAS, XLA, and C++.
_SIGNS: Final = (
    *("out of memory", "alloc_failed", "resource_exhausted", "can't allocate memory", "not enough memory"),
    "std::bad_alloc",
)


def trim() -> None:
    """Give freed memory back to the system and to the GPU: glibc and the frameworks keep it for later otherwise.

    JAX has no means to.
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
    """Whether an exception means that memory ran out; frameworks have no common type for it."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(sign in text for sign in _SIGNS)


def peak_bytes(call: Callable[[], Any], device: str, proc: Path = Path("/proc/self")) -> int | None:
    """What one call adds to the memory in use at its highest, results included; None where nobody can tell.

    On the CPU it is the high-water mark of this process's resident set, reset before the call; what a framework keeps
    from call to call (a scratch buffer that is never freed) was there before, and does not show. On a CUDA device it is
    the peak of PyTorch's allocator; other frameworks' allocators have none that can be reset.

    Args:
        call: Calls, and waits for the result.
        device: ``cpu`` or ``cuda``.
        proc: Where the system tells of this process.
    """
    if device == "cuda":
        return _cuda_peak_bytes(call)
    trim()
    try:
        (proc / "clear_refs").write_text(_RESET)
        before = _status_bytes(proc, "VmRSS")
        call()
        return max(0, _status_bytes(proc, "VmHWM") - before)
    except (OSError, LookupError):
        return None  # not Linux, or a sandbox that does not allow it


def _cuda_peak_bytes(call: Callable[[], Any]) -> int | None:
    torch: Any = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return None
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = int(torch.cuda.memory_allocated())
    call()
    torch.cuda.synchronize()
    return max(0, int(torch.cuda.max_memory_allocated()) - before)


def _status_bytes(proc: Path, name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB", (proc / "status").read_text(), re.MULTILINE)
    if found is None:
        raise LookupError(name)
    return int(found[1]) * 1024

"""What a GPU's surveyor can be asked: what the device is, and how fast it multiplies and copies.

Measured through PyTorch, whose library has the device's own GEMMs, in a process that nothing else shares. Clocks rise
under load, so each rate is the best of several repetitions after as many that do not count.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

#: Rows and columns of the square GEMM: long enough to fill the device, short enough for one that has slow float64.
PRODUCT_SIZE: Final = 4096
#: Repetitions that count, at most; and the time after which no more are begun, in seconds.
REPETITIONS, SECONDS = 20, 1.0
#: torch.set_float32_matmul_precision, by precision of a case.
FLOAT32_PRECISIONS: Final = {"ieee": "highest", "tf32": "high"}


class DeviceSurveyor:
    """Measures one device."""

    def __init__(self) -> None:
        self.answers: dict[str, Callable[..., dict[str, Any]]] = {
            "device": self.describe,
            "device_product": self.product,
            "device_bandwidth": self.bandwidth,
        }

    def describe(self, device: str) -> dict[str, Any]:
        """The device's name and sizes, as PyTorch has them; None for what it does not say."""
        import torch

        if device != "cuda":
            return {"name": device, "cache_bytes": None, "memory_bytes": None, "processors": None}
        found = torch.cuda.get_device_properties(0)
        return {
            "name": found.name,
            "cache_bytes": int(getattr(found, "L2_cache_size", 0)) or None,
            "memory_bytes": int(found.total_memory),
            "processors": int(found.multi_processor_count),
        }

    def product(self, device: str, dtype: str, precision: str, size: int = PRODUCT_SIZE) -> dict[str, Any]:
        """The best rate of a square GEMM, in flop per second, and what it was.

        Args:
            device: Where.
            dtype: Of both matrices.
            precision: ``ieee`` or ``tf32``.
            size: Rows and columns.
        """
        import torch

        torch.set_float32_matmul_precision(FLOAT32_PRECISIONS[precision])
        # Of random numbers: a device that multiplies zeros needs less power, and so has a higher clock.
        left, right, result = (torch.randn(size, size, device=device).to(getattr(torch, dtype)) for _ in range(3))
        seconds = _best_seconds(lambda: torch.mm(left, right, out=result), _waiter(torch, device))
        return {"flop_per_second": 2 * size**3 / seconds, "detail": f"torch.mm {size} x {size}, {precision}"}

    def bandwidth(self, device: str, size_bytes: int) -> dict[str, Any]:
        """Bytes read and written per second by a copy of so many bytes to as many others, again and again."""
        import torch

        source = torch.zeros(size_bytes // 4, device=device)
        target = torch.empty_like(source)
        copies = max(1, 2**28 // size_bytes)  # launches shall not count, so a small one is repeated

        def copy() -> None:
            for _ in range(copies):
                target.copy_(source)

        seconds = _best_seconds(copy, _waiter(torch, device))
        return {"bytes_per_second": 2 * copies * source.numel() * 4 / seconds, "source": "torch copies"}


def _waiter(torch: Any, device: str) -> Callable[[], None]:
    return torch.cuda.synchronize if device == "cuda" else lambda: None


def _best_seconds(work: Callable[[], object], wait: Callable[[], None]) -> float:
    """The least time of some repetitions, after one that is not timed."""
    work()
    wait()
    taken: list[float] = []
    begin = time.perf_counter()
    while not taken or (len(taken) < REPETITIONS and time.perf_counter() - begin < SECONDS):
        start = time.perf_counter()
        work()
        wait()
        taken.append(time.perf_counter() - start)
    return min(taken)

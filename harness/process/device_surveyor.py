"""What a GPU's surveyor can be asked: what the device is, and how fast it multiplies and copies.

Measured through PyTorch, whose library has the device's own GEMMs, in a process that nothing else shares. Clocks rise
under load, so each rate is the best of several repetitions, after one that does not count.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from harness.process.surveyor import best_seconds

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
        """The device's name and the bytes of its last cache, as PyTorch has them; None where it does not say."""
        import torch

        if device != "cuda":
            return {"name": device, "cache_bytes": None}
        found = torch.cuda.get_device_properties(0)
        return {"name": found.name, "cache_bytes": int(getattr(found, "L2_cache_size", 0)) or None}

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
        torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
        torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
        # Of random numbers: a device that multiplies zeros needs less power, and so has a higher clock.
        left, right, result = (torch.randn(size, size, device=device).to(getattr(torch, dtype)) for _ in range(3))
        work = _waiting(torch, device, lambda: torch.mm(left, right, out=result))
        seconds, _ = best_seconds(work, REPETITIONS, SECONDS)
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

        seconds, _ = best_seconds(_waiting(torch, device, copy), REPETITIONS, SECONDS)
        return {"bytes_per_second": 2 * copies * source.numel() * 4 / seconds, "source": "torch copies"}


def _waiting(torch: Any, device: str, work: Callable[[], object]) -> Callable[[], None]:
    """The work, until the device has done it."""

    def work_and_wait() -> None:
        work()
        if device == "cuda":
            torch.cuda.synchronize()

    return work_and_wait

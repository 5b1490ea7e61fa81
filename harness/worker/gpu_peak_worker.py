"""What a GPU's peak_worker can be asked: what the device is, and how fast it multiplies and copies.

Measured through PyTorch, whose library has the device's own GEMMs, in a process that nothing else shares. Clocks rise
under load, so each rate is the best of many repetitions, after some that warm up.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, Final

from harness.process.protocol import (
    DescribeDevice,
    DeviceDescription,
    MeasureDeviceBandwidth,
    MeasureDeviceProduct,
    MeasuredRate,
    Request,
)
from harness.worker.peak_worker import best_seconds

#: Rows and columns of the square GEMMs: large enough to fill a device; the larger is for those that do one soon.
PRODUCT_SIZES: Final = (4096, 8192)
QUICK_SECONDS: Final = 0.020
#: Work that is queued before it is waited for, in seconds of the device; and how long it warms up, one by one.
QUEUED_SECONDS, WARM_UP_SECONDS = 0.020, 0.3
#: Repetitions that count, at most; and the time after which no more are begun, in seconds.
REPETITIONS, SECONDS = 1000, 0.5
#: torch.set_float32_matmul_precision, by precision of a case.
FLOAT32_PRECISIONS: Final = {"ieee": "highest", "tf32": "high"}


class GpuPeakWorker:
    """Measures one device."""

    def __init__(self) -> None:
        self.handlers: dict[type[Request[Any]], Callable[[Any], object]] = {
            DescribeDevice: self.describe,
            MeasureDeviceProduct: self.product,
            MeasureDeviceBandwidth: self.bandwidth,
        }

    def describe(self, request: DescribeDevice) -> DeviceDescription:
        """The device's name and the bytes of its last cache, as PyTorch has them; None where it does not say."""
        import torch

        if request.device != "cuda":
            return DeviceDescription(request.device, None)
        found = torch.cuda.get_device_properties(0)
        return DeviceDescription(found.name, int(getattr(found, "L2_cache_size", 0)) or None)

    def product(self, request: MeasureDeviceProduct, sizes: Sequence[int] = PRODUCT_SIZES) -> MeasuredRate:
        """The best rate of a square GEMM, in flop per second, and what it was.

        Args:
            request: Device, dtype and precision.
            sizes: Rows and columns, ascending; the next one is tried only where the one before was quick.
        """
        import torch

        device, dtype, precision = request.device, request.dtype, request.precision
        torch.set_float32_matmul_precision(FLOAT32_PRECISIONS[precision])
        torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
        torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
        rates: dict[int, float] = {}
        for size in sizes:
            # Of random numbers: a device that multiplies zeros needs less power, and so has a higher clock.
            left, right, result = (torch.randn(size, size, device=device).to(getattr(torch, dtype)) for _ in range(3))
            seconds = _best_seconds(torch, device, functools.partial(torch.mm, left, right, out=result))
            rates[size] = 2 * size**3 / seconds
            if seconds > QUICK_SECONDS:
                break
        best = max(rates, key=lambda size: rates[size])
        return MeasuredRate(rates[best], f"torch.mm {best} x {best}, {precision}")

    def bandwidth(self, request: MeasureDeviceBandwidth) -> MeasuredRate:
        """Bytes read and written per second by a copy of so many bytes to as many others, again and again."""
        import torch

        device = request.device
        source = torch.zeros(request.size_bytes // 4, device=device)
        target = torch.empty_like(source)
        seconds = _best_seconds(torch, device, lambda: target.copy_(source))
        return MeasuredRate(2 * source.numel() * 4 / seconds, "torch copies")


def _best_seconds(torch: Any, device: str, work: Callable[[], object]) -> float:
    """The least time of some work, of which so much is queued at once that launching and waiting do not count."""

    def queue_and_wait(count: int) -> None:
        for _ in range(count):
            work()
        if device == "cuda":
            torch.cuda.synchronize()

    once, _ = best_seconds(lambda: queue_and_wait(1), REPETITIONS, WARM_UP_SECONDS)
    count = max(1, round(QUEUED_SECONDS / once))
    taken, _ = best_seconds(lambda: queue_and_wait(count), REPETITIONS, SECONDS)
    return min(once, taken / count)

"""The GPU's peak worker: what the device is, and how fast it multiplies and copies.

Measured through PyTorch, whose library has the device's own GEMMs, in a process that no other library shares. Clocks
rise under load, so each rate is the best of many repetitions, after some that warm up.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, Final

from harness.process.protocol import (
    DescribeDevice,
    DeviceDescription,
    Handlers,
    MeasureDeviceBandwidth,
    MeasureDeviceProduct,
    MeasuredRate,
)
from harness.worker.peak_timing import best_seconds

#: Rows and columns of the square GEMMs: large enough to fill a device.
PRODUCT_SIZES: Final = (4096, 8192)
#: Longest time of a product after which the next larger one is tried, in seconds.
QUICK_SECONDS: Final = 0.020
#: Device time of the work that is queued before one synchronisation, in seconds.
QUEUED_SECONDS: Final = 0.020
#: Time of synchronised calls that warm the device up, in seconds.
WARM_UP_SECONDS: Final = 0.3
#: Most repetitions that are timed.
REPETITIONS: Final = 1000
#: Time of the repetitions after which no other begins, in seconds.
SECONDS: Final = 0.5
#: Argument of torch.set_float32_matmul_precision, by precision of a case.
FLOAT32_PRECISIONS: Final = {"ieee": "highest", "tf32": "high"}


class GpuPeakWorker:
    """Measures one device."""

    def __init__(self) -> None:
        self.handlers: Handlers = {
            DescribeDevice: self.describe,
            MeasureDeviceProduct: self.product,
            MeasureDeviceBandwidth: self.bandwidth,
        }

    def describe(self, request: DescribeDevice) -> DeviceDescription:
        """Return the device's name and the size of its last cache, as PyTorch has them."""
        import torch

        if request.device != "cuda":
            return DeviceDescription(request.device, None)
        properties = torch.cuda.get_device_properties(0)
        return DeviceDescription(properties.name, int(getattr(properties, "L2_cache_size", 0)) or None)

    def product(self, request: MeasureDeviceProduct, sizes: Sequence[int] = PRODUCT_SIZES) -> MeasuredRate:
        """Return the best rate of a square GEMM, in flop per second.

        Args:
            request: Device, dtype and precision.
            sizes: Rows and columns, ascending; each is tried only if the one before took at most ``QUICK_SECONDS``.
        """
        import torch

        device, dtype, precision = request.device, request.dtype, request.precision
        torch.set_float32_matmul_precision(FLOAT32_PRECISIONS[precision])
        torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
        torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
        rates: dict[int, float] = {}
        for size in sizes:
            # Random numbers: a device that multiplies zeros needs less power and so has a higher clock.
            left, right, result = (torch.randn(size, size, device=device).to(getattr(torch, dtype)) for _ in range(3))
            seconds = _best_seconds(torch, device, functools.partial(torch.mm, left, right, out=result))
            rates[size] = 2 * size**3 / seconds
            if seconds > QUICK_SECONDS:
                break
        best = max(rates, key=lambda size: rates[size])
        return MeasuredRate(rates[best], f"torch.mm {best} x {best}, {precision}")

    def bandwidth(self, request: MeasureDeviceBandwidth) -> MeasuredRate:
        """Return the bytes that a copy reads and writes per second, between two buffers of ``size_bytes``."""
        import torch

        device = request.device
        source = torch.zeros(request.size_bytes // 4, device=device)
        target = torch.empty_like(source)
        seconds = _best_seconds(torch, device, lambda: target.copy_(source))
        return MeasuredRate(2 * source.numel() * 4 / seconds, "torch copies")


def _best_seconds(torch: Any, device: str, work: Callable[[], object]) -> float:
    """Return the shortest time of some work, queued in a row so that launching and waiting do not count."""

    def queue_and_wait(count: int) -> None:
        for _ in range(count):
            work()
        if device == "cuda":
            torch.cuda.synchronize()

    once, _ = best_seconds(lambda: queue_and_wait(1), REPETITIONS, WARM_UP_SECONDS)
    count = max(1, round(QUEUED_SECONDS / once))
    taken, _ = best_seconds(lambda: queue_and_wait(count), REPETITIONS, SECONDS)
    return min(once, taken / count)

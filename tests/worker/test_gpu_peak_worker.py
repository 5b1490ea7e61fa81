"""The GPU's peak worker, with a CPU in place of the GPU."""

from __future__ import annotations

import pytest

from harness.process.protocol import (
    DescribeDevice,
    DeviceDescription,
    MeasureDeviceBandwidth,
    MeasureDeviceProduct,
    MeasuredRate,
)
from harness.worker import gpu_peak_worker
from harness.worker.gpu_peak_worker import GpuPeakWorker

torch = pytest.importorskip("torch", reason="PyTorch is not installed")


@pytest.fixture(autouse=True)
def brief(monkeypatch):
    for name in ("SECONDS", "QUEUED_SECONDS", "WARM_UP_SECONDS"):
        monkeypatch.setattr(gpu_peak_worker, name, 0.0)
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize(("dtype", "precision"), [("float32", "ieee"), ("float32", "tf32"), ("bfloat16", "ieee")])
def test_product_is_computed_in_the_requested_precision(dtype, precision):
    reply = GpuPeakWorker().product(MeasureDeviceProduct("cpu", dtype, precision), sizes=[64])
    assert reply.per_second > 0
    assert reply.source == f"torch.mm 64 x 64, {precision}"
    assert torch.get_float32_matmul_precision() == {"ieee": "highest", "tf32": "high"}[precision]


@pytest.mark.parametrize(
    ("seconds", "reply"),
    [
        ((1e-6, 9e-6), MeasuredRate(2 * 8**3 / 1e-6, "torch.mm 8 x 8, ieee")),
        ((1e-6, 1e-6), MeasuredRate(2 * 16**3 / 1e-6, "torch.mm 16 x 16, ieee")),
        ((1.0,), MeasuredRate(2 * 8**3, "torch.mm 8 x 8, ieee")),  # too slow for the larger product
    ],
)
def test_best_product_counts_and_slow_devices_skip_the_larger(monkeypatch, seconds, reply):
    times = iter(seconds)
    monkeypatch.setattr(gpu_peak_worker, "_best_seconds", lambda *_: next(times))
    assert GpuPeakWorker().product(MeasureDeviceProduct("cpu", "float32", "ieee"), sizes=[8, 16]) == reply
    assert next(times, None) is None, "every size whose time is given is tried"


def test_copy_counts_bytes_read_and_written(monkeypatch):
    monkeypatch.setattr(gpu_peak_worker, "_best_seconds", lambda *_: 0.5)
    reply = GpuPeakWorker().bandwidth(MeasureDeviceBandwidth("cpu", 2**20))
    assert reply == MeasuredRate(2 * 2**20 / 0.5, "torch copies")


def test_short_work_is_queued_until_launches_do_not_count(monkeypatch):
    done = []

    def best_seconds(work, repetitions, enough):
        before = len(done)
        work()
        # The device takes 1 ms for each call; the host takes 4 ms to launch and to wait once.
        return 0.004 + 0.001 * (len(done) - before), None

    monkeypatch.setattr(gpu_peak_worker, "best_seconds", best_seconds)
    monkeypatch.setattr(gpu_peak_worker, "QUEUED_SECONDS", 0.5)
    seconds = gpu_peak_worker._best_seconds(torch, "cpu", lambda: done.append(None))
    assert seconds == pytest.approx(0.001 + 0.004 / 100)


def test_cpu_has_no_cache_size():
    assert GpuPeakWorker().describe(DescribeDevice("cpu")) == DeviceDescription("cpu", None)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_gpu_has_a_cache_size_and_positive_rates():
    worker = GpuPeakWorker()
    assert worker.describe(DescribeDevice("cuda")).cache_bytes > 0
    assert worker.product(MeasureDeviceProduct("cuda", "float32", "tf32")).per_second > 0
    assert worker.bandwidth(MeasureDeviceBandwidth("cuda", 2**28)).per_second > 0

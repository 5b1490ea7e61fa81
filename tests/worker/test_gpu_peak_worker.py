"""The device's peak_worker, on a CPU that stands in for a GPU: PyTorch has both."""

from __future__ import annotations

import pytest

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
def test_a_product_is_made_in_the_precision_that_was_asked_for(dtype, precision):
    said = GpuPeakWorker().product("cpu", dtype, precision, sizes=[64])
    assert said["flop_per_second"] > 0
    assert said["detail"] == f"torch.mm 64 x 64, {precision}"
    assert torch.get_float32_matmul_precision() == {"ieee": "highest", "tf32": "high"}[precision]


def test_the_larger_product_is_for_devices_that_are_quick_and_the_best_one_counts(monkeypatch):
    def rated(*seconds):
        times = iter(seconds)
        monkeypatch.setattr(gpu_peak_worker, "_best_seconds", lambda *_: next(times))
        said = GpuPeakWorker().product("cpu", "float32", "ieee", sizes=[8, 16])
        assert next(times, None) is None, "all that are tried"
        return said

    assert rated(1e-6, 9e-6) == {"flop_per_second": 2 * 8**3 / 1e-6, "detail": "torch.mm 8 x 8, ieee"}
    assert rated(1e-6, 1e-6)["detail"] == "torch.mm 16 x 16, ieee"
    assert rated(1.0)["flop_per_second"] == 2 * 8**3


def test_a_copy_counts_what_it_reads_and_what_it_writes(monkeypatch):
    monkeypatch.setattr(gpu_peak_worker, "_best_seconds", lambda *_: 0.5)
    assert GpuPeakWorker().bandwidth("cpu", 2**20)["bytes_per_second"] == 2 * 2**20 / 0.5


def test_short_work_is_queued_until_launching_it_does_not_count(monkeypatch):
    done = []

    def best_seconds(work, repetitions, enough):
        before = len(done)
        work()
        # A device that takes 1 ms for each, and a host that takes 4 ms to launch and wait once.
        return 0.004 + 0.001 * (len(done) - before), None

    monkeypatch.setattr(gpu_peak_worker, "best_seconds", best_seconds)
    monkeypatch.setattr(gpu_peak_worker, "QUEUED_SECONDS", 0.5)
    seconds = gpu_peak_worker._best_seconds(torch, "cpu", lambda: done.append(None))
    assert seconds == pytest.approx(0.001 + 0.004 / 100)


def test_what_a_device_does_not_say_is_unknown():
    assert GpuPeakWorker().describe("cpu") == {"name": "cpu", "cache_bytes": None}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_a_gpu_is_described_and_multiplies_tf32_faster_than_float32():
    peak_worker = GpuPeakWorker()
    assert peak_worker.describe("cuda")["cache_bytes"] > 0
    assert peak_worker.product("cuda", "float32", "tf32")["flop_per_second"] > 0
    assert peak_worker.bandwidth("cuda", 2**28)["bytes_per_second"] > 0

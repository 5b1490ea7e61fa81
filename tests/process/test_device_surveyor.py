"""The device's surveyor, on a CPU that stands in for a GPU: PyTorch has both."""

from __future__ import annotations

import pytest

from harness.process import device_surveyor
from harness.process.device_surveyor import DeviceSurveyor

torch = pytest.importorskip("torch", reason="PyTorch is not installed")


@pytest.fixture(autouse=True)
def brief(monkeypatch):
    monkeypatch.setattr(device_surveyor, "SECONDS", 0.0)
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize(("dtype", "precision"), [("float32", "ieee"), ("float32", "tf32"), ("bfloat16", "ieee")])
def test_a_product_is_made_in_the_precision_that_was_asked_for(dtype, precision):
    said = DeviceSurveyor().product("cpu", dtype, precision, size=64)
    assert said["flop_per_second"] > 0
    assert said["detail"] == f"torch.mm 64 x 64, {precision}"
    assert torch.get_float32_matmul_precision() == {"ieee": "highest", "tf32": "high"}[precision]


def test_a_copy_counts_what_it_reads_and_what_it_writes(monkeypatch):
    monkeypatch.setattr(device_surveyor, "best_seconds", lambda *_: (0.5, None))
    assert DeviceSurveyor().bandwidth("cpu", 2**28)["bytes_per_second"] == 2 * 2**28 / 0.5
    assert DeviceSurveyor().bandwidth("cpu", 2**20)["bytes_per_second"] == 2 * 2**28 / 0.5  # repeated as often


def test_what_a_device_does_not_say_is_unknown():
    assert DeviceSurveyor().describe("cpu") == {"name": "cpu", "cache_bytes": None}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_a_gpu_is_described_and_multiplies_tf32_faster_than_float32():
    surveyor = DeviceSurveyor()
    assert surveyor.describe("cuda")["cache_bytes"] > 0
    assert surveyor.product("cuda", "float32", "tf32")["flop_per_second"] > 0
    assert surveyor.bandwidth("cuda", 2**28)["bytes_per_second"] > 0

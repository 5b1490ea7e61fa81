"""A GPU's own clock, on a fake GPU."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest
from fake_gpu import LAUNCH, WORK, Device, FakeTorch

from harness.worker import gpu_clock
from harness.worker.gpu_clock import CupyClock, TorchClock


@pytest.fixture
def device():
    return Device()


def test_without_the_delay_launches_are_in_the_time(device):
    clock = TorchClock(FakeTorch(device), device.now)

    def work():
        for _ in range(3):
            device.launch()

    device.synchronize()
    assert clock.seconds(work, 0.0) == pytest.approx(3 * LAUNCH + WORK)
    assert clock.seconds(work, 1e-3) == pytest.approx(3 * WORK)


def test_cupy_delays_the_device_by_a_spinning_kernel():
    device, spun = Device(), []

    def raw_kernel(text, name):
        assert f"void {name}(long long cycles)" in text

        def spin(grid, block, arguments):
            assert (grid, block) == ((1,), (1,))
            spun.append(arguments[0] / gpu_clock.CYCLES_PER_SECOND)
            device.launch(spun[-1])

        return spin

    events = FakeTorch(device)
    cuda = types.SimpleNamespace(
        Event=lambda: events.Event(enable_timing=True), get_elapsed_time=lambda start, end: start.elapsed_time(end)
    )
    clock = CupyClock(types.SimpleNamespace(RawKernel=raw_kernel, cuda=cuda), device.now)

    def work():
        for _ in range(3):
            device.launch()

    assert clock.seconds(work, 1e-3) == pytest.approx(3 * WORK)
    assert spun == [1e-3]
    device.synchronize()
    assert clock.seconds(work, 0.0) == pytest.approx(3 * LAUNCH + WORK)


def test_flushing_writes_twice_the_device_s_l2_and_waits(monkeypatch):
    done = []
    cuda = types.SimpleNamespace(
        get_device_properties=lambda device: types.SimpleNamespace(L2_cache_size=40 * 2**20),
        synchronize=lambda device: done.append("waited"),
    )
    buffer = types.SimpleNamespace(zero_=lambda: done.append("written"))

    def empty(elements, dtype, device):
        done.append(4 * elements)
        return buffer

    torch = types.SimpleNamespace(cuda=cuda, empty=empty, int32="int32")
    like = types.SimpleNamespace(device=types.SimpleNamespace(type="cuda"))
    monkeypatch.setattr(gpu_clock, "framework", lambda array: "torch")
    monkeypatch.setitem(sys.modules, "torch", torch)
    flush = gpu_clock.flusher_of(like)
    flush()
    assert done == [80 * 2**20, "written", "waited"]


def test_caches_that_cannot_be_emptied_are_an_error():
    with pytest.raises(ValueError, match=r"the caches of a device cannot be emptied for numpy.ndarray"):
        gpu_clock.flusher_of(np.zeros(1))

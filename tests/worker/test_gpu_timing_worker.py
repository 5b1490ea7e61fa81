"""Times by a device's clock, on a fake GPU."""

from __future__ import annotations

import types

import numpy as np
import pytest
from fake_gpu import LAUNCH, WORK, Device, FakeTorch
from small_backends import ask, prepared

from harness import Backend
from harness.case import Case
from harness.process.protocol import MeasureDeviceTimes, TakeSample
from harness.timing.clock import Clock
from harness.worker import gpu_clock, gpu_timing_worker
from harness.worker.gpu_clock import CupyClock, TorchClock


class Launching(Backend):
    """Launches three kernels a call on the device of the test."""

    name = "numpy-launching"
    made = None

    def prepare_forward(self, case, weight, bias):
        def kernel(input1, input2):
            for _ in range(3):
                self.made.launch()
            return np.zeros((case.batch, case.out_features), np.float32)

        return kernel


@pytest.fixture
def device():
    return Device()


@pytest.fixture
def backend(device, tmp_path, monkeypatch):
    monkeypatch.setattr(Launching, "made", device)
    worker = prepared(Launching("cpu"), tmp_path, Clock(device.now), Case(3, 2, 2, 2))
    worker.held.prepared.wait = device.synchronize
    return worker


def test_device_times_leave_the_launches_out(backend, device, monkeypatch):
    monkeypatch.setattr(gpu_clock, "clock_of", lambda like: TorchClock(FakeTorch(device), device.now))
    reply = ask(backend, MeasureDeviceTimes(calls=4, call_seconds=3 * LAUNCH + WORK, repeats=5))
    # Three launches are queued behind the delay, so the device runs them without a gap.
    assert reply.device_seconds == pytest.approx([3 * WORK] * 5)
    # A launch takes longer than a kernel, so only the last kernel's time is added to the launches.
    assert reply.queued_seconds == pytest.approx([4 * 3 * LAUNCH + WORK] * 5)
    # A graph has one launch a call instead of three, and the work of three kernels.
    assert reply.graph_seconds == pytest.approx([4 * LAUNCH + 3 * WORK] * 5)
    assert reply.absent == {}


def test_launches_longer_than_the_delay_leave_only_graph_times(backend, device, monkeypatch):
    monkeypatch.setattr(gpu_clock, "clock_of", lambda like: TorchClock(FakeTorch(device), device.now))
    # The longest delay covers half of a call's launches.
    monkeypatch.setattr(gpu_timing_worker, "MOST_DELAY_SECONDS", 3 * LAUNCH)
    reply = ask(backend, MeasureDeviceTimes(calls=4, call_seconds=1.5 * LAUNCH, repeats=5))
    assert reply.device_seconds == ()
    assert reply.absent == {"device_seconds": "launching took 0.0003 s, longer than the device could be kept waiting"}
    assert reply.graph_seconds == pytest.approx([4 * LAUNCH + 3 * WORK] * 5)
    assert not reply.broken


def test_a_delay_that_was_too_short_is_made_longer(backend, device, monkeypatch):
    monkeypatch.setattr(gpu_clock, "clock_of", lambda like: TorchClock(FakeTorch(device), device.now))
    # The request states half the time that launching takes.
    reply = ask(backend, MeasureDeviceTimes(calls=4, call_seconds=1.5 * LAUNCH, repeats=5))
    assert reply.device_seconds == pytest.approx([3 * WORK] * 5)
    assert reply.absent == {}


def test_a_call_without_a_graph_has_its_other_times_and_a_reason(backend, device, monkeypatch):
    clock = TorchClock(FakeTorch(device), device.now)
    fake_cupy = types.SimpleNamespace(RawKernel=lambda text, name: None)
    monkeypatch.setattr(clock, "capture", CupyClock(fake_cupy).capture)
    monkeypatch.setattr(gpu_clock, "clock_of", lambda like: clock)
    reply = ask(backend, MeasureDeviceTimes(calls=4, call_seconds=3 * LAUNCH + WORK, repeats=2))
    assert len(reply.device_seconds) == len(reply.queued_seconds) == 2
    assert reply.graph_seconds == ()
    assert reply.absent == {"graph_seconds": "calls of CuPy are not captured"}
    assert not reply.broken


def test_a_failed_capture_reports_a_broken_process(backend, device, monkeypatch):
    clock = TorchClock(FakeTorch(device), device.now)

    def capture(call):
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(clock, "capture", capture)
    monkeypatch.setattr(gpu_clock, "clock_of", lambda like: clock)
    reply = ask(backend, MeasureDeviceTimes(calls=4, call_seconds=3 * LAUNCH + WORK, repeats=2))
    assert reply.absent == {"graph_seconds": "RuntimeError: operation not permitted when stream is capturing"}
    assert reply.broken


def test_a_framework_without_events_has_queued_times_only(backend):
    reply = ask(backend, MeasureDeviceTimes(calls=4, call_seconds=3 * LAUNCH + WORK, repeats=2))
    assert (len(reply.queued_seconds), reply.device_seconds) == (2, ())
    assert reply.absent == {"device_seconds": "no events", "graph_seconds": "no events"}


def test_a_sample_with_flush_l2_empties_the_cache_before_each_call(backend, device, monkeypatch):
    flushed = []
    monkeypatch.setattr(gpu_clock, "flusher_of", lambda like: lambda: flushed.append(device.host))
    reply = ask(backend, TakeSample(calls=4, first=0, settle_seconds=0.0, forward=False, flush_l2=True))
    assert len(flushed) == 4
    assert reply.seconds == pytest.approx(4 * (3 * LAUNCH + WORK))

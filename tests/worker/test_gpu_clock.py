"""Times by a device's clock, on a device that is made up: it works behind the host, kernel after kernel."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import types

import numpy as np
import pytest

from harness import Backend
from harness.case import Case
from harness.timing.clock import Clock
from harness.worker import backend_worker as module
from harness.worker import gpu_clock
from harness.worker.backend_worker import BackendWorker
from harness.worker.gpu_clock import CupyClock, TorchClock

LAUNCH, WORK = 1e-4, 2.5e-5


class Device:
    """A queue: launching takes the host some time, and the device works off what was launched, in order."""

    def __init__(self):
        self.host = self.done = 0.0
        self.capturing = None

    def now(self):
        return self.host

    def launch(self, work_seconds=WORK, launch_seconds=LAUNCH):
        if self.capturing is not None:
            self.capturing.append(work_seconds)
            return
        self.host += launch_seconds
        self.done = max(self.done, self.host) + work_seconds

    def synchronize(self, _=None):
        self.host = max(self.host, self.done)


class FakeTorch:
    """The part of torch.cuda that is used, on the device."""

    def __init__(self, device):
        self.cuda = self
        self.device = device

    def Event(self, enable_timing):  # noqa: N802  # PyTorch's name
        assert enable_timing
        event, device = types.SimpleNamespace(), self.device

        def record():
            event.at = max(device.done, device.host)

        event.record, event.synchronize = record, device.synchronize
        event.elapsed_time = lambda later: 1e3 * (later.at - event.at)
        return event

    def _sleep(self, cycles):
        self.device.launch(cycles / gpu_clock.CYCLES_PER_SECOND)

    def Stream(self):  # noqa: N802
        return types.SimpleNamespace(wait_stream=lambda other: None)

    def current_stream(self):
        return self.Stream()

    def stream(self, _):
        return contextlib.nullcontext()

    def CUDAGraph(self):  # noqa: N802
        graph = types.SimpleNamespace(kernels=[])

        def replay():
            self.device.launch(sum(graph.kernels))

        graph.replay = replay
        return graph

    @contextlib.contextmanager
    def graph(self, graph):
        self.device.capturing = graph.kernels
        yield
        self.device.capturing = None


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
    worker = BackendWorker()
    worker.hold(Launching("cpu"))
    worker.prepare(dataclasses.asdict(Case(3, 2, 2, 2)), 2, str(tmp_path))
    worker._clock = Clock(device.now)
    worker.prepared.wait = device.synchronize
    return worker


def test_the_device_is_timed_without_the_launches_that_the_host_is_busy_with(backend, device, monkeypatch):
    monkeypatch.setattr(gpu_clock, "clock_of", lambda like: TorchClock(FakeTorch(device), device.now))
    said = backend.device_times(calls=4, call_seconds=3 * LAUNCH + WORK, repeats=5)
    # Three launches are queued behind the delay, so the device does them without a gap.
    assert said["device_seconds"] == pytest.approx([3 * WORK] * 5)
    # Launching is slower than working, so queueing gains nothing but the last kernel's time.
    assert said["queued_seconds"] == pytest.approx([4 * 3 * LAUNCH + WORK] * 5)
    # One launch a call instead of three, and the work of three.
    assert said["graph_seconds"] == pytest.approx([4 * LAUNCH + 3 * WORK] * 5)
    assert said["absent"] == {}


def test_without_the_delay_the_launches_would_be_in_it(device):
    clock = TorchClock(FakeTorch(device), device.now)

    def work():
        for _ in range(3):
            device.launch()

    device.synchronize()
    assert clock.seconds(work, 0.0) == pytest.approx(3 * LAUNCH + WORK)
    assert clock.seconds(work, 1e-3) == pytest.approx(3 * WORK)


def test_more_launches_than_the_delay_can_hide_have_no_device_time_and_still_a_graph_s(backend, device, monkeypatch):
    monkeypatch.setattr(gpu_clock, "clock_of", lambda like: TorchClock(FakeTorch(device), device.now))
    # The longest delay is that of half a call.
    monkeypatch.setattr(module, "MOST_DELAY_SECONDS", 3 * LAUNCH)
    said = backend.device_times(calls=4, call_seconds=1.5 * LAUNCH, repeats=5)
    assert said["device_seconds"] == []
    assert said["absent"] == {"device_seconds": "launching took 0.0003 s, longer than the device could be kept waiting"}
    assert said["graph_seconds"] == pytest.approx([4 * LAUNCH + 3 * WORK] * 5)
    assert not said["broken"]


def test_a_delay_that_was_too_short_is_made_longer(backend, device, monkeypatch):
    monkeypatch.setattr(gpu_clock, "clock_of", lambda like: TorchClock(FakeTorch(device), device.now))
    # As if launching took twice as long as it usually does.
    said = backend.device_times(calls=4, call_seconds=1.5 * LAUNCH, repeats=5)
    assert said["device_seconds"] == pytest.approx([3 * WORK] * 5)
    assert said["absent"] == {}


def test_cupy_keeps_the_device_waiting_by_a_kernel_of_its_own():
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


def test_a_call_that_cannot_be_captured_has_its_other_times_and_a_reason(backend, device, monkeypatch):
    clock = TorchClock(FakeTorch(device), device.now)
    made_up = types.SimpleNamespace(RawKernel=lambda text, name: None)
    monkeypatch.setattr(clock, "capture", CupyClock(made_up).capture)
    monkeypatch.setattr(gpu_clock, "clock_of", lambda like: clock)
    said = backend.device_times(calls=4, call_seconds=3 * LAUNCH + WORK, repeats=2)
    assert len(said["device_seconds"]) == len(said["queued_seconds"]) == 2
    assert said["graph_seconds"] == []
    assert said["absent"] == {"graph_seconds": "calls of CuPy are not captured"}
    assert not said["broken"]


def test_a_capture_that_fails_leaves_word_that_the_process_may_be_broken(backend, device, monkeypatch):
    clock = TorchClock(FakeTorch(device), device.now)

    def capture(call):
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(clock, "capture", capture)
    monkeypatch.setattr(gpu_clock, "clock_of", lambda like: clock)
    said = backend.device_times(calls=4, call_seconds=3 * LAUNCH + WORK, repeats=2)
    assert said["absent"] == {"graph_seconds": "RuntimeError: operation not permitted when stream is capturing"}
    assert said["broken"]


def test_a_framework_without_events_has_its_calls_queued_all_the_same(backend):
    said = backend.device_times(calls=4, call_seconds=3 * LAUNCH + WORK, repeats=2)
    assert (len(said["queued_seconds"]), said["device_seconds"]) == (2, [])
    assert said["absent"] == {"device_seconds": "no events", "graph_seconds": "no events"}


def test_emptying_the_caches_writes_twice_what_the_device_has_and_waits(monkeypatch):
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
    monkeypatch.setattr(gpu_clock.arrays, "framework", lambda array: "torch")
    monkeypatch.setitem(sys.modules, "torch", torch)
    flush = gpu_clock.flusher_of(like)
    flush()
    assert done == [80 * 2**20, "written", "waited"]


def test_caches_that_nobody_can_empty_are_an_error_and_no_hot_time():
    with pytest.raises(ValueError, match=r"nobody knows how to empty the caches for numpy.ndarray"):
        gpu_clock.flusher_of(np.zeros(1))


def test_a_sample_with_a_flush_l2_empties_it_before_every_call(backend, device, monkeypatch):
    flushed = []
    monkeypatch.setattr(gpu_clock, "flusher_of", lambda like: lambda: flushed.append(device.host))
    said = backend.sample(calls=4, first=0, settle_seconds=0.0, forward=False, flush_l2=True)
    assert len(flushed) == 4
    assert said["seconds"] == pytest.approx(4 * (3 * LAUNCH + WORK))

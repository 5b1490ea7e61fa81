"""A fake GPU: it computes asynchronously, kernel after kernel, by a clock of its own."""

from __future__ import annotations

import contextlib
import types

from harness.worker import gpu_clock

#: Time of a launch on the host, in seconds.
LAUNCH = 1e-4
#: Time of a kernel on the device, in seconds.
WORK = 2.5e-5


class Device:
    """A queue of kernels: each launch takes time on the host, and the device runs the kernels in order."""

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
    """The part of torch.cuda that the workers use, on the fake device."""

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

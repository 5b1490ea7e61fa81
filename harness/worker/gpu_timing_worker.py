"""Time the prepared case on a GPU: steady its clock, read its state, take times by its own events."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from harness.machine import gpu
from harness.process.protocol import (
    DeviceTimes,
    Done,
    GpuReading,
    Handlers,
    MeasureDeviceTimes,
    ReadGpu,
    SteadyGpuClock,
)
from harness.timing.clock import SETTLE_SECONDS
from harness.worker import gpu_clock

if TYPE_CHECKING:
    from harness.timing.clock import Call, Clock
    from harness.worker.prepared_case import Held

#: Length of the delay behind which a call is launched, in calls; the device is busy that long.
DELAY_CALLS: Final = 2.0
#: Factor by which the delay grows if launching outlasted it, as it does after a pause.
DELAY_GROWTH: Final = 4.0
#: Longest delay, in seconds.
MOST_DELAY_SECONDS: Final = 0.050


class GpuTimingWorker:
    """Times the prepared case by the GPU's clock.

    Args:
        held: The backend and the prepared case.
        clock: The host's clock.
    """

    def __init__(self, held: Held, clock: Clock) -> None:
        self._held, self._clock = held, clock
        self._gpu: gpu.Watch | None = None
        self.handlers: Handlers = {
            SteadyGpuClock: self.steady_clock,
            ReadGpu: self.read,
            MeasureDeviceTimes: self.measure,
        }

    def watch_gpu(self) -> None:
        """Read the GPU's state from now on."""
        self._gpu = gpu.Watch()

    def steady_clock(self, _: SteadyGpuClock) -> Done:
        """Run the kernel until the GPU's clock is steady."""
        if self._gpu is not None:
            prepared = self._held.prepared
            self._gpu.run_until_steady(functools.partial(self._clock.settle, prepared.calls, prepared.wait))
        return Done()

    def read(self, _: ReadGpu) -> GpuReading:
        """Read the GPU's state; None where it cannot be read."""
        return GpuReading(None if self._gpu is None else self._gpu.read())

    def measure(self, request: MeasureDeviceTimes) -> DeviceTimes:
        """Take samples by the device's clock, and some with one synchronisation each."""
        prepared, wait = self._held.prepared, self._held.prepared.wait
        prepared.drop_kept()
        self._clock.settle(prepared.calls, wait, SETTLE_SECONDS)
        queued = [self._clock.queued(prepared.calls, wait, request.calls) for _ in range(request.repeats)]
        device: list[float] = []
        graph: list[float] = []
        late, error, broken = "", "", False
        try:
            clock = gpu_clock.clock_of(prepared.arrays.like)
            try:
                device = _behind_a_delay(clock, prepared.calls, request.call_seconds, request.repeats)
            except gpu_clock.LateError as too_late:
                late = str(too_late)
            graph = self._replayed(clock, request)
        except NotImplementedError as absent:
            error = str(absent)
        except Exception as failed:  # frameworks have no common type for a call that cannot be captured
            error, broken = f"{type(failed).__name__}: {failed}", True
        samples = {"queued_seconds": queued, "device_seconds": device, "graph_seconds": graph}
        reasons = {name: error for name, seconds in samples.items() if not seconds}
        if late:
            reasons["device_seconds"] = late
        return DeviceTimes(tuple(queued), tuple(device), tuple(graph), absent=reasons, broken=broken)

    def _replayed(self, clock: gpu_clock.DeviceClock, request: MeasureDeviceTimes) -> list[float]:
        """Take samples of replays of a captured call."""
        prepared = self._held.prepared
        replay = clock.capture(prepared.calls[0])
        prepared.wait(replay())

        def replays() -> None:
            for _ in range(request.calls):
                replay()

        return [clock.seconds(replays, 0.0) for _ in range(request.repeats)]


def _behind_a_delay(
    clock: gpu_clock.DeviceClock, calls: Sequence[Call], call_seconds: float, repeats: int
) -> list[float]:
    """Time single calls on the device, each launched while the device is kept busy for long enough.

    Raises:
        LateError: The longest delay is not long enough.
    """
    delay = min(MOST_DELAY_SECONDS, DELAY_CALLS * call_seconds)
    while True:
        try:
            return [clock.seconds(calls[number % len(calls)], delay) for number in range(repeats)]
        except gpu_clock.LateError:
            if delay == MOST_DELAY_SECONDS:
                raise
            delay = min(MOST_DELAY_SECONDS, DELAY_GROWTH * delay)

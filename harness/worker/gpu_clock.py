"""A GPU's own clock, in each framework's terms: events in its queue, and replays of a graph that need no host.

A call's user waits for its time on the host. The device's clock splits that time into work and launching.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any, Final, Protocol

import numpy as np

from harness.timing.clock import Now
from harness.worker.arrays import framework
from harness.worker.integrity import type_name

#: Approximate clock of a GPU, in cycles a second; it sets the length of a delay.
CYCLES_PER_SECOND: Final = 2e9
#: Largest share of the delay that the launches behind it may take; the length of a delay is known only roughly.
DELAY_SHARE: Final = 0.75
#: CUDA C++ of a kernel that spins for ``cycles`` cycles.
SPIN: Final = """
extern "C" __global__ void spin(long long cycles) {
    long long start = clock64();
    while (clock64() - start < cycles) { }
}
"""
#: Bytes written to empty the caches of a GPU that does not report their size: twice the largest L2 there is.
FLUSHED_BYTES: Final = 256 * 2**20
#: Calls before a graph is captured, since what a first call sets up cannot be captured.
CALLS_BEFORE_CAPTURE: Final = 3


class LateError(Exception):
    """Launching outlasted the delay that was to hide it; a queue blocks after about a thousand launches."""


class DeviceClock(Protocol):
    """Clock of a framework with events."""

    def seconds(self, work: Callable[[], object], delay_seconds: float) -> float:
        """Return the time of some work on the device, in seconds, between two events around it.

        Without a delay, gaps between two launches are part of that time.

        Args:
            work: Function that queues the work.
            delay_seconds: Time before the first event that the device is kept busy while the host queues the work.

        Raises:
            LateError: Queueing outlasted the delay.
        """
        ...

    def capture(self, call: Callable[[], object]) -> Callable[[], object]:
        """Return a function that replays a call as a graph.

        Raises:
            NotImplementedError: The framework has no graphs.
            Exception: The framework's own error for a call that cannot be captured.
        """
        ...


class TorchClock:
    """CUDA events and graphs of PyTorch, on the current stream."""

    def __init__(self, torch: Any, now: Now = time.perf_counter) -> None:
        self._torch, self._now = torch, now

    def seconds(self, work: Callable[[], object], delay_seconds: float) -> float:
        """See ``DeviceClock``; the delay is a kernel that spins."""
        cuda = self._torch.cuda
        start, end = cuda.Event(enable_timing=True), cuda.Event(enable_timing=True)
        if delay_seconds:
            cuda._sleep(int(delay_seconds * CYCLES_PER_SECOND))
        start.record()
        _launch(work, delay_seconds, self._now)
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) / 1e3  # milliseconds

    def capture(self, call: Callable[[], object]) -> Callable[[], object]:
        """See ``DeviceClock``; the function that is returned keeps the memory of the graph alive."""
        cuda = self._torch.cuda
        aside = cuda.Stream()
        aside.wait_stream(cuda.current_stream())
        with cuda.stream(aside):
            for _ in range(CALLS_BEFORE_CAPTURE):
                call()
        cuda.current_stream().wait_stream(aside)
        graph = cuda.CUDAGraph()
        with cuda.graph(graph):
            result = call()

        def replay() -> object:
            graph.replay()
            return result

        return replay


class CupyClock:
    """CUDA events of CuPy, on the current stream; no graphs."""

    def __init__(self, cupy: Any, now: Now = time.perf_counter) -> None:
        self._cupy, self._now = cupy, now
        self._spin = cupy.RawKernel(SPIN, "spin")

    def seconds(self, work: Callable[[], object], delay_seconds: float) -> float:
        """See ``DeviceClock``; the delay is a kernel that spins."""
        cuda = self._cupy.cuda
        start, end = cuda.Event(), cuda.Event()
        if delay_seconds:
            self._spin((1,), (1,), (np.int64(delay_seconds * CYCLES_PER_SECOND),))
        start.record()
        _launch(work, delay_seconds, self._now)
        end.record()
        end.synchronize()
        return float(cuda.get_elapsed_time(start, end)) / 1e3  # milliseconds

    def capture(self, call: Callable[[], object]) -> Callable[[], object]:
        """Raise NotImplementedError: CuPy's calls allocate from a pool that a capture cannot use."""
        raise NotImplementedError("calls of CuPy are not captured")


def _launch(work: Callable[[], object], delay_seconds: float, now: Now) -> None:
    """Launch, within the delay if there is one."""
    start = now()
    work()
    if delay_seconds and (took := now() - start) > DELAY_SHARE * delay_seconds:
        raise LateError(f"launching took {took:.2g} s, longer than the device could be kept waiting")


def flusher_of(like: Any) -> Callable[[], None]:
    """Return a function that fills the caches of a GPU with something else, and waits until that is done.

    It writes twice the size of the GPU's L2, or ``FLUSHED_BYTES`` where the framework does not report that size.

    Args:
        like: An array on the GPU.

    Raises:
        ValueError: The array is of an unknown framework, or not on a GPU.
    """
    match framework(like):
        case "torch" if like.device.type == "cuda":
            torch: Any = sys.modules["torch"]
            cache = getattr(torch.cuda.get_device_properties(like.device), "L2_cache_size", 0)
            buffer = torch.empty(_flushed(cache) // 4, dtype=torch.int32, device=like.device)

            def flush_torch() -> None:
                buffer.zero_()
                torch.cuda.synchronize(like.device)

            return flush_torch
        case "cupy":
            cupy: Any = sys.modules["cupy"]
            with like.device:
                other = cupy.empty(_flushed(like.device.attributes.get("L2CacheSize", 0)) // 4, dtype=np.int32)

            def flush_cupy() -> None:
                other.fill(0)
                like.device.synchronize()

            return flush_cupy
        case "jax" if like.device.platform != "cpu":
            jax: Any = sys.modules["jax"]
            written = jax.device_put(np.zeros(FLUSHED_BYTES // 4, np.int32), like.device)
            add = jax.jit(lambda array: array + 1)
            return lambda: jax.block_until_ready(add(written))
    raise ValueError(f"the caches of a device cannot be emptied for {type_name(like)}: leave out --flush-l2")


def _flushed(cache_bytes: int) -> int:
    return 2 * cache_bytes or FLUSHED_BYTES


def clock_of(like: Any) -> DeviceClock:
    """Return the clock of the framework that an array on a GPU belongs to.

    Raises:
        NotImplementedError: The framework has no events, such as JAX.
    """
    match framework(like):
        case "torch":
            return TorchClock(sys.modules["torch"])
        case "cupy":
            return CupyClock(sys.modules["cupy"])
    raise NotImplementedError("no events")

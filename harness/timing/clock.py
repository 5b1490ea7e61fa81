"""Time the calls of a kernel. The module runs inside the worker and knows no case, no backend and no file.

A sample is the time of several calls in a row, each with its synchronisation. So for every backend it is the time until
the results exist. Every call takes the next of several input sets, so that a memoised result is a wrong one.
"""

from __future__ import annotations

import gc
import itertools
import math
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from harness.record import Flag

#: A monotonic clock, in seconds.
Now = Callable[[], float]
#: One call of the kernel on one input set; returns the native result.
Call = Callable[[], Any]
#: Returns when a native result exists.
Synchronize = Callable[[Any], None]

#: Least duration of a sample of more than one call, in seconds: long against an interrupt.
SAMPLE_SECONDS: Final = 0.020
#: Least duration of a sample of more than one call, in ticks of the clock.
SAMPLE_TICKS: Final = 1000
#: Duration of unrecorded calls before a sample, in seconds: after a pause, caches and clock speed recover first.
SETTLE_SECONDS: Final = 0.010

#: Largest ratio of the device's time to the host's time of a call: the host waits for the device, so a larger ratio is
#: a fault. The margin is for two clocks and two moments.
CLOCK_TOLERANCE: Final = 1.1
#: Share of a call's time: a device that works for less is idle most of the call, and launching takes the rest.
LAUNCH_SHARE: Final = 0.5


class Clock:
    """Time calls with an injected source of time, so that tests can control it.

    Args:
        now: Monotonic clock, in seconds.
    """

    def __init__(self, now: Now = time.perf_counter) -> None:
        self._now = now

    def tick_seconds(self) -> float:
        """Return the smallest step between two different readings of the clock, in seconds."""
        steps = []
        for _ in range(20):
            start = end = self._now()
            while end == start:
                end = self._now()
            steps.append(end - start)
        return min(steps)

    def sample(
        self, calls: Sequence[Call], synchronize: Synchronize, count: int, first: int = 0, keep: Sequence[int] = ()
    ) -> tuple[float, list[Any]]:
        """Return the time of ``count`` calls, each with its synchronisation, in seconds; and the kept results.

        Args:
            calls: One call for each input set, taken in rotation.
            synchronize: Function that returns when a result exists.
            count: Number of calls, at least 1.
            first: Number of the first call's input set, from 0.
            keep: Numbers of the calls whose results are returned, from 0, in ascending order.
        """
        turn = [calls[(first + index) % len(calls)] for index in range(count)]
        # One loop up to each kept call, so that keeping costs one append and no condition at every call.
        cuts = [0, *(index + 1 for index in keep)]
        before, after = [turn[start:end] for start, end in itertools.pairwise(cuts)], turn[cuts[-1] :]
        result, kept = None, []
        now = self._now
        collecting = gc.isenabled()
        gc.disable()
        try:
            start = now()
            for part in before:
                for call in part:
                    result = call()
                    synchronize(result)
                kept.append(result)
            for call in after:
                result = call()
                synchronize(result)
            end = now()
        finally:
            if collecting:
                gc.enable()
        return end - start, kept

    def sample_apart(
        self,
        calls: Sequence[Call],
        synchronize: Synchronize,
        count: int,
        first: int = 0,
        keep: Sequence[int] = (),
        *,
        between: Callable[[], None],
    ) -> tuple[float, list[Any]]:
        """Return what ``sample`` returns, with untimed work before each call.

        Each call is a sample of its own, so its time has two readings of the clock.

        Args:
            calls: One call for each input set, taken in rotation.
            synchronize: Function that returns when a result exists.
            count: Number of calls, at least 1.
            first: Number of the first call's input set, from 0.
            keep: Numbers of the calls whose results are returned, from 0, in ascending order.
            between: Untimed function, called before each call; its work is finished when it returns.
        """
        total, kept = 0.0, []
        for index in range(count):
            between()
            seconds, results = self.sample([calls[(first + index) % len(calls)]], synchronize, 1, keep=[0])
            total += seconds
            kept += results if index in keep else []
        return total, kept

    def queued(self, calls: Sequence[Call], synchronize: Synchronize, count: int) -> float:
        """Return the time of ``count`` calls with one synchronisation at the end, in seconds.

        Args:
            calls: One call for each input set, taken in rotation.
            synchronize: Function that returns when a result, and all work that was queued before it, exists.
            count: Number of calls, at least 1.
        """
        turn = [calls[index % len(calls)] for index in range(count)]
        result = None
        start = self._now()
        for call in turn:
            result = call()
        synchronize(result)
        return self._now() - start

    def settle(self, calls: Sequence[Call], synchronize: Synchronize, seconds: float) -> None:
        """Call without recording until ``seconds`` have passed; at least once, unless ``seconds`` is 0.

        Args:
            calls: One call for each input set, taken in rotation.
            synchronize: Function that returns when a result exists.
            seconds: Duration in seconds, at least 0.
        """
        end = self._now() + seconds
        index = 0
        while seconds > 0 and (index == 0 or self._now() < end):
            synchronize(calls[index % len(calls)]())
            index += 1

    def warm_up(
        self, calls: Sequence[Call], synchronize: Synchronize, seconds: float, at_least: int
    ) -> list[tuple[int, float]]:
        """Call until ``seconds`` have passed, and ``at_least`` times; return (calls, seconds) of each stretch.

        The number of calls doubles while a stretch is shorter than half of ``SAMPLE_SECONDS``. Otherwise bookkeeping
        would dominate the time of a fast kernel.

        Args:
            calls: One call for each input set, taken in rotation.
            synchronize: Function that returns when a result exists.
            seconds: Least duration in seconds.
            at_least: Least number of calls.
        """
        end = self._now() + seconds
        stretches: list[tuple[int, float]] = []
        done, count = 0, 1
        while done < at_least or self._now() < end:
            taken, _ = self.sample(calls, synchronize, count, first=done)
            stretches.append((count, taken))
            done += count
            if taken < SAMPLE_SECONDS / 2:
                count *= 2
        return stretches

    def overhead_seconds(self, count: int = 10_000) -> float:
        """Return the time of a call that does nothing, in seconds: the cost of the loop.

        Args:
            count: Number of calls, at least 1.
        """

        def nothing(*_: object) -> None:
            return None

        return min(self.sample([nothing, nothing], nothing, count)[0] for _ in range(5)) / count


def device_faults(call_seconds: float, queued_seconds: float | None, device_seconds: float | None) -> list[Flag]:
    """Return flags for device times that contradict the host's time, and for calls that mostly launch.

    Args:
        call_seconds: Time of a call with its synchronisation by the host's clock, in seconds.
        queued_seconds: Time of one of many calls with one synchronisation by the host's clock, in seconds; or None.
        device_seconds: Time of a call by the device's events, in seconds; None without them.
    """
    flags = []
    if queued_seconds is not None and queued_seconds > CLOCK_TOLERANCE * call_seconds:
        flags.append(Flag.QUEUED_OVER_HOST)
    if device_seconds is not None:
        if device_seconds > CLOCK_TOLERANCE * call_seconds:
            flags.append(Flag.DEVICE_OVER_HOST)  # work that the synchronisation did not wait for, or another clock
        elif device_seconds < LAUNCH_SHARE * call_seconds:
            flags.append(Flag.LAUNCH_BOUND)
    return flags


def calls_per_sample(call_seconds: float, tick_seconds: float) -> int:
    """Return the number of calls that last ``SAMPLE_SECONDS`` and ``SAMPLE_TICKS``, at least 1.

    Args:
        call_seconds: Time of a call in seconds, above 0.
        tick_seconds: Tick of the clock in seconds.

    Raises:
        ValueError: A call took no time.
    """
    if call_seconds <= 0:
        raise ValueError(f"a call took {call_seconds} s: the clock stood still")
    return max(1, math.ceil(max(SAMPLE_SECONDS, SAMPLE_TICKS * tick_seconds) / call_seconds))

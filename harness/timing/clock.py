"""Turn a kernel into seconds. Runs inside the worker; knows no case, no backend and no file.

A sample is the time of several calls in a row, each with its synchronisation, so that all backends are asked the same
question: how long until the result exists. Every call takes the next of several input sets, so that a remembered
answer is no answer.
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
Synchronize = Callable[[Any], None]

#: A sample lasts at least this long (or one call), in seconds: long against the clock's tick and against an interrupt.
SAMPLE_SECONDS: Final = 0.020
#: ... and at least this many ticks of the clock.
SAMPLE_TICKS: Final = 1000
#: Unrecorded running before a sample, in seconds: after a stop, caches and clock speed come back first.
SETTLE_SECONDS: Final = 0.010

#: What waits for a device takes no less than the device does: by so much two clocks, and two moments, may differ.
CLOCK_TOLERANCE: Final = 1.1
#: Where the device works for less than this share of a call, launching is most of it.
LAUNCH_SHARE: Final = 0.5


class Clock:
    """Times calls; the source of time is given, so that tests can bring their own.

    Args:
        now: A monotonic clock in seconds.
    """

    def __init__(self, now: Now = time.perf_counter) -> None:
        self._now = now

    def tick_seconds(self) -> float:
        """The smallest step seen between two different readings, in seconds."""
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
        """Return the seconds that ``count`` calls take, each with its synchronisation; and the results of some of them.

        Args:
            calls: One for each input set; taken in turn.
            synchronize: Returns when a result exists.
            count: How many calls.
            first: Which input set begins.
            keep: Which calls' results to return, from 0, in ascending order.
        """
        turn = [calls[(first + index) % len(calls)] for index in range(count)]
        # A loop up to each call that is kept, so that keeping costs an append, and no question at every call.
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
        """As ``sample``, with something between the calls that is not timed.

        Each call is timed for itself, so two readings of the clock are in its time, and no more.

        Args:
            calls: One for each input set; taken in turn.
            synchronize: Returns when a result exists.
            count: How many calls.
            first: Which input set begins.
            keep: Which calls' results to return, from 0, in ascending order.
            between: Done, and finished, before each call.
        """
        total, kept = 0.0, []
        for index in range(count):
            between()
            seconds, results = self.sample([calls[(first + index) % len(calls)]], synchronize, 1, keep=[0])
            total += seconds
            kept += results if index in keep else []
        return total, kept

    def queued(self, calls: Sequence[Call], synchronize: Synchronize, count: int) -> float:
        """Return the seconds of ``count`` calls with one synchronisation at the end: what a device keeps up with.

        Args:
            calls: One for each input set; taken in turn.
            synchronize: Returns when a result exists, and all that was asked for before it.
            count: How many calls.
        """
        turn = [calls[index % len(calls)] for index in range(count)]
        result = None
        start = self._now()
        for call in turn:
            result = call()
        synchronize(result)
        return self._now() - start

    def settle(self, calls: Sequence[Call], synchronize: Synchronize, seconds: float) -> None:
        """Call, unrecorded, until ``seconds`` have passed; at least once, unless ``seconds`` is 0."""
        end = self._now() + seconds
        index = 0
        while seconds > 0 and (index == 0 or self._now() < end):
            synchronize(calls[index % len(calls)]())
            index += 1

    def warm_up(
        self, calls: Sequence[Call], synchronize: Synchronize, seconds: float, at_least: int
    ) -> list[tuple[int, float]]:
        """Call until ``seconds`` have passed, and ``at_least`` times; return (calls, seconds) of each stretch.

        Stretches double in length while they are short, so that a fast kernel is not swamped by its own bookkeeping.
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
        """What the loop itself costs a call, in seconds: the time of a call that does nothing."""

        def nothing(*_: object) -> None:
            return None

        return min(self.sample([nothing, nothing], nothing, count)[0] for _ in range(5)) / count


def device_faults(call_seconds: float, queued_seconds: float | None, device_seconds: float | None) -> list[Flag]:
    """Name what a device's clock says that cannot be, or is worth knowing, as flags.

    Args:
        call_seconds: A call with its synchronisation, by the host.
        queued_seconds: A call with one synchronisation for many, by the host.
        device_seconds: A call by the device's events.
    """
    found = []
    if queued_seconds is not None and queued_seconds > CLOCK_TOLERANCE * call_seconds:
        found.append(Flag.QUEUED_OVER_HOST)
    if device_seconds is not None:
        if device_seconds > CLOCK_TOLERANCE * call_seconds:
            found.append(Flag.DEVICE_OVER_HOST)  # work that the synchronisation did not wait for, or another clock
        elif device_seconds < LAUNCH_SHARE * call_seconds:
            found.append(Flag.LAUNCH_BOUND)
    return found


def calls_per_sample(call_seconds: float, tick_seconds: float) -> int:
    """How many calls make a sample long enough, in ``SAMPLE_SECONDS`` and in ticks of the clock."""
    if call_seconds <= 0:
        raise ValueError(f"a call took {call_seconds} s: the clock stood still")
    return max(1, math.ceil(max(SAMPLE_SECONDS, SAMPLE_TICKS * tick_seconds) / call_seconds))

"""Time the calls of a kernel. The module runs inside the worker and knows no case, no backend and no file.

A sample is the time of several calls in a row, each with its synchronisation. So for every backend it is the time until
the results exist. Every call takes the next of several input sets, and before each call some rows of that set change.

Length: the loop that is timed is one function; a helper would cost a call, and a second loop could differ.
"""

from __future__ import annotations

import collections
import dataclasses
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
#: Memory of inputs, and its new content, in pairs.
Writes = Sequence[tuple[memoryview, memoryview]]

#: Least duration of a sample of more than one call, in seconds: long against an interrupt.
SAMPLE_SECONDS: Final = 0.020
#: Least duration of a sample of more than one call, in ticks of the clock.
SAMPLE_TICKS: Final = 1000
#: Duration of unrecorded calls before a sample, in seconds: after a pause, caches and clock speed recover first.
SETTLE_SECONDS: Final = 0.010

#: Bytes of a row that stands for those that are written before each call.
ROW_BYTES: Final = 128

#: Largest ratio of the device's time to the host's time of a call: the host waits for the device, so a larger ratio is
#: a fault. The margin is for two clocks and two moments.
CLOCK_TOLERANCE: Final = 1.1
#: Share of a call's time: a device that works for less is idle most of the call, and launching takes the rest.
LAUNCH_SHARE: Final = 0.5


@dataclasses.dataclass(frozen=True, slots=True)
class Holding:
    """What a sample does next to calling, alike in every sample.

    Attributes:
        writes: For each call what is written before it: pairs of memory and new content.
        results: Number of the latest results that are held, at least 1.
        cuts: Numbers of calls after which the latest results are held until the end, in ascending order.
        copy: Function that copies the last result; None if it is not copied.
        passes: Number of samples in a row, whose times add up.
    """

    writes: Sequence[Writes] = ()
    results: int = 1
    cuts: Sequence[int] = ()
    copy: Callable[[Any], Any] | None = None
    passes: int = 1


@dataclasses.dataclass(frozen=True, slots=True)
class HeldResults:
    """Results of a sample.

    Attributes:
        results: Native results that are held, by the number of the call.
        last: Copy of the last result; None if it was not copied.
    """

    results: dict[int, Any]
    last: Any


#: Nothing is written, and one result is held.
HOLD_ONE: Final = Holding()


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
        self, calls: Sequence[Call], synchronize: Synchronize, count: int, first: int = 0, holding: Holding = HOLD_ONE
    ) -> tuple[float, HeldResults]:
        """Return the time of ``count`` calls, each with its synchronisation, in seconds; and the results that are held.

        The time of writing rows is in it, and that of copying the last result: work that is put off until after the
        last call shows in the copy.

        Args:
            calls: One call for each input set, taken in rotation.
            synchronize: Function that returns when a result exists.
            count: Number of calls, at least 1.
            first: Number of the first call's input set, from 0.
            holding: Rows to write, and results to hold.
        """
        turn = [calls[(first + index) % len(calls)] for index in range(count)]
        pairs = list(zip(turn, holding.writes or itertools.repeat(()), strict=False))
        latest: collections.deque[Any] = collections.deque(maxlen=holding.results)
        # One loop up to each cut, so that holding those results longer costs one list and no condition at every call.
        cuts = [0, *holding.cuts, count]
        parts = [pairs[begin:end] for begin, end in itertools.pairwise(cuts)]
        snapshots: list[list[Any]] = []
        total, result, copied = 0.0, None, None
        now, copy = self._now, holding.copy
        collecting = gc.isenabled()
        gc.disable()
        try:
            for _ in range(holding.passes):
                snapshots = []
                latest.clear()
                start = now()
                for part in parts:
                    for call, writes in part:
                        for target, values in writes:
                            target[:] = values
                        result = call()
                        synchronize(result)
                        latest.append(result)
                    snapshots.append(list(latest))
                if copy is not None:
                    copied = copy(result)
                total += now() - start
        finally:
            if collecting:
                gc.enable()
        held: dict[int, Any] = {}
        for last, snapshot in zip(cuts[1:], snapshots, strict=True):
            held |= dict(enumerate(snapshot, last - len(snapshot)))
        return total, HeldResults(held, copied)

    def sample_apart(
        self,
        calls: Sequence[Call],
        synchronize: Synchronize,
        count: int,
        first: int = 0,
        holding: Holding = HOLD_ONE,
        *,
        between: Callable[[], None],
    ) -> tuple[float, HeldResults]:
        """Return what ``sample`` returns, with untimed work before each call; only the last results are held.

        Each call is a sample of its own, so its time has two readings of the clock.

        Args:
            calls: One call for each input set, taken in rotation.
            synchronize: Function that returns when a result exists.
            count: Number of calls, at least 1.
            first: Number of the first call's input set, from 0.
            holding: Rows to write, and number of results to hold.
            between: Untimed function, called before each call; its work is finished when it returns.
        """
        total, copied = 0.0, None
        held: dict[int, Any] = {}
        for index in range(count):
            between()
            one = Holding(holding.writes[index : index + 1], copy=holding.copy if index == count - 1 else None)
            seconds, taken = self.sample([calls[(first + index) % len(calls)]], synchronize, 1, holding=one)
            total, held[index], copied = total + seconds, taken.results[0], taken.last
            held.pop(index - holding.results, None)
        return total, HeldResults(held, copied)

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
            taken, _ = self.sample(calls, synchronize, count, done)
            stretches.append((count, taken))
            done += count
            if taken < SAMPLE_SECONDS / 2:
                count *= 2
        return stretches

    def overhead_seconds(self, count: int = 10_000) -> float:
        """Return the time of a call that does nothing, in seconds: the cost of the loop, with a row of each input.

        Args:
            count: Number of calls, at least 1.
        """

        def nothing(*_: object) -> None:
            return None

        row = memoryview(bytearray(ROW_BYTES))
        holding = Holding(writes=[((row, row), (row, row))] * count)
        return min(self.sample([nothing, nothing], nothing, count, holding=holding)[0] for _ in range(5)) / count


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

"""Time the prepared case: warm up, move arrays, take samples, check the results from inside them, measure memory.

The closures of ``calls.py`` are timed, by ``timing/clock.py``.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import random
import resource
import time
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from harness.correctness.sample_values import SampleValues
from harness.machine import memory, usage
from harness.process.protocol import (
    CheckFresh,
    Done,
    DrawValues,
    FreshChecked,
    Handlers,
    Kept,
    KeptResults,
    MeasureMemory,
    MemoryPeak,
    MoveArrays,
    SampleTaken,
    Stretch,
    TakeSample,
    WarmedUp,
    WarmUp,
)
from harness.timing.clock import Holding
from harness.worker import gpu_clock
from harness.worker.arrays import copied, framework
from harness.worker.calls import call, named, timed_call, timed_forward
from harness.worker.poison import Poisoned, poison_device
from harness.worker.prepared_case import PreparedCase, make_kernel
from harness.worker.results import distance, hand_over, numbered, well_formed
from harness.worker.sample_inputs import SampleInputs
from harness.worker.scenarios import changed_inputs, refill, restore

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.case import Case
    from harness.timing.clock import Clock
    from harness.worker.calls import NativeArrays
    from harness.worker.integrity import Watch
    from harness.worker.prepared_case import Held

#: Most blocks of memory that are taken before arrays are moved; a part of them is freed.
SCATTERED_BLOCKS: Final = 100
#: Largest size of such a block, in bytes.
SCATTERED_BYTES: Final = 40_000
#: Most results that each call of a sample leaves alive behind it, and their most bytes; at least one.
HELD_RESULTS: Final = 16
HELD_BYTES: Final = 256 * 2**10
#: Largest results that are held in the middle of a sample, too, in bytes.
MIDDLE_BYTES: Final = 16 * 2**20


class TimingWorker:
    """Times the prepared case.

    Args:
        held: The backend and the prepared case.
        clock: The clock.
        watch: Watch that was made before the backend was loaded; it knows the CPUs of the process then.
    """

    def __init__(self, held: Held, clock: Clock, watch: Watch) -> None:
        self._held, self._clock, self._watch = held, clock, watch
        #: Empties the caches of the backend's device; made when it is first needed.
        self._flush: Callable[[], None] | None = None
        #: Memory that is held only so that other memory is at other addresses.
        self._scattered: list[Any] = []
        #: Number of passes of the last sample.
        self._passes = 1
        self.handlers: Handlers = {
            WarmUp: self.warm_up,
            MoveArrays: self.move_arrays,
            DrawValues: self.draw_values,
            TakeSample: self.take_sample,
            KeptResults: self.kept_results,
            CheckFresh: self.check_fresh,
            MeasureMemory: self.measure_memory,
        }

    def warm_up(self, request: WarmUp) -> WarmedUp:
        """Warm the kernel up; return the times, and the number of busy threads."""
        prepared = self._held.prepared
        prepared.first = {}
        before, start = usage.read(), time.perf_counter()
        stretches = self._clock.warm_up(prepared.calls, self._touch, request.seconds, request.at_least)
        busy = usage.busy(before, usage.read(), time.perf_counter() - start)
        return WarmedUp(tuple(Stretch(*stretch) for stretch in stretches), busy)

    def move_arrays(self, request: MoveArrays) -> Done:
        """Make all arrays again at other addresses, with the values that they have; and the kernel, if requested.

        Addresses move times for as long as the arrays stay. Drawn for every sample, they become noise that averages out
        (Curtsinger and Berger, Stabilizer, ASPLOS'13, move code, too).
        """
        prepared = self._held.prepared
        prepared.restore()
        changed = prepared.changed
        arrays, kernel, parameters, count = prepared.arrays, prepared.kernel, prepared.parameters, len(prepared.sets)
        if request.new_kernel:
            # The inputs are released before the kernel is made: see make_kernel.
            self._held.release()
            del prepared
            self._scatter()
            parameters, kernel, _ = make_kernel(arrays)
        else:
            self._scatter()
            if arrays.case.mode == "forward_backward":
                parameters = arrays.make(arrays.parameters)
        sets = [arrays.make(arrays.inputs, variation) for variation in range(count)]
        moved = PreparedCase(arrays, kernel, parameters, sets, first={}, changed=changed)
        moved.wait(tuple(array for by_name in (parameters, *sets) for array in by_name.values()))
        self._held.put(moved)
        return Done()

    def draw_values(self, request: DrawValues) -> Done:
        """Draw the values of the sample to come; they get into the input sets right before it."""
        prepared = self._held.prepared
        prepared.restore()
        prepared.drop_kept()
        values = SampleValues(prepared.case, request.secret, request.calls, request.first, len(prepared.sets))
        prepared.sample = SampleInputs(prepared, values)
        return Done()

    def take_sample(self, request: TakeSample) -> SampleTaken:
        """Take one sample, and one of the forward alone if requested; hold some results of each.

        Until the last moment before it, the input sets hold the values in rotation: what is computed ahead is wrong.
        """
        prepared, wait, sample = self._held.prepared, self._touch, self._held.prepared.sample
        calls, first = request.calls, request.first
        take = self._clock.sample
        if request.flush_l2:
            if self._flush is None:
                self._flush = gpu_clock.flusher_of(prepared.arrays.like)
            take = functools.partial(self._clock.sample_apart, between=self._flush)
        prepared.drop_kept()
        holding = self._holding(calls)
        repeated = dataclasses.replace(holding, passes=request.passes)
        self._clock.settle(prepared.calls, wait, request.settle_seconds)
        if sample is not None:
            sample.fill()
        switches = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
        seconds, prepared.kept = take(prepared.calls, wait, calls, first, repeated)
        forward_seconds = None
        if request.forward:
            forward_seconds, prepared.kept_forward = take(prepared.forwards, wait, calls, first, holding)
        switches = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw - switches
        self._passes = request.passes
        if sample is not None:
            sample.last = (request.passes + request.forward) * calls - 1
        held = tuple(prepared.kept.results)
        copied = (-1,) if holding.copy is not None else ()
        return SampleTaken(seconds, forward_seconds, switches, (*held, *copied), sample is not None and sample.changing)

    def kept_results(self, request: KeptResults) -> Kept:
        """Hand over the result that differs most from that of another call on the same values.

        An honest backend gives the same results again, to rounding, so any of its results is as good as another.
        """
        prepared, arrays, sample = self._held.prepared, self._held.prepared.arrays, self._held.prepared.sample
        held = prepared.kept_forward if request.forward else prepared.kept
        if held is None or sample is None:
            raise RuntimeError("no sample holds results")
        case = prepared.case.with_mode("forward") if request.forward else prepared.case
        results = {
            number: self._named(case, held.last if number < 0 else held.results[number]) for number in request.calls
        }
        distances = dict.fromkeys(request.calls, 0.0)
        # The samples of the passes come one after the other, and that of the forward alone after them.
        before = (self._passes - (not request.forward)) * sample.values.calls
        prepared.restore()
        for chosen in request.calls if len(results) > 1 else ():
            number = chosen % sample.values.calls
            inputs = sample.put((sample.values.first + number) % len(prepared.sets), before + number)
            again = self._called(case, inputs)
            usual = arrays.host(again) if well_formed(case, arrays, again) else {}
            distances[chosen] = distance(case, arrays, results[chosen], usual)
        sample.reset()
        chosen = max(distances, key=lambda number: distances[number])
        inputs = numbered(prepared.sets) | prepared.parameters | {"input1": prepared.sets[0]["input1"]}
        others = [self._named(case, result) for number, result in held.results.items() if number != chosen]
        handed = hand_over(arrays, results[chosen], inputs, request.directory, numbered(others), case)
        return Kept(handed, chosen % sample.values.calls)

    def check_fresh(self, request: CheckFresh) -> FreshChecked:
        """Call on inputs that no call has seen; time all calls but the last, and hand over the results of the last.

        The last inputs come in the memory of the rotation's first set; in a training step weight and bias do so, too,
        as an optimizer leaves them. Fresh memory is poisoned in that call.
        """
        prepared = self._held.prepared
        prepared.restore()
        fresh_seconds, seen_seconds = self._fresh_and_seen(request)
        inputs, parameters = refill(prepared, request.variations[-1], request.kind)
        poison_device(prepared.arrays, trim=True)
        with Poisoned(prepared.case):
            results = call(prepared.case, prepared.kernel, parameters, inputs)
            prepared.wait(tuple(results.values()))
        changed = changed_inputs(prepared, inputs, parameters, request.variations[-1], request.kind)
        given = inputs | parameters
        handed = hand_over(prepared.arrays, results, given, request.directory, changed=changed)
        restore(prepared)
        return FreshChecked(tuple(fresh_seconds), tuple(seen_seconds), self._watch.affinity(), handed)

    def measure_memory(self, request: MeasureMemory) -> MemoryPeak:
        """Measure the memory of a call; the least of several counts, since a first touch may add some."""
        prepared, wait = self._held.prepared, self._held.prepared.wait
        prepared.drop_kept()

        def once(number: int) -> None:
            wait(prepared.calls[number % len(prepared.calls)]())

        peaks = [
            memory.peak_bytes(functools.partial(once, number), prepared.arrays.backend.device)
            for number in range(max(1, request.calls))
        ]
        return MemoryPeak(min((peak for peak in peaks if peak is not None), default=None))

    def release(self) -> None:
        """Free the memory that only moves other memory."""
        self._scattered = []

    def _touch(self, results: Any) -> None:
        """Wait until results exist, and copy those of an unknown framework: it may compute at the first read."""
        prepared = self._held.prepared
        prepared.wait(results)
        if framework(prepared.arrays.like) is None:
            for result in results if isinstance(results, tuple) else (results,):
                if hasattr(result, "dtype"):
                    prepared.arrays.backend.to_numpy(result)

    def _holding(self, calls: int) -> Holding:
        """Return what a sample of some calls does next to calling."""
        prepared, source = self._held.prepared, random.SystemRandom()
        result_bytes = max(prepared.case.result_bytes, 1)
        return Holding(
            writes=() if prepared.sample is None else prepared.sample.writes,
            results=max(1, min(HELD_RESULTS, HELD_BYTES // result_bytes)),
            middle=source.randrange(calls) if result_bytes <= MIDDLE_BYTES else 0,
            copy=copied if self._held.device == "cpu" else None,
        )

    def _named(self, case: Case, results: Any) -> NativeArrays:
        return {"output": results} if case.mode == "forward" else named(results)

    def _called(self, case: Case, inputs: NativeArrays) -> NativeArrays:
        """Call once without recording; in mode ``forward`` of a step, its forward alone."""
        prepared = self._held.prepared
        if case.mode == prepared.case.mode:
            results = call(case, prepared.kernel, prepared.parameters, inputs)
        else:
            results = {"output": timed_forward(prepared.kernel, prepared.parameters, inputs)()}
        prepared.wait(tuple(results.values()))
        return results

    def _fresh_and_seen(self, request: CheckFresh) -> tuple[list[float], list[float]]:
        """Time single calls on fresh inputs and, in turn with them, on inputs in rotation.

        Which of the two comes first alternates: on a busy machine the second of two calls in a row loses its CPU.
        """
        prepared, arrays, wait = self._held.prepared, self._held.prepared.arrays, self._held.prepared.wait
        fresh_seconds: list[float] = []
        seen_seconds: list[float] = []
        for number, variation in enumerate(request.variations[:-1]):
            inputs = arrays.make(arrays.inputs, variation)
            wait(tuple(inputs.values()))
            seen = prepared.calls[number % len(prepared.calls)]
            fresh = timed_call(prepared.case, prepared.kernel, prepared.parameters, inputs)
            if request.settle:  # brings back into the caches what making inputs has displaced
                wait(seen())
            pair = [(fresh_seconds, fresh), (seen_seconds, seen)]
            for seconds, timed in pair if number % 2 else reversed(pair):
                seconds.append(self._clock.sample([timed], wait, 1)[0])
        return fresh_seconds, seen_seconds

    def _scatter(self) -> None:
        """Take and free blocks of memory, so that the next arrays get other addresses than the last ones."""
        source = random.SystemRandom()
        # As many small blocks as large ones: an allocator keeps a list for each size.
        count, most = source.randrange(SCATTERED_BLOCKS), math.log2(SCATTERED_BYTES)
        sizes = [round(2 ** source.uniform(4, most)) for _ in range(count)]
        blocks = [np.empty(size, np.uint8) for size in sizes]
        # Freed blocks leave holes between those that stay.
        self._scattered = source.sample(blocks, 2 * len(blocks) // 3)

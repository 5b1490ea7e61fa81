"""Time the prepared case: warm up, move arrays, take samples, check the results from inside them, measure memory.

The closures of ``calls.py`` are timed, by ``timing/clock.py``.
"""

from __future__ import annotations

import math
import random
import time
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from harness.machine import memory, usage
from harness.process.protocol import (
    CheckFresh,
    Done,
    FreshChecked,
    Handlers,
    MeasureMemory,
    MemoryPeak,
    MoveArrays,
    Stretch,
    WarmedUp,
    WarmUp,
)
from harness.worker.calls import call, timed_call
from harness.worker.poison import Poisoned, poison_device
from harness.worker.prepared_case import PreparedCase, make_kernel
from harness.worker.results import hand_over
from harness.worker.sample_worker import SampleWorker, reader
from harness.worker.scenarios import changed_inputs, refill, restore

if TYPE_CHECKING:
    from harness.timing.clock import Clock
    from harness.worker.integrity import Watch
    from harness.worker.prepared_case import Held

#: Most blocks of memory that are taken before arrays are moved; a part of them is freed.
SCATTERED_BLOCKS: Final = 100
#: Largest size of such a block, in bytes.
SCATTERED_BYTES: Final = 40_000


class TimingWorker:
    """Times the prepared case.

    Args:
        held: The backend and the prepared case.
        clock: The clock.
        watch: Watch that was made before the backend was loaded; it knows the CPUs of the process then.
    """

    def __init__(self, held: Held, clock: Clock, watch: Watch) -> None:
        self._held, self._clock, self._watch = held, clock, watch
        #: Memory that is held only so that other memory is at other addresses.
        self._scattered: list[Any] = []
        self.handlers: Handlers = {
            WarmUp: self.warm_up,
            MoveArrays: self.move_arrays,
            **SampleWorker(held, clock).handlers,
            CheckFresh: self.check_fresh,
            MeasureMemory: self.measure_memory,
        }

    def warm_up(self, request: WarmUp) -> WarmedUp:
        """Warm the kernel up; return the times, and the number of busy threads."""
        prepared = self._held.prepared
        before, start = usage.read(), time.perf_counter()
        stretches = self._clock.warm_up(prepared.calls, reader(prepared), request.seconds, request.at_least)
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
        """Measure the memory of a call. After many calls, one tells: eight in a row differed by less than 0.1 MiB."""
        prepared = self._held.prepared
        prepared.drop_kept()
        return MemoryPeak(memory.peak_bytes(lambda: prepared.wait(prepared.calls[0]()), prepared.arrays.backend.device))

    def release(self) -> None:
        """Free the memory that only moves other memory."""
        self._scattered = []

    def _fresh_and_seen(self, request: CheckFresh) -> tuple[list[float], list[float]]:
        """Time single calls on fresh inputs and, in turn with them, on inputs in rotation.

        Which of the two comes first alternates, and is drawn for the first pair: on a busy machine the second of two
        calls in a row loses its CPU.
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
            for seconds, timed in pair if (number + request.variations[0]) % 2 else reversed(pair):
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

"""Take samples of the prepared case, each on values of its own, and hand over results that are still there after it."""

from __future__ import annotations

import dataclasses
import functools
import random
import resource
from typing import TYPE_CHECKING, Any, Final

from harness.correctness.sample_values import SampleValues
from harness.process.protocol import Done, DrawValues, Handlers, Kept, KeptResults, SampleTaken, TakeSample
from harness.timing.clock import Holding
from harness.worker import gpu_clock
from harness.worker.arrays import copied, framework
from harness.worker.calls import call, named, timed_forward
from harness.worker.results import distance, hand_over, numbered, well_formed
from harness.worker.sample_inputs import SampleInputs

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.case import Case
    from harness.timing.clock import Clock
    from harness.worker.calls import NativeArrays
    from harness.worker.prepared_case import Held, PreparedCase

#: Most results that each call of a sample leaves alive behind it, and their most bytes; at least one.
HELD_RESULTS: Final = 16
HELD_BYTES: Final = 256 * 2**10
#: Largest results that are held from the beginning and the middle of a sample, too, in bytes.
MIDDLE_BYTES: Final = 16 * 2**20


class SampleWorker:
    """Takes samples of the prepared case.

    Args:
        held: The backend and the prepared case.
        clock: The clock.
    """

    def __init__(self, held: Held, clock: Clock) -> None:
        self._held, self._clock = held, clock
        #: Empties the caches of the backend's device; made when it is first needed.
        self._flush: Callable[[], None] | None = None
        #: Number of passes of the last sample.
        self._passes = 1
        self.handlers: Handlers = {
            DrawValues: self.draw_values,
            TakeSample: self.take_sample,
            KeptResults: self.kept_results,
        }

    def draw_values(self, request: DrawValues) -> Done:
        """Draw the values of the sample to come; they get into the input sets right before it."""
        prepared = self._held.prepared
        prepared.restore()
        prepared.drop_kept()
        prepared.first = {}  # the scenarios are over
        values = SampleValues(prepared.case, request.secret, request.calls, request.first, len(prepared.sets))
        prepared.sample = SampleInputs(prepared, values)
        return Done()

    def take_sample(self, request: TakeSample) -> SampleTaken:
        """Take one sample, and one of the forward alone if requested; hold some results of each.

        Until the last moment before it, the input sets hold the values in rotation: what is computed ahead is wrong.
        """
        prepared, wait, sample = (
            self._held.prepared,
            reader(self._held.prepared),
            self._held.prepared.sample,
        )
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
        call = chosen % sample.values.calls
        # The copy of the last result may be that result itself: some arrays cannot be written to, so none is made.
        others = [self._named(case, result) for number, result in held.results.items() if number != call]
        handed = hand_over(arrays, results[chosen], inputs, request.directory, numbered(others), case)
        return Kept(handed, call)

    def _holding(self, calls: int) -> Holding:
        """Return what a sample of some calls does next to calling."""
        prepared, source = self._held.prepared, random.SystemRandom()
        result_bytes = max(prepared.case.result_bytes, 1)
        results = max(1, min(HELD_RESULTS, HELD_BYTES // result_bytes))
        cuts: tuple[int, ...] = ()
        if calls > 1 and result_bytes <= MIDDLE_BYTES:
            # What is computed ahead shows in the first results, and the other cut is anywhere.
            cuts = tuple(sorted((min(results, calls - 1), source.randrange(1, calls))))
        return Holding(
            writes=() if prepared.sample is None else prepared.sample.writes,
            results=results,
            cuts=cuts,
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


def reader(prepared: PreparedCase) -> Callable[[Any], None]:
    """Return a function that waits until results exist, and copies those of an unknown framework.

    Such a framework may compute at the first read.
    """
    if framework(prepared.arrays.like) is not None:
        return prepared.wait

    def read(results: Any) -> None:
        prepared.wait(results)
        for result in results if isinstance(results, tuple) else (results,):
            if hasattr(result, "dtype"):
                prepared.arrays.backend.to_numpy(result)

    return read

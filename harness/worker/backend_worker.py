"""What a backend's worker can be asked: load, support, examine; prepare, scenario, warm up, place, sample, check ...

Nothing of the expected values is ever here: results leave as files, what was observed leaves as numbers, and the
parent decides.
"""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import gc
import math
import random
import resource
import statistics
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np

from harness.backend import backend_class
from harness.case import Case
from harness.correctness.conduct import same_bits
from harness.correctness.edge_cases import EdgeCase
from harness.correctness.gate import judge_facts
from harness.correctness.inputs import make_inputs
from harness.machine import gpu, memory, threads
from harness.process import protocol
from harness.process.protocol import Affinity, EdgeCaseRun, Stretch
from harness.timing import roofline
from harness.timing.clock import SETTLE_SECONDS, Call, Clock
from harness.worker import arrays, gpu_clock

if TYPE_CHECKING:
    from harness.backend import Backend, NativeArray

    Results = dict[str, NativeArray]

T = TypeVar("T")

INPUTS: Final[tuple[str, ...]] = ("input1", "input2")
PARAMETERS: Final[tuple[str, ...]] = ("weight", "bias")
#: mallopt(3): fill what malloc returns with the complement of this byte, and what is freed with the byte itself.
_M_PERTURB: Final = -6
#: What was freed is 3.0 in float32 then, and what is fresh -1.5: in every dtype numbers that spoil a sum.
POISON: Final = 0x40
#: NumPy keeps this many freed blocks of each size below that many bytes, and malloc never sees them again.
SMALL_BLOCKS, SMALL_BYTES = 7, 1024
#: Blocks of a device's memory of each result's size that are spoilt: one for the result, one for what becomes it.
DEVICE_BLOCKS: Final = 2
#: ``again`` calls at most this often and holds at most so many bytes of results; a second call is made if the first one
#: took less than so many seconds, and so on.
HELD_CALLS, HELD_BYTES, HELD_SECONDS = 32, 64 * 2**20, 0.2
#: ``place`` first takes so many blocks of memory at most, of so many bytes at most, and frees a part of them.
SCATTERED_BLOCKS, SCATTERED_BYTES = 100, 40_000

#: A device is kept busy while a call is launched behind it: for the time of so many calls, and if launching took longer
#: (after a pause it does), so many times as long; for so many seconds at most.
DELAY_CALLS, DELAY_TIMES, MOST_DELAY_SECONDS = 2.0, 4.0, 0.050


@dataclasses.dataclass
class _Prepared:
    """A case that is ready to be called.

    Attributes:
        case: Its sizes, dtype and mode.
        kernel: What the backend prepared: a kernel, or a step.
        parameters: Weight and bias on the device.
        sets: The inputs in rotation, by variation from 0.
        first: The first call's results, kept as the backend returned them.
        calls: One for each input set; the kernel, or the whole step.
        forwards: The step's forward alone, one for each input set; empty in mode ``forward``.
        wait: Returns when a result exists.
        kept: Results of some of the calls of the last sample.
        kept_forward: The same of its forward alone.
    """

    case: Case
    kernel: Any
    parameters: Results
    sets: list[Results]
    first: Results
    wait: Callable[[Any], None]
    calls: list[Call] = dataclasses.field(default_factory=list)
    forwards: list[Call] = dataclasses.field(default_factory=list)
    kept: list[Any] = dataclasses.field(default_factory=list)
    kept_forward: list[Any] = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        self.calls = [_timed_call(self.case, self.kernel, self.parameters, inputs) for inputs in self.sets]
        if self.case.mode != "forward":
            self.forwards = [_timed_forward(self.kernel, self.parameters, inputs) for inputs in self.sets]


@dataclasses.dataclass
class _Values:
    """What the arrays of a case in rotation hold, on the host: drawn once, since drawing takes long.

    Attributes:
        case: The case.
        shared: Weight and bias, the same in every set.
        sets: All arrays, by variation.
    """

    case: Case
    shared: Mapping[str, Any]
    sets: dict[int, Mapping[str, Any]] = dataclasses.field(default_factory=dict)

    def of(self, variation: int) -> Mapping[str, Any]:
        """All arrays of one input set; nobody may change them."""
        if variation not in self.sets:
            names = self.case.shapes().keys() - self.shared.keys()
            made = {**self.shared, **make_inputs(self.case, variation, only=names)}
            for array in made.values():
                array.setflags(write=False)
            self.sets[variation] = made
        return self.sets[variation]


class BackendWorker:
    """One backend on one device, at most one case at a time."""

    def __init__(self) -> None:
        self.handlers: protocol.Handlers = {
            protocol.Load: self.load,
            protocol.AskSupport: self.support,
            protocol.RunEdgeCase: self.edge_case,
            protocol.CheckGradients: self.gradcheck,
            protocol.Prepare: self.prepare,
            protocol.RunScenario: self.scenario,
            protocol.CheckIntegrity: self.changed,
            protocol.WarmUp: self.warm_up,
            protocol.MoveArrays: self.place,
            protocol.SteadyGpuClock: self.steady,
            protocol.ReadGpu: self.gpu_state,
            protocol.TakeSample: self.sample,
            protocol.MeasureMemory: self.memory,
            protocol.MeasureDeviceTimes: self.device_times,
            protocol.KeptResults: self.kept,
            protocol.CheckFresh: self.check,
            protocol.Release: self.release,
        }
        self._scenarios: dict[str, Callable[[_Prepared], Results]] = {
            "new values in the same buffers": self._new_values,
            "the same values in new buffers": self._new_buffers,
            "another kernel": self._another_kernel,
        }
        self._clock = Clock()
        self._watch = arrays.Watch()
        #: The CPUs that this process was held to, before any backend was here.
        self._affinity = _affinity()
        self._backend: Backend | None = None
        self._prepared: _Prepared | None = None
        #: An array of each dtype that the backend's ``to_device`` has made: what all others are made like.
        self._likes: dict[str, NativeArray] = {}
        #: The case that was examined last, with its kernels, or what preventing each of them said.
        self._kernels_of: tuple[Case, dict[str, Any]] | None = None
        #: What another kernel of the prepared case cost, its first call included, in seconds.
        self._kernel_seconds: float | None = None
        #: What the arrays of the prepared case hold; None while there may be no inputs.
        self._values: _Values | None = None
        #: Of a backend on a GPU.
        self._gpu: gpu.Watch | None = None
        #: Empties the caches of its device.
        self._flush: Callable[[], None] | None = None
        #: Memory that is held only so that other memory lies elsewhere.
        self._scattered: list[Any] = []

    @property
    def backend(self) -> Backend:
        """The backend; there is one after ``load``."""
        if self._backend is None:
            raise RuntimeError("no backend is loaded")
        return self._backend

    @property
    def prepared(self) -> _Prepared:
        """The prepared case; there is one between ``prepare`` and ``release``."""
        if self._prepared is None:
            raise RuntimeError("no case is prepared")
        return self._prepared

    def hold(self, backend: Backend) -> None:
        """Use this backend, which somebody else has loaded."""
        self._backend = backend

    def load(self, request: protocol.Load) -> protocol.Loaded:
        """Import the backend and ask whether it can be had on the device; a failed import is a no with its reason."""
        name, device = request.name, request.device
        start = time.perf_counter()
        try:
            loaded = backend_class(name, request.target)
            support = loaded.available(device) if device in loaded.devices else None
        except Exception as error:
            return protocol.Loaded(available=False, reason=f"{type(error).__name__} at import: {error}")
        import_seconds = time.perf_counter() - start
        if support is None:
            return protocol.Loaded(False, f"{name} runs on {', '.join(loaded.devices)}", offered=False)
        if not support.ok:
            return protocol.Loaded(available=False, reason=support.reason)
        self._backend = loaded(device)
        self._gpu = None if device == "cpu" else gpu.Watch()
        # What a framework has built at import stays anyway: no later search for garbage shall go through it, which took
        # a tenth of a second with PyTorch, whenever memory is given back. Nor one now, for the little there may be.
        gc.freeze()
        return protocol.Loaded(
            available=True,
            version=self._backend.version(),
            untimeable=loaded.timeable(device).reason,
            import_seconds=import_seconds,
            tick_seconds=self._clock.tick_seconds(),
            overhead_seconds=self._clock.overhead_seconds(),
            threads=threads.read_back(),
        )

    def support(self, request: protocol.AskSupport) -> protocol.Supported:
        """Ask the backend whether it can do the case, and what memory that takes."""
        support = self.backend.supports(request.case)
        if not support.ok:
            return protocol.Supported(supported=False, reason=support.reason)
        return protocol.Supported(True, workspace_bytes=int(self.backend.workspace_bytes(request.case)))

    def edge_case(self, request: protocol.RunEdgeCase) -> EdgeCaseRun:
        """Run one edge case into a folder of its name, in poisoned memory; an exception is a reply, too."""
        edge_case = next(edge_case for edge_case in request.alike if edge_case.name == request.name)
        case = edge_case.case
        operators: tuple[str, ...] | str = ()
        self._poison_device(case)
        with _Poisoned(case):
            first = self._kernels_of is None or self._kernels_of[0] != case
            if self._kernels_of is None or first:
                kinds = {alike.kernel: alike.kind for alike in reversed(request.alike)}
                self._kernels_of = case, {key: _attempt(self._kernel, case, kind) for key, kind in kinds.items()}
            kernel = self._kernels_of[1][edge_case.kernel]
            if isinstance(kernel, str):
                return EdgeCaseRun(None, error=kernel)
            results = _attempt(self._try, edge_case, kernel, request.directory)
            if isinstance(results, str):
                return EdgeCaseRun(None, error=results)
            if first:
                operators = _attempt(self._operators, edge_case, kernel)
        return EdgeCaseRun(results, operators=() if isinstance(operators, str) else operators)

    def gradcheck(self, request: protocol.CheckGradients) -> protocol.GradientsChecked:
        """Hold the step's backward against finite differences of its forward, if its arrays are PyTorch's."""
        inputs = self._on_device(request.case, "normal")
        step = self.backend.prepare_forward_backward(request.case)
        reason = arrays.gradcheck(step, [inputs[name] for name in (*INPUTS, *PARAMETERS) if name in inputs])
        return protocol.GradientsChecked(reason or "")

    def prepare(self, request: protocol.Prepare) -> protocol.Prepared:
        """Prepare, make the inputs, call once; leave the first call's results in the folder."""
        self._prepared = self._values = None
        asked = request.case
        parameters, kernel, prepare_seconds = self._made_kernel(asked)
        sets = [self._inputs(asked, variation) for variation in range(request.input_sets)]

        wait = self._waiter(asked)
        start = time.perf_counter()
        results = call(asked, kernel, parameters, sets[0])
        wait(tuple(results.values()))
        first_call_seconds = time.perf_counter() - start

        self._prepared = _Prepared(asked, kernel, parameters, sets, results, wait)
        given = sets[0] | parameters
        return protocol.Prepared(
            prepare_seconds=prepare_seconds,
            first_call_seconds=first_call_seconds,
            tuning=str(self.backend.tuning(asked)),
            threads=threads.read_back(),
            affinity=Affinity(self._affinity, _affinity()),
            home_made=arrays.home_made(given["input1"], self.backend),
            native_bases=tuple(arrays.base_names(given["input1"])),
            inputs=arrays.facts(given),
            results=self._hand_over(asked, results, given, request.directory),
        )

    def scenario(self, request: protocol.RunScenario) -> protocol.ScenarioRun:
        """Call once more in a telling way, or often; leave the results in the folder."""
        prepared = self.prepared
        inputs, earlier = prepared.sets[0] | prepared.parameters, prepared.first
        operators: tuple[str, ...] = ()
        call_seconds = convert_seconds = 0.0
        if request.scenario == "again":
            if self._borrows_torch(prepared):
                operators = arrays.operators(lambda: self._call(prepared))
            held, call_seconds = self._call_often(prepared)
            convert_seconds = self._convert_seconds(held)
            right = self._hosted(prepared.first) if self._formed(prepared.case, prepared.first) else {}
            results = held.pop(self._most_different(prepared.case, held, right))
            # All of them, so that buffers which take turns meet, however many they are.
            earlier = earlier | {
                f"{name} ({number})": r for number, other in enumerate(held) for name, r in other.items()
            }
        else:
            results = self._scenarios[request.scenario](prepared)
            prepared.wait(tuple(results.values()))
        return protocol.ScenarioRun(
            results=self._hand_over(prepared.case, results, inputs, request.directory, earlier),
            operators=operators,
            call_seconds=call_seconds,
            convert_seconds=convert_seconds,
            kernel_seconds=self._kernel_seconds,
        )

    def changed(self, request: protocol.CheckIntegrity) -> protocol.Integrity:
        """Say which inputs are no longer what they were made as; leave the first results, as they are now."""
        prepared = self.prepared
        found: list[str] = []
        for variation, inputs in enumerate(prepared.sets):
            made = self._made(prepared.case, variation)
            given = inputs | (prepared.parameters if variation == 0 else {})
            found += [
                name if variation == 0 else f"{name} of input set {variation}"
                for name, array in given.items()
                if not same_bits(arrays.to_host(array, self.backend), made[name])
            ]
        self._save(prepared.first, request.directory)
        return protocol.Integrity(tuple(found), tuple(self._watch.replaced()))

    def warm_up(self, request: protocol.WarmUp) -> protocol.WarmedUp:
        """Run the kernel for a while; the times come back to be kept apart, with how many threads that kept busy."""
        prepared = self.prepared
        prepared.first = {}
        before, start = threads.usage(), time.perf_counter()
        stretches = self._clock.warm_up(prepared.calls, prepared.wait, request.seconds, request.at_least)
        busy = threads.busy(before, threads.usage(), time.perf_counter() - start)
        return protocol.WarmedUp(tuple(Stretch(*stretch) for stretch in stretches), busy)

    def place(self, request: protocol.MoveArrays) -> protocol.Done:
        """Lay all arrays at new places in memory, with the values that they have; and make the kernel anew, if asked.

        Where arrays happen to lie moves times by several per cent, and stays for as long as they do; so it is drawn
        anew for every sample, and becomes noise that averages out (Curtsinger and Berger, Stabilizer: Statistically
        Sound Performance Evaluation, ASPLOS'13, do it to code, too).
        """
        prepared, case = self.prepared, self.prepared.case
        made, parameters, count, wait = prepared.kernel, prepared.parameters, len(prepared.sets), prepared.wait
        if request.new_kernel:
            self._prepared = self._values = None
            del prepared
            self._scatter()
            parameters, made, _ = self._made_kernel(case)
        else:
            self._scatter()
            if case.mode == "forward_backward":
                parameters = self._parameters(case, "normal")
        inputs = [self._inputs(case, variation) for variation in range(count)]
        moved = _Prepared(case, made, parameters, inputs, {}, wait)
        moved.wait(tuple(array for arrays in (parameters, *inputs) for array in arrays.values()))
        self._prepared = moved
        return protocol.Done()

    def _scatter(self) -> None:
        """Take and free blocks of memory, so that what is taken next lies elsewhere than last time."""
        lot = random.SystemRandom()
        # As many small blocks as large ones: an allocator keeps a list for each size.
        sizes = [round(2 ** lot.uniform(4, math.log2(SCATTERED_BYTES))) for _ in range(lot.randrange(SCATTERED_BLOCKS))]
        blocks = [np.empty(size, np.uint8) for size in sizes]
        # What is freed leaves holes between what stays.
        self._scattered = lot.sample(blocks, 2 * len(blocks) // 3)

    def memory(self, request: protocol.MeasureMemory) -> protocol.MemoryPeak:
        """Measure the memory that a call takes; of several the least, for a first touch may add some."""
        prepared, wait = self.prepared, self.prepared.wait
        prepared.kept, prepared.kept_forward = [], []

        def once(number: int) -> None:
            wait(prepared.calls[number % len(prepared.calls)]())

        peaks = [
            memory.peak_bytes(functools.partial(once, number), self.backend.device)
            for number in range(max(1, request.calls))
        ]
        known = [peak for peak in peaks if peak is not None]
        return protocol.MemoryPeak(min(known, default=None))

    def device_times(self, request: protocol.MeasureDeviceTimes) -> protocol.DeviceTimes:
        """Take some samples by the device's clock, and some with one synchronisation each; each list may be empty.

        ``absent`` has the reasons, and ``broken`` says that this process may have been left in pieces by a call that
        could not be captured.
        """
        prepared, wait = self.prepared, self.prepared.wait
        calls, repeats = request.calls, request.repeats
        prepared.kept, prepared.kept_forward = [], []
        found: dict[str, list[float]] = {"queued_seconds": [], "device_seconds": [], "graph_seconds": []}
        late, why, broken = "", "", False
        self._clock.settle(prepared.calls, wait, SETTLE_SECONDS)
        found["queued_seconds"] = [self._clock.queued(prepared.calls, wait, calls) for _ in range(repeats)]
        try:
            clock = gpu_clock.clock_of(self._like(prepared.case))
            try:
                found["device_seconds"] = _behind_a_delay(clock, prepared.calls, request.call_seconds, repeats)
            except gpu_clock.LateError as error:
                late = str(error)
            replay = clock.capture(prepared.calls[0])
            wait(replay())

            def replays() -> None:
                for _ in range(calls):
                    replay()

            found["graph_seconds"] = [clock.seconds(replays, 0.0) for _ in range(repeats)]
        except NotImplementedError as error:
            why = str(error)
        except Exception as error:  # frameworks have no common type for what cannot be captured
            why, broken = f"{type(error).__name__}: {error}", True
        absent = {name: why for name, seconds in found.items() if not seconds}
        if late:
            absent["device_seconds"] = late
        return protocol.DeviceTimes(
            **{name: tuple(seconds) for name, seconds in found.items()}, absent=absent, broken=broken
        )

    def steady(self, _: protocol.SteadyGpuClock) -> protocol.Done:
        """Run the kernel on a GPU until the clock of that is steady."""
        if self._gpu is not None:
            self._gpu.run_until_steady(functools.partial(self._clock.settle, self.prepared.calls, self.prepared.wait))
        return protocol.Done()

    def gpu_state(self, _: protocol.ReadGpu) -> protocol.GpuReading:
        """Read the state of the GPU; None where nobody can tell."""
        return protocol.GpuReading(None if self._gpu is None else self._gpu.read())

    def sample(self, request: protocol.TakeSample) -> protocol.SampleTaken:
        """Take one sample, and one of the forward alone where that is asked for; keep the results of calls ``keep``."""
        prepared, wait = self.prepared, self.prepared.wait
        calls, first, keep = request.calls, request.first, request.keep
        take = self._clock.sample
        if request.flush_l2:
            if self._flush is None:
                self._flush = gpu_clock.flusher_of(self._like(prepared.case))
            take = functools.partial(self._clock.sample_apart, between=self._flush)
        prepared.kept, prepared.kept_forward = [], []
        self._clock.settle(prepared.calls, wait, request.settle_seconds)
        switches = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
        seconds, prepared.kept = take(prepared.calls, wait, calls, first, keep)
        alone = None
        if request.forward:
            alone, prepared.kept_forward = take(prepared.forwards, wait, calls, first, keep)
        switches = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw - switches
        return protocol.SampleTaken(seconds, alone, switches)

    def kept(self, request: protocol.KeptResults) -> protocol.Results:
        """Of what the last sample kept, or its forward alone, leave in the folder what differs most from the rest.

        All that is kept is of one input set, so an honest backend leaves one as good as any.
        """
        prepared, case = self.prepared, self.prepared.case
        if request.forward:
            case, found = case.with_mode("forward"), [{"output": output} for output in prepared.kept_forward]
        elif case.mode == "forward_backward":
            found = [_named(results) for results in prepared.kept]
        else:
            found = [{"output": output} for output in prepared.kept]
        formed = [self._hosted(results) for results in found if self._formed(case, results)]
        results = found.pop(self._most_different(case, found, _middle(formed)))
        inputs = {f"{name} ({number})": a for number, given in enumerate(prepared.sets) for name, a in given.items()}
        inputs |= prepared.parameters | {"input1": prepared.sets[0]["input1"]}
        earlier = {f"{name} ({number})": r for number, other in enumerate(found) for name, r in other.items()}
        return self._hand_over(case, results, inputs, request.directory, earlier)

    def check(self, request: protocol.CheckFresh) -> protocol.FreshChecked:
        """Call on inputs that no call has seen.

        All but the last are timed one by one, in turn before and after a call on inputs in rotation that is timed
        alike: on a busy machine the second of two calls in a row is the one that loses its CPU. The last, of the given
        kind, come in the memory of the rotation's first set (in a training step with weight and bias, as an optimizer
        leaves them), and fresh memory is poisoned; the results of that call are left in the folder.
        """
        variations = request.variations
        prepared, case, wait = self.prepared, self.prepared.case, self.prepared.wait
        fresh_seconds: list[float] = []
        seen_seconds: list[float] = []
        for number, variation in enumerate(variations[:-1]):
            inputs = self._inputs(case, variation)
            wait(tuple(inputs.values()))
            seen = prepared.calls[number % len(prepared.calls)]
            fresh = _timed_call(case, prepared.kernel, prepared.parameters, inputs)
            if request.settle:  # brings back what making inputs has displaced
                wait(seen())
            pair = [(fresh_seconds, fresh), (seen_seconds, seen)]
            for seconds, timed in pair if number % 2 else reversed(pair):
                seconds.append(self._clock.sample([timed], wait, 1)[0])
        inputs, parameters = self._refilled(prepared, variations[-1], request.kind)
        self._poison_device(case, all_of_it=True)
        with _Poisoned(case):
            results = call(case, prepared.kernel, parameters, inputs)
            wait(tuple(results.values()))
        reply = self._hand_over(case, results, inputs | parameters, request.directory)
        self._restore(prepared)
        return protocol.FreshChecked(
            fresh_seconds=tuple(fresh_seconds),
            seen_seconds=tuple(seen_seconds),
            affinity=Affinity(self._affinity, _affinity()),
            results=reply,
        )

    def release(self, _: protocol.Release) -> protocol.Released:
        """Let the case go, and its memory."""
        self._prepared, self._values, self._scattered = None, None, []
        memory.trim()  # while this worker is stopped, others need what it has freed
        return protocol.Released(
            trimmed=self._backend is None or self._backend.device == "cpu" or "jax" not in sys.modules
        )

    def _borrows_torch(self, prepared: _Prepared) -> bool:
        """Whether PyTorch is in this process though the arrays are another framework's."""
        return "torch" in sys.modules and not arrays.type_name(prepared.sets[0]["input1"]).startswith("torch.")

    def _call(self, prepared: _Prepared) -> Results:
        """The first inputs once more."""
        return call(prepared.case, prepared.kernel, prepared.parameters, prepared.sets[0])

    def _call_often(self, prepared: _Prepared) -> tuple[list[Results], float]:
        """The first inputs again and again; all results, and the seconds of the fastest call."""
        most = max(2, min(HELD_CALLS, HELD_BYTES // max(prepared.case.result_bytes, 1)))
        held: list[Results] = []
        seconds = []
        begin = time.perf_counter()
        while not held or (len(held) < most and time.perf_counter() - begin < HELD_SECONDS):
            start = time.perf_counter()
            results = self._call(prepared)
            prepared.wait(tuple(results.values()))
            seconds.append(time.perf_counter() - start)
            held.append(results)
        return held, min(seconds)

    def _convert_seconds(self, held: list[Results]) -> float:
        """What ``to_numpy`` takes for results of a framework that is not known here, in the median; else 0."""
        seconds = []
        for results in held:
            start = time.perf_counter()
            for result in results.values():
                if arrays.framework(result) is None and hasattr(result, "dtype"):
                    self.backend.to_numpy(result)
                    seconds.append(time.perf_counter() - start)
        return statistics.median(seconds) if seconds else 0.0

    def _hosted(self, results: Results) -> dict[str, Any]:
        """Copies on the host."""
        return {name: arrays.to_host(result, self.backend) for name, result in results.items()}

    def _most_different(self, case: Case, held: list[Results], usual: Mapping[str, Any]) -> int:
        """Which of several results of the same call is not even an array, or else is furthest from the usual ones."""
        distances = []
        for results in held:
            if not self._formed(case, results):
                distances.append(np.inf)
                continue
            hosted = self._hosted(results)
            distances.append(
                max((_distance(array, usual[name]) for name, array in hosted.items() if name in usual), default=0.0)
            )
        return int(np.argmax(distances))

    def _refilled(self, prepared: _Prepared, variation: int, kind: str) -> tuple[Results, Results]:
        """Inputs, and parameters in a training step, with new values in the memory of those in rotation."""
        made = self._made(prepared.case, variation, kind)
        inputs = self._fill(prepared.case, prepared.sets[0], made)
        if prepared.case.mode == "forward":
            return inputs, prepared.parameters
        return inputs, self._fill(prepared.case, prepared.parameters, made)

    def _restore(self, prepared: _Prepared) -> None:
        """Undo ``_refilled``."""
        made = self._made(prepared.case, 0)
        self._fill(prepared.case, prepared.sets[0] | prepared.parameters, made)

    def _fill(self, case: Case, targets: Results, made: Mapping[str, Any]) -> Results:
        return {name: arrays.refill(array, made[name], self.backend, case.dtype) for name, array in targets.items()}

    def _new_values(self, prepared: _Prepared) -> Results:
        """Values of another variation in the memory of set 0, which then gets its own values back."""
        inputs, parameters = self._refilled(prepared, 1, "normal")
        results = call(prepared.case, prepared.kernel, parameters, inputs)
        prepared.wait(tuple(results.values()))
        self._restore(prepared)
        return results

    def _new_buffers(self, prepared: _Prepared) -> Results:
        """The values of input set 0 in new memory."""
        return call(prepared.case, prepared.kernel, prepared.parameters, self._inputs(prepared.case, 0))

    def _another_kernel(self, prepared: _Prepared) -> Results:
        """A second kernel, with a weight of integers, in turn with the first; its results are for the exact probe.

        For steps the two overlap: both forwards, then both backwards, as with two layers of one model.
        """
        case = prepared.case
        given = self._on_device(case, "integers")
        parameters = {name: given.pop(name) for name in PARAMETERS if name in given}
        start = time.perf_counter()
        kernel = self._prepare(case, parameters)
        if case.mode == "forward":
            results = call(case, kernel, parameters, given)
            prepared.wait(tuple(results.values()))
            self._kernel_seconds = time.perf_counter() - start
            return results
        output = _timed_forward(kernel, parameters, given)()
        prepared.wait(output)
        self._kernel_seconds = time.perf_counter() - start
        call(case, prepared.kernel, prepared.parameters, prepared.sets[0])
        return _named((output, *kernel.backward(given["grad_output"])))

    def _prepare(self, case: Case, parameters: Results) -> Any:
        if case.mode == "forward":
            return self.backend.prepare_forward(case, parameters["weight"], parameters.get("bias"))
        return self.backend.prepare_forward_backward(case)

    def _made_kernel(self, case: Case) -> tuple[Results, Any, float]:
        """Weight and bias, a kernel made with them, and the seconds that this took.

        Only after it are there values for inputs: while a kernel is made there shall be none that it could find and
        work ahead on.
        """
        shared = make_inputs(case, 0, only=PARAMETERS)
        for array in shared.values():
            array.setflags(write=False)
        parameters = {name: self._to_device(array, case) for name, array in shared.items()}
        start = time.perf_counter()
        kernel = self._prepare(case, parameters)
        seconds = time.perf_counter() - start
        self._values = _Values(case, shared)
        return parameters, kernel, seconds

    def _kernel(self, case: Case, kind: str) -> tuple[Any, Results]:
        """A kernel for a edge_case, with the parameters that go with its kind of inputs."""
        parameters = self._parameters(case, kind)
        return self._prepare(case, parameters), parameters

    def _try(self, edge_case: EdgeCase, kernel: tuple[Any, Results], directory: Path) -> protocol.Results:
        """Answer one edge_case.

        A step takes its weights at every call: where an edge case has others than the first call had, they come
        in the same memory, as an optimizer leaves them.
        """
        case = edge_case.case
        inputs = self._inputs(case, 0, edge_case.kind)
        if case.mode == "forward_backward":
            kernel = kernel[0], self._fill(case, kernel[1], make_inputs(case, 0, edge_case.kind))
        with np.errstate(all="ignore"):  # NaN and overflow are asked for here
            results = call(case, kernel[0], kernel[1], inputs)
            self._waiter(case)(tuple(results.values()))
        folder = directory / edge_case.name
        folder.mkdir()
        return self._hand_over(case, results, inputs | kernel[1], folder)

    def _operators(self, edge_case: EdgeCase, kernel: tuple[Any, Results]) -> tuple[str, ...]:
        case = edge_case.case
        inputs = self._inputs(case, 0, edge_case.kind)
        return arrays.operators(lambda: call(case, kernel[0], kernel[1], inputs))

    def _on_device(self, case: Case, kind: str) -> Results:
        """Inputs and parameters on the device."""
        return {name: self._to_device(array, case) for name, array in make_inputs(case, 0, kind).items()}

    def _inputs(self, case: Case, variation: int, kind: str = "normal") -> Results:
        """The inputs on the device, without the parameters."""
        names = [name for name in case.shapes() if name not in PARAMETERS]
        made = self._made(case, variation, kind, names)
        return {name: self._to_device(made[name], case) for name in names}

    def _parameters(self, case: Case, kind: str) -> Results:
        """Weight and bias on the device."""
        names = [name for name in case.shapes() if name in PARAMETERS]
        made = self._made(case, 0, kind, names)
        return {name: self._to_device(made[name], case) for name in names}

    def _made(
        self, case: Case, variation: int, kind: str = "normal", only: Collection[str] | None = None
    ) -> Mapping[str, Any]:
        """What ``make_inputs`` gives, or more; for the sets in rotation made once, since drawing takes long."""
        if kind != "normal" or variation >= roofline.INPUT_SETS or self._values is None or self._values.case != case:
            return make_inputs(case, variation, kind, only)
        return self._values.of(variation)

    def _to_device(self, array: Any, case: Case) -> NativeArray:
        """Copy to the device: like an array of the backend's own making, without showing it the values if possible."""
        made = arrays.place(array, self._like(case))
        return self.backend.to_device(np.array(array), case.dtype) if made is None else made

    def _poison_device(self, case: Case, all_of_it: bool = False) -> None:
        """Let the device's memory where results come to lie next hold NaN; on the CPU ``_Poisoned`` does it.

        Frameworks keep what is freed and hand it out again, where it may hold an earlier answer, and a right one.

        Args:
            case: Whose results.
            all_of_it: Give back first whatever has been freed, which takes a while.
        """
        if self.backend.device == "cpu":
            return
        if all_of_it:
            memory.trim()
        dtype = np.float64 if case.dtype == "float64" else np.float32
        shapes = [shape for shape in case.result_shapes().values() for _ in range(DEVICE_BLOCKS)]
        blocks = [self._to_device(np.full(shape, np.nan, dtype), case) for shape in shapes]
        del blocks

    def _like(self, case: Case) -> NativeArray:
        if case.dtype not in self._likes:
            zero = np.zeros((1, 1), np.float64 if case.dtype == "float64" else np.float32)
            self._likes[case.dtype] = self.backend.to_device(zero, case.dtype)
        return self._likes[case.dtype]

    def _waiter(self, case: Case) -> Callable[[Any], None]:
        return arrays.waiter(self.backend, self._like(case))

    def _formed(self, case: Case, results: Results) -> bool:
        """Whether results are what they should be, before anything converts them."""
        return judge_facts(case, self.backend.device, arrays.type_name(self._like(case)), arrays.facts(results), "").ok

    def _hand_over(
        self, case: Case, results: Results, inputs: Results, directory: Path, earlier: Results | None = None
    ) -> protocol.Results:
        """Describe the native results; convert and write them only if they are what they should be."""
        if self._formed(case, results):
            self._save(results, directory)
        return protocol.Results(
            native_type=arrays.type_name(self._like(case)),
            facts=arrays.facts(results),
            storages=protocol.Storages(
                results=arrays.storages(results), inputs=arrays.storages(inputs), earlier=arrays.storages(earlier or {})
            ),
        )

    def _save(self, results: Results, directory: Path) -> None:
        for name, result in results.items():
            np.save(directory / f"{name}.npy", arrays.to_host(result, self.backend), allow_pickle=False)


class _Poisoned:
    """While entered, fresh memory holds a pattern instead of zeros or what was there before; with glibc only."""

    def __init__(self, case: Case) -> None:
        self._itemsize = case.itemsize

    def __enter__(self) -> None:
        # NaN, which even a factor of zero does not hide.
        pattern = np.full(SMALL_BYTES, 0xFF, np.uint8)
        for size in range(self._itemsize, SMALL_BYTES, self._itemsize):
            blocks = [pattern[:size].copy() for _ in range(SMALL_BLOCKS)]
            del blocks
        self._set(POISON)

    def __exit__(self, *_: object) -> None:
        self._set(0)

    @staticmethod
    def _set(byte: int) -> None:
        if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "mallopt"):
            library.mallopt(_M_PERTURB, byte)


def call(case: Case, kernel: Any, parameters: Results, inputs: Results) -> Results:
    """Call once; return the results by name, without what is None."""
    if case.mode == "forward":
        return {"output": kernel(inputs["input1"], inputs["input2"])}
    output = kernel.forward(inputs["input1"], inputs["input2"], parameters["weight"], parameters.get("bias"))
    gradients = kernel.backward(inputs["grad_output"])
    if not isinstance(gradients, tuple) or len(gradients) != 4:
        raise TypeError(f"backward returned {type(gradients).__name__}, expected a tuple of 4 gradients")
    return _named((output, *gradients))


def _named(results: tuple[Any, ...]) -> Results:
    """Results of a step by name, without what is None."""
    names = ("output", "grad_input1", "grad_input2", "grad_weight", "grad_bias")
    return {name: result for name, result in zip(names, results, strict=True) if result is not None}


def _middle(found: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The median of several results of the same call, element by element; of the same bits, one of them."""
    if len(found) > 1 and not all(same_bits(each[name], found[0][name]) for each in found[1:] for name in found[0]):
        return {name: np.median([each[name] for each in found], axis=0) for name in found[0]}
    return found[0] if found else {}


def _distance(result: Any, usual: Any) -> float:
    """The largest difference of any element; 0 for the same bits, and infinite if an element is not finite."""
    if not np.isfinite(result).all():
        return math.inf  # whatever the usual is: NaN in a single result makes it NaN, too
    if same_bits(result, usual):
        return 0.0
    with np.errstate(all="ignore"):
        return float(np.nan_to_num(np.abs(result - usual)).max(initial=0.0))


def _affinity() -> tuple[int, ...] | None:
    """Return the CPUs that this process may use now."""
    allowed = threads.affinity()
    return None if allowed is None else tuple(allowed)


def _attempt(function: Callable[..., T], *arguments: Any) -> T | str:
    """Call; an exception becomes its text."""
    try:
        return function(*arguments)
    except Exception as error:
        return f"raised {type(error).__name__}: {error}"


def _behind_a_delay(
    clock: gpu_clock.DeviceClock, calls: Sequence[Call], call_seconds: float, repeats: int
) -> list[float]:
    """Time so many calls on the device, each launched while it is kept busy for long enough.

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
            delay = min(MOST_DELAY_SECONDS, DELAY_TIMES * delay)


def _timed_call(case: Case, kernel: Any, parameters: Results, inputs: Results) -> Call:
    """The callable that is timed: the kernel alone, or forward then backward with nothing between."""
    if case.mode == "forward":
        return functools.partial(kernel, inputs["input1"], inputs["input2"])
    forward, backward = kernel.forward, kernel.backward
    input1, input2, grad_output = inputs["input1"], inputs["input2"], inputs["grad_output"]
    weight, bias = parameters["weight"], parameters.get("bias")

    def step() -> tuple[Any, ...]:
        output = forward(input1, input2, weight, bias)
        return (output, *backward(grad_output))

    return step


def _timed_forward(kernel: Any, parameters: Results, inputs: Results) -> Call:
    return functools.partial(
        kernel.forward, inputs["input1"], inputs["input2"], parameters["weight"], parameters.get("bias")
    )

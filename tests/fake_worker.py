"""A fake worker: it replies with the protocol's own classes, and no process starts.

``run/test_fakes.py`` holds it to the real worker: to each request both reply with the same class, and leave the same
files.
"""

from __future__ import annotations

import contextlib
import functools
import math
from pathlib import Path
from typing import Any

import numpy as np
import oracle
from faults import NATIVE_TYPE, OVERHEAD_SECONDS, RIGHT, TICK_SECONDS, Clock, Faults

from harness.case import Case
from harness.checked import Location
from harness.correctness import telling, telling_rows
from harness.correctness.drawn import parts
from harness.correctness.inputs import PRECISE_KINDS, make_inputs
from harness.correctness.questions import AGAIN, ANOTHER_KERNEL, NONFINITE, SCENARIOS
from harness.correctness.sample_values import SampleValues
from harness.correctness.telling_changes import Variant
from harness.correctness.verdict import Facts
from harness.machine.standing import Standing
from harness.machine.threads import ThreadReport
from harness.machine.usage import Busy
from harness.process import protocol
from harness.process.handle import WorkerError
from harness.process.protocol import Affinity, Request, Results, Storages, Stretch
from harness.timing import roofline
from harness.worker.reference_worker import ROUNDED_KINDS

#: Variant of a step that a forward has not.
TWO_ON_ONE_WEIGHT = Variant(1, telling.KIND, "two on one weight")


class FakeWorker:
    """A worker of any kind: it replies to every request of a run.

    Args:
        name: Name in the log.
        directory: Private folder, which is created here.
        clock: Clock that its calls advance.
        number: Number of the process: seed of its noise.
        log: Requests of all workers, as (name, request).
        faults: How it behaves.
    """

    def __init__(
        self,
        name: str = "fake",
        directory: Path = Path("fake"),
        clock: Clock | None = None,
        number: int = 1,
        log: list[tuple[str, Request[Any]]] | None = None,
        faults: Faults = RIGHT,
    ) -> None:
        self.name, self.directory, self.number, self.faults = name, directory, number, faults
        self.clock = clock or Clock()
        self.alive, self.elapsed_seconds, self.stopped_seconds, self.blocks = True, 0.0, 0.0, 0
        self.output = ""
        self.usage = self.faults.usage
        self._log = [] if log is None else log
        self._attempts, self._passes = 0, 1
        self.handlers: protocol.Handlers = {
            protocol.Load: self.load,
            protocol.AskSupport: self.support,
            protocol.RunEdgeCase: self.edge_case,
            protocol.CheckGradients: self.gradients,
            protocol.ListFiles: lambda request: protocol.LoadedFiles(()),
            protocol.Prepare: self.prepare,
            protocol.RunScenario: self.scenario,
            protocol.CheckIntegrity: self.integrity,
            protocol.Locate: self.locate,
            protocol.WarmUp: self.warm_up,
            protocol.MoveArrays: self.move_arrays,
            protocol.DrawValues: self.draw_values,
            protocol.SteadyGpuClock: self.steady_gpu_clock,
            protocol.TakeSample: self.sample,
            protocol.ReadGpu: self.read_gpu,
            protocol.KeptResults: self.kept_results,
            protocol.MeasureMemory: self.memory,
            protocol.MeasureDeviceTimes: self.device_times,
            protocol.CheckFresh: self.fresh,
            protocol.Release: self.release,
            protocol.Expect: self.expect,
        }
        directory.mkdir(parents=True, exist_ok=True)

    def request(self, request: Request[Any], time_limit_seconds: float) -> Any:
        self._log.append((self.name, request))
        instead = self.faults.instead.get(type(request))
        if isinstance(instead, WorkerError):
            raise instead
        if instead is not None:
            return instead
        before = self.clock.now
        reply = self.handlers[type(request)](request)
        self.elapsed_seconds = self.clock.now - before + self.faults.unseen_seconds
        return reply

    def standing(self) -> Standing | None:
        return self.faults.standing(self.clock.now)

    def looking(self) -> contextlib.AbstractContextManager[list[Standing]]:
        return contextlib.nullcontext(list(self.faults.looks))

    def kill(self) -> None:
        self.alive = False

    def load(self, request: protocol.Load) -> protocol.Loaded:
        return protocol.Loaded(
            available=True,
            version="fake 1",
            untimeable=self.faults.untimeable,
            import_seconds=self.faults.import_seconds,
            tick_seconds=TICK_SECONDS,
            overhead_seconds=OVERHEAD_SECONDS,
        )

    def support(self, request: protocol.AskSupport) -> protocol.Supported:
        return protocol.Supported(supported=True, workspace_bytes=self.faults.workspace_bytes)

    def edge_case(self, request: protocol.RunEdgeCase) -> protocol.EdgeCaseRun:
        (edge_case,) = [edge_case for edge_case in request.alike if edge_case.name == request.name]
        folder = request.directory / request.name
        folder.mkdir()
        if error := self.faults.edge_case_errors.get(request.name):
            return protocol.EdgeCaseRun(None, protocol.Failure(error))
        return protocol.EdgeCaseRun(self.results(edge_case.case, 0, folder, edge_case.kind))

    def gradients(self, request: protocol.CheckGradients) -> protocol.GradientsChecked:
        return protocol.GradientsChecked(self.faults.gradcheck)

    def prepare(self, request: protocol.Prepare) -> protocol.Prepared:
        self.case = request.case
        dtype, device = self.faults.input_dtype, self.faults.device
        return protocol.Prepared(
            prepare_seconds=0.1,
            first_call_seconds=max(0.2, self.faults.call_seconds) + self.faults.compile_seconds,
            tuning=self.faults.tuning,
            threads=ThreadReport((0,)),
            affinity=Affinity((0,), (0,)),
            home_made=self.faults.home_made,
            native_bases=("builtins.object",),
            inputs={name: Facts(NATIVE_TYPE, dtype, shape, device) for name, shape in self.case.shapes().items()},
            results=self.results(self.case, 0, request.directory),
        )

    def scenario(self, request: protocol.RunScenario) -> protocol.ScenarioRun:
        (question,) = [question for question in SCENARIOS if question.name == request.scenario]
        variation = self.faults.answers.get(question.name, question.variation or 0)
        # The parent derives the right results from those of another kind.
        kind = telling_rows.NONFINITE if question is NONFINITE else question.kind
        if question is ANOTHER_KERNEL:
            self.variants(request.directory)
        return protocol.ScenarioRun(
            self.results(self.case, variation, request.directory, kind),
            call_seconds=self.faults.call_seconds,
            convert_seconds=self.faults.convert_seconds if question.name == "again" else 0.0,
            kernel_seconds=1e-6,
            peak_bytes=self.faults.peak_bytes if request.few_calls and question is not AGAIN else None,
        )

    def variants(self, directory: Path) -> None:
        """Leave the results after each change."""
        changes = range(1, telling.weight_changes(self.case) + 1)
        variants = [Variant(change, telling.KIND, "another kernel") for change in changes]
        variants += [Variant(0, telling.CHANGED, "in place"), Variant(1, telling.EXCHANGED, "in place")]
        forward = self.case.mode == "forward"
        for variant in [*variants, Variant(0, telling.EXCHANGED, "in place") if forward else TWO_ON_ONE_WEIGHT]:
            folder = directory / variant.folder
            folder.mkdir()
            self.results(self.case, variant.change, folder, variant.kind)

    def integrity(self, request: protocol.CheckIntegrity) -> protocol.Integrity:
        self.results(self.case, self.faults.first_becomes, request.directory)
        return protocol.Integrity(self.faults.changed, self.faults.replaced)

    def locate(self, request: protocol.Locate) -> protocol.Located:
        return protocol.Located({"output": Location("fake.py", 1, "kernel")})

    def warm_up(self, request: protocol.WarmUp) -> protocol.WarmedUp:
        stretches = self.faults.stretches or (Stretch(1, self.faults.call_seconds),)
        return protocol.WarmedUp(stretches, Busy(1, self.faults.runnable))

    def move_arrays(self, request: protocol.MoveArrays) -> protocol.Done:
        return protocol.Done()

    def steady_gpu_clock(self, request: protocol.SteadyGpuClock) -> protocol.Done:
        self.clock.now += 0.5
        return protocol.Done()

    def draw_values(self, request: protocol.DrawValues) -> protocol.Done:
        self._values = SampleValues(self.case, request.secret, request.calls, request.first, roofline.INPUT_SETS)
        return protocol.Done()

    def sample(self, request: protocol.TakeSample) -> protocol.SampleTaken:
        self._passes = request.passes
        call_seconds = self.faults.call_seconds
        if request.settle_seconds:
            self.clock.now += request.settle_seconds + call_seconds  # settling ends with a whole call
        seconds = request.calls * request.passes * call_seconds
        forward_seconds = request.calls * call_seconds / 2 if request.forward else None
        seconds *= self._noise()
        self.clock.now += seconds + (forward_seconds or 0.0)
        held = (request.calls - 1, -1)
        return protocol.SampleTaken(seconds, forward_seconds, 0, held, changing=True)

    def read_gpu(self, request: protocol.ReadGpu) -> protocol.GpuReading:
        if self.faults.device != "cpu":
            self.clock.now += self.faults.gpu_seconds
        return protocol.GpuReading(None if self.faults.gpu_states is None else next(self.faults.gpu_states))

    def kept_results(self, request: protocol.KeptResults) -> protocol.Kept:
        wrong = self.faults.kept_forward if request.forward else self.faults.kept
        case = self.case.with_mode("forward") if request.forward else self.case
        values, call = self._values, request.calls[0] % self._values.calls
        number = (values.first + call) % values.input_sets
        given = make_inputs(self.case, number if wrong is None else wrong)
        last = (self._passes - (not request.forward)) * values.calls + call
        names = [name for name in given if name not in ("weight", "bias")]
        given |= values.inputs(number, last, {name: given[name] for name in names})
        inputs = {name: array.astype(np.float64) for name, array in given.items()}
        return protocol.Kept(self.leave(case, oracle.results(case, inputs), request.directory), call)

    def memory(self, request: protocol.MeasureMemory) -> protocol.MemoryPeak:
        return protocol.MemoryPeak(self.faults.peak_bytes)

    def device_times(self, request: protocol.MeasureDeviceTimes) -> protocol.DeviceTimes:
        shares = {"queued_seconds": 0.9, "device_seconds": 0.25, "graph_seconds": 0.3} | dict(self.faults.device_shares)

        def sampled(column: str, calls: int) -> tuple[float, ...]:
            share = shares[column]
            return () if share is None else (share * self.faults.call_seconds * calls,) * request.repeats

        return protocol.DeviceTimes(
            queued_seconds=sampled("queued_seconds", request.calls),
            device_seconds=sampled("device_seconds", 1),
            graph_seconds=sampled("graph_seconds", request.calls),
            absent=dict(self.faults.absent),
            broken=bool(self.faults.absent),
        )

    def fresh(self, request: protocol.CheckFresh) -> protocol.FreshChecked:
        by_attempt = self.faults.fresh_seconds or (self.faults.call_seconds,)
        fresh = by_attempt[min(self._attempts, len(by_attempt) - 1)]
        self._attempts += 1
        pairs = len(request.variations) - 1
        variation = request.variations[-1] + self.faults.wrong_later
        return protocol.FreshChecked(
            fresh_seconds=(fresh,) * pairs,
            seen_seconds=(self.faults.call_seconds,) * pairs,
            affinity=Affinity((0,), self.faults.affinity_later),
            results=self.results(self.case, variation, request.directory, request.kind),
        )

    def release(self, request: protocol.Release) -> protocol.Released:
        return protocol.Released(self.faults.trims)

    def expect(self, request: protocol.Expect) -> protocol.ReferenceReply:
        """Leave the right results, as the reference does."""
        case, kind, quadratics = request.case, request.kind, {}
        for part in parts(case, make_inputs(case, request.variation, kind), request.drawn):
            inputs = {name: array.astype(np.float64) for name, array in part.inputs.items()}
            forms = {"": np.positive} | ({".scale": np.abs} if kind in ROUNDED_KINDS else {})
            for suffix, form in forms.items():
                made = oracle.results(part.case, {name: form(array) for name, array in inputs.items()})
                for name in part.names:
                    np.save(request.directory / f"{name}{suffix}.npy", made[name])
            if kind in PRECISE_KINDS:
                squares = oracle.results(part.case, {name: np.square(array) for name, array in inputs.items()})
                quadratics |= {name: math.sqrt(squares[name].mean()) for name in part.names if squares[name].size}
        return protocol.ReferenceReply(quadratics)

    def results(self, case: Case, variation: int, directory: Path, kind: str = "normal") -> Results:
        """Leave the results for a variation in a folder, and describe them."""
        noise = self.faults.noise if kind in PRECISE_KINDS else 0.0
        spoilt = {
            name: value + noise * right(case, variation, kind, np.abs)[name] if noise else value
            for name, value in right(case, variation, kind).items()
        }
        return self.leave(case, spoilt, directory)

    def leave(self, case: Case, values: dict[str, Any], directory: Path) -> Results:
        """Leave values in a folder as float32, and describe them."""
        for name, value in values.items():
            with np.errstate(over="ignore"):
                np.save(directory / f"{name}.npy", value.astype(np.float32))
        facts = {
            name: Facts(NATIVE_TYPE, "float32", shape, self.faults.device)
            for name, shape in case.result_shapes().items()
        }
        return Results(NATIVE_TYPE, facts, Storages({}, {}, {}))

    def _noise(self) -> float:
        """Return a factor on the times of a sample: that of the process times that of the block."""
        self.blocks += 1
        of_process, of_block = self.faults.spread
        process = np.random.default_rng([self.number, 0]).normal(0, of_process)
        return float(np.exp(process + np.random.default_rng([self.number, self.blocks]).normal(0, of_block)))


@functools.cache
def right(case: Case, variation: int, kind: str = "normal", form: Any = np.positive) -> dict[str, Any]:
    """Return the right results in float64; of the inputs' absolute values or squares with another ``form``."""
    inputs = {name: form(array.astype(np.float64)) for name, array in make_inputs(case, variation, kind).items()}
    return oracle.results(case, inputs)

"""A backend's worker: load, ask, prepare, release; it composes the workers for edge cases, scenarios and timing.

No expected value is ever in this process. Results leave as files, observations as frozen replies; the parent decides.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from harness.backend import Support, backend_class, is_requirement
from harness.machine import memory, threads
from harness.process.protocol import (
    AskSupport,
    CheckIntegrity,
    Handlers,
    Integrity,
    Load,
    Loaded,
    Locate,
    Located,
    Prepare,
    Prepared,
    Release,
    Released,
    Supported,
)
from harness.timing.clock import Clock
from harness.worker import integrity
from harness.worker.arrays import DeviceArrays
from harness.worker.calls import call, called
from harness.worker.edge_case_worker import EdgeCaseWorker
from harness.worker.failures import InterfaceError, kind_of
from harness.worker.gpu_timing_worker import GpuTimingWorker
from harness.worker.prepared_case import Held, PreparedCase, make_kernel
from harness.worker.results import hand_over, save
from harness.worker.scenarios import ScenarioWorker
from harness.worker.source import definition_of, location_of, makers
from harness.worker.timing_worker import TimingWorker

if TYPE_CHECKING:
    from harness.backend import Backend
    from harness.worker.edge_case_worker import Runnable


class BackendWorker:
    """One backend on one device, with at most one prepared case.

    Args:
        clock: Clock that times calls; tests bring their own.

    Attributes:
        handlers: Functions that carry out requests, by the class of the request.
        held: The backend and the prepared case.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self.held = Held()
        self._clock = clock or Clock()
        # All modules of this worker are imported by now, and no backend is.
        self._watch = integrity.Watch()
        self.edge_cases = EdgeCaseWorker(self.held)
        self._timing = TimingWorker(self.held, self._clock, self._watch)
        self._gpu_timing = GpuTimingWorker(self.held, self._clock)
        self.handlers: Handlers = {
            Load: self.load,
            AskSupport: self.support,
            Prepare: self.prepare,
            CheckIntegrity: self.check_integrity,
            Locate: self.locate,
            Release: self.release,
            **self.edge_cases.handlers,
            **ScenarioWorker(self.held).handlers,
            **self._timing.handlers,
            **self._gpu_timing.handlers,
        }

    def hold(self, backend: Backend) -> None:
        """Use a backend that the caller has loaded."""
        self.held.hold(backend)

    def load(self, request: Load) -> Loaded:
        """Import the backend and ask whether it is available.

        A missing package of others makes it unavailable. Any other exception means that its entry point leads nowhere.
        """
        name, device = request.name, request.device
        start = time.perf_counter()
        try:
            loaded = backend_class(name, request.target)
            support = _support(loaded.available(device), loaded.available) if device in loaded.devices else None
        except ModuleNotFoundError as error:
            if not is_requirement(error, request.target):
                raise
            return Loaded(available=False, reason=f"{type(error).__name__} at import: {error}")
        import_seconds = time.perf_counter() - start
        if support is None:
            return Loaded(available=False, reason=f"{name} runs on {', '.join(loaded.devices)}", offered=False)
        if not support.ok:
            return Loaded(available=False, reason=support.reason)
        backend = called(loaded, loaded.__name__, {"device": device})
        self.held.hold(backend)
        if device != "cpu":
            self._gpu_timing.watch_gpu()
        # Objects that a framework has built at import stay. Frozen, they are not searched at every garbage collection.
        gc.freeze()
        return Loaded(
            available=True,
            version=backend.version(),
            untimeable=loaded.timeable(device).reason,
            import_seconds=import_seconds,
            tick_seconds=self._clock.tick_seconds(),
            overhead_seconds=self._clock.overhead_seconds(),
            threads=threads.read_back(),
        )

    def support(self, request: AskSupport) -> Supported:
        """Ask the backend whether it can do a case, and how much memory that takes."""
        backend = self.held.backend
        support = _support(backend.supports(request.case), backend.supports)
        if not support.ok:
            return Supported(supported=False, reason=support.reason)
        return Supported(supported=True, workspace_bytes=int(backend.workspace_bytes(request.case)))

    def prepare(self, request: Prepare) -> Prepared:
        """Prepare the case, make its inputs, call once; leave the first results in the folder."""
        self.held.release()
        backend, case = self.held.backend, request.case
        arrays = DeviceArrays(backend, case)
        parameters, kernel, prepare_seconds = make_kernel(arrays)
        sets = [arrays.make(arrays.inputs, variation) for variation in range(request.input_sets)]

        wait = arrays.wait
        start = time.perf_counter()
        results = call(case, kernel, parameters, sets[0])
        wait(tuple(results.values()))
        first_call_seconds = time.perf_counter() - start

        self.held.put(PreparedCase(arrays, kernel, parameters, sets, first=results))
        inputs = sets[0] | parameters
        return Prepared(
            prepare_seconds=prepare_seconds,
            first_call_seconds=first_call_seconds,
            tuning=str(backend.tuning(case)),
            threads=threads.read_back(),
            affinity=self._watch.affinity(),
            home_made=integrity.home_made(inputs["input1"], backend),
            native_bases=integrity.base_names(inputs["input1"]),
            inputs=integrity.facts(inputs),
            results=hand_over(arrays, results, inputs, request.directory),
        )

    def check_integrity(self, request: CheckIntegrity) -> Integrity:
        """Look for changed inputs and replaced functions; leave the first results, as they are now, in the folder."""
        prepared = self.held.prepared
        changed = integrity.changed_inputs(prepared)
        save(prepared.arrays, prepared.first, request.directory)
        return Integrity(changed, self._watch.replaced())

    def locate(self, _: Locate) -> Located:
        """Say where the results of the prepared kernel or step are made."""
        backend = self.held.backend
        case, kernel, parameters, inputs = self.edge_cases.latest() or self._latest()
        functions = {"output": kernel} if case.mode == "forward" else {"output": kernel.forward}
        places = makers(lambda: call(case, kernel, parameters, inputs), backend)
        for name in case.result_shapes():
            if name not in places and (location := location_of(functions.get(name) or kernel.backward, backend)):
                places[name] = location
        return Located(places)

    def _latest(self) -> Runnable:
        prepared = self.held.prepared
        return prepared.case, prepared.kernel, prepared.parameters, prepared.sets[0]

    def release(self, _: Release) -> Released:
        """Release the case and its memory."""
        self.held.release()
        self._timing.release()
        memory.trim()  # while this worker is stopped, other workers need what it has freed
        return Released(trimmed=self.held.device in (None, "cpu") or "jax" not in sys.modules)


def _support(answer: object, method: Callable[..., object]) -> Support:
    """Return an answer of the backend that has to be a ``Support``.

    Raises:
        InterfaceError: It is something else.
    """
    if not isinstance(answer, Support):
        expected = "harness.Support(True) or harness.Support(False, reason)"
        raise InterfaceError(
            f"{method.__name__} returned {kind_of(answer)}, expected {expected}", definition_of(method)
        )
    return answer

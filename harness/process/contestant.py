"""What a backend's worker can be asked: load, support, examine; prepare, exercise, warm up, sample, check, release.

Nothing of the expected values is ever here: results leave as files, what was observed leaves as numbers, and the
parent decides.
"""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import gc
import itertools
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from harness.case import Case
from harness.correctness.behaviour import same_bits
from harness.correctness.gate import judge_facts
from harness.correctness.inputs import make_inputs
from harness.machine import threads
from harness.process import observation
from harness.registry import Entry
from harness.timing.clock import Call, Clock

if TYPE_CHECKING:
    from harness.backend import Backend, NativeArray

    Results = dict[str, NativeArray]

INPUTS: Final[tuple[str, ...]] = ("input1", "input2")
PARAMETERS: Final[tuple[str, ...]] = ("weight", "bias")
#: mallopt(3): fill what malloc returns with the complement of this byte, and what is freed with the byte itself.
_M_PERTURB: Final = -6
#: 0x7f7f7f7f is 3.4e38 in float32 and NaN in float16: nobody mistakes it for an answer.
POISON: Final = 0x80


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
        kept: Results of one of the calls of the last sample.
        kept_forward: The same of its forward alone.
    """

    case: Case
    kernel: Any
    parameters: Results
    sets: list[Results]
    first: Results
    calls: list[Call] = dataclasses.field(default_factory=list)
    forwards: list[Call] = dataclasses.field(default_factory=list)
    kept: Any = None
    kept_forward: Any = None

    def __post_init__(self) -> None:
        self.calls = [_timed_call(self.case, self.kernel, self.parameters, inputs) for inputs in self.sets]
        if self.case.mode != "forward":
            self.forwards = [_timed_forward(self.kernel, self.parameters, inputs) for inputs in self.sets]


class Contestant:
    """One backend on one device, at most one case at a time."""

    def __init__(self) -> None:
        self.answers: dict[str, Callable[..., dict[str, Any]]] = {
            "load": self.load,
            "support": self.support,
            "examine": self.examine,
            "gradcheck": self.gradcheck,
            "prepare": self.prepare,
            "exercise": self.exercise,
            "changed": self.changed,
            "warm_up": self.warm_up,
            "sample": self.sample,
            "kept": self.kept,
            "check": self.check,
            "release": self.release,
        }
        self._exercises: dict[str, Callable[[_Prepared], Results]] = {
            "again": self._again,
            "new values in the same buffers": self._new_values,
            "the same values in new buffers": self._new_buffers,
            "another kernel": self._another_kernel,
        }
        self._clock = Clock()
        self._watch = observation.Watch()
        self._backend: Backend | None = None
        self._prepared: _Prepared | None = None
        #: The case that was examined last, with its kernels, or what preventing each of them said.
        self._examined: tuple[Case, dict[str, Any]] | None = None

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

    def load(self, name: str, target: str, device: str) -> dict[str, Any]:
        """Import the backend and ask whether it can be had on the device; a failed import is a no with its reason."""
        start = time.perf_counter()
        try:
            loaded = Entry(name, target, (), "").load()
            support = loaded.available(device) if device in loaded.devices else None
        except Exception as error:
            return {"available": False, "reason": f"{type(error).__name__} at import: {error}", "offered": True}
        import_seconds = time.perf_counter() - start
        if support is None:
            return {"available": False, "reason": f"{name} runs on {', '.join(loaded.devices)}", "offered": False}
        if not support.ok:
            return {"available": False, "reason": support.reason, "offered": True}
        self._backend = loaded(device)
        return {
            "available": True,
            "import_seconds": import_seconds,
            "version": self._backend.version(),
            "tick_seconds": self._clock.tick_seconds(),
            "overhead_seconds": self._clock.overhead_seconds(),
            "threads": threads.read_back(),
        }

    def support(self, case: dict[str, Any]) -> dict[str, Any]:
        """Ask the backend whether it can do the case, and what memory that takes."""
        asked = Case(**case)
        support = self.backend.supports(asked)
        if not support.ok:
            return {"supported": False, "reason": support.reason}
        return {"supported": True, "workspace_bytes": int(self.backend.workspace_bytes(asked))}

    def examine(self, trials: list[dict[str, Any]], directory: str, only: str | None = None) -> dict[str, Any]:
        """Answer the structure probe's trials, each into a folder of its name; fresh memory is poisoned meanwhile.

        An exception is an answer, too: the other trials go on.

        Args:
            trials: Those of one case stand together; all their kernels are prepared before one is called.
            directory: Where the folders are made.
            only: The one trial to answer now; kernels are kept for the next request about the same case.
        """
        answers: dict[str, dict[str, Any]] = {}
        operators: list[str] | str = []
        with _Poisoned():
            for case, group in itertools.groupby(trials, key=lambda trial: Case(**trial["case"])):
                members = list(group)
                begun = self._examined is None or self._examined[0] != case
                if self._examined is None or begun:
                    kinds = {trial["kernel"]: trial["kind"] for trial in reversed(members)}
                    self._examined = case, {key: _attempt(self._kernel, case, kind) for key, kind in kinds.items()}
                kernels = self._examined[1]
                for trial in members:
                    if only in (None, trial["name"]):
                        kernel = kernels[trial["kernel"]]
                        failed = isinstance(kernel, str)
                        answer = kernel if failed else _attempt(self._try, case, trial, kernel, directory)
                        answers[trial["name"]] = {"error": answer} if isinstance(answer, str) else answer
                if begun and members[0]["name"] in answers:
                    operators = operators or _attempt(self._operators, case, members[0], kernels[members[0]["kernel"]])
        return {"answers": answers, "operators": [] if isinstance(operators, str) else operators}

    def gradcheck(self, case: dict[str, Any]) -> dict[str, Any]:
        """Hold the step's backward against finite differences of its forward, if its arrays are PyTorch's."""
        asked = Case(**case)
        inputs = self._on_device(asked, 0)
        step = self.backend.prepare_forward_backward(asked)
        reason = observation.gradcheck(step, [inputs[name] for name in (*INPUTS, *PARAMETERS) if name in inputs])
        return {"applies": reason is not None, "reason": reason or ""}

    def prepare(self, case: dict[str, Any], input_sets: int, directory: str) -> dict[str, Any]:
        """Prepare, make the inputs, call once; leave the first call's results in ``directory``."""
        self._prepared = None
        asked = Case(**case)
        parameters = self._parameters(asked, "normal")
        start = time.perf_counter()
        kernel = self._prepare(asked, parameters)
        prepare_seconds = time.perf_counter() - start
        # Only now: while it prepares, there shall be no inputs that it could find and work ahead on.
        sets = [self._inputs(asked, variation) for variation in range(input_sets)]

        start = time.perf_counter()
        results = call(asked, kernel, parameters, sets[0])
        self.backend.synchronize(tuple(results.values()))
        first_call_seconds = time.perf_counter() - start

        self._prepared = _Prepared(asked, kernel, parameters, sets, results)
        return {
            "prepare_seconds": prepare_seconds,
            "first_call_seconds": first_call_seconds,
            "threads": threads.read_back(),
            "backend_module": type(self.backend).__module__,
            "native_bases": observation.base_names(sets[0]["input1"]),
            **self._hand_over(asked, results, sets[0] | parameters, Path(directory)),
        }

    def exercise(self, what: str, directory: str) -> dict[str, Any]:
        """Call once more in a telling way; leave the results in ``directory``."""
        prepared = self.prepared
        operators: list[str] = []
        if what == "again" and self._borrows_torch(prepared):
            operators = observation.operators(lambda: self._again(prepared))
        results = self._exercises[what](prepared)
        self.backend.synchronize(tuple(results.values()))
        inputs = prepared.sets[0] | prepared.parameters
        said = self._hand_over(prepared.case, results, inputs, Path(directory), prepared.first)
        return said | {"operators": operators}

    def changed(self, directory: str) -> dict[str, Any]:
        """Say which inputs are no longer what they were made as; leave the first results, as they are now."""
        prepared = self.prepared
        found = []
        for variation, inputs in enumerate(prepared.sets):
            made = make_inputs(prepared.case, variation)
            given = inputs | (prepared.parameters if variation == 0 else {})
            found += [
                name if variation == 0 else f"{name} of input set {variation}"
                for name, array in given.items()
                if not same_bits(observation.to_host(array, self.backend), made[name])
            ]
        self._save(prepared.first, Path(directory))
        return {"changed": found, "replaced": self._watch.replaced()}

    def warm_up(self, seconds: float, at_least: int) -> dict[str, Any]:
        """Run the kernel for a while; the times come back to be kept apart."""
        self.prepared.first = {}
        return {"stretches": self._clock.warm_up(self.prepared.calls, self.backend.synchronize, seconds, at_least)}

    def sample(
        self, calls: int, first: int, settle_seconds: float, forward: bool, keep: int | None = None
    ) -> dict[str, Any]:
        """Take one sample, and one of the forward alone where that is asked for; keep the results of call ``keep``."""
        prepared, synchronize = self.prepared, self.backend.synchronize
        prepared.kept = prepared.kept_forward = None
        self._clock.settle(prepared.calls, synchronize, settle_seconds)
        seconds, prepared.kept = self._clock.sample(prepared.calls, synchronize, calls, first, keep)
        alone = None
        if forward:
            alone, prepared.kept_forward = self._clock.sample(prepared.forwards, synchronize, calls, first, keep)
        return {"seconds": seconds, "forward_seconds": alone}

    def kept(self, forward: bool, directory: str) -> dict[str, Any]:
        """Leave the results that the last sample kept in ``directory``, or those of its forward alone."""
        prepared, case = self.prepared, self.prepared.case
        if forward:
            case, results = case.with_mode("forward"), {"output": prepared.kept_forward}
        else:
            results = _named(prepared.kept) if case.mode == "forward_backward" else {"output": prepared.kept}
        return self._hand_over(case, results, prepared.sets[0] | prepared.parameters, Path(directory))

    def check(self, variations: list[int], settle_seconds: float, directory: str) -> dict[str, Any]:
        """Call on inputs that no call has seen: all but the last timed one by one, the last in poisoned memory.

        The last one's results are left in ``directory``.
        """
        prepared, synchronize = self.prepared, self.backend.synchronize
        seconds = []
        for variation in variations[:-1]:
            inputs = self._inputs(prepared.case, variation)
            synchronize(tuple(inputs.values()))
            self._clock.settle(prepared.calls, synchronize, settle_seconds)
            fresh = _timed_call(prepared.case, prepared.kernel, prepared.parameters, inputs)
            seconds.append(self._clock.sample([fresh], synchronize, 1)[0])
        inputs = self._inputs(prepared.case, variations[-1])
        with _Poisoned():
            results = call(prepared.case, prepared.kernel, prepared.parameters, inputs)
            synchronize(tuple(results.values()))
        inputs |= prepared.parameters
        return {"seconds": seconds, **self._hand_over(prepared.case, results, inputs, Path(directory))}

    def release(self) -> dict[str, Any]:
        """Let the case go, and its memory."""
        self._prepared = None
        gc.collect()
        if sys.platform == "linux":
            # glibc keeps freed arrays for later; while this worker is stopped, others need them.
            ctypes.CDLL(None).malloc_trim(0)
        return {}

    def _borrows_torch(self, prepared: _Prepared) -> bool:
        """Whether PyTorch is in this process though the arrays are another framework's."""
        return "torch" in sys.modules and not observation.type_name(prepared.sets[0]["input1"]).startswith("torch.")

    def _again(self, prepared: _Prepared) -> Results:
        """The same inputs once more."""
        return call(prepared.case, prepared.kernel, prepared.parameters, prepared.sets[0])

    def _new_values(self, prepared: _Prepared) -> Results:
        """The values of input set 1 in the memory of set 0, which then gets its own values back."""
        inputs, other = prepared.sets[0], prepared.sets[1]
        refilled = {name: observation.refill(array, other[name]) for name, array in inputs.items()}
        results = call(prepared.case, prepared.kernel, prepared.parameters, refilled)
        self.backend.synchronize(tuple(results.values()))
        for name, array in self._inputs(prepared.case, 0).items():
            observation.refill(inputs[name], array)
        return results

    def _new_buffers(self, prepared: _Prepared) -> Results:
        """The values of input set 0 in new memory."""
        return call(prepared.case, prepared.kernel, prepared.parameters, self._inputs(prepared.case, 0))

    def _another_kernel(self, prepared: _Prepared) -> Results:
        """A second kernel, with a weight of integers, in turn with the first; its results are for the exact probe.

        For steps the two overlap: both forwards, then both backwards, as with two layers of one model.
        """
        case = prepared.case
        parameters = self._parameters(case, "integers")
        kernel = self._prepare(case, parameters)
        inputs = self._inputs(case, 0, "integers")
        if case.mode == "forward":
            results = call(case, kernel, parameters, inputs)
            self.backend.synchronize(tuple(results.values()))
            return results
        output = _timed_forward(kernel, parameters, inputs)()
        call(case, prepared.kernel, prepared.parameters, prepared.sets[0])
        return _named((output, *kernel.backward(inputs["grad_output"])))

    def _prepare(self, case: Case, parameters: Results) -> Any:
        if case.mode == "forward":
            return self.backend.prepare_forward(case, parameters["weight"], parameters.get("bias"))
        return self.backend.prepare_forward_backward(case)

    def _kernel(self, case: Case, kind: str) -> tuple[Any, Results]:
        """A kernel for a trial, with the parameters that go with its kind of inputs."""
        parameters = self._parameters(case, kind)
        return self._prepare(case, parameters), parameters

    def _try(self, case: Case, trial: dict[str, Any], kernel: tuple[Any, Results], directory: str) -> dict[str, Any]:
        """Answer one trial.

        A step takes its weights at every call: where a trial has others than the step was first called with, they come
        in the same memory, as an optimizer leaves them.
        """
        inputs = self._inputs(case, trial["variation"], trial["kind"])
        if case.mode == "forward_backward":
            wanted = self._parameters(case, trial["kind"])
            kernel = kernel[0], {name: observation.refill(array, wanted[name]) for name, array in kernel[1].items()}
        with np.errstate(all="ignore"):  # NaN and overflow are asked for here
            results = call(case, kernel[0], kernel[1], inputs)
            self.backend.synchronize(tuple(results.values()))
        folder = Path(directory) / trial["name"]
        folder.mkdir()
        return self._hand_over(case, results, inputs | kernel[1], folder)

    def _operators(self, case: Case, trial: dict[str, Any], kernel: Any) -> list[str]:
        inputs = self._inputs(case, trial["variation"], trial["kind"])
        return observation.operators(lambda: call(case, kernel[0], kernel[1], inputs))

    def _on_device(self, case: Case, variation: int) -> Results:
        return {name: self._to_device(array, case) for name, array in make_inputs(case, variation).items()}

    def _inputs(self, case: Case, variation: int, kind: str = "normal") -> Results:
        """The inputs on the device, without the parameters."""
        made = make_inputs(case, variation, kind)
        return {name: self._to_device(array, case) for name, array in made.items() if name not in PARAMETERS}

    def _parameters(self, case: Case, kind: str) -> Results:
        """Weight and bias on the device."""
        made = make_inputs(case, 0, kind)
        return {name: self._to_device(made[name], case) for name in PARAMETERS if name in made}

    def _to_device(self, array: Any, case: Case) -> NativeArray:
        return self.backend.to_device(array, case.dtype)

    def _hand_over(
        self, case: Case, results: Results, inputs: Results, directory: Path, earlier: Results | None = None
    ) -> dict[str, Any]:
        """Describe the native results; convert and write them only if they are what they should be."""
        native_type = observation.type_name(inputs["input1"])
        facts = {name: observation.describe(result) for name, result in results.items()}
        if judge_facts(case, self.backend.device, native_type, facts, "").ok:
            self._save(results, directory)
        return {
            "native_type": native_type,
            "facts": observation.facts_as_json(results),
            "storages": {
                "results": observation.storages_as_json(results),
                "inputs": observation.storages_as_json(inputs),
                "earlier": observation.storages_as_json(earlier or {}),
            },
        }

    def _save(self, results: Results, directory: Path) -> None:
        for name, result in results.items():
            np.save(directory / f"{name}.npy", observation.to_host(result, self.backend), allow_pickle=False)


class _Poisoned:
    """While entered, fresh memory holds a pattern instead of zeros or what was there before; with glibc only."""

    def __enter__(self) -> None:
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


def _attempt(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call; an exception becomes its text."""
    try:
        return function(*arguments)
    except Exception as error:
        return f"raised {type(error).__name__}: {error}"


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

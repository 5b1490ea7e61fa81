"""What a backend's worker can be asked: load, support, prepare, warm up, sample, check, release.

Nothing of the expected values is ever here: results leave as files, and the parent decides.
"""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import gc
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.case import Case
from harness.correctness.gate import Facts, judge_facts
from harness.correctness.inputs import make_inputs
from harness.machine import threads
from harness.registry import Entry
from harness.timing.clock import Call, Clock

if TYPE_CHECKING:
    from harness.backend import Backend, NativeArray

    Results = dict[str, NativeArray]


@dataclasses.dataclass
class _Prepared:
    """A case that is ready to be called.

    Attributes:
        case: Its sizes, dtype and mode.
        calls: One for each input set; the kernel, or the whole step.
        forwards: The step's forward alone, one for each input set; empty in mode ``forward``.
        kernel: What the backend prepared: a kernel, or a step.
        parameters: Weight and bias on the device.
    """

    case: Case
    calls: list[Call]
    forwards: list[Call]
    kernel: Any
    parameters: Results


class Contestant:
    """One backend on one device, at most one case at a time."""

    def __init__(self) -> None:
        self.answers = {
            "load": self.load,
            "support": self.support,
            "prepare": self.prepare,
            "warm_up": self.warm_up,
            "sample": self.sample,
            "check": self.check,
            "release": self.release,
        }
        self._clock = Clock()
        self._backend: Backend | None = None
        self._prepared: _Prepared | None = None

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

    def prepare(self, case: dict[str, Any], input_sets: int, directory: str) -> dict[str, Any]:
        """Make the inputs, prepare, call once; leave the first call's results in ``directory``."""
        self._prepared = None
        asked = Case(**case)
        sets = [self._on_device(asked, variation) for variation in range(input_sets)]
        parameters: Results = {name: sets[0][name] for name in ("weight", "bias") if name in sets[0]}
        start = time.perf_counter()
        if asked.mode == "forward":
            kernel: Any = self.backend.prepare_forward(asked, parameters["weight"], parameters.get("bias"))
        else:
            kernel = self.backend.prepare_forward_backward(asked)
        prepare_seconds = time.perf_counter() - start

        start = time.perf_counter()
        results = call(asked, kernel, parameters, sets[0])
        self.backend.synchronize(tuple(results.values()))
        first_call_seconds = time.perf_counter() - start

        self._prepared = _Prepared(
            asked,
            [_timed_call(asked, kernel, parameters, inputs) for inputs in sets],
            [_timed_forward(kernel, parameters, inputs) for inputs in sets] if asked.mode != "forward" else [],
            kernel,
            parameters,
        )
        return {
            "prepare_seconds": prepare_seconds,
            "first_call_seconds": first_call_seconds,
            "facts": self._hand_over(asked, results, Path(directory)),
            "threads": threads.read_back(),
        }

    def warm_up(self, seconds: float, at_least: int) -> dict[str, Any]:
        """Run the kernel for a while; the times come back to be kept apart."""
        return {"stretches": self._clock.warm_up(self.prepared.calls, self.backend.synchronize, seconds, at_least)}

    def sample(self, calls: int, first: int, settle_seconds: float, forward: bool) -> dict[str, Any]:
        """Take one sample, and one of the forward alone where that is asked for."""
        prepared, synchronize = self.prepared, self.backend.synchronize
        self._clock.settle(prepared.calls, synchronize, settle_seconds)
        seconds = self._clock.sample(prepared.calls, synchronize, calls, first)
        alone = self._clock.sample(prepared.forwards, synchronize, calls, first) if forward else None
        return {"seconds": seconds, "forward_seconds": alone}

    def check(self, variation: int, directory: str) -> dict[str, Any]:
        """Call the prepared kernel on inputs it has not seen; leave the results in ``directory``."""
        prepared = self.prepared
        inputs = self._on_device(prepared.case, variation)
        results = call(prepared.case, prepared.kernel, prepared.parameters, inputs)
        self.backend.synchronize(tuple(results.values()))
        return {"facts": self._hand_over(prepared.case, results, Path(directory))}

    def release(self) -> dict[str, Any]:
        """Let the case go, and its memory."""
        self._prepared = None
        gc.collect()
        if sys.platform == "linux":
            # glibc keeps freed arrays for later; while this worker is stopped, others need them.
            ctypes.CDLL(None).malloc_trim(0)
        return {}

    def _on_device(self, case: Case, variation: int) -> Results:
        return {name: self.backend.to_device(array, case.dtype) for name, array in make_inputs(case, variation).items()}

    def _hand_over(self, case: Case, results: Results, directory: Path) -> dict[str, Any]:
        """Describe the native results; convert and write them only if they are what they should be."""
        facts = {name: describe(result) for name, result in results.items()}
        if judge_facts(case, self.backend.device, facts).ok:
            for name, result in results.items():
                np.save(directory / f"{name}.npy", self.backend.to_numpy(result), allow_pickle=False)
        return {name: dataclasses.asdict(fact) for name, fact in facts.items()}


def describe(result: NativeArray) -> Facts:
    """Say what a native result is, without converting it."""
    dtype, shape, device = (getattr(result, name, None) for name in ("dtype", "shape", "device"))
    return Facts(
        type=type(result).__name__,
        dtype=None if dtype is None else str(dtype).rpartition(".")[2],  # torch says torch.float32
        shape=None if shape is None else tuple(int(size) for size in shape),
        device=None if device is None and not isinstance(result, np.ndarray) else _device_name(device),
    )


def _device_name(device: object) -> str:
    """``cpu`` or ``cuda``: torch devices have a type, JAX devices a platform, NumPy arrays (before 2.0) nothing."""
    name = getattr(device, "type", None) or getattr(device, "platform", None) or device or "cpu"
    return {"gpu": "cuda"}.get(str(name), str(name))


def call(case: Case, kernel: Any, parameters: Results, inputs: Results) -> Results:
    """Call once; return the results by name, without what is None."""
    if case.mode == "forward":
        return {"output": kernel(inputs["input1"], inputs["input2"])}
    output = kernel.forward(inputs["input1"], inputs["input2"], parameters["weight"], parameters.get("bias"))
    gradients = kernel.backward(inputs["grad_output"])
    names = ("grad_input1", "grad_input2", "grad_weight", "grad_bias")
    if not isinstance(gradients, tuple) or len(gradients) != len(names):
        raise TypeError(f"backward returned {type(gradients).__name__}, expected a tuple of {len(names)} gradients")
    named = {"output": output, **dict(zip(names, gradients, strict=True))}
    return {name: result for name, result in named.items() if result is not None}


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

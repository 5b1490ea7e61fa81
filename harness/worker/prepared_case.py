"""A case that is ready to be called, and the place where a backend's worker holds it."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from harness.worker.calls import called, timed_call, timed_forward
from harness.worker.failures import InterfaceError, kind_of
from harness.worker.source import location_of

if TYPE_CHECKING:
    from harness.backend import Backend
    from harness.case import Case
    from harness.timing.clock import Call, HeldResults
    from harness.worker.arrays import DeviceArrays
    from harness.worker.calls import NativeArrays
    from harness.worker.sample_inputs import SampleInputs


@dataclasses.dataclass
class PreparedCase:
    """A kernel with its arrays in rotation.

    Attributes:
        arrays: Maker of the case's arrays, which also refills them.
        kernel: Kernel of the backend; in ``forward_backward`` its step.
        parameters: Weight and bias on the device.
        sets: Input sets in rotation, by variation from 0.
        first: The first call's results, kept as the backend returned them.
        wait: Function that returns when a result exists.
        calls: One timed call for each input set: the kernel, or the whole step.
        forwards: One timed forward for each input set; empty in mode ``forward``.
        sample: Values of the present or last sample; None without one.
        changed: Names of inputs that the backend has changed in samples.
        kept: Results that the last sample holds.
        kept_forward: Results that the last sample of the forward alone holds.
    """

    arrays: DeviceArrays
    kernel: Any
    parameters: NativeArrays
    sets: list[NativeArrays]
    first: NativeArrays
    wait: Callable[[Any], None] = dataclasses.field(init=False)
    calls: list[Call] = dataclasses.field(init=False)
    forwards: list[Call] = dataclasses.field(default_factory=list)
    sample: SampleInputs | None = None
    changed: list[str] = dataclasses.field(default_factory=list)
    kept: HeldResults | None = None
    kept_forward: HeldResults | None = None

    def __post_init__(self) -> None:
        self.wait = self.arrays.wait
        self.bind()

    def bind(self) -> None:
        """Make the calls of the present input sets."""
        self.calls = [timed_call(self.case, self.kernel, self.parameters, inputs) for inputs in self.sets]
        if self.case.mode != "forward":
            self.forwards = [timed_forward(self.kernel, self.parameters, inputs) for inputs in self.sets]

    @property
    def case(self) -> Case:
        """Return the case."""
        return self.arrays.case

    def restore(self) -> None:
        """Give input sets their own values back after a sample, and note those that the backend has changed in it."""
        if self.sample is not None:
            self.changed += self.sample.restore()

    def drop_kept(self) -> None:
        """Release the results that the last sample holds."""
        self.kept = self.kept_forward = None


class Held:
    """Holder of one backend, and of at most one prepared case at a time."""

    def __init__(self) -> None:
        self._backend: Backend | None = None
        self._prepared: PreparedCase | None = None

    @property
    def backend(self) -> Backend:
        """Return the backend.

        Raises:
            RuntimeError: No backend is loaded.
        """
        if self._backend is None:
            raise RuntimeError("no backend is loaded")
        return self._backend

    @property
    def prepared(self) -> PreparedCase:
        """Return the prepared case.

        Raises:
            RuntimeError: No case is prepared: before ``Prepare``, and after ``Release``.
        """
        if self._prepared is None:
            raise RuntimeError("no case is prepared")
        return self._prepared

    @property
    def device(self) -> str | None:
        """Return the backend's device; None before a backend is loaded."""
        return None if self._backend is None else self._backend.device

    def hold(self, backend: Backend) -> None:
        """Hold a backend."""
        self._backend = backend

    def put(self, prepared: PreparedCase) -> None:
        """Hold a prepared case instead of the one before."""
        self._prepared = prepared

    def release(self) -> None:
        """Release the prepared case, with the values of its inputs on the host."""
        if self._prepared is not None:
            self._prepared.arrays.forget()
        self._prepared = None


def prepare_kernel(backend: Backend, case: Case, parameters: NativeArrays) -> Any:
    """Have the backend prepare a kernel with these parameters, or a step.

    Raises:
        InterfaceError: It does not take these arguments, or returned something that cannot be called.
    """
    if case.mode == "forward":
        given = {"case": case, "weight": parameters["weight"], "bias": parameters.get("bias")}
        kernel = called(backend.prepare_forward, "prepare_forward", given)
        if not callable(kernel):
            text = f"prepare_forward returned {kind_of(kernel)}, expected a function of (input1, input2)"
            raise InterfaceError(text, location_of(backend.prepare_forward, backend))
        return kernel
    step = called(backend.prepare_forward_backward, "prepare_forward_backward", {"case": case})
    if not all(callable(getattr(step, name, None)) for name in ("forward", "backward")):
        text = f"prepare_forward_backward returned {kind_of(step)}, expected an object with forward and backward"
        raise InterfaceError(text, location_of(backend.prepare_forward_backward, backend))
    return step


def make_kernel(arrays: DeviceArrays) -> tuple[NativeArrays, Any, float]:
    """Return weight and bias, a kernel prepared with them, and the seconds of preparing it.

    No inputs exist while a kernel is made, on the host or on the device, so that it cannot find them and work ahead.
    """
    arrays.forget()
    parameters = arrays.make(arrays.parameters)
    start = time.perf_counter()
    kernel = prepare_kernel(arrays.backend, arrays.case, parameters)
    return parameters, kernel, time.perf_counter() - start

"""Edge cases: odd sizes and special values, run in poisoned memory by a worker that is never timed."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np

from harness.process.protocol import (
    CheckGradients,
    EdgeCaseRun,
    Failure,
    GradientsChecked,
    Handlers,
    ListFiles,
    LoadedFiles,
    Results,
    RunEdgeCase,
)
from harness.worker import integrity
from harness.worker.arrays import DeviceArrays
from harness.worker.calls import call
from harness.worker.failures import failure
from harness.worker.poison import Poisoned, poison_device
from harness.worker.prepared_case import prepare_kernel
from harness.worker.results import hand_over
from harness.worker.source import loaded_files

if TYPE_CHECKING:
    from harness.backend import NativeArray, Step
    from harness.case import Case
    from harness.correctness.edge_cases import EdgeCase
    from harness.worker.calls import NativeArrays
    from harness.worker.prepared_case import Held

    #: A kernel or step, and the parameters that it was prepared with.
    Kernel = tuple[Any, NativeArrays]
    #: Case, kernel or step, parameters and inputs.
    Runnable = tuple[Case, Any, NativeArrays, NativeArrays]

T = TypeVar("T")

#: Longest objection of gradcheck that is kept, in characters.
OBJECTION_CHARACTERS: Final = 400


@dataclasses.dataclass(frozen=True)
class _Kernels:
    """Kernels of one case, by the key of their edge cases.

    Attributes:
        arrays: Maker of the case's arrays.
        by_key: Each kernel, or the failure of preparing it.
    """

    arrays: DeviceArrays
    by_key: dict[str, Kernel | Failure]


class EdgeCaseWorker:
    """Runs edge cases; keeps the kernels of one case at a time.

    Attributes:
        raised: What the backend raised, by its traceback as text.
    """

    def __init__(self, held: Held) -> None:
        self._held = held
        self._kernels: _Kernels | None = None
        self.raised: dict[str, Exception] = {}
        self.handlers: Handlers = {
            RunEdgeCase: self.run,
            CheckGradients: self.check_gradients,
            ListFiles: lambda _: LoadedFiles(loaded_files()),
        }

    def run(self, request: RunEdgeCase) -> EdgeCaseRun:
        """Run one edge case into a folder of its name; an exception of the backend is a reply, too."""
        edge_case = next(alike for alike in request.alike if alike.name == request.name)
        kernels, first = self._kernels, False
        if kernels is None or kernels.arrays.case != edge_case.case:
            kernels, first = _Kernels(DeviceArrays(self._held.backend, edge_case.case), {}), True
        arrays = kernels.arrays
        poison_device(arrays)
        with Poisoned(edge_case.case):
            if first:
                kinds = {alike.kernel: alike.kind for alike in reversed(request.alike)}
                kernels.by_key.update({key: self._attempt(_prepare, arrays, kind) for key, kind in kinds.items()})
                self._kernels = kernels
            kernel = kernels.by_key[edge_case.kernel]
            if isinstance(kernel, Failure):
                return EdgeCaseRun(None, failure=kernel)
            results = self._attempt(_run, arrays, edge_case, kernel, request.directory)
            if isinstance(results, Failure):
                return EdgeCaseRun(None, failure=results)
            operators = self._attempt(_operators, arrays, edge_case, kernel) if first else ()
        return EdgeCaseRun(results, operators=() if isinstance(operators, Failure) else operators)

    def latest(self) -> Runnable | None:
        """Return what a call of the latest case takes; None before the first, and where preparing it raised."""
        if self._kernels is None:
            return None
        arrays = self._kernels.arrays
        made = next((each for each in self._kernels.by_key.values() if not isinstance(each, Failure)), None)
        return None if made is None else (arrays.case, *made, arrays.make(arrays.inputs))

    def _attempt(self, function: Callable[..., T], *arguments: Any) -> T | Failure:
        """Call; an exception becomes a failure."""
        try:
            return function(*arguments)
        except Exception as error:
            failed = failure(error, type(self._held.backend).__module__)
            self.raised.setdefault(failed.traceback, error)
            return failed

    def check_gradients(self, request: CheckGradients) -> GradientsChecked:
        """Hold the step's backward against finite differences of its forward, if its arrays are PyTorch's."""
        arrays = DeviceArrays(self._held.backend, request.case)
        by_name = arrays.make(tuple(request.case.shapes()))
        step = arrays.backend.prepare_forward_backward(request.case)
        names = ("input1", "input2", *arrays.parameters)
        return GradientsChecked(gradcheck(step, [by_name[name] for name in names]))


def gradcheck(step: Step, operands: list[NativeArray]) -> str:
    """Return the objection of PyTorch's gradcheck; empty without one, or if the arrays are not PyTorch's.

    Args:
        step: A step that is prepared for float64.
        operands: input1, input2, weight, and bias if there is one.
    """
    torch: Any = sys.modules.get("torch")
    if torch is None or not isinstance(operands[0], torch.Tensor):
        return ""
    absent = [None] * (4 - len(operands))

    def forward(context: Any, *arrays: Any) -> Any:
        context.save_for_backward(*arrays)
        with torch.enable_grad():  # a custom function's body is outside autograd, a step may use it
            return step.forward(*arrays, *absent)

    def backward(context: Any, grad_output: Any) -> Any:
        # gradcheck asks for several gradients after one forward; a step answers once, so it goes forward again.
        arrays = context.saved_tensors
        with torch.enable_grad():
            step.forward(*arrays, *absent)
            return step.backward(grad_output.contiguous())[: len(arrays)]

    bodies = {"forward": staticmethod(forward), "backward": staticmethod(backward)}
    function: Any = type("StepFunction", (torch.autograd.Function,), bodies)
    leaves = tuple(array.clone().requires_grad_() for array in operands)
    try:
        # Sums in another order at each call are no fault: conduct.py flags them.
        torch.autograd.gradcheck(function.apply, leaves, check_undefined_grad=False, nondet_tol=1e-7)
    except sys.modules["torch.autograd.gradcheck"].GradcheckError as error:  # the package names its function the same
        return " ".join(str(error).split())[:OBJECTION_CHARACTERS]
    return ""


def _prepare(arrays: DeviceArrays, kind: str) -> Kernel:
    """Return a kernel for edge cases, with the parameters of their kind of inputs."""
    parameters = arrays.make(arrays.parameters, kind=kind)
    return prepare_kernel(arrays.backend, arrays.case, parameters), parameters


def _run(arrays: DeviceArrays, edge_case: EdgeCase, kernel: Kernel, directory: Path) -> Results:
    """Call once and hand the results over.

    A step takes its weights at every call. Where an edge case has other weights than the first call had, they come in
    the same memory, as an optimizer leaves them.
    """
    case, (prepared, parameters) = edge_case.case, kernel
    inputs = arrays.make(arrays.inputs, kind=edge_case.kind)
    if case.mode == "forward_backward":
        parameters = arrays.refill(parameters, kind=edge_case.kind)
    with np.errstate(all="ignore"):  # edge cases hold NaN and overflow on purpose
        results = call(case, prepared, parameters, inputs)
        arrays.wait(tuple(results.values()))
    folder = directory / edge_case.name
    folder.mkdir()
    given = inputs if case.mode == "forward" else inputs | parameters
    changed = integrity.changed_arrays(arrays, given, kind=edge_case.kind)
    return hand_over(arrays, results, inputs | parameters, folder, changed=changed)


def _operators(arrays: DeviceArrays, edge_case: EdgeCase, kernel: Kernel) -> tuple[str, ...]:
    inputs = arrays.make(arrays.inputs, kind=edge_case.kind)
    return integrity.operators(lambda: call(edge_case.case, kernel[0], kernel[1], inputs))

"""Scenarios: second calls that reveal a fault; an honest backend passes each of them.

A scenario calls with the same inputs again, with new values in the same buffers, or with the same values in new
buffers. Another one has a second kernel prepared, and called in turn with the first.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from harness.process.protocol import Handlers, RunScenario, ScenarioRun
from harness.worker import integrity
from harness.worker.arrays import framework
from harness.worker.calls import call, named, timed_forward
from harness.worker.prepared_case import Held, PreparedCase, prepare_kernel
from harness.worker.results import hand_over, most_different, numbered, well_formed

if TYPE_CHECKING:
    from harness.worker.calls import NativeArrays

#: Most calls of scenario ``again``.
HELD_CALLS: Final = 32
#: Most bytes of results that scenario ``again`` holds; at least two calls are made all the same.
HELD_BYTES: Final = 64 * 2**20
#: Scenario ``again`` makes no further call after this time, in seconds.
HELD_SECONDS: Final = 0.2


class ScenarioWorker:
    """Runs scenarios on the prepared case."""

    def __init__(self, held: Held) -> None:
        self._held = held
        self.handlers: Handlers = {RunScenario: self.run}

    def run(self, request: RunScenario) -> ScenarioRun:
        """Run one scenario; leave the results in the folder."""
        return SCENARIOS[request.scenario](self._held.prepared, request.directory)


def again(prepared: PreparedCase, directory: Path) -> ScenarioRun:
    """Call with the first input set repeatedly; hand over the result that differs most from the first one.

    All results are held: then buffers that take turns overlap, whatever their number.
    """
    arrays = prepared.arrays
    operators: tuple[str, ...] = ()
    inputs = prepared.sets[0] | prepared.parameters
    if _borrows_torch(prepared):
        operators = integrity.operators(lambda: _call(prepared))
    held, call_seconds = _call_repeatedly(prepared)
    convert_seconds = _convert_seconds(prepared, held)
    usual = arrays.host(prepared.first) if well_formed(prepared.case, arrays, prepared.first) else {}
    results = held.pop(most_different(prepared.case, arrays, held, usual))
    return ScenarioRun(
        results=hand_over(arrays, results, inputs, directory, prepared.first | numbered(held)),
        operators=operators,
        call_seconds=call_seconds,
        convert_seconds=convert_seconds,
    )


def new_values(prepared: PreparedCase, directory: Path) -> ScenarioRun:
    """Call with the values of set 1 in the memory of set 0, which then gets its own values back."""
    inputs, parameters = refill(prepared, 1, "normal")
    results = call(prepared.case, prepared.kernel, parameters, inputs)
    prepared.wait(tuple(results.values()))
    restore(prepared)
    return _second_call(prepared, results, directory)


def new_buffers(prepared: PreparedCase, directory: Path) -> ScenarioRun:
    """Call with the values of set 0 in new memory."""
    inputs = prepared.arrays.make(prepared.arrays.inputs)
    results = call(prepared.case, prepared.kernel, prepared.parameters, inputs)
    prepared.wait(tuple(results.values()))
    return _second_call(prepared, results, directory)


def another_kernel(prepared: PreparedCase, directory: Path) -> ScenarioRun:
    """Prepare a second kernel with a weight of integers, and call it in turn with the first.

    Two steps overlap: both forwards, then both backwards, as with two layers of one model.
    """
    case, arrays = prepared.case, prepared.arrays
    inputs = arrays.make(tuple(case.shapes()), kind="integers")
    parameters = {name: inputs.pop(name) for name in arrays.parameters}
    start = time.perf_counter()
    kernel = prepare_kernel(arrays.backend, case, parameters)
    if case.mode == "forward":
        results = call(case, kernel, parameters, inputs)
        prepared.wait(tuple(results.values()))
        kernel_seconds = time.perf_counter() - start
    else:
        output = timed_forward(kernel, parameters, inputs)()
        prepared.wait(output)
        kernel_seconds = time.perf_counter() - start
        call(case, prepared.kernel, prepared.parameters, prepared.sets[0])
        results = named((output, *kernel.backward(inputs["grad_output"])))
    prepared.wait(tuple(results.values()))
    return _second_call(prepared, results, directory, kernel_seconds)


def refill(prepared: PreparedCase, variation: int, kind: str) -> tuple[NativeArrays, NativeArrays]:
    """Write other values into the memory of input set 0, and in a training step into that of the parameters.

    Args:
        prepared: The prepared case.
        variation: Number of the inputs.
        kind: Kind of the inputs.

    Returns:
        Inputs and parameters to call with.
    """
    inputs = prepared.arrays.refill(prepared.sets[0], variation, kind)
    if prepared.case.mode == "forward":
        return inputs, prepared.parameters
    return inputs, prepared.arrays.refill(prepared.parameters, variation, kind)


def restore(prepared: PreparedCase) -> None:
    """Give input set 0 and the parameters their own values back."""
    prepared.arrays.refill(prepared.sets[0] | prepared.parameters)


#: Function that runs each scenario, by its name.
SCENARIOS: Final[Mapping[str, Callable[[PreparedCase, Path], ScenarioRun]]] = {
    "again": again,
    "new values in the same buffers": new_values,
    "the same values in new buffers": new_buffers,
    "another kernel": another_kernel,
}


def _second_call(
    prepared: PreparedCase, results: NativeArrays, directory: Path, kernel_seconds: float | None = None
) -> ScenarioRun:
    inputs = prepared.sets[0] | prepared.parameters
    handed = hand_over(prepared.arrays, results, inputs, directory, prepared.first)
    return ScenarioRun(handed, kernel_seconds=kernel_seconds)


def _borrows_torch(prepared: PreparedCase) -> bool:
    """True if PyTorch is in this process though the arrays are another framework's."""
    return "torch" in sys.modules and not integrity.type_name(prepared.sets[0]["input1"]).startswith("torch.")


def _call(prepared: PreparedCase) -> NativeArrays:
    return call(prepared.case, prepared.kernel, prepared.parameters, prepared.sets[0])


def _call_repeatedly(prepared: PreparedCase) -> tuple[list[NativeArrays], float]:
    """Call with the first input set; return the results of all calls, and the seconds of the fastest one."""
    most = max(2, min(HELD_CALLS, HELD_BYTES // max(prepared.case.result_bytes, 1)))
    held: list[NativeArrays] = []
    seconds = []
    begin = time.perf_counter()
    while not held or (len(held) < most and time.perf_counter() - begin < HELD_SECONDS):
        start = time.perf_counter()
        results = _call(prepared)
        prepared.wait(tuple(results.values()))
        seconds.append(time.perf_counter() - start)
        held.append(results)
    return held, min(seconds)


def _convert_seconds(prepared: PreparedCase, held: Sequence[NativeArrays]) -> float:
    """Return the median seconds of ``to_numpy`` for results of an unknown framework; 0 if the framework is known."""
    seconds = []
    for results in held:
        start = time.perf_counter()
        for result in results.values():
            if framework(result) is None and hasattr(result, "dtype"):
                prepared.arrays.backend.to_numpy(result)
                seconds.append(time.perf_counter() - start)
    return statistics.median(seconds) if seconds else 0.0

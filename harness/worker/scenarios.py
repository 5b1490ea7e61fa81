"""Scenarios: second calls that reveal a fault; an honest backend passes each of them.

A scenario calls with the same inputs again, with new values in the same buffers, or with the same values in new
buffers. Another one has a second kernel prepared, and called in turn with the first.
"""

from __future__ import annotations

import dataclasses
import functools
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from harness.correctness import telling_rows
from harness.correctness.questions import AGAIN, ANOTHER_KERNEL, NEW_BUFFERS, NEW_VALUES, NONFINITE, TELLING_ROWS
from harness.machine import memory
from harness.process.protocol import Handlers, RunScenario, ScenarioRun
from harness.worker import integrity
from harness.worker.arrays import framework
from harness.worker.calls import call
from harness.worker.held_results import hold, overlapping
from harness.worker.prepared_case import Held, PreparedCase
from harness.worker.results import hand_over, most_different, well_formed
from harness.worker.scenario_kernels import another_kernel

if TYPE_CHECKING:
    from harness.worker.calls import NativeArrays

#: Calls whose results are converted to learn how long that takes.
CONVERTED_CALLS: Final = 32


class ScenarioWorker:
    """Runs scenarios on the prepared case."""

    def __init__(self, held: Held) -> None:
        self._held = held
        self.handlers: Handlers = {RunScenario: self.run}

    def run(self, request: RunScenario) -> ScenarioRun:
        """Run one scenario; leave the results in the folder."""
        return SCENARIOS[request.scenario](self._held.prepared, request)


def again(prepared: PreparedCase, request: RunScenario) -> ScenarioRun:
    """Call with the first input set repeatedly; hand over the result that differs most from the first one.

    All results are held, so that buffers that take turns are seen to overlap. Of two results that overlap, one is
    handed over and the other is the earlier one.
    """
    arrays = prepared.arrays
    operators: tuple[str, ...] = ()
    inputs = prepared.sets[0] | prepared.parameters
    if _borrows_torch(prepared):
        operators = integrity.operators(lambda: _call(prepared))
    held, call_seconds = hold(lambda: _call(prepared), prepared.case.result_bytes)
    convert_seconds = _convert_seconds(prepared, held[:CONVERTED_CALLS])
    usual = arrays.host(prepared.first) if well_formed(prepared.case, arrays, prepared.first) else {}
    calls = [prepared.first, *held]
    earlier, number = overlapping(calls) or (0, 1 + most_different(prepared.case, arrays, held, usual))
    return ScenarioRun(
        results=hand_over(arrays, calls[number], inputs, request.directory, calls[earlier]),
        operators=operators,
        call_seconds=call_seconds,
        convert_seconds=convert_seconds,
    )


def in_place(variation: int, kind: str, prepared: PreparedCase, request: RunScenario) -> ScenarioRun:
    """Call with other values in the memory of set 0, which then gets its own values back.

    Args:
        variation: Number of the inputs.
        kind: Kind of the inputs.
        prepared: The prepared case.
        request: The request; the memory of the call is measured if few are made.
    """
    inputs, parameters = refill(prepared, variation, kind)
    results: NativeArrays = {}

    def once() -> None:
        with np.errstate(all="ignore"):  # some kinds have NaN and infinity on purpose
            results.update(call(prepared.case, prepared.kernel, parameters, inputs))
            prepared.wait(tuple(results.values()))

    peak_bytes = memory.peak_bytes(once, prepared.arrays.backend.device) if request.few_calls else None
    if not request.few_calls:
        once()
    changed = changed_inputs(prepared, inputs, parameters, variation, kind)
    restore(prepared)
    return dataclasses.replace(_second_call(prepared, results, request.directory, changed), peak_bytes=peak_bytes)


def new_buffers(prepared: PreparedCase, request: RunScenario) -> ScenarioRun:
    """Call with the values of set 0 in new memory."""
    inputs = prepared.arrays.make(prepared.arrays.inputs)
    results = call(prepared.case, prepared.kernel, prepared.parameters, inputs)
    prepared.wait(tuple(results.values()))
    return _second_call(prepared, results, request.directory, integrity.changed_arrays(prepared.arrays, inputs))


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
SCENARIOS: Final[Mapping[str, Callable[[PreparedCase, RunScenario], ScenarioRun]]] = {
    AGAIN.name: again,
    ANOTHER_KERNEL.name: lambda prepared, request: another_kernel(prepared, request.directory, request.few_calls),
    NEW_VALUES.name: functools.partial(in_place, 1, "normal"),
    NEW_BUFFERS.name: new_buffers,
    TELLING_ROWS.name: functools.partial(in_place, 0, telling_rows.ROWS),
    NONFINITE.name: functools.partial(in_place, 0, telling_rows.NONFINITE),
}


def changed_inputs(
    prepared: PreparedCase, inputs: NativeArrays, parameters: NativeArrays, variation: int, kind: str
) -> list[str]:
    """Return the names of inputs, and in a training step of parameters, that a call after ``refill`` has changed."""
    given = inputs if prepared.case.mode == "forward" else inputs | parameters
    return integrity.changed_arrays(prepared.arrays, given, variation, kind)


def _second_call(prepared: PreparedCase, results: NativeArrays, directory: Path, changed: Sequence[str]) -> ScenarioRun:
    inputs = prepared.sets[0] | prepared.parameters
    return ScenarioRun(hand_over(prepared.arrays, results, inputs, directory, prepared.first, changed=changed))


def _borrows_torch(prepared: PreparedCase) -> bool:
    """True if PyTorch is in this process though the arrays are another framework's."""
    return "torch" in sys.modules and not integrity.type_name(prepared.sets[0]["input1"]).startswith("torch.")


def _call(prepared: PreparedCase) -> NativeArrays:
    """Call once with the first input set; return when the results exist."""
    results = call(prepared.case, prepared.kernel, prepared.parameters, prepared.sets[0])
    prepared.wait(tuple(results.values()))
    return results


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

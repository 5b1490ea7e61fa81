"""Scenario ``another kernel``: several kernels alive, and weights and inputs of which few elements change.

The values are those of ``correctness/telling.py``. The result without a change is handed over as any scenario's; the
results after a change go to folders of their own.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from harness.correctness import telling
from harness.correctness.telling_changes import Variant
from harness.process.protocol import ScenarioRun
from harness.worker import integrity
from harness.worker.calls import call, named, timed_forward
from harness.worker.held_results import overlapping
from harness.worker.prepared_case import PreparedCase, prepare_kernel
from harness.worker.results import hand_over, save, well_formed

if TYPE_CHECKING:
    from harness.case import Case
    from harness.worker.calls import NativeArrays

#: No further kernel is prepared after this time, in seconds; one next to the first is prepared all the same.
KERNELS_SECONDS: Final = 0.25
#: Further kernels that a forward of few calls has prepared.
FEW_KERNELS: Final = 4
#: Most bytes of the weights and results of all further kernels.
KERNELS_BYTES: Final = 64 * 2**20


@dataclasses.dataclass(frozen=True)
class _Kernel:
    """A kernel or step of the prepared case's sizes, with its parameters after a change of the weight."""

    prepared: PreparedCase
    kernel: Any
    parameters: NativeArrays
    change: int

    def changed(self) -> list[str]:
        """Return the names of parameters that the backend has changed."""
        return integrity.changed_arrays(self.prepared.arrays, self.parameters, self.change, telling.KIND)

    def begin(self, inputs: NativeArrays) -> Callable[[], NativeArrays]:
        """Call a kernel, or the forward of a step; return what finishes the call and returns its results."""
        case, wait = self.prepared.case, self.prepared.wait
        if case.mode == "forward":
            results = call(case, self.kernel, self.parameters, inputs)
            wait(tuple(results.values()))
            return lambda: results
        output = timed_forward(self.kernel, self.parameters, inputs)()
        wait(output)

        def finish() -> NativeArrays:
            results = named((output, *self.kernel.backward(inputs["grad_output"])))
            wait(tuple(results.values()))
            return results

        return finish


def another_kernel(prepared: PreparedCase, directory: Path, few_calls: bool = False) -> ScenarioRun:
    """Have several kernels prepared with integers and called in turn; then change inputs and the weight in place.

    Steps overlap: all forwards, then all backwards, as with the layers of one model. Where a call takes long,
    a forward is called twice, and a step three times.

    Args:
        prepared: The prepared case.
        directory: Folder for the results.
        few_calls: True if a call takes long.
    """
    arrays, case = prepared.arrays, prepared.case
    inputs = arrays.make(arrays.inputs, kind=telling.KIND)
    changed: list[str] = []
    if few_calls:
        few = _few_forwards if case.mode == "forward" else _few_steps
        base, results = few(prepared, inputs, changed)
        return _hand_over(prepared, base, results, directory, None, changed)
    first = _make(prepared, 0)
    unfinished, others, kernel_seconds = _begin_others(prepared, inputs)
    finish = first.begin(inputs)
    results = {variant: end() for variant, end in unfinished.items()}
    base = finish()
    changed += [name for each in (first, *others) for name in each.changed()]
    changed += integrity.changed_arrays(arrays, inputs, kind=telling.KIND)
    inputs = arrays.refill(inputs, kind=telling.CHANGED)
    results[Variant(0, telling.CHANGED, "in place")] = first.begin(inputs)()
    changed += integrity.changed_arrays(arrays, inputs, kind=telling.CHANGED)
    inputs = arrays.refill(inputs, kind=telling.EXCHANGED)
    if case.mode == "forward":  # a kernel that is called again may know its inputs; a step is called again below
        results[Variant(0, telling.EXCHANGED, "in place")] = first.begin(inputs)()
    results |= _change_weight(first, inputs, () if case.mode == "forward" else others, changed)
    return _hand_over(prepared, base, results, directory, kernel_seconds, changed)


def _few_forwards(
    prepared: PreparedCase, inputs: NativeArrays, changed: list[str]
) -> tuple[NativeArrays, dict[Variant, NativeArrays]]:
    """Call one kernel twice: after its weight has changed in place and others are prepared, then on exchanged rows.

    Args:
        prepared: The prepared case.
        inputs: Memory of the inputs.
        changed: Names of inputs that the backend has changed; those of these calls are added.
    """
    arrays, case = prepared.arrays, prepared.case
    earlier = _make(prepared, 1)
    others = [_make(prepared, change) for change in range(2, 1 + min(FEW_KERNELS, _most_kernels(case)))]
    parameters = arrays.refill(earlier.parameters, 0, telling.KIND)
    first = _Kernel(prepared, prepare_kernel(arrays.backend, case, parameters), parameters, 0)
    base = first.begin(inputs)()
    changed += [name for each in (first, *others) for name in each.changed()]
    changed += integrity.changed_arrays(arrays, inputs, kind=telling.KIND)
    inputs = arrays.refill(inputs, kind=telling.EXCHANGED_ALONE)
    results = {Variant(0, telling.EXCHANGED_ALONE, "in place"): first.begin(inputs)()}
    changed += integrity.changed_arrays(arrays, inputs, kind=telling.EXCHANGED_ALONE)
    return base, results


def _few_steps(
    prepared: PreparedCase, inputs: NativeArrays, changed: list[str]
) -> tuple[NativeArrays, dict[Variant, NativeArrays]]:
    """Call two steps that overlap on one weight, with different inputs; then one after all have changed in place.

    Args:
        prepared: The prepared case.
        inputs: Memory of the inputs.
        changed: Names of inputs that the backend has changed; those of these calls are added.
    """
    arrays = prepared.arrays
    first = _make(prepared, 0)
    other = dataclasses.replace(first, kernel=prepare_kernel(arrays.backend, prepared.case, first.parameters))
    finish_other = other.begin(arrays.make(arrays.inputs, kind=telling.CHANGED))
    finish = first.begin(inputs)
    results = {Variant(0, telling.CHANGED, "two on one weight"): finish_other()}
    base = finish()
    changed += first.changed() + integrity.changed_arrays(arrays, inputs, kind=telling.KIND)
    inputs = arrays.refill(inputs, kind=telling.EXCHANGED_ALONE)
    parameters = arrays.refill(first.parameters, 1, telling.KIND)
    latest = dataclasses.replace(first, parameters=parameters, change=1)
    results[Variant(1, telling.EXCHANGED_ALONE, "in place")] = latest.begin(inputs)()
    changed += latest.changed() + integrity.changed_arrays(arrays, inputs, kind=telling.EXCHANGED_ALONE)
    return base, results


def _make(prepared: PreparedCase, change: int) -> _Kernel:
    """Have a kernel prepared with the integers after a change of the weight."""
    parameters = prepared.arrays.make(prepared.arrays.parameters, change, telling.KIND)
    return _Kernel(prepared, prepare_kernel(prepared.arrays.backend, prepared.case, parameters), parameters, change)


def _most_kernels(case: Case) -> int:
    """Return the most further kernels that may be alive, at least one."""
    most = KERNELS_BYTES // (case.result_bytes + math.prod(case.shapes()["weight"]) * case.itemsize)
    return max(1, min(telling.weight_changes(case), most))


def _begin_others(
    prepared: PreparedCase, inputs: NativeArrays
) -> tuple[dict[Variant, Callable[[], NativeArrays]], list[_Kernel], float]:
    """Have further kernels prepared and called, until time or bytes are spent.

    Args:
        prepared: The prepared case.
        inputs: What they are called with.

    Returns:
        What finishes each call, the kernels, and the seconds of preparing and calling the first of them.
    """
    unfinished: dict[Variant, Callable[[], NativeArrays]] = {}
    others: list[_Kernel] = []
    kernel_seconds, start = 0.0, time.perf_counter()
    for change in range(1, _most_kernels(prepared.case) + 1):
        begin = time.perf_counter()
        if others and begin - start > KERNELS_SECONDS:
            break
        others.append(_make(prepared, change))
        unfinished[Variant(change, telling.KIND, "another kernel")] = others[-1].begin(inputs)
        if change == 1:
            kernel_seconds = time.perf_counter() - begin
    return unfinished, others, kernel_seconds


def _change_weight(
    first: _Kernel, inputs: NativeArrays, others: Sequence[_Kernel], changed: list[str]
) -> dict[Variant, NativeArrays]:
    """Change the first kernel's weight in place; a forward's kernel is prepared again then, and a step is not.

    Args:
        first: A kernel without a change.
        inputs: Inputs of the call, with exchanged rows.
        others: Steps of which one has its call on the same weight meanwhile; none of a forward.
        changed: Names of inputs that the backend has changed; those of these calls are added.
    """
    prepared = first.prepared
    arrays, case = prepared.arrays, prepared.case
    parameters = arrays.refill(first.parameters, 1, telling.KIND)
    kernel = prepare_kernel(arrays.backend, case, parameters) if case.mode == "forward" else first.kernel
    latest = _Kernel(prepared, kernel, parameters, 1)
    same_weight = [dataclasses.replace(other, parameters=parameters) for other in others[:1]]
    meanwhile = [other.begin(arrays.make(arrays.inputs, kind=telling.KIND)) for other in same_weight]
    finish = latest.begin(inputs)
    results = {Variant(1, telling.KIND, "two on one weight"): end() for end in meanwhile}
    results[Variant(1, telling.EXCHANGED, "in place")] = finish()
    changed += latest.changed()
    changed += integrity.changed_arrays(arrays, inputs, kind=telling.EXCHANGED)
    return results


def _hand_over(
    prepared: PreparedCase,
    base: NativeArrays,
    results: dict[Variant, NativeArrays],
    directory: Path,
    kernel_seconds: float | None,
    changed: list[str],
) -> ScenarioRun:
    """Hand over the results without a change, or else one that is malformed or shares memory with another."""
    arrays, case = prepared.arrays, prepared.case
    calls = [base, *results.values()]
    malformed = [number for number, each in enumerate(calls) if not well_formed(case, arrays, each)]
    earlier, number = overlapping(calls) or (None, malformed[0] if malformed else 0)
    if earlier is None and not malformed:
        for variant, each in results.items():
            folder = directory / variant.folder
            folder.mkdir()
            save(arrays, each, folder)
    inputs = prepared.sets[0] | prepared.parameters
    intact = prepared.first if earlier is None else calls[earlier]
    handed = hand_over(arrays, calls[number], inputs, directory, intact, changed=tuple(dict.fromkeys(changed)))
    return ScenarioRun(handed, kernel_seconds=kernel_seconds)

"""Hand a call's results over to the parent: a description, and files of the values.

Values are converted only if the results are well formed. Of several results of the same call, the one that differs most
from the rest is handed over.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.correctness.conduct import same_bits
from harness.correctness.gate import judge_facts
from harness.process.protocol import Results, Storages
from harness.worker import integrity
from harness.worker.arrays import to_host

if TYPE_CHECKING:
    import numpy.typing as npt

    from harness.case import Case
    from harness.worker.arrays import DeviceArrays
    from harness.worker.calls import NativeArrays

    HostArrays = Mapping[str, npt.NDArray[np.floating]]


def hand_over(
    arrays: DeviceArrays,
    results: NativeArrays,
    inputs: NativeArrays,
    directory: Path,
    earlier: NativeArrays | None = None,
    case: Case | None = None,
    changed: Sequence[str] = (),
) -> Results:
    """Describe native results, and write them into a folder if they are well formed.

    Args:
        arrays: Arrays of the case.
        results: Results of one call, by name.
        inputs: Inputs and parameters of the call, by name.
        directory: Folder for the values.
        earlier: Results of earlier calls that must still be intact, by name.
        case: Case of the results; None for that of the arrays.
        changed: Names of inputs and parameters that the call changed.
    """
    if well_formed(case or arrays.case, arrays, results):
        save(arrays, results, directory)
    return Results(
        native_type=integrity.type_name(arrays.like),
        facts=integrity.facts(results),
        storages=Storages(
            results=integrity.storages(results),
            inputs=integrity.storages(inputs),
            earlier=integrity.storages(earlier or {}),
        ),
        changed=tuple(changed),
    )


def save(arrays: DeviceArrays, results: NativeArrays, directory: Path) -> None:
    """Write results into a folder, each as NAME.npy."""
    for name, result in results.items():
        np.save(directory / f"{name}.npy", to_host(result, arrays.backend), allow_pickle=False)


def well_formed(case: Case, arrays: DeviceArrays, results: NativeArrays) -> bool:
    """True if results have the right names, types, dtypes, shapes and device."""
    native_type = integrity.type_name(arrays.like)
    return judge_facts(case, arrays.backend.device, native_type, integrity.facts(results), "").ok


def numbered(results: Sequence[NativeArrays]) -> NativeArrays:
    """Return several results of the same call under names of their own."""
    return {f"{name} ({number})": result for number, each in enumerate(results) for name, result in each.items()}


def most_different(case: Case, arrays: DeviceArrays, candidates: Sequence[NativeArrays], usual: HostArrays) -> int:
    """Return which of several results of the same call is malformed, or else furthest from the usual ones.

    Args:
        case: Case of the results.
        arrays: Arrays of the case.
        candidates: Results of several calls.
        usual: Values to compare with, by name.
    """
    return int(np.argmax([distance(case, arrays, results, usual) for results in candidates]))


def distance(case: Case, arrays: DeviceArrays, results: NativeArrays, usual: HostArrays) -> float:
    """Return the largest difference of any element from the usual ones; infinity if results are malformed.

    Args:
        case: Case of the results.
        arrays: Arrays of the case.
        results: Results of a call.
        usual: Values to compare with, by name; those of missing names are not compared.
    """
    if not well_formed(case, arrays, results):
        return math.inf
    return max(
        (_distance(array, usual[name]) for name, array in arrays.host(results).items() if name in usual), default=0.0
    )


def _distance(result: Any, usual: Any) -> float:
    """Return the largest difference of any element; 0 for the same bits, infinity if an element is not finite."""
    if not np.isfinite(result).all():
        return math.inf  # NaN in one result makes the median NaN, too
    if same_bits(result, usual):
        return 0.0
    with np.errstate(all="ignore"):
        return float(np.nan_to_num(np.abs(result - usual)).max(initial=0.0))

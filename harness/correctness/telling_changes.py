"""What follows from changing few elements of the integers of ``telling.py``: exact results, without a reference."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from harness.correctness.telling import (
    CHANGED,
    EXCHANGED,
    EXCHANGED_ALONE,
    KIND,
    Element,
    Structure,
    exchanges,
    integers,
    structure,
)

if TYPE_CHECKING:
    import numpy.typing as npt

    from harness.case import Case

    Arrays = dict[str, npt.NDArray[np.floating]]


@dataclasses.dataclass(frozen=True, slots=True)
class Variant:
    """Results after a change.

    Attributes:
        change: Number of the weight's change; 0 for none.
        kind: One of ``KINDS``.
        where: How the change came to the kernel, in words.
    """

    change: int
    kind: str
    where: str

    @property
    def folder(self) -> str:
        """Name of the folder of the results."""
        return f"{self.change}.{self.kind}.{self.where}"

    @classmethod
    def of(cls, folder: str) -> Variant:
        """Return the variant whose results are in a folder."""
        change, kind, where = folder.split(".")
        return cls(int(change), kind, where)

    def __str__(self) -> str:
        """Return the change in words."""
        changes = [f"weight, change {self.change}"] if self.change else []
        changes += [self.kind] if self.kind != KIND or not self.change else []
        return f"{' and '.join(changes)}, {self.where}"


def expected(case: Case, change: int, kind: str, base: Mapping[str, npt.NDArray[np.floating]]) -> Arrays:
    """Return the results after a change, exactly, given those of ``KIND`` without one.

    Args:
        case: The case.
        change: Number of the weight's change; 0 for none.
        kind: One of the three kinds.
        base: Results for the kind ``KIND``, without a change of the weight.
    """
    if change and kind != KIND:
        return expected(case, 0, kind, expected(case, change, KIND, base))
    planted = structure(case)
    given = integers(case, only=[name for name in case.shapes() if name != "weight"])
    results = {name: np.array(values) for name, values in base.items()}
    if change:
        for (page, row, column), gain in _weight_gains(case, planted, change):
            _gain_from_weight(results, given, page, row, column, gain)
    if kind in (CHANGED, EXCHANGED):
        for element in planted.elements:
            _gain_from_element(results, base, given, element)
    if kind in (EXCHANGED, EXCHANGED_ALONE) and planted.exchanged is not None:
        one, other = planted.exchanged
        for name in ("output", "grad_input1", "grad_input2"):
            if name in results:
                results[name][[one, other]] = results[name][[other, one]]
    return results


def _weight_gains(case: Case, planted: Structure, change: int) -> list[tuple[tuple[int, int, int], int]]:
    """Return the elements of the weight that a change alters, as indices, and what each gains."""
    gains = [(planted.ones[change - 1], 1)]
    if exchanges(planted, change):
        gains.append((planted.twos[change - 1], -1))
    shape = (case.out_features, case.in1_features, case.in2_features)
    return [(tuple(int(axis) for axis in np.unravel_index(flat, shape)), gain) for flat, gain in gains]  # type: ignore[misc]


def _gain_from_weight(results: Arrays, given: Arrays, page: int, row: int, column: int, gain: int) -> None:
    """Add what results gain from an element of the weight, in place; gradients of the weight have none."""
    input1, input2 = given["input1"][:, row], given["input2"][:, column]
    results["output"][:, page] += gain * input1 * input2
    if "grad_input1" in results:
        grad_output = given["grad_output"][:, page]
        results["grad_input1"][:, row] += gain * grad_output * input2
        results["grad_input2"][:, column] += gain * grad_output * input1


def _gain_from_element(
    results: Arrays, base: Mapping[str, npt.NDArray[np.floating]], given: Arrays, element: Element
) -> None:
    """Add what results gain from an element of an input, in place."""
    row, probe, name = element.row, element.probe, element.name
    if name != "grad_output":
        results["output"][row] += base["output"][probe] - given.get("bias", 0)
    for other in ("input1", "input2"):
        if other != name and f"grad_{other}" in results:
            results[f"grad_{other}"][row] += base[f"grad_{other}"][probe]
    if "grad_weight" in results:
        rows = [given[each][probe] for each in ("grad_output", "input1", "input2")]
        results["grad_weight"] += np.einsum("o,i,j->oij", *rows)
        if name == "grad_output" and "grad_bias" in results:
            results["grad_bias"] += rows[0]

"""Small integers at a case's own sizes whose structure tells, and what follows from changing few of them.

Rows of zeros and rows with a single 1 are among dense ones, the first row equals the last, and two columns cancel.
Some elements are planted, so that the results after a change follow from the results before it, without a reference:

* An element of the weight goes from 1 to 2, or a 1 and a 2 change places: outputs gain a product of two columns.
* An element of an input goes from 0 to 1. Another row has a single 1 there and equals the changed row elsewhere, so its
  result is what the changed row gains.
* Two rows of the batch change places.

A backend that takes a weight or an input for known after a partial look does not see these changes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import TYPE_CHECKING, Final

import numpy as np

from harness.correctness import exact

if TYPE_CHECKING:
    import numpy.typing as npt

    from harness.case import Case

    Arrays = dict[str, npt.NDArray[np.floating]]

#: Kinds of inputs: the integers, some of their elements changed, two rows of those exchanged, and two rows exchanged
#: without another change, which no sum shows.
KIND: Final = "telling integers"
CHANGED: Final = "changed elements"
EXCHANGED: Final = "exchanged rows"
EXCHANGED_ALONE: Final = "exchanged rows alone"
KINDS: Final = (KIND, CHANGED, EXCHANGED, EXCHANGED_ALONE)
#: Most changes of a weight; change 0 is none.
WEIGHT_CHANGES: Final = 20
#: Streams of random numbers, so that these draws do not depend on those of other kinds.
_ROWS, _WEIGHT = 41, 43


@dataclasses.dataclass(frozen=True, slots=True)
class Element:
    """An element of an input that changes from 0 to 1.

    Attributes:
        name: Name of the array.
        row: Its row, which changes.
        column: Its column.
        probe: Another row: a 1 in this column alone of this array, and the changed row's values in the other arrays.
    """

    name: str
    row: int
    column: int
    probe: int


@dataclasses.dataclass(frozen=True, slots=True)
class Structure:
    """What is planted into a case's integers.

    Attributes:
        elements: Elements of inputs that change.
        exchanged: Two rows that change places; None where there are too few.
        zero: Row of zeros in input1; None where there are too few.
        single: Row with a single 1 in each input; None where there are too few.
        ends_alike: True if the last row is made equal to the first.
        cancelling: Two columns of input1 that cancel; None where there is one column, or where zeros are planned.
        ones: Flat positions of planted 1s of the weight, one for each change.
        twos: Flat positions of planted 2s.
    """

    elements: tuple[Element, ...]
    exchanged: tuple[int, int] | None
    zero: int | None
    single: int | None
    ends_alike: bool
    cancelling: tuple[int, int] | None
    ones: npt.NDArray[np.integer]
    twos: npt.NDArray[np.integer]


def structure(case: Case) -> Structure:
    """Return what is planted: the same for the same seed and sizes."""
    generator = np.random.default_rng([case.seed, _ROWS])
    ends = case.batch >= 8  # fewer rows are left to the changes
    rows = [int(row) + ends for row in generator.permutation(max(case.batch - 2 * ends, 0))]
    widths = {name: shape[1] for name, shape in case.shapes().items() if name not in ("weight", "bias")}
    elements = tuple(
        Element(name, rows.pop(), int(generator.integers(width)), rows.pop())
        for name, width in widths.items()
        if len(rows) > 1
    )
    exchanged = (rows.pop(), rows.pop()) if len(rows) > 1 else None
    columns = generator.permutation(case.in1_features)[:2]
    weight = np.random.default_rng([case.seed, _WEIGHT])
    size = case.out_features * case.in1_features * case.in2_features
    planted = weight.choice(size, min(2 * WEIGHT_CHANGES, max(1, size // 2 * 2)), replace=False)
    return Structure(
        elements=elements,
        exchanged=exchanged,
        zero=rows.pop() if rows else None,
        single=rows.pop() if rows else None,
        ends_alike=ends,
        cancelling=(int(columns[0]), int(columns[1])) if len(columns) > 1 and exact.plan(case).dense else None,
        ones=planted[::2],
        twos=planted[1::2],
    )


def integers(case: Case, change: int = 0, kind: str = KIND, only: Collection[str] | None = None) -> Arrays:
    """Return the arrays of one of the kinds.

    Args:
        case: The case.
        change: Number of the weight's change; 0 for none.
        kind: One of the three kinds.
        only: Names of the arrays to return; None for all.
    """
    planted, density = structure(case), exact.plan(case)
    made: Arrays = {}
    for number, (name, shape) in enumerate(case.shapes().items()):
        if only is not None and name not in only:
            continue
        generator = np.random.default_rng([case.seed, number, len(name), 47])
        values = exact.integers(generator, name, shape, density)
        if name == "weight":
            _plant_weight(values, planted, change)
        elif name != "bias":
            _plant_rows(name, values, planted)
            _change_rows(name, values, planted, kind)
        made[name] = values.astype(np.float64 if case.dtype == "float64" else np.float32)
    return made


def weight_changes(case: Case) -> int:
    """Return the number of changes that a case's weight has."""
    return len(structure(case).ones)


def exchanges(planted: Structure, change: int) -> bool:
    """True if a change of the weight exchanges two elements, so that no sum shows it: every other one, from the first.

    Args:
        planted: The structure.
        change: Number of the change, from 1.
    """
    return change % 2 == 1 and change <= len(planted.twos)


def _plant_weight(values: npt.NDArray[np.integer], planted: Structure, change: int) -> None:
    if planted.cancelling is not None:
        one, other = planted.cancelling
        values[:, other] = -values[:, one]
    flat = values.reshape(-1)
    flat[planted.ones], flat[planted.twos] = 1, 2
    if change:
        flat[planted.ones[change - 1]] = 2
        if exchanges(planted, change):
            flat[planted.twos[change - 1]] = 1


def _plant_rows(name: str, values: npt.NDArray[np.integer], planted: Structure) -> None:
    """Plant what every kind has, in place."""
    if name == "input1" and planted.cancelling is not None:
        one, other = planted.cancelling
        values[:, other] = values[:, one]
    if planted.ends_alike:
        values[-1] = values[0]
    if planted.zero is not None and name == "input1":
        values[planted.zero] = 0
    if planted.single is not None:
        values[planted.single] = 0
        values[planted.single, planted.single % values.shape[1]] = 1
    for element in planted.elements:
        if element.name == name:
            values[element.row, element.column] = 0
            values[element.probe] = 0
            values[element.probe, element.column] = 1
        else:
            values[element.probe] = values[element.row]


def _change_rows(name: str, values: npt.NDArray[np.integer], planted: Structure, kind: str) -> None:
    """Change elements and exchange rows as the kind has it, in place."""
    for element in planted.elements:
        if element.name == name and kind in (CHANGED, EXCHANGED):
            values[element.row, element.column] = 1
    if kind in (EXCHANGED, EXCHANGED_ALONE) and planted.exchanged is not None:
        one, other = planted.exchanged
        values[[one, other]] = values[[other, one]]

"""The part of a large case that a later answer is judged on: rows of the batch and pages, drawn in secret.

The first answer of a backend is judged whole. Its later answers to a large case are judged on ``ROWS`` rows of the
batch and ``PAGES`` pages of out_features, the first and the last among them. The parent draws them once the backends
have answered, by the system's random source. The reference computes the part alone: a row of the output, or of an
input's gradient, depends on one row of the batch, and a page of the weight's gradient on one column of grad_output.

A wrong row among B is missed with probability 1 - ROWS / B in one answer. Where each of n answers has one, all are
missed with that probability to the power n. For pages of out_features the same holds.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from harness.case import Case

    Array = npt.NDArray[np.floating]
    Arrays = dict[str, Array]

#: Cost of a whole reference above which a case is large, in flop: below it takes less than a tenth of a second.
LARGE_FLOP: Final = 2e9
#: Rows and pages of a part.
ROWS: Final = 256
PAGES: Final = 16
#: Results that have a page for each of out_features; the others have a row for each row of the batch.
PAGED: Final = frozenset({"grad_weight", "grad_bias"})


@dataclasses.dataclass(frozen=True, slots=True)
class Drawn:
    """Rows and pages that were drawn, each in ascending order.

    Attributes:
        rows: Rows of the batch.
        pages: Pages of out_features; none where no result has pages.
    """

    rows: tuple[int, ...]
    pages: tuple[int, ...]

    def of(self, name: str, result: Array) -> Array:
        """Return the part of the result ``name``."""
        drawn: Array = result[list(self.pages if name in PAGED else self.rows)]
        return drawn

    def of_all(self, case: Case, results: Mapping[str, Array]) -> Arrays | None:
        """Return the part of all results; None if one of them has a wrong shape, or is not finite everywhere."""
        shapes = case.result_shapes()
        sound = all(results[name].shape == shape and np.isfinite(results[name]).all() for name, shape in shapes.items())
        return {name: self.of(name, results[name]) for name in shapes} if sound else None


@dataclasses.dataclass(frozen=True, slots=True)
class Part:
    """What the reference computes: some results of a case, from the inputs that they depend on.

    Attributes:
        case: Case with the sizes of the inputs.
        inputs: Arrays by the operator's names.
        names: Names of the results.
    """

    case: Case
    inputs: Arrays
    names: tuple[str, ...]


def reference_flop(case: Case) -> float:
    """Return the cost of the right results without their scales, in flop."""
    products = 1 if case.mode == "forward" else 4
    return 2.0 * products * case.batch * case.in1_features * case.in2_features * case.out_features


def draw(case: Case, secret: random.Random, always: Collection[int] = ()) -> Drawn | None:
    """Draw a part of a large case; None if later answers are judged whole.

    Args:
        case: The case.
        secret: Random source that no backend can foresee.
        always: Rows that are judged whatever is drawn.
    """
    paged = case.mode == "forward_backward"
    if reference_flop(case) <= LARGE_FLOP or (case.batch <= ROWS and not (paged and case.out_features > PAGES)):
        return None
    rows = {*always, *_some(case.batch, ROWS, secret)}
    return Drawn(tuple(sorted(rows)), _some(case.out_features, PAGES, secret) if paged else ())


def parts(case: Case, inputs: Arrays, drawn: Drawn | None) -> Iterator[Part]:
    """Yield what the reference computes for a part of a case; the whole case where none was drawn."""
    names = tuple(case.result_shapes())
    if drawn is None:
        yield Part(case, inputs, names)
        return
    rows, pages = list(drawn.rows), list(drawn.pages)
    rest = dataclasses.replace(case, batch=len(rows))
    yield Part(rest, _on(inputs, rows), tuple(name for name in names if name not in PAGED))
    if paged := tuple(name for name in names if name in PAGED):
        of_pages = inputs | {name: inputs[name][pages] for name in ("weight", "bias") if name in inputs}
        of_pages["grad_output"] = inputs["grad_output"][:, pages]
        yield Part(dataclasses.replace(case, out_features=len(pages)), of_pages, paged)


def few_rows(part: Part) -> tuple[Part, list[int] | None]:
    """Return a large part's forward on ``ROWS`` rows that lie evenly apart, with their numbers; else all, and None.

    nn.Bilinear takes seconds for all rows of a large case, and a few show whether matrix products agree with it.
    """
    case = part.case
    if reference_flop(case) <= LARGE_FLOP or case.batch <= ROWS or "output" not in part.names:
        return part, None
    rows = [round(row) for row in np.linspace(0, case.batch - 1, ROWS)]
    few = Part(dataclasses.replace(case, batch=ROWS, mode="forward"), _on(part.inputs, rows), ("output",))
    return few, rows


def _on(inputs: Arrays, rows: list[int]) -> Arrays:
    """Return the inputs on some rows of the batch."""
    return {name: array if name in ("weight", "bias") else array[rows] for name, array in inputs.items()}


def _some(size: int, count: int, secret: random.Random) -> tuple[int, ...]:
    """Return indices below a size in ascending order, the first and the last one among them."""
    if size <= count:
        return tuple(range(size))
    return 0, *sorted(secret.sample(range(1, size - 1), count - 2)), size - 1

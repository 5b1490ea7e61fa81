"""The precision probe: find the arithmetic that results were computed in.

On zero-mean random data the rounding errors of the terms are nearly independent. Two figures then separate the formats
more sharply than a bound for the worst case:

* **peak**: the largest error over its element's scale S, the sum of the absolute values of its terms;
* **typical**: the root mean square of the errors over that of Q, the root of the sum of the squares of its terms.
  Rounding the factors of each term to a unit roundoff v gives about 0.4 v sqrt(number of roundings). Signs cancel in
  the error as they do in the sum, so this figure does not depend on the size of the case.

The thresholds are between honest float32 techniques and coarser arithmetic. The section "The gap of the precision
classes" of docs/evidence.md has the figures. The typical error of a sequential sum of n terms is 0.28 u sqrt(n), and
the threshold grows alike. Products of pairs of bfloat16, of 16 bits, are at 60 to 150 u: beyond the threshold up to
5,000 terms, and ``own_size.py`` finds them at any number.

A case requests a class: its dtype, or tf32. Results are placed in the best class whose thresholds all of them meet.
Results below the requested class are rejected, even within the bound. tf32 and float16 have the same unit roundoff, but
differ in range. A backend that fails beyond float16's range is placed in float16.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import numpy as np

from harness.correctness.bound import TINY, UNIT_ROUNDOFF, pieces, terms

if TYPE_CHECKING:
    import numpy.typing as npt

    from harness.case import Case

#: Classes of arithmetic, the most precise first.
CLASSES: Final = ("float64", "float32", "tf32", "float16", "bfloat16")
#: Largest peak from accumulation, in unit roundoffs of float64 for class float64, else of float32.
PEAK_ACCUMULATED: Final = 16.0
#: Largest typical error of the classes float64 and float32, in their unit roundoffs: a constant part, and one times the
#: root of the number of terms.
TYPICAL_CONSTANT: Final = 16.0
TYPICAL_PER_ROOT: Final = 0.6
#: Largest typical error from accumulation in the other classes, in unit roundoffs of float32.
TYPICAL_ACCUMULATED: Final = 600.0
#: Largest peak from rounded factors and intermediates, in the class's unit roundoffs: a term is rounded four times.
PEAK_ROUNDED: Final = 4.0
#: Largest typical error from rounded factors and intermediates, in the class's unit roundoffs.
TYPICAL_ROUNDED: Final = 2.33
#: Factor of the typical limits over sqrt(n) for n elements, where that exceeds 1: their root mean square varies more.
#: By the chi distribution it rejects independent errors of sd 0.9 u at most once in a million draws. The errors of
#: grad_weight at batch 1 are dependent in tf32, so they are rejected more often.
FEW_ELEMENTS: Final = 2.4
#: Extra typical error for a half-precision sum of m pages, in the class's unit roundoffs times sqrt(m).
TYPICAL_PAGES: Final = 0.75


@dataclasses.dataclass(frozen=True, slots=True)
class Errors:
    """The two figures of one result.

    Attributes:
        peak: Largest error over S.
        typical: Root mean square of the errors over that of Q.
    """

    peak: float
    typical: float


def measure(
    case: Case,
    expected: npt.NDArray[np.floating],
    scale: npt.NDArray[np.floating],
    quadratic: float,
    actual: npt.NDArray[np.floating],
) -> Errors:
    """Return the figures of one result.

    Args:
        case: Case with the dtype, whose last rounding and underflow are left out.
        expected: Reference values.
        scale: S of each element.
        quadratic: Root of the mean over the elements of Q squared.
        actual: The backend's result, finite, of the shape of ``expected``.
    """
    if actual.size == 0:
        return Errors(0.0, 0.0)
    peak = squares = 0.0
    for part, wanted, allowed in pieces(actual, expected, scale):
        error = np.abs(part - wanted)
        beyond = np.maximum(error - UNIT_ROUNDOFF[case.dtype] * np.abs(wanted) - TINY[case.dtype], 0)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            peak = max(peak, float(np.where(beyond > 0, beyond / allowed, 0.0).max()))
            squares += float(np.square(beyond, dtype=np.float64).sum())
    root = math.sqrt(squares / actual.size)
    typical = 0.0 if root <= TINY[case.dtype] else root / quadratic if quadratic > 0 else math.inf
    return Errors(peak, typical)


def limits(case: Case, name: str, precision_class: str) -> Errors:
    """Return the largest figures that a class allows the result ``name``."""
    few = max(1.0, FEW_ELEMENTS / math.sqrt(max(math.prod(case.result_shapes()[name]), 1)))
    if precision_class in ("float64", "float32"):
        unit = UNIT_ROUNDOFF[precision_class]
        typical = few * (TYPICAL_CONSTANT + TYPICAL_PER_ROOT * math.sqrt(terms(case, name)))
        return Errors(PEAK_ACCUMULATED * unit, typical * unit)
    unit, accumulation = UNIT_ROUNDOFF[precision_class], UNIT_ROUNDOFF["float32"]
    pages = name in ("grad_input1", "grad_input2") and case.dtype == precision_class
    growth = TYPICAL_PAGES * math.sqrt(case.out_features) if pages else 0.0
    return Errors(
        peak=PEAK_ACCUMULATED * accumulation + PEAK_ROUNDED * unit,
        typical=TYPICAL_ACCUMULATED * accumulation + (few * TYPICAL_ROUNDED + growth) * unit,
    )


def asked_class(case: Case) -> str:
    """Return the class that a case requests."""
    return "tf32" if case.precision == "tf32" else case.dtype


def place(case: Case, errors: Mapping[str, Errors], wide_range: bool = True) -> str | None:
    """Return the best class that all results fit in; None if they fit in none.

    Args:
        case: Case whose dtype is the best possible class.
        errors: Figures by the result's name.
        wide_range: True if numbers beyond float16's range came out right.
    """
    for precision_class in CLASSES[CLASSES.index(case.dtype) :]:
        if precision_class == "tf32" and not wide_range:
            continue
        if all(excess(case, name, figures, precision_class) <= 1 for name, figures in errors.items()):
            return precision_class
    return None


def excess(case: Case, name: str, errors: Errors, precision_class: str) -> float:
    """Return the larger ratio of a figure to its limit in a class; above 1 it is beyond the limit."""
    allowed = limits(case, name, precision_class)
    return max(errors.peak / allowed.peak, errors.typical / allowed.typical)


def good_enough(case: Case, precision_class: str | None) -> bool:
    """True if a class is the one that the case requests, or better."""
    return precision_class is not None and CLASSES.index(precision_class) <= CLASSES.index(asked_class(case))

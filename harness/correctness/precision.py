"""The precision probe: in which arithmetic were these results computed?

On zero-mean random data the rounding errors of the terms are as good as independent, and two figures tell the formats
apart, far more sharply than any bound that must cover the worst case:

* **peak**: the largest error over its element's scale S, the sum of the absolute values of its terms;
* **typical**: the root mean square of the errors over that of Q, the root of the sum of the squares of its terms.
  Rounding the factors of each term to a unit roundoff v gives 0.4 v sqrt(number of roundings) here, *whatever the size
  of the case*, for signs cancel in the error as they do in the sum.

Measured in units of float32's u = 2^-24, at 32 x 32 to 512 x 512: honest float32 techniques 0.04 to 2.7 (peak) and 1.7
to 153 (typical; one sequential sum over all i and j is the worst); operands in tf32 about 4 900 (typical), an
intermediate stored in bfloat16 27 000, operands in bfloat16 49 000. The thresholds stand between, near the geometric
mean of the two neighbours; README.md beside this file has the table of the gap. A float32 sum of over about
2000 x 2000 terms, added up one by one, is placed below float32.

A case asks for a class: its dtype, or tf32. Results are placed in the best class whose thresholds all of them meet, and
what is placed below the class asked for is rejected, whatever the bound says. tf32 and float16 round alike, and differ
in their range: whoever cannot do numbers beyond float16's is placed there.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import numpy as np

from harness.correctness.bound import TINY, UNIT_ROUNDOFF, pieces

if TYPE_CHECKING:
    import numpy.typing as npt

    from harness.case import Case

#: Best first.
CLASSES: Final = ("float64", "float32", "tf32", "float16", "bfloat16")
#: Accumulation in the class's own unit (float64) or in float32: peak and typical, in units of that roundoff.
PEAK_ACCUMULATED, TYPICAL_ACCUMULATED = 16.0, 600.0
#: Factors and intermediates rounded to the class's unit: peak (four roundings of a term) and typical.
PEAK_ROUNDED, TYPICAL_ROUNDED = 4.0, 2.33
#: A root mean square over a handful of elements varies more. Errors of sd 0.9 u over n elements are beyond
#: 2.33 u max(1, 2.4 / sqrt(n)) once in a million draws at the most, by the chi distribution, if they are independent.
#: Those of grad_weight at batch 1 are not, in tf32: 3 in 10,000 of 1x3x4x1 are refused.
FEW_ELEMENTS: Final = 2.4
#: Half-precision sums of pages grow like the root of their number; a sum of m pages was seen at 0.3 sqrt(m).
TYPICAL_PAGES: Final = 0.75


@dataclasses.dataclass(frozen=True, slots=True)
class Errors:
    """The two figures of one result."""

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
        case: Gives the dtype, whose last rounding and underflow are left out.
        expected: Reference values.
        scale: S of each element.
        quadratic: The root of the mean over the elements of Q squared.
        actual: What came back, finite, of the shape of ``expected``.
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
    """Return the largest figures that the result ``name`` may have in a class."""
    accumulation = UNIT_ROUNDOFF["float64" if precision_class == "float64" else "float32"]
    peak, typical = PEAK_ACCUMULATED * accumulation, TYPICAL_ACCUMULATED * accumulation
    if precision_class not in ("float64", "float32"):
        unit = UNIT_ROUNDOFF[precision_class]
        pages = name in ("grad_input1", "grad_input2") and case.dtype == precision_class
        growth = TYPICAL_PAGES * math.sqrt(case.out_features) if pages else 0.0
        few = max(1.0, FEW_ELEMENTS / math.sqrt(max(math.prod(case.result_shapes()[name]), 1)))
        peak, typical = peak + PEAK_ROUNDED * unit, typical + (few * TYPICAL_ROUNDED + growth) * unit
    return Errors(peak, typical)


def asked_class(case: Case) -> str:
    """The class that a case asks for."""
    return "tf32" if case.precision == "tf32" else case.dtype


def place(case: Case, errors: Mapping[str, Errors], wide_range: bool = True) -> str | None:
    """Return the best class that all results fit in; None if they fit in none.

    Args:
        case: Its dtype is the best that results of that dtype can be in.
        errors: The figures by the result's name.
        wide_range: Whether numbers beyond float16's range came out right.
    """
    for precision_class in CLASSES[CLASSES.index(case.dtype) :]:
        if precision_class == "tf32" and not wide_range:
            continue
        if all(excess(case, name, figures, precision_class) <= 1 for name, figures in errors.items()):
            return precision_class
    return None


def excess(case: Case, name: str, errors: Errors, precision_class: str) -> float:
    """How near the figures come to the limits of a class: above 1 they are beyond."""
    allowed = limits(case, name, precision_class)
    return max(errors.peak / allowed.peak, errors.typical / allowed.typical)


def good_enough(case: Case, precision_class: str | None) -> bool:
    """Whether a class is what the case asks for, or better."""
    return precision_class is not None and CLASSES.index(precision_class) <= CLASSES.index(asked_class(case))

"""What wrong values show by themselves: a factor, an offset, an order, numbers that were never written.

Each function yields sentences that hold for a wrong result.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final

import numpy as np

from harness.correctness.bound import UNIT_ROUNDOFF
from harness.correctness.factors import AXES, WORDS
from harness.correctness.inputs import round_to

if TYPE_CHECKING:
    import numpy.typing as npt

    from harness.case import Case

    Array = npt.NDArray[np.floating]
    Arrays = Mapping[str, Array]
    Mask = npt.NDArray[np.bool_]

#: Largest distance of a result from a candidate that it fits, in unit roundoffs of its own size and of the result's.
UNITS: Final = 64
#: Byte that poisoned memory holds once it is freed; fresh memory holds its complement.
POISON: Final = 0x40
#: Largest number of float16.
FLOAT16_MAX: Final = 65504.0
#: Wrong elements that are all below this were rounded to zero, rather than never written.
SMALL: Final = 1e-6
#: Most rows or columns among which another order is looked for.
MOST_ROWS: Final = 256
#: Fewest equal wrong elements that show a limit.
FEWEST_CLIPPED: Final = 3


@dataclasses.dataclass(frozen=True, slots=True)
class Wrong:
    """One wrong result, all values in float64.

    Attributes:
        name: Name of the result.
        right: Right values.
        actual: What came back.
        mask: True at wrong elements.
        tolerance: Distance within which two values are the same.
    """

    name: str
    right: Array
    actual: Array
    mask: Mask
    tolerance: Array

    @classmethod
    def of(cls, case: Case, name: str, right: Array, actual: Array) -> Wrong:
        """Compare a result with the right one, within the rounding of the case's arithmetic."""
        unit = UNIT_ROUNDOFF["tf32" if case.precision == "tf32" else case.dtype]
        largest = float(np.abs(right).max(initial=0.0))
        # Scaled first: a square of what is near overflow is infinite.
        typical = largest * math.sqrt(float(np.square(right / largest).mean())) if largest else 0.0
        tolerance = UNITS * unit * (np.abs(actual) + typical)
        return cls(name, right, actual, np.abs(actual - right) > tolerance, tolerance)

    def fits(self, candidate: Array) -> bool:
        """True if a candidate has the wrong values at the wrong elements, and knows half of them at least."""
        known = float(np.mean(~np.isnan(candidate[self.mask])))
        return known >= 0.5 and bool(self._near(candidate)[self.mask].all())

    def it(self, candidate: Array) -> str:
        """Return ``It`` if a candidate that fits has the right elements, too; else ``There it``."""
        return "It" if self._near(candidate).all() else "There it"

    def equals(self, text: str, candidate: Array) -> str:
        """Return the sentence for a candidate that fits."""
        return f"{self.it(candidate)} equals {text}"

    def _near(self, candidate: Array) -> Mask:
        near: Mask = (np.abs(candidate - self.actual) <= self.tolerance) | np.isnan(candidate)
        return near


def scaled(case: Case, wrong: Wrong, bias: Array | None) -> Iterator[str]:
    """Yield a constant factor: of the whole result, or of the sum before the bias is added."""
    factor = _factor(wrong, wrong.right, wrong.actual)
    if factor is not None:
        whole = factor * wrong.right
        cause = _cause(case, wrong.name, factor)
        yield f"{wrong.it(whole)} is {_times(factor)} the right answer: {cause}?"
    if wrong.name == "output" and bias is not None:
        factor = _factor(wrong, wrong.right - bias, wrong.actual - bias)
        if factor is not None:
            it = wrong.it(factor * (wrong.right - bias) + bias)
            cause = _cause(case, wrong.name, factor)
            yield f"{it} is {_times(factor)} the right sum, plus the bias: {cause}?"


def never_written(case: Case, wrong: Wrong) -> Iterator[str]:
    """Yield that the wrong elements hold what memory held before, or what they were initialised to."""
    values = wrong.actual[wrong.mask]
    first = float(values[0])
    whole, alike = bool((wrong.actual == first).all()), bool((values == first).all())
    poison = any(math.isclose(first, value, rel_tol=1e-5) for value in _poison(case))
    if poison and alike:
        it, them = ("It holds", "is it") if whole else ("The wrong elements hold", "are they")
        yield f"{it} what fresh memory held ({first:.4g}): {them} ever written?"
    elif first == 0 and alike and 0 < float(np.abs(wrong.right[wrong.mask]).max()) < SMALL:
        yield f"It is zero at numbers below {SMALL:.0e}: are they taken for zero?"
    elif first == 0 and alike and values.size > 1:
        it, them = ("It is zero everywhere", "is it") if whole else ("The wrong elements are zero", "are they")
        yield f"{it}: {them} ever written?"
    elif whole and values.size > 1:
        yield f"It is {first:.6g} everywhere: is it more than initialised?"


def off_by_a_constant(case: Case, wrong: Wrong) -> Iterator[str]:
    """Yield that the same number was added to each wrong element."""
    offsets = (wrong.actual - wrong.right)[wrong.mask]
    offset = float(np.median(offsets))
    if not (np.abs(offsets - offset) <= wrong.tolerance[wrong.mask]).all():
        return
    it = wrong.it(wrong.right + offset)
    if any(math.isclose(offset, value, rel_tol=1e-3) for value in _poison(case)):
        yield f"{it} is the right answer plus what fresh memory held ({offset:.4g}): is the sum set to zero first?"
    else:
        yield f"{it} is the right answer {'plus' if offset > 0 else 'minus'} {abs(offset):.6g}: is a constant added?"


def clipped(wrong: Wrong) -> Iterator[str]:
    """Yield that numbers beyond a limit have its value."""
    values = wrong.actual[wrong.mask]
    if np.unique(values).size > 2 or values.size < FEWEST_CLIPPED:
        return
    low, high = float(wrong.actual.min()), float(wrong.actual.max())
    if low == high:
        return
    for limited, text in (
        (np.minimum(wrong.right, high), f"above {high:.6g}"),
        (np.maximum(wrong.right, low), f"below {low:.6g}"),
        (np.clip(wrong.right, low, high), f"outside {low:.6g} to {high:.6g}"),
    ):
        if wrong.fits(limited):
            yield wrong.equals(f"the right answer without what is {text}: is it clipped?", limited)


def reordered(wrong: Wrong) -> Iterator[str]:
    """Yield that rows or columns of the right result are all there, in another order."""
    if wrong.right.ndim != 2:
        return
    for axis, letter in enumerate(AXES[wrong.name]):
        arrays = (wrong.right, wrong.actual, wrong.tolerance)
        right, actual, tolerance = (np.moveaxis(array, axis, 0) for array in arrays)
        if not 1 < len(right) <= MOST_ROWS or right.shape[1] < 2:
            continue
        same = np.array([(np.abs(row - right) <= bound).all(1) for row, bound in zip(actual, tolerance, strict=True)])
        if same.any(1).all() and len(set(same.argmax(1).tolist())) == len(right):
            along = WORDS[letter]
            yield f"It has the right numbers in another order along {along}: is an index permuted, or read too late?"


def rounded(case: Case, wrong: Wrong) -> Iterator[str]:
    """Yield that the right result was stored in half precision on the way."""
    for dtype in ("float16", "bfloat16"):
        if UNIT_ROUNDOFF[dtype] <= UNIT_ROUNDOFF[case.dtype]:
            continue
        stored = round_to(wrong.right.astype(np.float32), dtype).astype(np.float64)
        if wrong.fits(stored):
            yield wrong.equals(f"the right answer rounded to {dtype}: is it stored in {dtype} on the way?", stored)


def not_finite(right: Array, actual: Array, inputs: Arrays) -> str:
    """Return the likely cause of infinity or NaN in a result; empty if none is likely."""
    wrong = ~np.isfinite(actual)
    largest = max(float(np.abs(array).max(initial=0.0)) for array in inputs.values())
    if max(largest, float(np.abs(right[wrong]).max())) > FLOAT16_MAX:
        return "Numbers are beyond 65504 here: does it compute in float16, or overflow in a product on the way?"
    if not wrong.all() and np.allclose(actual[~wrong], right[~wrong], rtol=1e-3, atol=1e-3 * np.abs(right).max()):
        return "The other elements are right: are these ever written, or is fresh memory in their sum?"
    return "It is not finite though all numbers are small: is fresh memory read, or divided by zero?"


def _factor(wrong: Wrong, right: Array, actual: Array) -> float | None:
    """Return the constant factor between two arrays at the wrong elements; None if there is none, or if it is 0."""
    right, actual = right[wrong.mask], actual[wrong.mask]
    square = float(np.square(right).sum())
    factor = float((right * actual).sum()) / square if square else 0.0
    if abs(factor) < 1e-6 or not (np.abs(factor * right - actual) <= wrong.tolerance[wrong.mask]).all():
        return None
    return factor


def _times(factor: float) -> str:
    return "twice" if math.isclose(factor, 2, rel_tol=1e-4) else f"{factor:.6g} times"


def _cause(case: Case, name: str, factor: float) -> str:
    """Return the likely cause of a factor, as a question without its mark."""
    batch, in1, in2, out = case.sizes
    sizes = {"batch": batch, "in1_features": in1, "in2_features": in2, "out_features": out, "in1 x in2": in1 * in2}
    for size, count in sizes.items():
        if count > 1 and math.isclose(factor, 1 / count, rel_tol=1e-4):
            return f"that is 1 / {size}, is a mean taken in place of a sum"
    if math.isclose(factor, -1, rel_tol=1e-4):
        return "is a sign wrong"
    if math.isclose(factor, 2, rel_tol=1e-4):
        return "is it added to what was there, or done twice"
    for size, count in sizes.items():
        if count > 1 and math.isclose(factor, count, rel_tol=1e-4):
            return f"that is {size}, is it added up once too often"
        if count > 1 and math.isclose(factor, count**-0.5, rel_tol=1e-4):
            return f"that is 1 / sqrt({size}), is it scaled as attention is"
    return "is there a factor too many"


def _poison(case: Case) -> tuple[float, ...]:
    """Return what poisoned memory holds as numbers of the case's dtype: fresh, then freed."""
    found = []
    for byte in (0xFF - POISON, POISON):
        if case.dtype == "bfloat16":  # the upper half of a float32
            raw, kind = bytes([0, 0, byte, byte]), np.dtype(np.float32)
        else:
            raw, kind = bytes([byte] * case.itemsize), np.dtype(case.dtype)
        found.append(float(np.frombuffer(raw, kind)[0]))
    return tuple(found)

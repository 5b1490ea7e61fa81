"""Decide whether results are right: expected and actual arrays in, a verdict out.

The gate is closed at first: a verdict says no until every check has said yes. In order: the native result's dtype,
shape and device as the worker saw them, before anything could cast or broadcast; finiteness; then each element of each
result on the scale of that element.

**The tolerance.** For an element with reference value r and scale S (its sum with every term made positive)::

    tolerance = 16 u S  +  r_in S  +  u_out |r|  +  tiny

* ``u`` is the unit roundoff of the accumulation: 2^-24 in float32 (and for half-precision cases, which accumulate in
  float32), 2^-53 in float64. The textbook bound has gamma_n, about n u, in place of 16 u (Higham, Accuracy and
  Stability of Numerical Algorithms, 2nd ed., section 3.1; n = in1 in2 + 1 terms); at 512 x 512 that would let an
  output of 0 pass. On the zero-mean inputs used here rounding errors mostly cancel: honest float32 techniques, down
  to one sequential sum over all of i and j, were measured at 0.04 to 2.7 u S from 32 x 32 to 512 x 512, while tf32
  operands gave 50 u S and more.
* ``r_in`` is what the case allows the operands or the stored intermediate to be rounded to: two operands of 2^-11 for
  tf32; for float16 and bfloat16 two unit roundoffs of the dtype, one for the intermediate that an unfused technique
  stores and one for partial sums stored in the dtype (nn.Bilinear adds the pages of a gradient up so: 1.3 was seen).
* ``u_out |r|`` is the rounding of the result to its dtype, ``tiny`` the smallest normal number of that dtype.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from harness.case import Case

    Arrays = Mapping[str, npt.NDArray[np.floating]]

#: Multiple of u S that an honest technique never reaches; see the module's docstring.
ACCUMULATION_FACTOR: Final = 16
UNIT_ROUNDOFF: Final = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
TF32_ROUNDOFF: Final = 2.0**-11
TINY: Final = {"float64": 2.0**-1022, "float32": 2.0**-126, "float16": 2.0**-14, "bfloat16": 2.0**-126}


@dataclasses.dataclass(frozen=True, slots=True)
class Facts:
    """What a native result says of itself, before it is converted. None where it does not say."""

    type: str
    dtype: str | None
    shape: tuple[int, ...] | None
    device: str | None


@dataclasses.dataclass(frozen=True, slots=True)
class Verdict:
    """The gate's answer.

    Attributes:
        ok: Whether every check passed.
        reason: The first check that did not, in words; empty when all did.
        error_over_bound: Largest error over its element's tolerance, over all results; None before elements were seen.
        absolute_error: Largest absolute error over all results; None before elements were seen.
    """

    ok: bool = False
    reason: str = "nothing was checked"
    error_over_bound: float | None = None
    absolute_error: float | None = None


def judge_facts(case: Case, device: str, facts: Mapping[str, Facts]) -> Verdict:
    """Judge what the results say of themselves: names, dtypes, shapes, devices."""
    shapes = case.result_shapes()
    if set(facts) != set(shapes):
        return Verdict(reason=f"returned {_listing(facts)}, expected {_listing(shapes)}")
    for name, shape in shapes.items():
        fact = facts[name]
        if fact.dtype is None or fact.shape is None:
            return Verdict(reason=f"{name} is a {fact.type}, expected an array")
        if fact.dtype != case.dtype:
            return Verdict(reason=f"{name} has dtype {fact.dtype}, expected {case.dtype}")
        if fact.shape != shape:
            return Verdict(reason=f"{name} has shape {_shape(fact.shape)}, expected {_shape(shape)}")
        if fact.device != device:
            return Verdict(reason=f"{name} is on {fact.device}, expected {device}")
    return Verdict(ok=True, reason="")


def judge(case: Case, expected: Arrays, scales: Arrays, actual: Arrays) -> Verdict:
    """Judge values, each result on its own and every element of it.

    Args:
        case: Gives dtype, precision and the names and shapes of the results.
        expected: The reference's results, float64.
        scales: Their scales S, float64.
        actual: The contestant's results as float32 or float64, already judged by ``judge_facts``.

    Raises:
        ValueError: The reference itself is not finite, so it could not tell right from wrong.
    """
    worst, largest = 0.0, 0.0
    reasons: list[str] = []
    for name, shape in case.result_shapes().items():
        reference, scale, result = expected[name], scales[name], actual[name]
        if not (np.isfinite(reference).all() and np.isfinite(scale).all()):
            raise ValueError(f"the reference for {name} is not finite")
        if result.shape != shape:
            return Verdict(reason=f"{name} came back with shape {_shape(result.shape)}, expected {_shape(shape)}")
        if result.size == 0:
            continue
        finite = np.isfinite(result)
        if not finite.all():
            index = _index(np.argmin(finite), shape)
            return Verdict(reason=f"{name}[{index}] is {result.flat[np.argmin(finite)]}, expected a finite number")
        error = np.abs(result - reference)
        with np.errstate(over="ignore"):  # a result of 1e300 is over any bound, and infinity says so
            ratio = error / tolerance(case, reference, scale)
        first = int(np.argmax(ratio > 1))
        peak = float(ratio.max())
        worst, largest = max(worst, peak), max(largest, float(error.max()))
        if peak > 1:
            wrong = int(np.count_nonzero(ratio > 1))
            reasons.append(
                f"{name}[{_index(first, shape)}] is {result.flat[first]:.9g}, expected {reference.flat[first]:.9g}: "
                f"{ratio.flat[first]:.3g} times the tolerance; {wrong} of {result.size} elements are wrong (seed "
                f"{case.seed})"
            )
    return Verdict(not reasons, "; ".join(reasons), worst, largest)


def tolerance(
    case: Case, reference: npt.NDArray[np.floating], scale: npt.NDArray[np.floating]
) -> npt.NDArray[np.floating]:
    """Return the largest error allowed for each element; the module's docstring derives it."""
    half = case.dtype in ("float16", "bfloat16")
    accumulation = UNIT_ROUNDOFF["float64" if case.dtype == "float64" else "float32"]
    rounding = 2 * UNIT_ROUNDOFF[case.dtype] if half else 0.0
    if case.precision == "tf32":
        rounding += 2 * TF32_ROUNDOFF
    allowed: npt.NDArray[np.floating] = (
        (ACCUMULATION_FACTOR * accumulation + rounding) * scale
        + UNIT_ROUNDOFF[case.dtype] * np.abs(reference)
        + TINY[case.dtype]
    )
    return allowed


def combine(*verdicts: Verdict) -> Verdict:
    """The verdict of several inputs: the first no, with the largest errors of all."""
    if not verdicts:
        return Verdict()
    bounds = [verdict.error_over_bound for verdict in verdicts if verdict.error_over_bound is not None]
    errors = [verdict.absolute_error for verdict in verdicts if verdict.absolute_error is not None]
    refused = next((verdict for verdict in verdicts if not verdict.ok), None)
    return Verdict(
        ok=refused is None,
        reason=refused.reason if refused else "",
        error_over_bound=max(bounds, default=None),
        absolute_error=max(errors, default=None),
    )


def mean_absolute_difference(one: npt.NDArray[np.floating], other: npt.NDArray[np.floating]) -> float | None:
    """The figure of the article that started this: ``mean(|one - other|)``; None for nothing, or if not finite."""
    if one.shape != other.shape or one.size == 0:
        return None
    mean = float(np.abs(one.astype(np.float64) - other.astype(np.float64)).mean())
    return mean if math.isfinite(mean) else None


def _index(position: int | np.intp, shape: tuple[int, ...]) -> str:
    return ", ".join(str(int(axis)) for axis in np.unravel_index(position, shape))


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(str(size) for size in shape) or "()"


def _listing(names: Mapping[str, object]) -> str:
    return ", ".join(sorted(names)) or "nothing"

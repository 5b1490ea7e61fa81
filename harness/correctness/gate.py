"""Decide whether results are right: expected and actual arrays in, a verdict out.

The gate is closed at first: a verdict says no until every check has said yes. What is asked of each result, in order:
the native result's type, dtype, shape and device as the worker saw them, before anything could cast or broadcast;
finiteness; then its elements, by one of the probes:

* ``exact.py``: small integers, tolerance zero;
* ``bound.py``: every element within the textbook bound;
* ``precision.py``: errors as small as the arithmetic that the case asks for.

``structure.py`` says on which odd sizes and inputs, ``behaviour.py`` what a kernel may not do besides.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final

import numpy as np

from harness.correctness import bound, exact, precision

if TYPE_CHECKING:
    import numpy.typing as npt

    from harness.case import Case

    Arrays = Mapping[str, npt.NDArray[np.floating]]

#: What a row is asked, in the order of the table that ``check`` prints.
PROBES: Final = ("edge_cases", "exact", "bound", "precision", "conduct")


@dataclasses.dataclass(frozen=True, slots=True)
class Facts:
    """What a native result says of itself, before it is converted. None where it does not say."""

    type: str
    dtype: str | None
    shape: tuple[int, ...] | None
    device: str | None


@dataclasses.dataclass(frozen=True, slots=True)
class Expected:
    """What the reference says of one question.

    Attributes:
        values: The right results, float64.
        scales: S of each element: the same sum with every term positive. Empty for questions with the tolerance zero.
        quadratics: For each result the root of the mean over its elements of Q squared, the sum of squared terms.
        samples: For float64 cases: positions of some elements of each result, and a wider reference for them.
    """

    values: Arrays
    scales: Arrays = dataclasses.field(default_factory=dict)
    quadratics: Mapping[str, float] = dataclasses.field(default_factory=dict)
    samples: Mapping[str, tuple[npt.NDArray[np.integer], npt.NDArray[np.floating]]] = dataclasses.field(
        default_factory=dict
    )


@dataclasses.dataclass(frozen=True, slots=True)
class Verdict:
    """The gate's answer to one question.

    Attributes:
        ok: Whether every check passed.
        reason: The first check that did not, in words; empty when all did.
        probe: Which of ``PROBES`` asked.
        error_over_bound: The largest of: an element's error over its bound; the two figures of ``precision.py`` over
            the limits of the class asked for. None where no rounding was judged.
        absolute_error: Largest absolute error over all results; None where no rounding was judged.
        errors: The figures of ``precision.py`` by result.
        remark: What is worth a flag and no reason to refuse.
    """

    ok: bool = False
    reason: str = "nothing was checked"
    probe: str = ""
    error_over_bound: float | None = None
    absolute_error: float | None = None
    errors: Mapping[str, precision.Errors] = dataclasses.field(default_factory=dict)
    remark: str = ""


def passed(probe: str, remark: str = "") -> Verdict:
    """A yes."""
    return Verdict(ok=True, reason="", probe=probe, remark=remark)


def refused(probe: str, reason: str) -> Verdict:
    """A no, with its reason."""
    return Verdict(reason=reason, probe=probe)


def judge_facts(case: Case, device: str, native_type: str, facts: Mapping[str, Facts], probe: str) -> Verdict:
    """Judge what the results say of themselves: names, types, dtypes, shapes, devices.

    Args:
        case: Gives names, dtype and shapes.
        device: Where they should be.
        native_type: The exact type of an array of the backend, as its inputs have it.
        facts: By the result's name.
        probe: Who asks.
    """
    shapes = case.result_shapes()
    if set(facts) != set(shapes):
        return refused(probe, f"returned {_listing(facts)}, expected {_listing(shapes)}")
    for name, shape in shapes.items():
        fact = facts[name]
        if fact.dtype is None or fact.shape is None:
            return refused(probe, f"{name} is a {fact.type}, expected an array")
        if fact.type != native_type:
            return refused(probe, f"{name} is a {fact.type}, expected a {native_type}, as the inputs are")
        if fact.dtype != case.dtype:
            return refused(probe, f"{name} has dtype {fact.dtype}, expected {case.dtype}")
        if fact.shape != shape:
            return refused(probe, f"{name} has shape {_shape(fact.shape)}, expected {_shape(shape)}")
        if fact.device != device:
            return refused(probe, f"{name} is on {fact.device}, expected {device}")
    return passed(probe)


def judge_given(case: Case, device: str, facts: Mapping[str, Facts]) -> Verdict:
    """Judge what the backend's ``to_device`` made of inputs and parameters: dtypes, shapes, devices."""
    for name, shape in case.shapes().items():
        fact = facts[name]
        if (fact.dtype, fact.shape, fact.device) != (case.dtype, shape, device):
            return refused(
                "conduct",
                f"to_device made {name} a {fact.type} of {fact.dtype}, {_shape(fact.shape or ())}, on {fact.device}; "
                f"expected {case.dtype}, {_shape(shape)}, on {device}",
            )
    return passed("conduct")


def judge_exactly(case: Case, expected: Expected, actual: Arrays, probe: str = "exact") -> Verdict:
    """Judge with the tolerance zero, each result on its own.

    Args:
        case: Gives the names and shapes of the results.
        expected: The reference's results.
        actual: The backend's, already judged by ``judge_facts``.
        probe: Who asks.
    """
    reasons = []
    for name, shape in case.result_shapes().items():
        if (fault := _form(name, shape, expected.values[name], actual[name])) is not None:
            return refused(probe, fault)
        if (found := exact.first_difference(expected.values[name], actual[name])) is not None:
            first, wrong = found
            reasons.append(
                f"{name}[{_index(first, shape)}] is {actual[name].flat[first]:.9g}, expected exactly "
                f"{expected.values[name].flat[first]:.9g}; {wrong} of {actual[name].size} elements are wrong "
                f"(seed {case.seed})"
            )
    return refused(probe, "; ".join(reasons)) if reasons else passed(probe)


def judge(case: Case, expected: Expected, actual: Arrays, probe: str = "bound") -> Verdict:
    """Judge rounding: every element of every result against its bound, and each result's two figures of precision.

    Whether the figures are good enough is for ``judge_precision``, which sees those of several inputs together.

    Args:
        case: Gives dtype, precision and the names and shapes of the results.
        expected: The reference's results, with scales and quadratics.
        actual: The backend's results as float32 or float64, already judged by ``judge_facts``.
        probe: Who asks.

    Raises:
        ValueError: The reference itself is not finite, so it could not tell right from wrong.
    """
    worst, largest = 0.0, 0.0
    reasons: list[str] = []
    errors: dict[str, precision.Errors] = {}
    for name, shape in case.result_shapes().items():
        reference, scale, result = expected.values[name], expected.scales[name], actual[name]
        if not np.isfinite(scale).all():
            raise ValueError(f"the reference for {name} is not finite")
        if (fault := _form(name, shape, reference, result)) is not None:
            return refused(probe, fault)
        if result.size == 0:
            continue
        peak = 0.0
        for part, wanted, allowed in bound.pieces(result, reference, scale):
            error = np.abs(part - wanted)
            peak = max(peak, float(_over(error, bound.tolerance(case, name, wanted, allowed)).max()))
            largest = max(largest, float(error.max()))
        worst = max(worst, peak)
        if peak > 1:
            ratio = _over(np.abs(result - reference), bound.tolerance(case, name, reference, scale))
            first, wrong = int(np.argmax(ratio > 1)), int(np.count_nonzero(ratio > 1))
            reasons.append(
                f"{name}[{_index(first, shape)}] is {result.flat[first]:.9g}, expected {reference.flat[first]:.9g}: "
                f"{ratio.flat[first]:.3g} times the bound; {wrong} of {result.size} elements are wrong (seed "
                f"{case.seed})"
            )
        errors[name] = _figures(case, name, expected, result)
    asked = precision.asked_class(case)
    worst = max([worst, *(precision.excess(case, name, figures, asked) for name, figures in errors.items())])
    return Verdict(not reasons, "; ".join(reasons), probe, worst, largest, errors)


def judge_precision(case: Case, verdicts: Iterable[Verdict], wide_range: bool = True) -> tuple[str | None, Verdict]:
    """Place all that was seen in a precision class, and judge whether it is what the case asks for.

    Args:
        case: Asks for a class.
        verdicts: Of ``judge``.
        wide_range: Whether numbers beyond float16's range came out right.
    """
    worst: dict[str, precision.Errors] = {}
    for verdict in verdicts:
        for name, figures in verdict.errors.items():
            seen = worst.get(name, figures)
            worst[name] = precision.Errors(max(seen.peak, figures.peak), max(seen.typical, figures.typical))
    found, asked = precision.place(case, worst, wide_range), precision.asked_class(case)
    if precision.good_enough(case, found):
        return found, passed("precision")
    name = max(worst, key=lambda result: precision.excess(case, result, worst[result], asked), default="")
    figures, allowed = worst[name], precision.limits(case, name, asked)
    unit = bound.UNIT_ROUNDOFF[asked]
    what = f"was computed in {found or 'less than bfloat16'}, expected {asked}"
    if figures.typical <= allowed.typical and figures.peak <= allowed.peak:
        return found, refused("precision", f"was computed in {found}: numbers beyond float16's range came out wrong")
    if figures.typical <= allowed.typical:
        what = f"is as exact as {asked} as a whole, but not in some element"
    reason = (
        f"{name} {what}: typical error {figures.typical / unit:.3g} u, allowed {allowed.typical / unit:.3g} u; largest "
        f"{figures.peak / unit:.3g} u of S, allowed {allowed.peak / unit:.3g} u (u = {unit:.2g}; seed {case.seed})"
    )
    return found, refused("precision", reason)


def mean_absolute_difference(one: npt.NDArray[np.floating], other: npt.NDArray[np.floating]) -> float | None:
    """The figure of the article that started this: ``mean(|one - other|)``; None for nothing, or if not finite."""
    if one.shape != other.shape or one.size == 0:
        return None
    mean = float(np.abs(one.astype(np.float64) - other.astype(np.float64)).mean())
    return mean if math.isfinite(mean) else None


def _over(error: npt.NDArray[np.floating], allowed: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    with np.errstate(over="ignore"):  # a result of 1e300 is over any bound, and infinity says so
        ratio: npt.NDArray[np.floating] = error / allowed
    return ratio


def _figures(case: Case, name: str, expected: Expected, result: npt.NDArray[np.floating]) -> precision.Errors:
    """The figures of one result; where there is a wider reference, of the elements that it knows."""
    values, scale = expected.values[name], expected.scales[name]
    if name in expected.samples:
        positions, wide = expected.samples[name]
        result, values, scale = result.reshape(-1)[positions].astype(wide.dtype), wide, scale.reshape(-1)[positions]
    return precision.measure(case, values, scale, expected.quadratics[name], result)


def _form(
    name: str, shape: tuple[int, ...], reference: npt.NDArray[np.floating], result: npt.NDArray[np.floating]
) -> str | None:
    """Say what is wrong with a result before its values count: its shape, or that it is not finite."""
    if not np.isfinite(reference).all():
        raise ValueError(f"the reference for {name} is not finite")
    if result.shape != shape:
        return f"{name} came back with shape {_shape(result.shape)}, expected {_shape(shape)}"
    finite = np.isfinite(result)
    if not finite.all():
        first = np.argmin(finite)
        return f"{name}[{_index(first, shape)}] is {result.flat[first]}, expected a finite number"
    return None


def _index(position: int | np.intp, shape: tuple[int, ...]) -> str:
    return ", ".join(str(int(axis)) for axis in np.unravel_index(position, shape))


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(str(size) for size in shape) or "()"


def _listing(names: Mapping[str, object]) -> str:
    return ", ".join(sorted(names)) or "nothing"

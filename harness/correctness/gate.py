"""Decide whether results are right: expected and actual arrays in, a verdict out.

The gate is closed at first: a verdict says no until every check has said yes. The checks of a result, in order:

* type, dtype, shape and device of the native result, before a conversion could cast or broadcast it;
* finiteness;
* its elements, by one of the probes: ``exact.py`` (small integers, tolerance zero), ``bound.py`` (every element within
  the textbook bound), ``precision.py`` (errors as small as the arithmetic that the case requests).

``edge_cases.py`` has the odd sizes and special values; ``conduct.py`` has what a kernel may not do.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from harness.correctness import bound, diagnosis, exact, precision
from harness.correctness.verdict import Expected, Facts, Verdict, passed, refused

if TYPE_CHECKING:
    import numpy.typing as npt

    from harness.case import Case
    from harness.checked import Elements

    Array = npt.NDArray[np.floating]
    Arrays = Mapping[str, Array]


def judge_facts(case: Case, device: str, native_type: str, facts: Mapping[str, Facts], probe: str) -> Verdict:
    """Judge what the results say of themselves: names, types, dtypes, shapes, devices.

    Args:
        case: Names, dtype and shapes of the results.
        device: The device that the results must be on.
        native_type: The exact type of the backend's inputs.
        facts: Facts by the result's name.
        probe: One of ``PROBES``.
    """
    shapes = case.result_shapes()
    if missing := [name for name in shapes if name not in facts]:
        cause = diagnosis.NOTHING if missing[0] == "output" else "Is that gradient computed, and returned?"
        return refused(
            probe, f"{' and '.join(missing)} is None, expected an array", hypothesis=cause, result=missing[0]
        )
    if extra := [name for name in facts if name not in shapes]:
        return refused(probe, f"{' and '.join(extra)} came back, expected None: this case has none", result=extra[0])
    for name, shape in shapes.items():
        fact = facts[name]
        if reason := _malformed(fact, Facts(native_type, case.dtype, shape, device)):
            return refused(probe, f"{name} {reason}", hypothesis=diagnosis.of_form(case, name, fact), result=name)
    return passed(probe)


def judge_given(case: Case, device: str, facts: Mapping[str, Facts]) -> Verdict:
    """Judge the arrays that the backend's ``to_device`` returned: dtypes, shapes, devices."""
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
        case: Names and shapes of the results.
        expected: The reference's results.
        actual: The backend's results, already judged by ``judge_facts``.
        probe: One of ``PROBES``.
    """
    wrong: list[Elements] = []
    for name, shape in case.result_shapes().items():
        reference, result = expected.values[name], actual[name]
        if (fault := _form(probe, name, shape, reference, result)) is not None:
            return fault
        if (differ := exact.differences(reference, result)) is not None:
            wrong.append(diagnosis.elements(name, reference, result, differ))
    if not wrong:
        return passed(probe)
    return refused(probe, "; ".join(f"{elements} (seed {case.seed})" for elements in wrong), wrong[0])


def judge(case: Case, expected: Expected, actual: Arrays, probe: str = "bound") -> Verdict:
    """Judge rounding: each element against its bound, and each result's two figures of precision.

    ``judge_precision`` decides whether the figures are good enough, from those of several inputs together.

    Args:
        case: Dtype, precision, and the names and shapes of the results.
        expected: The reference's results, with scales and quadratics.
        actual: The backend's results as float32 or float64, already judged by ``judge_facts``; or a drawn part of them.
        probe: One of ``PROBES``.

    Raises:
        ValueError: The reference itself is not finite, so it cannot tell right from wrong.
    """
    worst, largest, few = 0.0, 0.0, False
    reasons: list[str] = []
    first: Elements | None = None
    errors: dict[str, precision.Errors] = {}
    for name in case.result_shapes():
        reference, scale, result = expected.values[name], expected.scales[name], actual[name]
        if not np.isfinite(scale).all():
            raise ValueError(f"the reference for {name} is not finite")
        if (fault := _form(probe, name, reference.shape, reference, result)) is not None:
            return fault
        if result.size == 0:
            continue
        peak, absolute = _largest_errors(case, name, reference, scale, result)
        worst, largest = max(worst, peak), max(largest, absolute)
        if peak > 1:
            wrong, reason = _beyond_bound(case, name, reference, scale, result)
            reasons.append(reason)
            first = first or wrong
            few |= bound.few_are_wrong(wrong.wrong / wrong.size, peak)
        errors[name] = _figures(case, name, expected, result)
    asked = precision.asked_class(case)
    worst = max([worst, *(precision.excess(case, name, figures, asked) for name, figures in errors.items())])
    return Verdict(not reasons, "; ".join(reasons), probe, worst, largest, errors, elements=first, few_are_wrong=few)


def judge_precision(case: Case, verdicts: Iterable[Verdict], wide_range: bool = True) -> tuple[str | None, Verdict]:
    """Place the figures of several verdicts in a precision class, and judge it against the case's.

    Args:
        case: The class that is required.
        verdicts: Verdicts of ``judge``.
        wide_range: True if numbers beyond float16's range came out right.

    Returns:
        The class, None if even bfloat16 is finer; and the verdict.
    """
    worst: dict[str, precision.Errors] = {}
    for verdict in verdicts:
        for name, figures in verdict.errors.items():
            seen = worst.get(name, figures)
            worst[name] = precision.Errors(max(seen.peak, figures.peak), max(seen.typical, figures.typical))
    placed, asked = precision.place(case, worst, wide_range), precision.asked_class(case)
    if precision.good_enough(case, placed):
        return placed, passed("precision")
    name = max(worst, key=lambda result: precision.excess(case, result, worst[result], asked), default="")
    as_a_whole = worst[name].typical > precision.limits(case, name, asked).typical
    hypothesis = diagnosis.of_arithmetic(case, placed) if as_a_whole else ""
    return placed, refused("precision", _coarser(case, name, worst[name], placed), hypothesis=hypothesis, result=name)


def mean_absolute_difference(one: Array, other: Array) -> float | None:
    """Return ``mean(|one - other|)``; None if shapes differ, if there is no element, or if the mean is not finite."""
    if one.shape != other.shape or one.size == 0:
        return None
    mean = float(np.abs(one.astype(np.float64) - other.astype(np.float64)).mean())
    return mean if math.isfinite(mean) else None


def _malformed(fact: Facts, expected: Facts) -> str:
    """Return what a result says of itself that it must not; empty if all is as expected."""
    if fact.dtype is None or fact.shape is None:
        kind = fact.type.removeprefix("builtins.")
        return f"is {'None' if kind == 'NoneType' else f'a {kind}'}, expected an array"
    if fact.type != expected.type:
        return f"is a {fact.type}, expected a {expected.type}, as the inputs are"
    if fact.dtype != expected.dtype:
        return f"has dtype {fact.dtype}, expected {expected.dtype}"
    if fact.shape != expected.shape:
        return f"has shape {_shape(fact.shape)}, expected {_shape(expected.shape or ())}"
    return "" if fact.device == expected.device else f"is on {fact.device}, expected {expected.device}"


def _coarser(case: Case, name: str, figures: precision.Errors, placed: str | None) -> str:
    """Return why one result's figures are not good enough.

    Args:
        case: The class that is required.
        name: The result that exceeds its limits most.
        figures: Its figures.
        placed: The class of all results together.
    """
    asked = precision.asked_class(case)
    allowed = precision.limits(case, name, asked)
    if figures.typical <= allowed.typical and figures.peak <= allowed.peak:
        return f"was computed in {placed}: numbers beyond float16's range came out wrong"
    what = f"was computed in {placed or 'less than bfloat16'}, expected {asked}"
    if figures.typical <= allowed.typical:
        what = f"is as exact as {asked} as a whole, but not in some element"
    unit = bound.UNIT_ROUNDOFF[asked]
    return (
        f"{name} {what}: typical error {figures.typical / unit:.3g} u, allowed {allowed.typical / unit:.3g} u; largest "
        f"{figures.peak / unit:.3g} u of S, allowed {allowed.peak / unit:.3g} u (u = {unit:.2g}; seed {case.seed})"
    )


def _largest_errors(case: Case, name: str, reference: Array, scale: Array, result: Array) -> tuple[float, float]:
    """Return the largest error over its bound, and the largest error; in pieces, so that temporaries stay small."""
    peak, largest = 0.0, 0.0
    for part, wanted, allowed in bound.pieces(result, reference, scale):
        error = np.abs(part - wanted)
        peak = max(peak, float(_over(error, bound.tolerance(case, name, wanted, allowed)).max()))
        largest = max(largest, float(error.max()))
    return peak, largest


def _beyond_bound(case: Case, name: str, reference: Array, scale: Array, result: Array) -> tuple[Elements, str]:
    """Return the elements of a result that are beyond their bound, and the reason to refuse it."""
    ratio = _over(np.abs(result - reference), bound.tolerance(case, name, reference, scale))
    wrong = diagnosis.elements(name, reference, result, ratio > 1)
    beyond = f"{ratio[wrong.index]:.3g} times the bound"
    return wrong, f"{wrong.first}: {beyond}; {wrong.count} (seed {case.seed})"


def _over(error: Array, allowed: Array) -> Array:
    with np.errstate(over="ignore"):  # a result of 1e300 is over any bound, and infinity says so
        ratio: Array = error / allowed
    return ratio


def _figures(case: Case, name: str, expected: Expected, result: Array) -> precision.Errors:
    """Return the figures of one result; of the sampled elements alone where there is a wider reference."""
    values, scale = expected.values[name], expected.scales[name]
    if name in expected.samples:
        positions, wide = expected.samples[name]
        result, values, scale = result.reshape(-1)[positions].astype(wide.dtype), wide, scale.reshape(-1)[positions]
    return precision.measure(case, values, scale, expected.quadratics[name], result)


def _form(probe: str, name: str, shape: tuple[int, ...], reference: Array, result: Array) -> Verdict | None:
    """Refuse what is wrong with a result before its values count: its shape, or an element that is not finite."""
    if not np.isfinite(reference).all():
        raise ValueError(f"the reference for {name} is not finite")
    if result.shape != shape:
        return refused(probe, f"{name} came back with shape {_shape(result.shape)}, expected {_shape(shape)}")
    finite = np.isfinite(result)
    if not finite.all():
        wrong = diagnosis.elements(name, reference, result, ~finite)
        index = ", ".join(map(str, wrong.index))
        return refused(probe, f"{name}[{index}] is {wrong.actual}, expected a finite number; {wrong.count}", wrong)
    return None


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(str(size) for size in shape) or "()"

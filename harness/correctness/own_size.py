"""Judge results for the inputs of ``telling_rows.py``, at the sizes that are timed.

Errors for ``telling rows`` are held to the peak that the case's class allows, on the scale S of each element. The sum
of a dense row hides how its products were made. A sparse row shows that at any size: two bfloat16 carry 16 bits of a
float32's 24 and are off by up to 256 u; two float16 carry 22 bits, are off by 4 u, and count as float32.

Strassen's and like products mix rows. They promise a bound on the scale of the largest row alone, so small rows drown
in what large ones leave. Such results get the flag ``normwise``: the row with the largest operand is right, rows with
small ones are off by more than their own products, and no more than half of those are left out.

Results for ``nonfinite rows`` are those of ``normal`` wherever neither NaN nor infinity reaches. They may reach other
results, which is flagged; what is finite must be right.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

import numpy as np

from harness.correctness import diagnosis, precision
from harness.correctness.bound import TINY, UNIT_ROUNDOFF, tolerance
from harness.correctness.inputs import EXPONENTS, make_inputs
from harness.correctness.telling_rows import exponents, nonfinite_places, roles
from harness.correctness.verdict import Expected, Verdict, passed, refused
from harness.record import Flag

if TYPE_CHECKING:
    import numpy.typing as npt

    from harness.case import Case

    Array = npt.NDArray[np.floating]
    Arrays = Mapping[str, Array]
    Mask = npt.NDArray[np.bool_]
    Rows = slice | list[int]

PROBE: Final = "bound"
#: Largest error of a subnormal row, as a share of S: intermediates may be subnormal, too, and lose bits.
SUBNORMAL_SHARE: Final = 2.0**-4
#: Factor on the peak that ``normwise`` results may have, on the scale of the largest row: the constant of one level of
#: Strassen's product.
NORMWISE: Final = 16.0
#: Largest share of the wrong rows that ``normwise`` results may leave out.
VANISHED_SHARE: Final = 0.5
#: Results that have a row for each row of the batch, and the arrays whose rows they are made of.
FACTORS: Final = {
    "output": ("input1", "input2"),
    "grad_input1": ("grad_output", "input2"),
    "grad_input2": ("grad_output", "input1"),
}


def judge_rows(case: Case, expected: Expected, actual: Arrays) -> Verdict:
    """Judge the results for ``telling rows``.

    Args:
        case: The case.
        expected: The reference's results, with scales; of a part where one was drawn.
        actual: The backend's results.
    """
    flags: set[Flag] = set()
    for name, shape in case.result_shapes().items():
        result, scale, peak = actual[name], expected.scales[name], _peak(case, name)
        if result.shape != shape:
            return refused(PROBE, f"{name} came back with another shape")
        value, result = expected.values[name], result if expected.drawn is None else expected.drawn.of(name, result)
        with np.errstate(invalid="ignore", over="ignore"):
            error = np.abs(result - value)
        least = UNIT_ROUNDOFF[case.dtype] * np.abs(value) + 2 * TINY[case.dtype]
        wrong = ~(error <= peak * scale + least)  # NaN is wrong
        if name in FACTORS:
            rows = slice(None) if expected.drawn is None else list(expected.drawn.rows)
            wrong = _without_subnormal(case, name, rows, wrong, error, scale, flags)
            if wrong.any() and _normwise(case, name, rows, wrong, error, scale, result):
                flags.add(Flag.NORMWISE)
                continue
        if wrong.any():
            return _refused(case, name, value, result, wrong)
    return passed(PROBE, Flag.NORMWISE if Flag.NORMWISE in flags else next(iter(flags), ""))


def judge_nonfinite(case: Case, expected: Expected, actual: Arrays) -> Verdict:
    """Judge the results for ``nonfinite rows``.

    Args:
        case: The case.
        expected: The reference's results for ``normal``.
        actual: The backend's results.
    """
    flagged = False
    for name, (value, finite) in _nonfinite(case, expected.values).items():
        result = actual[name]
        if result.shape != value.shape:
            return refused(PROBE, f"{name} came back with another shape")
        flagged |= not np.array_equal(np.isfinite(result), finite)
        with np.errstate(invalid="ignore"):
            error = np.abs(result - value)
        wrong = finite & np.isfinite(result) & ~(error <= tolerance(case, name, value, expected.scales[name]))
        if wrong.any():
            return _refused(case, name, value, result, wrong)
    return passed(PROBE, Flag.NONFINITE_DIFFERS if flagged else "")


#: Judges by the question's way of judging.
JUDGES: Final[dict[str, Callable[[Case, Expected, Arrays], Verdict]]] = {
    "rows": judge_rows,
    "nonfinite": judge_nonfinite,
}


def _peak(case: Case, name: str) -> float:
    return precision.limits(case, name, precision.asked_class(case)).peak


def _bias(case: Case, name: str) -> Array | float:
    """Return what zeros in the inputs leave of a result."""
    return make_inputs(case, only=("bias",)).get("bias", 0.0) if name == "output" else 0.0


def _without_subnormal(
    case: Case, name: str, judged: Rows, wrong: Mask, error: Array, scale: Array, flags: set[Flag]
) -> Mask:
    """Return the wrong elements without those of subnormal rows that are rough, or flushed, which is flagged."""
    bias = np.abs(_bias(case, name))
    rows = (roles(case) == "subnormal")[judged, None]
    least = _peak(case, name) * scale + 2 * TINY[case.dtype]
    rough, flushed = (rows & wrong & (error <= share * (scale - bias) + least) for share in (SUBNORMAL_SHARE, 1.0))
    if (flushed & ~rough).any():
        flags.add(Flag.FLUSHES_SUBNORMALS)
    left: Mask = wrong & ~flushed
    return left


def _normwise(case: Case, name: str, judged: Rows, wrong: Mask, error: Array, scale: Array, result: Array) -> bool:
    """True if all wrong elements are what large rows leave in small ones, in a product that mixes rows."""
    one, other = FACTORS[name]
    bias = _bias(case, name)
    exponent = {name: of_rows[judged] for name, of_rows in exponents(case).items()}
    ordinary = np.ldexp(scale - np.abs(bias), -(exponent[one] + exponent[other])[:, None])
    allowed = NORMWISE * _peak(case, name) * ordinary.max(axis=0, keepdims=True, initial=0.0)
    # The product that mixes rows may begin with either factor; the other one multiplies what is left.
    left = [exponent[one].max() + exponent[other], exponent[other].max() + exponent[one]]
    with np.errstate(over="ignore"):
        most = [np.ldexp(allowed, exponents[:, None]) for exponents in left]
    beyond = 2.0 ** EXPONENTS[case.dtype][0]
    explained = any(((error <= each) | (~np.isfinite(error) & (each > beyond)))[wrong].all() for each in most)
    # A single small row may cancel to nothing; where small rows are dropped, all of them do.
    vanished = (result == bias).all(axis=1)[wrong.any(axis=1)].mean() > VANISHED_SHARE
    # Next to large rows anything is explained. Coarse, clipped or dropped products are off by no more than they are.
    large = max(exponent[one].max(), exponent[other].max()) > 0
    apart = not large or (~(error <= scale - np.abs(bias)))[wrong].any()
    return bool(explained and apart and not vanished)


def _nonfinite(case: Case, normal: Arrays) -> dict[str, tuple[Array, Mask]]:
    """Return the results for ``nonfinite rows`` where they are finite, and where that is."""
    nan, infinity = nonfinite_places(case)
    made = {name: (np.array(values), np.ones(values.shape, bool)) for name, values in normal.items()}
    reached: list[tuple[str, tuple[slice | int, ...]]] = []
    if nan is not None:
        reached += [("output", (nan[0],)), ("grad_input2", (nan[0],)), ("grad_weight", (slice(None), nan[1]))]
    if infinity is not None:
        row, column = infinity
        reached += [("output", (row,)), ("grad_input1", (row,))]
        reached += [("grad_weight", (slice(None), slice(None), column))]
        if "grad_weight" in made:
            given = make_inputs(case, only=("input1", "input2", "grad_output"))
            rows = [given[name][row].astype(np.float64) for name in ("grad_output", "input1", "input2")]
            made["grad_weight"][0][...] -= np.einsum("o,i,j->oij", *rows)
            made["grad_input2"][0][row] = 0
    for name, place in reached:
        if name in made:
            made[name][1][place] = False
    return made


def _refused(case: Case, name: str, value: Array, result: Array, wrong: Mask) -> Verdict:
    elements = diagnosis.elements(name, value, result, wrong)
    return refused(PROBE, f"{elements} (seed {case.seed})", elements)

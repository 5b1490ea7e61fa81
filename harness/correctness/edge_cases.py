"""The edge cases: odd sizes and special values, in a worker that is never timed and whose fresh memory is poisoned.

A kernel that is right on one shape may be wrong on another. It may transpose where all sizes are equal, forget a tail,
share a packed weight with another kernel, or rely on fresh memory being zero. Each edge case asks for one such thing.
All sizes are small, so every backend answers all of them, once for each dtype, precision and mode.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

import numpy as np

from harness.case import Case
from harness.correctness import diagnosis
from harness.correctness.bound import TINY, tolerance
from harness.correctness.gate import judge_exactly
from harness.correctness.inputs import LARGE_KINDS, permutation
from harness.correctness.verdict import Expected, Verdict, passed, refused
from harness.record import Flag

if TYPE_CHECKING:
    import numpy.typing as npt

    Arrays = Mapping[str, npt.NDArray[np.floating]]

PROBE: Final = "edge_cases"
#: Largest error as a share of S where the range of numbers is judged and not their rounding: far beyond any rounding.
ROUGH_SHARE: Final = 2.0**-4


@dataclasses.dataclass(frozen=True, slots=True)
class EdgeCase:
    """One question to a kernel.

    Attributes:
        name: Name of the question, and of the folder of its answer.
        sentence: Behaviour of a right kernel.
        case: Sizes, dtype, precision, bias, mode and seed.
        kind: Kind of the inputs; see ``inputs.py``.
        kernel: Edge cases of one case share a prepared kernel where this text is equal. Another text has a kernel of
            its own, prepared before any of them is called.
    """

    name: str
    sentence: str
    case: Case
    kind: str
    kernel: str = "first"


def all_edge_cases(asked: Case) -> tuple[EdgeCase, ...]:
    """Return the edge cases for the dtype, precision, mode and seed of a case; its sizes do not matter.

    Length: one entry an edge case; the tuple is the list of questions.
    """

    def sized(batch: int, in1: int, in2: int, out: int, bias: bool = True) -> Case:
        return dataclasses.replace(asked, batch=batch, in1_features=in1, in2_features=in2, out_features=out, bias=bias)

    primes = sized(7, 5, 3, 11)
    plain, square = sized(7, 5, 3, 11, bias=False), sized(7, 5, 5, 2)
    tall, wide = sized(131, 67, 37, 19), sized(5, 3, 131, 2, bias=False)
    changing = EdgeCase("new-weight", "the weights may change at every step, in place", primes, "other integers")
    return (
        EdgeCase("primes", "no axis is taken for another, on four sizes that are different primes", primes, "integers"),
        EdgeCase(
            "other-weight",
            "two kernels prepared with two weights and called in turn each answer for their own",
            primes,
            "other integers",
            kernel="second",
        ),
        *([changing] if asked.mode == "forward_backward" else []),
        EdgeCase("primes-again", "the first kernel still answers for its own weight", primes, "integers"),
        EdgeCase("exchanged", "other inputs give other results", primes, "exchanged input1"),
        EdgeCase("added", "the result is linear in input1", primes, "added input1"),
        EdgeCase("permuted", "permuting the rows of the batch permutes the results", primes, "permuted rows"),
        EdgeCase("zero", "a zero input1 leaves the bias", primes, "zero input1"),
        *(
            EdgeCase(kind.replace(" ", "-"), f"values near overflow come out right: {kind}", plain, kind, kernel)
            for kind, kernel in zip(LARGE_KINDS, ("first", "first", "large", "first"), strict=True)
            if asked.mode == "forward_backward" or kind != "large grad_output"
        ),
        EdgeCase("small", "values far below 1 come out right", plain, "small"),
        EdgeCase("subnormal", "subnormal values do no harm", plain, "subnormal"),
        EdgeCase("nonfinite", "NaN and infinity may go in; where they come out is reported", plain, "nonfinite"),
        EdgeCase("one-hot", "one-hot inputs read single weights back", sized(15, 5, 3, 11, bias=False), "one-hot"),
        EdgeCase("square", "in1_features and in2_features may be equal", square, "integers"),
        EdgeCase("tall", "no tail of a tile is left out, on larger primes", tall, "integers"),
        EdgeCase("wide", "there need not be a bias, and in1 may be far below in2", wide, "integers"),
        EdgeCase("row", "the batch may be a single row", sized(1, 3, 2, 5), "positive"),
        EdgeCase("in1", "in1_features may be 1", sized(7, 1, 2, 5), "positive"),
        EdgeCase("in2", "in2_features may be 1, and batch equal to out_features", sized(5, 3, 1, 5), "positive"),
        EdgeCase("out", "out_features may be 1", sized(7, 3, 2, 1), "positive"),
        EdgeCase("ones", "batch, in1_features and out_features may all be 1", sized(1, 1, 3, 1), "positive"),
        EdgeCase("empty", "a batch of zero rows gives zero rows", sized(0, 5, 3, 11), "integers"),
    )


def judge_edge_case(edge_case: EdgeCase, expected: Expected, answers: Mapping[str, Arrays]) -> Verdict:
    """Judge one edge case.

    Args:
        edge_case: The question.
        expected: The reference's answer.
        answers: The backend's answers by the edge case's name; some are compared with the answer to another one.
    """
    # Very large and very small numbers are judged by their range; other probes judge rounding.
    usual = _roughly if edge_case.kind in (*LARGE_KINDS, "small") else _exact
    judged = _JUDGES.get(edge_case.name, usual)(edge_case, expected, answers)
    return judged if judged.ok else dataclasses.replace(judged, reason=f"not so: {edge_case.sentence}: {judged.reason}")


def _exact(edge_case: EdgeCase, expected: Expected, answers: Mapping[str, Arrays]) -> Verdict:
    return judge_exactly(edge_case.case, expected, answers[edge_case.name], PROBE)


def _roughly(edge_case: EdgeCase, expected: Expected, answers: Mapping[str, Arrays]) -> Verdict:
    return _loosely(edge_case, expected, answers, ROUGH_SHARE)


def _linear(edge_case: EdgeCase, expected: Expected, answers: Mapping[str, Arrays]) -> Verdict:
    """Judge f(x + x') + f(0) = f(x) + f(x') of the kernel's own answers, whose values are judged where they are asked.

    It holds for every result, as long as it is linear in input1 or does not depend on it.
    """
    one, other, both, zero = (answers[name] for name in ("primes", "exchanged", "added", "zero"))
    for name, result in both.items():
        with np.errstate(invalid="ignore"):  # in float64, where a sum of two is exact
            off = np.abs(result.astype(np.float64) + zero[name] - one[name] - other[name])
        if off.any():  # NaN, too
            return refused(PROBE, f"{name} differs by up to {off.max():.9g}")
    return passed(PROBE)


def _permuted(edge_case: EdgeCase, expected: Expected, answers: Mapping[str, Arrays]) -> Verdict:
    """Compare with the kernel's own answer before the permutation, whose values are judged there."""
    order = permutation(edge_case.case, 0)
    for name, result in answers[edge_case.name].items():
        before = answers["primes"][name]
        if name in ("grad_weight", "grad_bias"):
            if not np.array_equal(result, before):
                return refused(PROBE, f"{name} depends on the order of the rows")
        elif not np.array_equal(result, before[order]):
            return refused(PROBE, f"rows of {name} are not those of the answer to the rows in order")
    return passed(PROBE)


def _subnormal(edge_case: EdgeCase, expected: Expected, answers: Mapping[str, Arrays]) -> Verdict:
    """Judge within S; results that are flushed to zero, as by some frameworks, get a flag and are not refused."""
    judged = _loosely(edge_case, expected, answers, 1.0)
    flushed = any(
        bool(
            (
                np.abs(result - expected.values[name]) > tolerance(edge_case.case, name, expected.values[name], scale)
            ).any()
        )
        or bool(((result == 0) & (np.abs(expected.values[name]) > _least(edge_case.case))).any())
        for name, result in answers[edge_case.name].items()
        if (scale := expected.scales[name]).size
    )
    return dataclasses.replace(judged, remark=Flag.FLUSHES_SUBNORMALS) if judged.ok and flushed else judged


def _least(case: Case) -> float:
    """Return twice the smallest subnormal number: below that a right result may be zero."""
    bits = {"float64": 52, "float32": 23, "float16": 10, "bfloat16": 7}[case.dtype]
    return TINY[case.dtype] * 2.0 ** (1 - bits)


def _loosely(edge_case: EdgeCase, expected: Expected, answers: Mapping[str, Arrays], share: float) -> Verdict:
    for name, result in answers[edge_case.name].items():
        error = np.abs(result - expected.values[name])
        allowed = share * expected.scales[name] + 2 * TINY[edge_case.case.dtype]
        wrong = ~(error <= allowed)  # NaN is wrong
        if wrong.any():
            found = diagnosis.elements(name, expected.values[name], result, wrong)
            return refused(PROBE, f"{found} (seed {edge_case.case.seed})", found)
    return passed(PROBE)


def _nonfinite(edge_case: EdgeCase, expected: Expected, answers: Mapping[str, Arrays]) -> Verdict:
    """Flag results that are not finite in other elements than nn.Bilinear's; never refuse.

    Whether NaN or infinity comes out depends on the order of the sums, so both count as not finite.
    """
    same = all(
        np.array_equal(np.isfinite(answers[edge_case.name][name]), np.isfinite(value))
        for name, value in expected.values.items()
    )
    return passed(PROBE, "" if same else Flag.NONFINITE_DIFFERS)


_JUDGES: Final[dict[str, Callable[[EdgeCase, Expected, Mapping[str, Arrays]], Verdict]]] = {
    "added": _linear,
    "permuted": _permuted,
    "subnormal": _subnormal,
    "nonfinite": _nonfinite,
}

"""The structure probe: odd sizes and telling inputs, in a worker that is never timed, its fresh memory poisoned.

A kernel that is right on one shape may transpose where all sizes are equal, forget a tail, share a packed weight with
its sibling, or rely on fresh memory being zero. Each edge_case asks for one such thing, on sizes small enough to ask all of
them; what a backend answers here holds for its dtype, precision and mode, whatever the case.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

import numpy as np

from harness.case import Case
from harness.correctness.bound import TINY, tolerance
from harness.correctness.gate import judge_exactly
from harness.correctness.inputs import LARGE_KINDS, permutation
from harness.record import Flag

if TYPE_CHECKING:
    import numpy.typing as npt

    Arrays = Mapping[str, npt.NDArray[np.floating]]

PROBE: Final = "edge_cases"
#: Share of S within which a result must lie where its rounding is not asked: far beyond any.
ROUGH_SHARE: Final = 2.0**-4


@dataclasses.dataclass(frozen=True, slots=True)
class EdgeCase:
    """One question to a kernel.

    Attributes:
        name: Names the folder of its answer.
        sentence: What a right kernel does.
        case: Sizes and the rest.
        kind: Of the inputs; see ``inputs.py``.
        kernel: Trials of one case with the same text share a prepared kernel; those with another text have one of
            their own, prepared before any of the case is called.
    """

    name: str
    sentence: str
    case: Case
    kind: str
    kernel: str = "first"


def all_edge_cases(asked: Case) -> tuple[EdgeCase, ...]:
    """Return the all_edge_cases for the dtype, precision and mode of a case; its sizes do not matter."""

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
        EdgeCase("in2", "in2_features may be 1", sized(7, 3, 1, 5), "positive"),
        EdgeCase("out", "out_features may be 1", sized(7, 3, 2, 1), "positive"),
        EdgeCase("ones", "batch, in1_features and out_features may all be 1", sized(1, 1, 3, 1), "positive"),
        EdgeCase("empty", "a batch of zero rows gives zero rows", sized(0, 5, 3, 11), "integers"),
    )


def judge_edge_case(edge_case: EdgeCase, expected: Expected, answers: Mapping[str, Arrays]) -> Verdict:
    """Judge one edge_case.

    Args:
        edge_case: The question.
        expected: The reference's answer.
        answers: The backend's, by the edge_case's name: some all_edge_cases are judged beside another one.
    """
    # Of very large and very small numbers only the range is asked; rounding is for other probes.
    usual = _roughly if edge_case.kind in (*LARGE_KINDS, "small") else _exact
    judged = _JUDGES.get(edge_case.name, usual)(edge_case, expected, answers)
    return judged if judged.ok else dataclasses.replace(judged, reason=f"not so: {edge_case.sentence}: {judged.reason}")


def _exact(edge_case: EdgeCase, expected: Expected, answers: Mapping[str, Arrays]) -> Verdict:
    return judge_exactly(edge_case.case, expected, answers[edge_case.name], PROBE)


def _roughly(edge_case: EdgeCase, expected: Expected, answers: Mapping[str, Arrays]) -> Verdict:
    return _loosely(edge_case, expected, answers, ROUGH_SHARE)


def _linear(edge_case: EdgeCase, expected: Expected, answers: Mapping[str, Arrays]) -> Verdict:
    """Besides the right values: f(x + x') + f(0) = f(x) + f(x'), of the kernel's own answers."""
    one, other, both, zero = (answers[name]["output"] for name in ("primes", "exchanged", "added", "zero"))
    if not np.array_equal(both + zero, one + other):
        return refused(PROBE, f"output differs by up to {np.abs(both + zero - one - other).max():.9g}")
    return _exact(edge_case, expected, answers)


def _permuted(edge_case: EdgeCase, expected: Expected, answers: Mapping[str, Arrays]) -> Verdict:
    """Besides the right values: row by row the kernel's own answer to the rows as they were."""
    order = permutation(edge_case.case, 0)
    if not np.array_equal(answers[edge_case.name]["output"], answers["primes"]["output"][order]):
        return refused(PROBE, "rows of output are not those of the answer to the rows in order")
    return _exact(edge_case, expected, answers)


def _subnormal(edge_case: EdgeCase, expected: Expected, answers: Mapping[str, Arrays]) -> Verdict:
    """Results may be flushed to zero, as some frameworks do; that is remarked, not refused."""
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
    """Twice the smallest subnormal number: below that a right result may be zero."""
    bits = {"float64": 52, "float32": 23, "float16": 10, "bfloat16": 7}[case.dtype]
    return TINY[case.dtype] * 2.0 ** (1 - bits)


def _loosely(edge_case: EdgeCase, expected: Expected, answers: Mapping[str, Arrays], share: float) -> Verdict:
    for name, result in answers[edge_case.name].items():
        error = np.abs(result - expected.values[name])
        allowed = share * expected.scales[name] + 2 * TINY[edge_case.case.dtype]
        wrong = ~(error <= allowed)  # NaN is wrong
        if wrong.any():
            index = np.unravel_index(int(np.argmax(wrong)), wrong.shape)
            return refused(
                PROBE,
                f"{name}[{', '.join(str(int(axis)) for axis in index)}] is {result[index]:.9g}, "
                f"expected {expected.values[name][index]:.9g} (seed {edge_case.case.seed})",
            )
    return passed(PROBE)


def _nonfinite(edge_case: EdgeCase, expected: Expected, answers: Mapping[str, Arrays]) -> Verdict:
    """What NaN and infinity spoil for nn.Bilinear, they should spoil for others; reported, never refused.

    Which of the two comes out depends on the order of the sums, and is not asked.
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

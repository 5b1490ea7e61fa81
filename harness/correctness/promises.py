"""What the gate asks of a backend, promise by promise, with a short name for each.

The pattern of promises that were kept and failed says more than the first wrong element.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from harness.checked import Promise
from harness.correctness.edge_cases import all_edge_cases
from harness.correctness.questions import ANOTHER_KERNEL, FIRST, NONFINITE, SCENARIOS, TELLING_ROWS, unseen

if TYPE_CHECKING:
    from harness.case import Case

#: Promises that belong to no question: how exact the numbers are, and what must stay as it is.
ROUNDING: Final = "rounding"
UNTOUCHED: Final = "untouched"
#: Name of the question after timing.
UNSEEN: Final = unseen("forward").name
#: Further questions of the edge-case worker.
OPERATORS: Final = "operators"
GRADCHECK: Final = "gradcheck"
#: The edge case that is asked first, of any backend that is asked for edge cases.
FOREMOST: Final = "primes"

#: Short names, those that tell most about a fault first.
SHORT: Final = {
    "primes": "axes kept apart",
    "one-hot": "one-hot",
    "zero": "zero input leaves the bias",
    "added": "linear",
    "permuted": "permutes",
    "exchanged": "other inputs",
    "other-weight": "two kernels",
    "new-weight": "new weight in place",
    "primes-again": "first kernel again",
    "tall": "tails of tiles",
    "square": "in1 = in2",
    "wide": "no bias",
    "row": "one row",
    "in1": "in1 = 1",
    "in2": "in2 = 1",
    "out": "one output",
    "ones": "sizes of 1",
    "empty": "no rows",
    "large-input1": "large input1",
    "large-input2": "large input2",
    "large-weight": "large weight",
    "large-grad_output": "large grad_output",
    "small": "small values",
    "subnormal": "subnormal values",
    "nonfinite": "NaN and infinity go in",
    GRADCHECK: "gradcheck",
    OPERATORS: "computes by itself",
    FIRST.name: "first results",
    ROUNDING: "rounding",
    ANOTHER_KERNEL.name: "a second kernel in turn",
    "again": "the same again",
    "new values in the same buffers": "new values in place",
    "the same values in new buffers": "new buffers",
    TELLING_ROWS.name: "rows of any scale",
    NONFINITE.name: "NaN at this size",
    UNTOUCHED: "touches nothing",
    UNSEEN: "unseen inputs",
}
_FURTHER: Final = {
    OPERATORS: "it computes by itself, and does not call nn.Bilinear",
    GRADCHECK: "the gradients are those of the output, by finite differences",
    ROUNDING: "rounding errors are those of the case's arithmetic",
    UNTOUCHED: "inputs, returned results, the clock and the harness stay as they are",
}
#: Order of telling, by name.
_ORDER: Final = {name: place for place, name in enumerate(SHORT)}


def sentences(case: Case) -> dict[str, str]:
    """Return the sentence of every promise that a backend is asked for in a case, by name, the most telling first."""
    asked = {edge_case.name: edge_case.sentence for edge_case in all_edge_cases(case)}
    asked |= {question.name: question.sentence for question in (FIRST, *SCENARIOS, unseen(case.mode))}
    asked |= {name: text for name, text in _FURTHER.items() if name != GRADCHECK or case.mode == "forward_backward"}
    return dict(sorted(asked.items(), key=lambda item: telling(item[0])))


def telling(name: str) -> int:
    """Return the place of a promise in the order of telling, from 0."""
    return _ORDER.get(name, len(_ORDER))


def promises(case: Case, kept: Mapping[str, bool]) -> tuple[Promise, ...]:
    """Return every promise of a case with its answer.

    Args:
        case: The case.
        kept: True or False for each promise that was asked, by name.
    """
    return tuple(
        Promise(name, SHORT[name], sentence, ("kept" if kept[name] else "failed") if name in kept else "not asked")
        for name, sentence in sentences(case).items()
    )


def hint(failed: frozenset[str]) -> str:
    """Return the likely cause where few promises failed; empty if the pattern says nothing.

    Args:
        failed: Names of the promises that failed.
    """
    small = failed - _AT_THE_CASE
    if not small:
        return _ONLY_HERE if FIRST.name in failed else _ONLY_IN_TURN if failed == {ANOTHER_KERNEL.name} else ""
    if {"wide", "one-hot"} <= small <= _NO_BIAS:
        return "Only cases without a bias are wrong: is a bias of None handled?"
    return next((text for text, names in _HINTS if small <= names), "")


#: Promises that are asked at the case's own sizes.
_AT_THE_CASE: Final = frozenset({FIRST.name, ROUNDING, UNSEEN, UNTOUCHED, *(scenario.name for scenario in SCENARIOS)})
_ONLY_HERE: Final = "Small sizes came out right: is the remainder of a tile left out at these sizes?"
_ONLY_IN_TURN: Final = "Only a second kernel in turn makes it wrong: do the two share a weight, or what forward saved?"
_LARGE: Final = frozenset(name for name in SHORT if name.startswith("large-"))
#: Edge cases that have no bias.
_NO_BIAS: Final = frozenset({"wide", "one-hot", "small", "subnormal", "nonfinite", *_LARGE})
#: What the pattern alone says where all edge cases that failed are among these; the narrowest first.
_HINTS: Final = (
    ("Only larger sizes are wrong: is the remainder of a tile left out?", frozenset({"tall"})),
    ("Only zero inputs are wrong: does a shortcut for them leave out the bias?", frozenset({"zero", "added"})),
    ("Only equal in1 and in2 are wrong: does it tell the two by their sizes?", frozenset({"square"})),
    ("Only a batch of no rows is wrong: is it divided or indexed by the batch?", frozenset({"empty"})),
    ("Only a changed weight makes it wrong: is the first one kept?", frozenset({"new-weight"})),
    ("Only a single row is wrong: does an axis of size 1 get lost, or broadcast?", frozenset({"row", "ones"})),
    ("Only a single output is wrong: does an axis of size 1 get lost, or broadcast?", frozenset({"out", "ones"})),
    (
        "Only sizes of 1 are wrong: does an axis of size 1 get lost, or broadcast?",
        frozenset({"row", "in1", "in2", "out", "ones"}),
    ),
    (
        "Only very small numbers are wrong: are they taken for zero, or is underflow an error?",
        frozenset({"small", "subnormal"}),
    ),
    ("Only numbers near overflow are wrong: does a product leave the range of its dtype on the way?", _LARGE),
    (
        "Only a second kernel makes it wrong: do kernels share a packed weight or a buffer?",
        frozenset({"other-weight", "primes-again"}),
    ),
)

"""The promises: every question has a short name, and the pattern of those that failed says something."""

from __future__ import annotations

import pytest

from harness.case import MODES, Case
from harness.correctness import promises
from harness.correctness.edge_cases import all_edge_cases
from harness.correctness.questions import FIRST, SCENARIOS, unseen

CASE = Case(5, 4, 3, 2)


@pytest.mark.parametrize("mode", MODES)
def test_every_question_is_a_promise_with_a_short_name(mode):
    case = CASE.with_mode(mode)
    questions = (FIRST, *SCENARIOS, unseen(mode))
    asked = {edge_case.name for edge_case in all_edge_cases(case)} | {question.name for question in questions}
    sentences = promises.sentences(case)
    assert asked <= set(sentences)
    assert set(sentences) <= set(promises.SHORT)
    assert ("gradcheck" in sentences) == (mode == "forward_backward")


def test_short_names_differ_and_are_short():
    assert len(set(promises.SHORT.values())) == len(promises.SHORT)
    assert max(map(len, promises.SHORT.values())) <= 27


def test_answers_come_in_the_order_of_telling():
    found = promises.promises(CASE, {"zero": True, "primes": False})
    assert [promise.name for promise in found[:3]] == ["primes", "one-hot", "zero"]
    assert [promise.answer for promise in found[:3]] == ["failed", "not asked", "kept"]


@pytest.mark.parametrize(
    ("failed", "words"),
    [
        ({"tall"}, "remainder of a tile"),
        ({"tall", "first", "another kernel"}, "remainder of a tile"),
        ({"first", "another kernel"}, "at these sizes"),
        ({"zero", "added"}, "shortcut"),
        ({"square"}, "equal in1 and in2"),
        ({"row"}, "single row"),
        ({"row", "ones"}, "single row"),
        ({"out", "ones"}, "single output"),
        ({"in1", "out"}, "sizes of 1"),
        ({"empty"}, "no rows"),
        ({"large-input1", "large-weight"}, "near overflow"),
        ({"small"}, "very small"),
        ({"other-weight"}, "share a packed weight"),
        ({"new-weight"}, "first one kept"),
        ({"wide", "one-hot", "small", "large-input1"}, "without a bias"),
        ({"one-hot"}, ""),
        ({"primes", "one-hot", "tall"}, ""),
        ({"rounding"}, ""),
        (set(), ""),
    ],
)
def test_pattern_of_failed_promises_has_a_cause(failed, words):
    hint = promises.hint(frozenset(failed))
    assert words in hint
    assert bool(hint) == bool(words)

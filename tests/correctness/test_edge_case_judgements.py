"""How an edge case is judged: roughly or exactly, and by other answers of the same kernel."""

from __future__ import annotations

import numpy as np
import pytest
from edge_case_answers import (
    FORWARD,
    ONES,
    ROUGH,
    ROUNDED,
    STEP,
    answered,
    judged,
    right,
)

from harness.correctness.edge_cases import all_edge_cases, judge_edge_case
from harness.correctness.inputs import permutation


@pytest.mark.parametrize("kind", ROUGH)
def test_very_large_and_very_small_numbers_are_judged_roughly(kind):
    edge_cases, expected, answers = answered(STEP)
    (name,) = (name for name, edge_case in edge_cases.items() if edge_case.kind == kind)
    for result, scale in expected[name].scales.items():
        for share, ok in ((0.05, True), (0.08, False)):
            off = (answers[name][result] + share * scale).astype(np.float32)
            assert judged(STEP, name, **{result: off}).ok == ok, result
            least = np.argmin(scale)
            off.flat[np.arange(off.size) != least] = answers[name][result].flat[np.arange(off.size) != least]
            assert judged(STEP, name, **{result: off}).ok == ok, f"{result}: each element by its own scale"


@pytest.mark.parametrize(
    ("edge_case", "result"),
    [
        pytest.param(edge_case, result, id=f"{edge_case.name}-{result}")
        for edge_case in all_edge_cases(STEP)
        if edge_case.kind not in (*ROUNDED, "nonfinite")
        for result, shape in edge_case.case.result_shapes().items()
        if 0 not in shape
    ],
)
def test_all_other_numbers_are_judged_exactly(edge_case, result):
    wrong = right(STEP, edge_case.name, result)
    wrong.flat[-1] = np.nextafter(wrong.flat[-1], np.float32(np.inf))
    assert not judged(STEP, edge_case.name, **{result: wrong}).ok


@pytest.mark.parametrize(
    ("edge_case", "result"),
    [
        pytest.param(edge_case, result, id=f"{edge_case.name}-{result}")
        for edge_case in all_edge_cases(STEP)
        if edge_case.name in ONES
        for result in edge_case.case.result_shapes()
    ],
)
def test_a_result_left_zero_is_refused_where_sizes_are_one(edge_case, result):
    wrong = np.zeros_like(right(STEP, edge_case.name, result))
    assert f"{wrong.size} of {wrong.size} elements " in judged(STEP, edge_case.name, **{result: wrong}).reason


def test_a_rough_refusal_says_which_element_what_was_expected_and_the_seed():
    output = right(FORWARD, "small")
    output[2, 1] = 77
    expected = answered(FORWARD)[1]["small"].values["output"][2, 1]
    reason = judged(FORWARD, "small", output=output).reason
    found = f": output[2, 1] is 77, expected {expected:.9g}; 1 of 77 elements is wrong, just this one (seed 0)"
    assert reason.endswith(found)


def test_an_exact_refusal_counts_the_wrong_elements():
    output = right(FORWARD, "tall")
    output[7, 3:5] += 1
    reason = judged(FORWARD, "tall", output=output).reason
    assert ": output[7, 3] is " in reason
    assert ", expected " in reason
    assert reason.endswith("; 2 of 2489 elements are wrong, all of row 7, outputs 3 and 4 (seed 0)")


def test_linearity_is_judged_by_the_kernels_own_answers():
    edge_cases, expected, answers = answered(FORWARD)
    others = answers | {"exchanged": {"output": right(FORWARD, "exchanged") + 3}}
    verdict = judge_edge_case(edge_cases["added"], expected["added"], others)
    assert verdict.reason == "not so: the result is linear in input1: output differs by up to 3"


def test_permuted_rows_are_judged_by_the_kernels_own_answer():
    edge_cases, expected, answers = answered(FORWARD)
    others = answers | {"primes": {"output": right(FORWARD, "primes") + 3}}
    verdict = judge_edge_case(edge_cases["permuted"], expected["permuted"], others)
    assert verdict.reason.endswith(": rows of output are not those of the answer to the rows in order")
    consistent = {"output": others["primes"]["output"][permutation(edge_cases["primes"].case, 0)]}
    verdict = judge_edge_case(edge_cases["permuted"], expected["permuted"], others | {"permuted": consistent})
    assert verdict.ok, "that its values are wrong is for the edge case `primes` to say"


@pytest.mark.parametrize("other", ["primes", "exchanged", "zero", "added"])
def test_an_edge_case_without_the_answers_it_compares_with_raises(other):
    edge_cases, expected, answers = answered(FORWARD)
    fewer = {name: answer for name, answer in answers.items() if name != other}
    with pytest.raises(KeyError, match=other):
        judge_edge_case(edge_cases["added"], expected["added"], fewer)

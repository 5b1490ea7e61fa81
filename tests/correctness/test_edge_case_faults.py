"""Each edge case refuses the results of the faults that it is about."""

from __future__ import annotations

import numpy as np
import pytest
from edge_case_answers import (
    ASKED,
    FORWARD,
    STEP,
    answered,
    in_words,
    inputs_of,
    judged,
    of_other_inputs,
    right,
    telling_result,
)

from harness.case import MODES
from harness.correctness.edge_cases import all_edge_cases
from harness.correctness.inputs import LARGE_KINDS


def rows_as_columns(asked, name):
    """Return the output as if it were stored column by column."""
    output = right(asked, name)
    return output.T.reshape(output.shape)


def answer_to(other):
    return lambda asked, name: right(asked, other)


def with_a_forgotten_weight(asked, name):
    first = inputs_of(answered(asked)[0]["primes"])
    return of_other_inputs(asked, name, weight=first["weight"], bias=first["bias"])


def without_the_bias_of_the_sum(asked, name):
    bias = inputs_of(answered(asked)[0][name])["bias"]
    return right(asked, name) + bias


def zeros(asked, name):
    return np.zeros_like(right(asked, name))


def clipped(asked, name):
    output = right(asked, name)
    return np.clip(output, -0.5 * abs(output).max(), 0.5 * abs(output).max())


def overflowed(asked, name):
    output = right(asked, name)
    return np.where(abs(output) > 0.5 * abs(output).max(), np.inf, output)


def not_numbers(asked, name):
    return np.full_like(right(asked, name), np.nan)


def far_too_large(asked, name):
    return right(asked, name) + np.float32(1)


def flushed_below_one(asked, name):
    """Return the output of a kernel whose format has no numbers below 1/16."""
    output = right(asked, name)
    return np.where(abs(output) < 2.0**-4, 0, output)


def without_the_last_feature_of_input1(asked, name):
    input1 = inputs_of(answered(asked)[0][name])["input1"].copy()
    input1[:, -1] = 0
    return of_other_inputs(asked, name, input1=input1)


def without_the_bias(asked, name):
    return of_other_inputs(asked, name, bias=0 * inputs_of(answered(asked)[0][name])["bias"])


def weights_transposed(asked, name):
    edge_case = answered(asked)[0][name]
    weight = inputs_of(edge_case)["weight"]
    pages, in1, in2 = weight.shape
    return of_other_inputs(asked, name, weight=np.ascontiguousarray(weight.reshape(pages, in2, in1).transpose(0, 2, 1)))


def last_row_left_out(asked, name):
    output = right(asked, name)
    output[-1] = 0
    return output


def tail_left_out(asked, name):
    input2 = inputs_of(answered(asked)[0][name])["input2"].copy()
    input2[:, 128:] = 0
    return of_other_inputs(asked, name, input2=input2)


def doubled(asked, name):
    return 2 * right(asked, name)


def added_to_what_was_there(asked, name):
    return right(asked, name) + np.float32(0.5)


def one_row_too_many(asked, name):
    return np.zeros((1, 11), np.float32)


WRONG = [
    ("primes", rows_as_columns),
    ("other-weight", answer_to("primes")),
    ("primes-again", answer_to("other-weight")),
    ("exchanged", answer_to("primes")),
    ("added", without_the_bias_of_the_sum),
    ("added", answer_to("exchanged")),
    ("permuted", answer_to("primes")),
    ("zero", zeros),
    *((f"large-{name}", fault) for name in ("input1", "input2", "weight") for fault in (clipped, overflowed)),
    ("large-input2", not_numbers),
    ("large-weight", zeros),
    ("small", zeros),
    ("small", flushed_below_one),
    ("small", doubled),
    ("small", not_numbers),
    ("subnormal", not_numbers),
    ("subnormal", far_too_large),
    ("one-hot", weights_transposed),
    ("one-hot", rows_as_columns),
    ("square", weights_transposed),
    ("tall", last_row_left_out),
    ("wide", tail_left_out),
    ("row", last_row_left_out),
    ("row", without_the_last_feature_of_input1),
    ("in1", without_the_last_feature_of_input1),
    ("in1", without_the_bias),
    ("in2", rows_as_columns),
    ("in2", added_to_what_was_there),
    ("out", last_row_left_out),
    ("out", without_the_bias),
    ("ones", zeros),
    ("ones", doubled),
    ("empty", one_row_too_many),
]
#: Faults of training steps: the weight changes under a kernel, and there is a grad_output.
WRONG_STEPS = [
    ("new-weight", with_a_forgotten_weight),
    *(("large-grad_output", fault) for fault in (clipped, overflowed, not_numbers, zeros)),
]


@pytest.mark.parametrize(
    ("asked", "name", "fault"),
    [
        pytest.param(asked, name, fault, id=f"{in_words(asked)}-{name}-{fault.__name__}")
        for asked in ASKED
        for name, fault in (*WRONG, *(WRONG_STEPS if asked.mode == "forward_backward" else ()))
    ],
)
def test_a_wrong_result_is_refused_by_its_edge_case(asked, name, fault):
    verdict = judged(asked, name, **{telling_result(name): fault(asked, name)})
    assert not verdict.ok
    assert (verdict.probe, verdict.remark) == ("edge_cases", "")
    sentence = f"not so: {answered(asked)[0][name].sentence}: "
    assert verdict.reason.startswith(sentence)
    assert telling_result(name) in verdict.reason.removeprefix(sentence)


@pytest.mark.parametrize("mode", MODES)
def test_every_edge_case_has_a_fault_here_or_is_never_refused(mode):
    names = [edge_case.name for edge_case in all_edge_cases(FORWARD.with_mode(mode))]
    assert len(names) == len(set(names))
    wrong = {name for name, _ in (*WRONG, *(WRONG_STEPS if mode == "forward_backward" else ()))}
    assert set(names) == wrong | {"nonfinite"}


@pytest.mark.parametrize(
    ("edge_case", "result"),
    [
        pytest.param(edge_case, result, id=f"{edge_case.name}-{result}")
        for edge_case in all_edge_cases(STEP)
        if edge_case.name != "nonfinite"
        for result, shape in edge_case.case.result_shapes().items()
        if 0 not in shape
    ],
)
def test_one_wrong_element_in_any_result_is_refused_by_name(edge_case, result):
    wrong = right(STEP, edge_case.name, result)
    far = {"subnormal": np.nan, "small": 77.0} | dict.fromkeys(LARGE_KINDS, 1e38)
    wrong.flat[-1] = far.get(edge_case.kind, wrong.flat[-1] + 1)
    verdict = judged(STEP, edge_case.name, **{result: wrong})
    assert not verdict.ok
    assert verdict.reason.startswith(f"not so: {edge_case.sentence}: ")
    assert result in verdict.reason

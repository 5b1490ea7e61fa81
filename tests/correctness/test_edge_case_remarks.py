"""Subnormal numbers, NaN and infinity: what is remarked and not refused."""

from __future__ import annotations

import numpy as np
import pytest
from edge_case_answers import (
    ASKED,
    answered,
    compute,
    in_words,
    inputs_of,
    judged,
    right,
)

from harness.case import DTYPES, Case
from harness.correctness.edge_cases import judge_edge_case
from harness.correctness.verdict import Expected

SMALLEST = {"float64": 2.0**-1074, "float32": 2.0**-149, "float16": 2.0**-24, "bfloat16": 2.0**-133}
NORMAL = {"float64": 2.0**-1022, "float32": 2.0**-126, "float16": 2.0**-14, "bfloat16": 2.0**-126}


@pytest.mark.parametrize("asked", ASKED, ids=in_words)
def test_results_flushed_to_zero_pass_with_a_remark(asked):
    flushed = {
        name: np.where(np.abs(result) < NORMAL[asked.dtype], 0, result)
        for name, result in answered(asked)[2]["subnormal"].items()
    }
    verdict = judged(asked, "subnormal", **flushed)
    assert (verdict.ok, verdict.remark) == (True, "flushes_subnormals")


@pytest.mark.parametrize("asked", ASKED, ids=in_words)
def test_inputs_flushed_to_zero_pass_with_a_remark(asked):
    edge_case = answered(asked)[0]["subnormal"]
    inputs = inputs_of(edge_case)
    verdict = judged(asked, "subnormal", **compute(edge_case.case, inputs | {"input1": 0 * inputs["input1"]}))
    assert (verdict.ok, verdict.remark) == (True, "flushes_subnormals")


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_result_below_the_smallest_subnormal_number_may_be_zero(dtype):
    asked = Case(1, 1, 1, 1, dtype=dtype)
    edge_cases, expected, answers = answered(asked)
    for times, remark in ((2, ""), (3, "flushes_subnormals")):
        values = {"output": expected["subnormal"].values["output"].copy()}
        values["output"][2, 3] = times * SMALLEST[dtype]
        output = right(asked, "subnormal")
        output[2, 3] = 0
        verdict = judge_edge_case(
            edge_cases["subnormal"],
            Expected(values, expected["subnormal"].scales),
            answers | {"subnormal": {"output": output}},
        )
        assert (verdict.ok, verdict.remark) == (True, remark)


@pytest.mark.parametrize("asked", ASKED, ids=in_words)
def test_where_nan_and_infinity_come_out_is_remarked_and_never_refused(asked):
    assert judged(asked, "nonfinite").remark == ""
    for name, result in answered(asked)[2]["nonfinite"].items():
        assert not np.isfinite(result).all(), "NaN and infinity reach every result"
        swallowed = np.nan_to_num(result, nan=0, posinf=0, neginf=0)
        spread = np.full_like(result, np.nan)
        exchanged = np.where(np.isnan(result), np.inf, result)
        no_infinity = np.where(np.isinf(result), np.nan, result)
        turned = np.where(np.isinf(result), -result, result)
        assert np.isnan(result).any()
        for wrong, remark in (
            (swallowed, "nonfinite_differs"),
            (spread, "nonfinite_differs"),
            (exchanged, ""),
            (no_infinity, ""),
            (turned, ""),
            (np.where(np.isfinite(result), 77, result), ""),
            (np.where(np.isnan(result), -np.float32(np.nan), result), ""),
        ):
            verdict = judged(asked, "nonfinite", **{name: wrong})
            assert (verdict.ok, verdict.reason, verdict.remark) == (True, "", remark)


@pytest.mark.parametrize("asked", ASKED, ids=in_words)
def test_infinities_that_meet_because_of_the_order_are_not_flagged(asked):
    edge_case = answered(asked)[0]["nonfinite"]
    by_terms = compute(edge_case.case, inputs_of(edge_case))
    assert np.isnan(by_terms["output"]).sum() > np.isnan(right(asked, "nonfinite")).sum()
    verdict = judged(asked, "nonfinite", **by_terms)
    assert (verdict.ok, verdict.reason, verdict.remark) == (True, "", "")

"""Edge cases with what the reference computes, and the answers of an honest backend."""

from __future__ import annotations

import functools

import numpy as np
import oracle
from formats import FORMATS

from harness.case import MODES, Case
from harness.correctness import reference
from harness.correctness.edge_cases import all_edge_cases, judge_edge_case
from harness.correctness.inputs import LARGE_KINDS, make_inputs, round_to
from harness.correctness.verdict import Expected

ASKED = [Case(1, 1, 1, 1, mode=mode, **asked) for mode in MODES for asked in FORMATS.values()]
FORWARD = Case(1, 1, 1, 1)
STEP = FORWARD.with_mode("forward_backward")
#: Kinds of inputs whose results are judged for their range, and not for their rounding.
ROUGH = (*LARGE_KINDS, "small")
ROUNDED = (*ROUGH, "subnormal")
#: Sizes that are 1, by edge case.
ONES = {
    "row": {"batch"},
    "in1": {"in1_features"},
    "in2": {"in2_features"},
    "out": {"out_features"},
    "ones": {"batch", "in1_features", "out_features"},
}


def in_words(case):
    return f"{case.precision if case.precision == 'tf32' else case.dtype}-{case.mode}"


def in_dtype(case, values):
    """Round the reference's values to the case's dtype."""
    wide = np.float64 if case.dtype == "float64" else np.float32
    return {name: round_to(value.astype(wide), case.dtype) for name, value in values.items()}


def compute(case, inputs):
    """Return all results by einsum, in the case's dtype."""
    with np.errstate(invalid="ignore", under="ignore"):
        return {name: round_to(result, case.dtype) for name, result in oracle.results(case, inputs).items()}


def inputs_of(edge_case):
    return make_inputs(edge_case.case, 0, edge_case.kind)


@functools.cache
def answered(asked):
    """Return by name all edge cases, what the reference computes, and the answers of an honest backend.

    The answers with NaN and infinity are the reference's own: another order of summation may add infinities of both
    signs.
    """
    edge_cases = {edge_case.name: edge_case for edge_case in all_edge_cases(asked)}
    expected, answers = {}, {}
    for name, edge_case in edge_cases.items():
        inputs = inputs_of(edge_case)
        computed = reference.nn_bilinear if edge_case.kind == "nonfinite" else reference.expected
        values = {key: value.numpy() for key, value in computed(edge_case.case, inputs).items()}
        scales = reference.scales(edge_case.case, inputs) if edge_case.kind in ROUNDED else {}
        expected[name] = Expected(values, {key: scale.numpy() for key, scale in scales.items()})
        answers[name] = (
            compute(edge_case.case, inputs) if edge_case.kind != "nonfinite" else in_dtype(edge_case.case, values)
        )
    return edge_cases, expected, answers


def judged(asked, name, **changed):
    """Judge an edge case with some of its results replaced."""
    edge_cases, expected, answers = answered(asked)
    return judge_edge_case(edge_cases[name], expected[name], answers | {name: answers[name] | changed})


def telling_result(name):
    """Return the result that a fault replaces: the output, or a gradient where grad_output is large."""
    return "grad_weight" if name == "large-grad_output" else "output"


def right(asked, name, result=None):
    return answered(asked)[2][name][result or telling_result(name)].copy()


def of_other_inputs(asked, name, **changed):
    """Return the output of an edge case with some of its inputs replaced."""
    edge_case = answered(asked)[0][name]
    return compute(edge_case.case.with_mode("forward"), inputs_of(edge_case) | changed)["output"]

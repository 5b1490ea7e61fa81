"""The edge cases: honest answers pass them all; their sizes, kinds and kernels are as their sentences say."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from edge_case_answers import (
    ASKED,
    FORWARD,
    ONES,
    STEP,
    answered,
    compute,
    in_words,
    inputs_of,
)
from formats import FORMATS

from harness.case import MODES, Case
from harness.correctness import exact
from harness.correctness.edge_cases import all_edge_cases, judge_edge_case
from harness.correctness.inputs import LARGE_KINDS


@pytest.mark.parametrize("asked", ASKED, ids=in_words)
def test_an_honest_answer_passes_every_edge_case_without_a_remark(asked):
    edge_cases, expected, answers = answered(asked)
    for name, edge_case in edge_cases.items():
        verdict = judge_edge_case(edge_case, expected[name], answers)
        assert verdict.ok, verdict.reason
        assert (verdict.reason, verdict.probe, verdict.remark) == ("", "edge_cases", "")


@pytest.mark.parametrize("seed", range(1, 6))
def test_an_honest_answer_passes_whatever_the_seed(seed):
    for asked in (FORWARD, STEP):
        edge_cases, expected, answers = answered(Case(1, 1, 1, 1, mode=asked.mode, seed=seed))
        for name, edge_case in edge_cases.items():
            verdict = judge_edge_case(edge_case, expected[name], answers)
            assert verdict.ok, verdict.reason
            assert edge_case.case.seed == seed


@pytest.mark.parametrize("name", FORMATS)
def test_sums_of_positive_numbers_are_integers_of_the_format(name):
    for seed in range(50):
        asked = Case(1, 1, 1, 1, mode="forward_backward", seed=seed, **FORMATS[name])
        for edge_case in all_edge_cases(asked):
            if edge_case.kind == "positive":
                wide = {key: array.astype(np.float64) for key, array in inputs_of(edge_case).items()}
                for result, value in compute(
                    dataclasses.replace(edge_case.case, dtype="float64", precision="ieee"), wide
                ).items():
                    assert value.max() <= exact.LIMITS[name], (seed, edge_case.name, result)


@pytest.mark.parametrize("asked", ASKED, ids=in_words)
def test_edge_cases_have_the_dtype_precision_mode_and_seed_of_the_case(asked):
    for edge_case in all_edge_cases(asked):
        assert (edge_case.case.dtype, edge_case.case.precision) == (asked.dtype, asked.precision)
        assert (edge_case.case.mode, edge_case.case.seed) == (asked.mode, asked.seed)


def test_sizes_of_edge_cases_do_not_depend_on_those_of_the_case():
    other = Case(9, 8, 7, 6, bias=False)
    assert all_edge_cases(other) == all_edge_cases(FORWARD)


def test_sizes_are_different_primes_or_what_the_sentence_says():
    cases = {edge_case.name: edge_case.case for edge_case in all_edge_cases(FORWARD)}
    for name in ("primes", "tall"):
        sizes = [cases[name].batch, cases[name].in1_features, cases[name].in2_features, cases[name].out_features]
        assert len(set(sizes)) == 4
        assert all(size % divisor for size in sizes for divisor in range(2, size))
    assert cases["square"].in1_features == cases["square"].in2_features
    for name, case in cases.items():
        found = {axis for axis, size in dataclasses.asdict(case).items() if axis != "seed" and size == 1}
        assert found - {"bias"} == ONES.get(name, set()), name
    assert cases["empty"].batch == 0
    assert not cases["wide"].bias
    assert cases["wide"].in2_features > 40 * cases["wide"].in1_features


def test_the_first_kernel_is_called_again_after_the_second():
    asked = {edge_case.name: edge_case for edge_case in all_edge_cases(STEP)}
    names = list(asked)
    assert asked["other-weight"].kernel != asked["primes"].kernel == asked["primes-again"].kernel
    assert asked["primes"].case == asked["other-weight"].case == asked["primes-again"].case
    assert names.index("primes") < names.index("other-weight") < names.index("primes-again")
    assert asked["new-weight"].kernel == asked["primes"].kernel, "its weight changes under the first kernel"
    assert names.index("new-weight") < names.index("primes-again")


@pytest.mark.parametrize("mode", MODES)
def test_each_array_is_large_once_and_a_large_weight_has_its_own_kernel(mode):
    asked = all_edge_cases(FORWARD.with_mode(mode))
    large = {edge_case.kind: edge_case for edge_case in asked if edge_case.kind in LARGE_KINDS}
    assert set(large) == {kind for kind in LARGE_KINDS if kind.removeprefix("large ") in large_arrays(mode)}
    for edge_case in large.values():
        assert edge_case.name == edge_case.kind.replace(" ", "-")
        assert edge_case.sentence.endswith(edge_case.kind)
        others = [other.name for other in asked if (other.case, other.kernel) == (edge_case.case, edge_case.kernel)]
        assert (others == [edge_case.name]) == (edge_case.kind == "large weight")


def large_arrays(mode):
    return [name for name in FORWARD.with_mode(mode).shapes() if name != "bias"]


def test_a_kernel_for_inference_has_the_weight_it_was_prepared_with():
    met = {}
    for edge_case in all_edge_cases(FORWARD):
        inputs = inputs_of(edge_case)
        parameters = inputs["weight"].tobytes(), inputs["bias"].tobytes() if edge_case.case.bias else b""
        met.setdefault((edge_case.case, edge_case.kernel), set()).add(parameters)
    assert all(len(parameters) == 1 for parameters in met.values())
    assert len(met) > 10

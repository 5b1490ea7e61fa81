from __future__ import annotations

import dataclasses
import functools

import numpy as np
import oracle
import pytest

from harness.case import DTYPES, MODES, Case
from harness.correctness import exact, reference
from harness.correctness.edge_cases import all_edge_cases, judge_edge_case
from harness.correctness.inputs import LARGE_KINDS, make_inputs, permutation, round_to
from harness.correctness.verdict import Expected

FORMATS = {dtype: {"dtype": dtype} for dtype in DTYPES} | {"tf32": {"precision": "tf32"}}
ASKED = [Case(1, 1, 1, 1, mode=mode, **asked) for mode in MODES for asked in FORMATS.values()]
FORWARD = Case(1, 1, 1, 1)
STEP = FORWARD.with_mode("forward_backward")
#: Kinds of numbers whose range is asked, and nothing of their rounding.
ROUGH = (*LARGE_KINDS, "small")
ROUNDED = (*ROUGH, "subnormal")
#: Which sizes are one, by edge_case.
ONES = {
    "row": {"batch"},
    "in1": {"in1_features"},
    "in2": {"in2_features"},
    "out": {"out_features"},
    "ones": {"batch", "in1_features", "out_features"},
}
SMALLEST = {"float64": 2.0**-1074, "float32": 2.0**-149, "float16": 2.0**-24, "bfloat16": 2.0**-133}
NORMAL = {"float64": 2.0**-1022, "float32": 2.0**-126, "float16": 2.0**-14, "bfloat16": 2.0**-126}


def in_words(case):
    return f"{case.precision if case.precision == 'tf32' else case.dtype}-{case.mode}"


def in_dtype(case, values):
    """The reference's own values: sums in another order may meet infinities of both signs."""
    wide = np.float64 if case.dtype == "float64" else np.float32
    return {name: round_to(value.astype(wide), case.dtype) for name, value in values.items()}


def compute(case, inputs):
    """All results by einsum, in the case's dtype."""
    with np.errstate(invalid="ignore", under="ignore"):
        return {name: round_to(result, case.dtype) for name, result in oracle.results(case, inputs).items()}


def inputs_of(edge_case):
    return make_inputs(edge_case.case, 0, edge_case.kind)


@functools.cache
def examined(asked):
    """The all_edge_cases, what is expected by name, and the answers of an honest backend."""
    asked_trials = {edge_case.name: edge_case for edge_case in all_edge_cases(asked)}
    expected, answers = {}, {}
    for name, edge_case in asked_trials.items():
        inputs = inputs_of(edge_case)
        values = {key: value.numpy() for key, value in reference.expected(edge_case.case, inputs).items()}
        scales = reference.scales(edge_case.case, inputs) if edge_case.kind in ROUNDED else {}
        expected[name] = Expected(values, {key: scale.numpy() for key, scale in scales.items()})
        answers[name] = (
            compute(edge_case.case, inputs) if edge_case.kind != "nonfinite" else in_dtype(edge_case.case, values)
        )
    return asked_trials, expected, answers


def judged(asked, name, **changed):
    """Judge a edge_case where some of its results are others."""
    asked_trials, expected, answers = examined(asked)
    return judge_edge_case(asked_trials[name], expected[name], answers | {name: answers[name] | changed})


def told_by(name):
    """The result that tells whether a edge_case went wrong: grad_output is in none but the gradients."""
    return "grad_weight" if name == "large-grad_output" else "output"


def right(asked, name, result=None):
    return examined(asked)[2][name][result or told_by(name)].copy()


def of_other_inputs(asked, name, **changed):
    """The output for inputs of which some are others."""
    edge_case = examined(asked)[0][name]
    return compute(edge_case.case.with_mode("forward"), inputs_of(edge_case) | changed)["output"]


@pytest.mark.parametrize("asked", ASKED, ids=in_words)
def test_an_honest_answer_passes_every_trial_without_a_remark(asked):
    asked_trials, expected, answers = examined(asked)
    for name, edge_case in asked_trials.items():
        verdict = judge_edge_case(edge_case, expected[name], answers)
        assert verdict.ok, verdict.reason
        assert (verdict.reason, verdict.probe, verdict.remark) == ("", "edge_cases", "")


@pytest.mark.parametrize("seed", range(1, 6))
def test_an_honest_answer_passes_whatever_the_seed(seed):
    for asked in (FORWARD, STEP):
        asked_trials, expected, answers = examined(Case(1, 1, 1, 1, mode=asked.mode, seed=seed))
        for name, edge_case in asked_trials.items():
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


def rows_as_columns(asked, name):
    """As if the result were stored column by column."""
    output = right(asked, name)
    return output.T.reshape(output.shape)


def answer_to(other):
    return lambda asked, name: right(asked, other)


def with_a_forgotten_weight(asked, name):
    first = inputs_of(examined(asked)[0]["primes"])
    return of_other_inputs(asked, name, weight=first["weight"], bias=first["bias"])


def without_the_bias_of_the_sum(asked, name):
    bias = inputs_of(examined(asked)[0][name])["bias"]
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
    """As if results, or numbers on the way to them, were held in too narrow a range."""
    output = right(asked, name)
    return np.where(abs(output) < 2.0**-4, 0, output)


def without_the_last_feature_of_input1(asked, name):
    input1 = inputs_of(examined(asked)[0][name])["input1"].copy()
    input1[:, -1] = 0
    return of_other_inputs(asked, name, input1=input1)


def without_the_bias(asked, name):
    return of_other_inputs(asked, name, bias=0 * inputs_of(examined(asked)[0][name])["bias"])


def weights_transposed(asked, name):
    edge_case = examined(asked)[0][name]
    weight = inputs_of(edge_case)["weight"]
    pages, in1, in2 = weight.shape
    return of_other_inputs(asked, name, weight=np.ascontiguousarray(weight.reshape(pages, in2, in1).transpose(0, 2, 1)))


def last_row_left_out(asked, name):
    output = right(asked, name)
    output[-1] = 0
    return output


def tail_left_out(asked, name):
    input2 = inputs_of(examined(asked)[0][name])["input2"].copy()
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
#: Only where the weights may change under a kernel, and where there is a grad_output.
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
def test_a_wrong_result_is_refused_by_the_trial_that_asks_for_it(asked, name, fault):
    verdict = judged(asked, name, **{told_by(name): fault(asked, name)})
    assert not verdict.ok
    assert (verdict.probe, verdict.remark) == ("edge_cases", "")
    sentence = f"not so: {examined(asked)[0][name].sentence}: "
    assert verdict.reason.startswith(sentence)
    assert told_by(name) in verdict.reason.removeprefix(sentence)


@pytest.mark.parametrize("mode", MODES)
def test_every_trial_has_a_wrong_answer_here_or_is_never_refused(mode):
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


@pytest.mark.parametrize("kind", ROUGH)
def test_very_large_and_very_small_numbers_are_judged_roughly(kind):
    asked_trials, expected, answers = examined(STEP)
    (name,) = (name for name, edge_case in asked_trials.items() if edge_case.kind == kind)
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
def test_all_other_numbers_are_asked_exactly(edge_case, result):
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
    assert f"{wrong.size} of {wrong.size} elements are wrong" in judged(STEP, edge_case.name, **{result: wrong}).reason


def test_a_rough_refusal_says_which_element_what_was_expected_and_the_seed():
    output = right(FORWARD, "small")
    output[2, 1] = 77
    expected = examined(FORWARD)[1]["small"].values["output"][2, 1]
    reason = judged(FORWARD, "small", output=output).reason
    assert reason.endswith(f": output[2, 1] is 77, expected {expected:.9g} (seed 0)")


def test_an_exact_refusal_counts_the_wrong_elements():
    output = right(FORWARD, "tall")
    output[7, 3:5] += 1
    reason = judged(FORWARD, "tall", output=output).reason
    assert ": output[7, 3] is " in reason
    assert "expected exactly " in reason
    assert reason.endswith("; 2 of 2489 elements are wrong (seed 0)")


def test_linearity_is_held_against_the_kernels_own_answers():
    asked_trials, expected, answers = examined(FORWARD)
    others = answers | {"exchanged": {"output": right(FORWARD, "exchanged") + 3}}
    verdict = judge_edge_case(asked_trials["added"], expected["added"], others)
    assert verdict.reason == "not so: the result is linear in input1: output differs by up to 3"


def test_permuted_rows_are_held_against_the_kernels_own_answer():
    asked_trials, expected, answers = examined(FORWARD)
    others = answers | {"primes": {"output": right(FORWARD, "primes") + 3}}
    verdict = judge_edge_case(asked_trials["permuted"], expected["permuted"], others)
    assert verdict.reason.endswith(": rows of output are not those of the answer to the rows in order")
    consistent = {"output": others["primes"]["output"][permutation(asked_trials["primes"].case, 0)]}
    verdict = judge_edge_case(asked_trials["permuted"], expected["permuted"], others | {"permuted": consistent})
    assert "expected exactly" in verdict.reason, "consistent is not yet right"


@pytest.mark.parametrize("other", ["primes", "exchanged", "zero", "added"])
def test_a_trial_judged_beside_one_that_was_not_answered_is_not_judged(other):
    asked_trials, expected, answers = examined(FORWARD)
    fewer = {name: answer for name, answer in answers.items() if name != other}
    with pytest.raises(KeyError, match=other):
        judge_edge_case(asked_trials["added"], expected["added"], fewer)


@pytest.mark.parametrize("asked", ASKED, ids=in_words)
def test_results_flushed_to_zero_pass_with_a_remark(asked):
    flushed = {
        name: np.where(np.abs(result) < NORMAL[asked.dtype], 0, result)
        for name, result in examined(asked)[2]["subnormal"].items()
    }
    verdict = judged(asked, "subnormal", **flushed)
    assert (verdict.ok, verdict.remark) == (True, "flushes_subnormals")


@pytest.mark.parametrize("asked", ASKED, ids=in_words)
def test_inputs_flushed_to_zero_pass_with_a_remark(asked):
    edge_case = examined(asked)[0]["subnormal"]
    inputs = inputs_of(edge_case)
    verdict = judged(asked, "subnormal", **compute(edge_case.case, inputs | {"input1": 0 * inputs["input1"]}))
    assert (verdict.ok, verdict.remark) == (True, "flushes_subnormals")


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_result_below_the_smallest_subnormal_number_may_be_zero(dtype):
    asked = Case(1, 1, 1, 1, dtype=dtype)
    asked_trials, expected, answers = examined(asked)
    for times, remark in ((2, ""), (3, "flushes_subnormals")):
        values = {"output": expected["subnormal"].values["output"].copy()}
        values["output"][2, 3] = times * SMALLEST[dtype]
        output = right(asked, "subnormal")
        output[2, 3] = 0
        verdict = judge_edge_case(
            asked_trials["subnormal"],
            Expected(values, expected["subnormal"].scales),
            answers | {"subnormal": {"output": output}},
        )
        assert (verdict.ok, verdict.remark) == (True, remark)


@pytest.mark.parametrize("asked", ASKED, ids=in_words)
def test_where_nan_and_infinity_come_out_is_remarked_and_never_refused(asked):
    assert judged(asked, "nonfinite").remark == ""
    for name, result in examined(asked)[2]["nonfinite"].items():
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
    edge_case = examined(asked)[0]["nonfinite"]
    by_terms = compute(edge_case.case, inputs_of(edge_case))
    assert np.isnan(by_terms["output"]).sum() > np.isnan(right(asked, "nonfinite")).sum()
    verdict = judged(asked, "nonfinite", **by_terms)
    assert (verdict.ok, verdict.reason, verdict.remark) == (True, "", "")


@pytest.mark.parametrize("asked", ASKED, ids=in_words)
def test_trials_have_the_dtype_precision_mode_and_seed_that_are_asked_for(asked):
    for edge_case in all_edge_cases(asked):
        assert (edge_case.case.dtype, edge_case.case.precision) == (asked.dtype, asked.precision)
        assert (edge_case.case.mode, edge_case.case.seed) == (asked.mode, asked.seed)


def test_sizes_of_the_trials_do_not_depend_on_those_that_are_asked_for():
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

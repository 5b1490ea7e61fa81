"""What wrong results fit: each mistake is made on purpose, and named."""

from __future__ import annotations

import dataclasses

import numpy as np
import oracle
import pytest

from harness.case import Case
from harness.correctness.diagnosis import Other, elements, explain, of_arithmetic, of_form
from harness.correctness.inputs import make_inputs, round_to
from harness.correctness.places import where
from harness.correctness.verdict import Facts

PRIMES = Case(7, 5, 3, 11)
STEP = PRIMES.with_mode("forward_backward")
SQUARE = Case(7, 5, 5, 2)
SQUARE_STEP = SQUARE.with_mode("forward_backward")


def inputs_of(case, kind="integers"):
    return {name: array.astype(np.float64) for name, array in make_inputs(case, 0, kind).items()}


def right(case, inputs):
    return oracle.results(case, inputs)


def said(case, result, name="output", kind="integers", others=()):
    """Return the sentence about a result, the others being right."""
    inputs = inputs_of(case, kind)
    expected = right(case, inputs)
    return explain(case, inputs, expected, expected | {name: np.asarray(result)}, others)


def product(inputs, **changed):
    given = inputs | changed
    return np.einsum("bi,oij,bj->bo", given["input1"], given["weight"], given["input2"])


def output(inputs, **changed):
    return product(inputs, **changed) + (inputs | changed)["bias"]


def first_terms(inputs, axis, count):
    short = {"input1": inputs["input1"].copy(), "input2": inputs["input2"].copy()}
    short[axis][:, count:] = 0
    return output(inputs, **short)


def layout(inputs, order):
    weight = inputs["weight"]
    return weight.reshape([weight.shape[place] for place in order]).transpose(np.argsort(order))


def softmax(rows):
    powers = np.exp(rows)
    return powers / powers.sum(1, keepdims=True)


def strided(inputs, *strides):
    """Return the weight as read with other strides; what is beyond its end is 5."""
    weight = np.append(inputs["weight"], np.full(500, 5.0))
    return np.lib.stride_tricks.as_strided(weight, (11, 5, 3), [8 * stride for stride in strides])


#: Mistakes in the output, as functions of the inputs, and a part of the sentence.
MISTAKES = {
    "no bias": (lambda x: product(x), "equals the right answer without the bias: is the bias added?"),
    "bias twice": (lambda x: output(x) + x["bias"], "with the bias added twice"),
    "bias subtracted": (lambda x: product(x) - x["bias"], "with the bias subtracted"),
    "bias alone": (lambda x: 0 * product(x) + x["bias"], "the bias alone: is the product computed?"),
    "bias by row": (lambda x: product(x) + x["bias"][:7, None], "with the bias added by row"),
    "first bias": (lambda x: product(x) + x["bias"][2], ""),
    "bias in a loop": (lambda x: product(x) + 5 * x["bias"], "added 5 times: is it added inside the loop over in1?"),
    "wrong sign": (lambda x: -output(x), "is -1 times the right answer: is a sign wrong?"),
    "doubled": (lambda x: 2 * output(x), "is twice the right answer"),
    "scaled": (lambda x: 0.3 * output(x), "is 0.3 times the right answer"),
    "mean over in1": (lambda x: product(x) / 5 + x["bias"], "1 / in1_features, is a mean taken in place of a sum?"),
    "mean over in2": (lambda x: product(x) / 3 + x["bias"], "1 / in2_features, is a mean taken in place of a sum?"),
    "mean over both": (lambda x: product(x) / 15 + x["bias"], "1 / in1 x in2, is a mean taken in place of a sum?"),
    "attention": (lambda x: product(x) / 5**0.5 + x["bias"], "1 / sqrt(in1_features)"),
    "relu": (lambda x: np.maximum(output(x), 0), "is there a ReLU?"),
    "relu before the bias": (
        lambda x: np.maximum(product(x), 0) + x["bias"],
        "the right sum with negative numbers set to zero, plus the bias: is there a ReLU?",
    ),
    "absolute": (lambda x: abs(output(x)), "absolute value"),
    "softmax": (lambda x: softmax(output(x)), "softmax of the right answer along out: is there an activation?"),
    "tanh": (lambda x: np.tanh(output(x)), "is there an activation?"),
    "clipped": (lambda x: np.minimum(output(x), 2), "without what is above 2: is it clipped?"),
    "zeros": (lambda x: 0 * output(x), "It is zero everywhere: is it ever written?"),
    "poison": (lambda x: np.full((7, 11), np.float32(-1.4980389)), "what fresh memory held"),
    "not cleared": (lambda x: output(x) + np.float32(-1.4980389), "plus what fresh memory held"),
    "ones": (lambda x: np.ones((7, 11)), "It is 1 everywhere: is it more than initialised?"),
    "offset": (lambda x: output(x) + 1, "is the right answer plus 1: is a constant added?"),
    "transposed": (lambda x: output(x).T.reshape(7, 11), "stored as (out, batch): is it transposed"),
    "rows reversed": (lambda x: output(x)[::-1], "reversed along the batch"),
    "rows shifted": (lambda x: np.roll(output(x), 1, 0), "shifted by one along the batch"),
    "outputs shifted": (lambda x: np.roll(output(x), -1, 1), "shifted by one along out"),
    "rows permuted": (lambda x: output(x)[[3, 1, 2, 0, 6, 4, 5]], "in another order along the batch"),
    "row 0 repeated": (lambda x: output(x)[[0] * 7], "at index 0 of the batch, repeated along it"),
    "input1 reversed": (lambda x: output(x, input1=x["input1"][:, ::-1]), "with input1 reversed along in1"),
    "weight reversed": (lambda x: output(x, weight=x["weight"][:, :, ::-1]), "reversed along in2"),
    "pages shifted": (lambda x: output(x, weight=np.roll(x["weight"], 1, 0)), "with weight shifted by one along out"),
    "input2 left out": (lambda x: output(x, input2=np.ones((7, 3))), "without input2: is it multiplied in?"),
    "weight left out": (lambda x: output(x, weight=np.ones((11, 5, 3))), "without weight"),
    "page 0 alone": (lambda x: output(x, weight=x["weight"][[0] * 11]), "with index 0 of weight along out throughout"),
    "row 0 of input2": (lambda x: output(x, input2=x["input2"][[0] * 7]), "with index 0 of input2 along the batch"),
    "batch summed": (lambda x: output(x, input2=x["input2"].sum(0) + 0 * x["input2"]), "input2 summed along the batch"),
    "read as (out, in2, in1)": (lambda x: output(x, weight=layout(x, (0, 2, 1))), "the weight read as (out, in2, in1)"),
    "read as (in1, in2, out)": (lambda x: output(x, weight=layout(x, (1, 2, 0))), "the weight read as (in1, in2, out)"),
    "packed otherwise": (
        lambda x: output(x, weight=x["weight"].transpose(2, 0, 1).reshape(11, 5, 3)),
        "a weight packed as (in2, out, in1)",
    ),
    "first terms": (lambda x: first_terms(x, "input1", 4), "only the first 4 of the 5 terms along in1"),
    "first terms of in2": (lambda x: first_terms(x, "input2", 2), "only the first 2 of the 3 terms along in2"),
    "last term alone": (
        lambda x: np.einsum("b,oj,bj->bo", x["input1"][:, -1], x["weight"][:, -1], x["input2"]) + x["bias"],
        "only the last of the 5 terms along in1: is the sum overwritten in its loop?",
    ),
    "every second term": (
        lambda x: output(x, input1=x["input1"] * [1, 0, 1, 0, 1]),
        "only every second of the 5 terms along in1",
    ),
    "very last term": (
        lambda x: output(x) - (x["input1"][:, -1:] * x["input2"][:, -1:] * x["weight"][:, -1, -1]),
        "without its very last term",
    ),
    "bias multiplied in": (lambda x: product(x) * x["bias"], "times the bias: is the bias multiplied in"),
    "inputs added": (
        lambda x: product(x, input1=1 + 0 * x["input1"]) + product(x, input2=1 + 0 * x["input2"]) + x["bias"],
        "with input1 + input2 in place of their product: are they added",
    ),
    "relu of an input": (lambda x: output(x, input2=np.maximum(x["input2"], 0)), "negative numbers of input2 set to"),
    "sign of an input": (lambda x: output(x, input1=abs(x["input1"])), "the absolute value of input1: is a sign lost?"),
    "upper triangle": (lambda x: output(x, weight=np.triu(x["weight"])), "the upper triangle of each page"),
    "row stride": (lambda x: output(x, weight=strided(x, 15, 5, 1)), "rows of the weight in1 numbers apart"),
    "column stride": (lambda x: output(x, weight=strided(x, 15, 1, 3)), "columns of the weight in2 numbers apart"),
    "page stride": (lambda x: output(x, weight=strided(x, 9, 3, 1)), "pages of the weight in2 x in2 numbers apart"),
    "page stride, too far": (
        lambda x: output(x, weight=strided(x, 25, 3, 1)),
        "pages of the weight in1 x in1 numbers apart: is a stride wrong?",
    ),
    "diagonal": (
        lambda x: np.einsum("bk,okk,bk->bo", x["input1"][:, :3], x["weight"][:, :3], x["input2"]) + x["bias"],
        "only the diagonal of each page",
    ),
}


@pytest.mark.parametrize("kind", ["integers", "normal"])
@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_in_the_output_is_named(mistake, kind):
    make, sentence = MISTAKES[mistake]
    if mistake == "clipped" and kind == "normal":
        make = lambda x: np.minimum(output(x), 0.2)  # noqa: E731
        sentence = "without what is above 0.2"
    found = said(PRIMES, make(inputs_of(PRIMES, kind)).astype(np.float32), kind=kind)
    assert sentence in found
    assert sentence == "" or found.startswith(("It ", "The ", "There it " if "stride" in mistake else "It "))


#: Mistakes in a gradient, by its name.
GRADIENTS = [
    ("grad_bias", lambda x, r: r["grad_bias"] / 7, "is 0.142857 times the right answer: that is 1 / batch"),
    ("grad_bias", lambda x, r: 0 * r["grad_bias"], "It is zero everywhere"),
    ("grad_bias", lambda x, r: x["grad_output"][0], "only the first of the 7 terms along the batch"),
    ("grad_weight", lambda x, r: r["grad_weight"] / 7, "1 / batch, is a mean taken in place of a sum?"),
    ("grad_weight", lambda x, r: r["grad_weight"] * 7, "that is batch, is it added up once too often?"),
    (
        "grad_weight",
        lambda x, r: np.einsum("o,i,j->oij", x["grad_output"][-1], x["input1"][-1], x["input2"][-1]),
        "only the last of the 7 terms along the batch: is the sum overwritten in its loop?",
    ),
    (
        "grad_weight",
        lambda x, r: np.einsum("bo,bi,bj->oij", np.ones((7, 11)), x["input1"], x["input2"]),
        "without grad_output: is it multiplied in?",
    ),
    (
        "grad_weight",
        lambda x, r: r["grad_weight"].transpose(0, 2, 1).reshape(11, 5, 3),
        "stored as (out, in2, in1): is it transposed",
    ),
    ("grad_input1", lambda x, r: -r["grad_input1"], "is a sign wrong?"),
    (
        "grad_input1",
        lambda x, r: np.einsum("b,ij,bj->bi", x["grad_output"][:, -1], x["weight"][-1], x["input2"]),
        "only the last of the 11 terms along out: is the sum overwritten in its loop?",
    ),
    (
        "grad_input2",
        lambda x, r: np.einsum("bo,oij,bi->bj", x["grad_output"][:, :8], x["weight"][:8], x["input1"]),
        "only the first 8 of the 11 terms along out: is the remainder of a tile left out?",
    ),
]


@pytest.mark.parametrize("kind", ["integers", "normal"])
@pytest.mark.parametrize(("name", "make", "sentence"), GRADIENTS)
def test_mistake_in_a_gradient_is_named(name, make, sentence, kind):
    inputs = inputs_of(STEP, kind)
    assert sentence in said(STEP, make(inputs, right(STEP, inputs)), name, kind)


@pytest.mark.parametrize(
    ("name", "make", "sentence"),
    [
        ("output", lambda x: output(x, weight=x["weight"].transpose(0, 2, 1)), "each page of the weight transposed"),
        (
            "output",
            lambda x: output(x, weight=(x["weight"] + x["weight"].transpose(0, 2, 1)) / 2),
            "made symmetric: is it taken for symmetric?",
        ),
        ("output", lambda x: output(x, input2=x["input1"]), "with input1 in place of input2: is input1 used twice?"),
        ("grad_input1", lambda x: right(SQUARE_STEP, x)["grad_input2"], "the right grad_input2: are the two"),
        ("grad_weight", lambda x: right(SQUARE_STEP, x)["grad_weight"].transpose(0, 2, 1), "is it transposed"),
    ],
)
def test_mistake_that_needs_equal_sizes_is_named(name, make, sentence):
    assert sentence in said(SQUARE_STEP, make(inputs_of(SQUARE_STEP, "normal")), name, "normal")


def test_a_mistake_in_a_part_is_named_there():
    inputs = inputs_of(PRIMES)
    result = output(inputs)
    result[-3:] = product(inputs)[-3:]
    assert said(PRIMES, result) == "There it equals the right answer without the bias: is the bias added?"


def earlier(case, kind="integers", variation=1):
    inputs = make_inputs(case, variation, kind)
    return Other(inputs, right(case, {name: array.astype(np.float64) for name, array in inputs.items()}))


def test_an_earlier_answer_is_recognised():
    before = earlier(PRIMES)
    assert "the answer to an earlier call" in said(PRIMES, before.results["output"], others=[before])


def test_the_weight_of_another_kernel_is_recognised():
    before = earlier(PRIMES, "other integers", 0)
    assert "is a packed weight kept, or shared" in said(PRIMES, before.results["output"], others=[before])


def test_a_sum_that_starts_at_earlier_answers_is_recognised():
    before = earlier(PRIMES)
    result = right(PRIMES, inputs_of(PRIMES))["output"] + 2 * before.results["output"]
    assert "plus earlier ones: is the result set to zero at each call?" in said(PRIMES, result, others=[before])


def test_one_input_of_an_earlier_call_is_recognised():
    before, inputs = earlier(PRIMES), inputs_of(PRIMES)
    result = output(inputs, input2=before.inputs["input2"])
    assert "with input2 of an earlier call: is input2 kept?" in said(PRIMES, result, others=[before])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_result_stored_in_half_precision_is_recognised(dtype):
    inputs = inputs_of(PRIMES, "normal")
    result = round_to(output(inputs).astype(np.float32), dtype)
    assert f"rounded to {dtype}" in said(PRIMES, result, kind="normal")


@pytest.mark.parametrize("factor", ["input1", "input2", "weight"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_one_factor_in_half_precision_is_recognised(dtype, factor):
    inputs = inputs_of(PRIMES, "normal")
    result = output(inputs, **{factor: round_to(inputs[factor].astype(np.float32), dtype)})
    sentence = f"It equals the right answer with {factor} rounded to {dtype}: is it stored in {dtype}?"
    assert said(PRIMES, result, kind="normal") == sentence


@pytest.mark.parametrize("kind", ["integers", "normal"])
def test_a_quantised_weight_is_recognised(kind):
    inputs = inputs_of(PRIMES, kind)
    step = abs(inputs["weight"]).max() / 127
    result = output(inputs, weight=np.rint(inputs["weight"] / step) * step)
    assert "with weight rounded to 8 bits: is it quantised?" in said(PRIMES, result, kind=kind)


def test_nothing_is_said_of_noise():
    noise = np.random.default_rng(0).integers(-9, 9, (7, 11)).astype(np.float32)
    assert said(PRIMES, noise) == ""


@pytest.mark.parametrize("seed", range(40))
def test_nothing_is_said_of_few_integers_that_are_off(seed):
    result = right(PRIMES, inputs_of(PRIMES))["output"]
    places = np.random.default_rng(seed).choice(result.size, 4, replace=False)
    result.flat[places] += 1
    assert said(PRIMES, result) in ("", "The wrong elements are zero: are they ever written?")


def test_nothing_is_said_where_every_product_is_zero():
    inputs = make_inputs(PRIMES, 0, "zero input1")
    expected = right(PRIMES, {name: array.astype(np.float64) for name, array in inputs.items()})
    assert explain(PRIMES, inputs, expected, {"output": 0 * expected["output"]}) == ""


def test_a_single_wrong_number_fits_no_candidate_by_chance():
    case = Case(7, 3, 2, 1)
    inputs = inputs_of(case) | {"bias": np.array([3.0])}
    expected = {"output": output(inputs)}
    assert explain(case, inputs, expected, {"output": np.full((7, 1), 3.0)}) == (
        "It is 3 everywhere: is it more than initialised?"
    )


def test_small_numbers_that_are_zero_were_not_left_unwritten():
    case = dataclasses.replace(PRIMES, bias=False)
    inputs = inputs_of(case, "small")
    expected, zeros = {"output": product(inputs)}, {"output": np.zeros((7, 11), np.float32)}
    assert explain(case, inputs, expected, zeros) == "It is zero at numbers below 1e-06: are they taken for zero?"


def test_nothing_is_said_of_right_results():
    assert said(STEP, right(STEP, inputs_of(STEP))["output"]) == ""


def test_values_that_are_not_finite_have_a_cause():
    result = right(PRIMES, inputs_of(PRIMES))["output"]
    for value in (np.nan, np.inf):
        result[0, 1] = value
        assert "are these ever written, or is fresh memory in their sum?" in said(PRIMES, result)
    assert "is fresh memory read, or divided by zero?" in said(PRIMES, np.full((7, 11), np.nan))
    large = make_inputs(PRIMES, 0, "large input1")
    expected = right(PRIMES, {name: array.astype(np.float64) for name, array in large.items()})
    assert "float16" in explain(PRIMES, large, expected, {"output": expected["output"] * np.inf})


def test_coarse_arithmetic_has_a_cause():
    assert "float32 array" in of_arithmetic(dataclasses.replace(PRIMES, dtype="float64"), "float32")
    assert "float16, or tf32" in of_arithmetic(PRIMES, "tf32")
    assert "bfloat16" in of_arithmetic(PRIMES, "bfloat16")
    assert of_arithmetic(PRIMES, None) == ""


@pytest.mark.parametrize(
    ("name", "changes", "sentence"),
    [
        ("output", {"dtype": "float64"}, "does a float64 array or constant take part?"),
        ("output", {"dtype": "float16"}, ""),
        ("output", {"shape": (11, 7)}, "is a transpose missing?"),
        ("grad_weight", {"shape": (11, 3, 5)}, "is a transpose missing?"),
        ("grad_weight", {"shape": (7, 11, 5, 3)}, "is a sum over it missing?"),
        ("output", {"shape": (77,)}, "is a reshape missing?"),
        ("output", {"shape": (7,)}, "An axis is missing"),
        ("output", {"shape": (8, 12)}, "It is too large: is padding cut off?"),
        ("output", {"shape": (6, 10)}, "It is too small: is a remainder left out?"),
        ("output", {"shape": (8, 10)}, ""),
        ("grad_bias", {"shape": (7,)}, "7 is batch: is a sum along another axis?"),
        ("grad_input1", {"shape": (11, 5, 3)}, "the shape of grad_weight: are the results in another order?"),
        ("grad_input1", {"shape": (7, 3)}, "the shape of grad_input2: are the two gradients exchanged?"),
        ("output", {"type": "builtins.NoneType", "shape": None, "dtype": None}, "is there a return?"),
        ("output", {"type": "builtins.list", "shape": None, "dtype": None}, ""),
    ],
)
def test_a_wrong_form_has_a_cause(name, changes, sentence):
    fact = Facts("numpy.ndarray", "float32", STEP.result_shapes()[name], "cpu")
    assert sentence in of_form(STEP, name, dataclasses.replace(fact, **changes))


def mask(shape, *places):
    wrong = np.zeros(shape, bool)
    for place in places:
        wrong[place] = True
    return wrong


@pytest.mark.parametrize(
    ("name", "wrong", "words"),
    [
        ("output", mask((7, 11), np.s_[:]), ""),
        ("output", mask((7, 11), np.s_[0, 0]), "the first one"),
        ("output", mask((7, 11), np.s_[-1, -1]), "the last one"),
        ("output", mask((7, 11), np.s_[3, 4]), "just this one"),
        ("output", mask((7, 11), np.s_[-4:]), "all of the last 4 rows"),
        ("output", mask((7, 11), np.s_[-4:, ::3], np.s_[-1, 1]), "all in the last 4 rows"),
        ("output", mask((7, 11), np.s_[:, 0]), "all of output 0"),
        ("output", mask((7, 11), np.s_[:, -1]), "all of the last output"),
        ("output", mask((7, 11), np.s_[:, 1::2]), "all of every second output"),
        ("output", mask((7, 11), np.s_[2:5]), "all of rows 2 to 4"),
        ("output", mask((7, 11), np.s_[:3]), "all of the first 3 rows"),
        ("output", mask((7, 11), np.s_[-2:, -3:]), "all of the last 2 rows, the last 3 outputs"),
        ("output", mask((8, 10), np.s_[-1, 4:]), "all of the last row, the last 6 outputs"),
        ("output", mask((7, 11), np.s_[5, 8:], np.s_[6]), "the last 14 in memory"),
        ("output", mask((7, 11), np.s_[0, ::2], np.s_[1:, 1]), "in every row"),
        ("output", mask((7, 11), np.s_[0, 0], np.s_[2, 5], np.s_[3, 7]), "in 3 of 7 rows"),
        ("grad_weight", mask((2, 5, 5), np.s_[1]), "all of the last page"),
        ("grad_weight", mask((2, 5, 5), np.s_[:, range(5), range(5)]), "all on the diagonal"),
        ("grad_weight", ~mask((2, 5, 5), np.s_[:, range(5), range(5)]), "all off the diagonal"),
        ("grad_bias", mask((11,), np.s_[8:]), "all of the last 3 outputs"),
        ("grad_input1", mask((7, 5), np.s_[:, 4]), "all of the last feature"),
    ],
)
def test_the_place_of_wrong_elements_is_said_in_words(name, wrong, words):
    assert where(name, wrong) == words


def test_elements_name_the_first_one_with_both_values():
    expected = np.arange(6.0).reshape(2, 3)
    actual = expected.copy()
    actual[1] += 1
    found = elements("output", expected, actual, actual != expected)
    assert str(found) == "output[1, 0] is 4, expected 3; 3 of 6 elements are wrong, all of the last row"

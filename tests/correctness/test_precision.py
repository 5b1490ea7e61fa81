from __future__ import annotations

import dataclasses
import functools
import math

import numpy as np
import pytest
from oracle import to_tf32

from harness.case import DTYPES, Case
from harness.correctness import precision, reference
from harness.correctness.bound import TINY, UNIT_ROUNDOFF
from harness.correctness.inputs import make_inputs, round_to
from harness.correctness.precision import Errors, excess, good_enough, limits, measure, place

SIZES = [(6, 32, 24, 5), (3, 64, 50, 8), (40, 16, 16, 4)]
STEP = Case(*SIZES[0], mode="forward_backward")
RESULTS = tuple(STEP.result_shapes())
#: Those that are made of products; the gradient of the bias only adds up.
PRODUCTS = RESULTS[:-1]
TF32 = dataclasses.replace(STEP, precision="tf32")
U = 2.0**-24


def to_float32(array):
    return array.astype(np.float32)


def to_half(dtype):
    return lambda array: round_to(to_float32(array), dtype)


def exactly(array):
    return array


def compute(inputs, operand=exactly, store=exactly, result=None):
    """All results: what goes into a product rounded by ``operand``, what is stored by ``store``, results by ``result``.

    Without ``result``, results are stored like all else.
    """
    result = result or store
    x1, x2, weight, bias, g = (inputs[name] for name in ("input1", "input2", "weight", "bias", "grad_output"))
    x1, x2, weight, products = operand(x1), operand(x2), operand(weight), operand(g)
    between = store(np.einsum("bo,oij->bij", products, weight))
    return {
        "output": result(np.einsum("boj,bj->bo", store(np.einsum("bi,oij->boj", x1, weight)), x2) + bias),
        "grad_input1": result(np.einsum("bij,bj->bi", between, x2)),
        "grad_input2": result(np.einsum("bij,bi->bj", between, x1)),
        "grad_weight": result(np.einsum("bio,bj->oij", store(x1[:, :, None] * products[:, None, :]), x2)),
        "grad_bias": result(g.sum(0)),
    }


def bias_added_later(inputs, store):
    """nn.Bilinear's way: the bias is added to a result that has been stored, and the sum is stored again."""
    without = compute(inputs | {"bias": np.zeros_like(inputs["bias"])}, store=store)
    return without | {"output": store(without["output"] + inputs["bias"])}


def sequential(inputs):
    """One sum over all axes, term by term: the worst order there is, and a right one."""
    x1, x2, weight, bias, g = (inputs[name] for name in ("input1", "input2", "weight", "bias", "grad_output"))

    def added_up(subscripts, shape, *arrays):
        return np.add.accumulate(np.einsum(subscripts, *arrays).reshape(-1, *shape))[-1]

    return {
        "output": added_up("bi,oij,bj->ijbo", g.shape, x1, weight, x2) + bias,
        "grad_input1": added_up("bo,oij,bj->ojbi", x1.shape, g, weight, x2),
        "grad_input2": added_up("bo,oij,bi->oibj", x2.shape, g, weight, x1),
        "grad_weight": added_up("bo,bi,bj->boij", weight.shape, g, x1, x2),
        "grad_bias": np.add.accumulate(g)[-1],
    }


def pages_in_half(inputs, dtype):
    """nn.Bilinear's way to the gradients of its inputs: rounded after each page."""
    x1, x2, weight, g = (inputs[name] for name in ("input1", "input2", "weight", "grad_output"))
    store = to_half(dtype)
    found = {"grad_input1": np.zeros_like(x1), "grad_input2": np.zeros_like(x2)}
    for page in range(len(weight)):
        gradient = g[:, page, None]
        found["grad_input1"] = store(found["grad_input1"] + store(gradient * store(x2 @ weight[page].T)))
        found["grad_input2"] = store(found["grad_input2"] + store(gradient * store(x1 @ weight[page])))
    return found


@functools.cache
def question(case):
    """Inputs, right values, S and Q."""
    inputs = make_inputs(case)
    values, scales = reference.expected(case, inputs), reference.scales(case, inputs)
    wide = reference.wide_samples(case, inputs) if case.dtype == "float64" else {}
    return inputs, values, scales, reference.quadratics(case, inputs), wide


def figures(case, results):
    """The figures of each result, as ``gate.judge`` has them measured."""
    _, values, scales, quadratics, wide = question(case)
    found = {}
    for name, result in results.items():
        value, scale = values[name].numpy(), scales[name].numpy()
        if name in wide:
            positions, value = wide[name]
            result, scale = result.reshape(-1)[positions].astype(np.longdouble), scale.reshape(-1)[positions]
        found[name] = measure(case, value, scale, quadratics[name], result)
    return found


def inputs_in(case, kind):
    return {name: array.astype(kind) for name, array in question(case)[0].items()}


#: What asks, the arithmetic, and the class that its products are in.
ARITHMETICS = {
    "float64": ("float64", compute, "float64"),
    "float64, sequential": ("float64", sequential, "float64"),
    "float32 in a float64 case": (
        "float64",
        lambda inputs: compute({name: to_float32(array) for name, array in inputs.items()}),
        "float32",
    ),
    "operands rounded to float32": ("float64", lambda inputs: compute(inputs, to_float32), "float32"),
    "float32": ("float32", compute, "float32"),
    "float32, sequential": ("float32", sequential, "float32"),
    "tf32 operands": ("float32", lambda inputs: compute(inputs, to_tf32), "tf32"),
    "tf32 operands of both products": ("float32", lambda inputs: compute(inputs, to_tf32, to_tf32), "tf32"),
    "float16 operands": ("float32", lambda inputs: compute(inputs, to_half("float16")), "tf32"),
    "bfloat16 operands": ("float32", lambda inputs: compute(inputs, to_half("bfloat16")), "bfloat16"),
    "float16": ("float16", lambda inputs: compute(inputs, store=to_half("float16")), "float16"),
    "bfloat16 operands in a float16 case": (
        "float16",
        lambda inputs: compute(inputs, to_half("bfloat16"), to_half("float16")),
        "bfloat16",
    ),
    "bfloat16": ("bfloat16", lambda inputs: compute(inputs, store=to_half("bfloat16")), "bfloat16"),
    "5 bits": (
        "float32",
        lambda inputs: compute(inputs, lambda array: np.ldexp(np.rint(np.ldexp(array, 4)), -4)),
        None,
    ),
}


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("arithmetic", ARITHMETICS)
def test_the_output_and_each_gradient_place_an_arithmetic_in_its_class(arithmetic, sizes):
    dtype, computed, wanted = ARITHMETICS[arithmetic]
    for seed in range(4):
        case = Case(*sizes, dtype=dtype, seed=seed, mode="forward_backward")
        found = figures(case, computed(inputs_in(case, np.float64 if dtype == "float64" else np.float32)))
        for name in PRODUCTS:
            assert place(case, {name: found[name]}) == wanted, (seed, name, found[name])
        assert place(case, found) == wanted
        assert good_enough(case, place(case, found)) == (wanted == dtype)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("pages", [5, 60, 300])
def test_half_precision_sums_are_in_their_class_for_any_number_of_pages(dtype, pages):
    for seed in range(4):
        case = Case(5, 16, 12, pages, dtype=dtype, seed=seed, mode="forward_backward")
        found = figures(case, pages_in_half(inputs_in(case, np.float32), dtype))
        assert place(case, found) == dtype
        if pages == 300:
            allowed = limits(case, "output", dtype)
            assert all(errors.typical > allowed.typical for errors in found.values()), "the output is allowed less"


#: Honest ways to compute in a format that rounds.
HONEST = {
    "all stored": lambda inputs, name: compute(inputs, store=to_half(name)),
    "bias added later": lambda inputs, name: bias_added_later(inputs, to_half(name)),
    "operands rounded": lambda inputs, name: compute(inputs, to_tf32, to_tf32, result=exactly),
}
#: Cases with results of one, two or three elements: format, way, sizes, and seeds among the first 1500. Of the first
#: seeds a result would be refused if its last rounding counted and if it were allowed no more than results of many
#: elements; the others have the largest figures besides.
FEW_ELEMENTS = [
    ("float16", "all stored", (1, 32, 32, 1), (318, 606), (1324, 891)),
    ("float16", "all stored", (1, 3, 4, 1), (1302,), (818, 996, 1461)),
    ("float16", "all stored", (2, 8, 8, 1), (1491,), (976, 341)),
    ("float16", "all stored", (213, 4, 4, 1), (), (945, 844, 453)),
    ("float16", "bias added later", (1, 32, 32, 1), (61, 212, 318, 371, 391, 407, 424, 507, 606, 924, 1040, 1114), ()),
    ("bfloat16", "all stored", (1, 32, 32, 1), (371,), (1301, 1387)),
    ("bfloat16", "all stored", (1, 3, 4, 1), (1228,), (1448, 15)),
    ("bfloat16", "all stored", (2, 8, 8, 1), (79,), (954, 673)),
    ("bfloat16", "all stored", (213, 4, 4, 1), (49,), (971, 128, 610)),
    ("bfloat16", "bias added later", (1, 32, 32, 1), (306, 316, 371, 482, 577, 642, 924, 999, 1010, 1287, 1359), ()),
    ("tf32", "operands rounded", (1, 32, 32, 1), (29, 484, 518, 1254, 1305, 1335, 1406), (1468, 360, 689)),
    ("tf32", "operands rounded", (1, 3, 4, 1), (199, 243, 612, 671, 789, 1058), (418,)),
    ("tf32", "operands rounded", (2, 8, 8, 1), (108, 427, 675, 976), (1107, 689)),
    ("tf32", "operands rounded", (213, 4, 4, 1), (), (190, 1342, 101, 357)),
]


@pytest.mark.parametrize(
    ("name", "way", "sizes", "telling", "others"),
    [pytest.param(*few, id="-".join([*few[:2], "x".join(map(str, few[2]))])) for few in FEW_ELEMENTS],
)
def test_honest_results_of_few_elements_are_never_refused_by_chance(name, way, sizes, telling, others):
    unit = UNIT_ROUNDOFF[name]
    asked = {"precision": "tf32"} if name == "tf32" else {"dtype": name}
    for seed in (*telling, *others):
        case = Case(*sizes, mode="forward_backward", seed=seed, **asked)
        results = HONEST[way](inputs_in(case, np.float32), name)
        found = figures(case, results)
        for result, errors in found.items():
            assert good_enough(case, place(case, {result: errors})), (seed, result, errors)
        assert place(case, found) == name
        if seed in telling:
            _, values, _, quadratics, _ = question(case)
            errors = {key: np.abs(value - values[key].numpy()) for key, value in results.items()}
            roots = {key: math.sqrt(np.mean(error**2)) / quadratics[key] for key, error in errors.items()}
            assert max(roots.values()) > 2.33 * unit + 600 * U, "a seed that tells nothing"


def test_honest_arithmetic_is_within_its_class_and_the_next_one_is_not():
    for sizes in SIZES:
        case = Case(*sizes, mode="forward_backward")
        inputs = inputs_in(case, np.float32)
        for honest in (compute, sequential):
            found = figures(case, honest(inputs))
            assert all(excess(case, name, errors, "float32") < 0.5 for name, errors in found.items())
        for narrow, below, above in ((to_tf32, "float32", "tf32"), (to_half("bfloat16"), "tf32", "bfloat16")):
            found = figures(case, compute(inputs, narrow))
            for name in PRODUCTS:
                assert excess(case, name, found[name], below) > 1.5
                assert excess(case, name, found[name], above) < 0.75


def test_one_result_below_the_class_of_the_others_places_them_all():
    inputs = inputs_in(STEP, np.float32)
    found = figures(STEP, compute(inputs))
    assert place(STEP, found) == "float32"
    for name in PRODUCTS:
        coarse = found | {name: figures(STEP, compute(inputs, to_tf32))[name]}
        assert place(STEP, coarse) == "tf32"


@pytest.mark.parametrize("narrow", [to_tf32, to_half("float16")], ids=["tf32", "float16"])
def test_rounding_like_tf32_without_its_range_is_float16(narrow):
    found = figures(TF32, compute(inputs_in(TF32, np.float32), narrow))
    assert place(TF32, found, wide_range=True) == "tf32"
    assert place(TF32, found, wide_range=False) == "float16"
    assert good_enough(TF32, "tf32")
    assert not good_enough(TF32, "float16")


@pytest.mark.parametrize(("arithmetic", "wanted"), [("float32", "float32"), ("bfloat16 operands", "bfloat16")])
def test_range_decides_between_tf32_and_float16_alone(arithmetic, wanted):
    _, computed, _ = ARITHMETICS[arithmetic]
    found = figures(STEP, computed(inputs_in(STEP, np.float32)))
    assert place(STEP, found, wide_range=False) == place(STEP, found, wide_range=True) == wanted


@pytest.mark.parametrize(
    "case", [*(dataclasses.replace(STEP, dtype=dtype) for dtype in DTYPES), TF32], ids=lambda c: c.name
)
def test_a_class_is_good_enough_if_it_is_the_one_asked_for_or_better(case):
    order = ["float64", "float32", "tf32", "float16", "bfloat16"]
    asked = precision.asked_class(case)
    assert asked == ("tf32" if case is TF32 else case.dtype)
    assert list(precision.CLASSES) == order
    for position, precision_class in enumerate(order):
        assert good_enough(case, precision_class) == (position <= order.index(asked))
    assert not good_enough(case, None)


def test_results_are_in_no_better_class_than_their_dtype():
    nothing = dict.fromkeys(RESULTS, Errors(0.0, 0.0))
    for dtype in DTYPES:
        assert place(dataclasses.replace(STEP, dtype=dtype), nothing) == dtype
    assert place(TF32, nothing) == "float32"
    assert place(STEP, {}) == "float32"


@pytest.mark.parametrize(
    ("precision_class", "peak", "typical"),
    [
        ("float64", 16 * 2.0**-53, 600 * 2.0**-53),
        ("float32", 16 * U, 600 * U),
        ("tf32", 4 * 2.0**-11 + 16 * U, 2.33 * 2.0**-11 + 600 * U),
        ("float16", 4 * 2.0**-11 + 16 * U, 2.33 * 2.0**-11 + 600 * U),
        ("bfloat16", 4 * 2.0**-8 + 16 * U, 2.33 * 2.0**-8 + 600 * U),
    ],
)
def test_limits_are_those_of_the_table(precision_class, peak, typical):
    for dtype in DTYPES:
        case = dataclasses.replace(STEP, dtype=dtype)
        for name in RESULTS:
            pages = dtype == precision_class in ("float16", "bfloat16") and name in ("grad_input1", "grad_input2")
            growth = 0.75 * math.sqrt(5) * UNIT_ROUNDOFF[precision_class] if pages else 0
            if name == "grad_bias" and precision_class not in ("float64", "float32"):
                growth = (2.4 / math.sqrt(5) - 1) * 2.33 * UNIT_ROUNDOFF[precision_class]  # of five elements
            allowed = limits(case, name, precision_class)
            assert allowed.peak == pytest.approx(peak, rel=1e-12, abs=0)
            assert allowed.typical == pytest.approx(typical + growth, rel=1e-12, abs=0)


@pytest.mark.parametrize("name", ["tf32", "float16", "bfloat16"])
@pytest.mark.parametrize(("sizes", "elements"), [((1, 1), 1), ((2, 1), 2), ((1, 3), 3), ((5, 1), 5)])
def test_a_few_elements_may_have_larger_errors_with_rounded_operands(sizes, elements, name):
    batch, pages = sizes
    case = Case(batch, 8, 8, pages, **({"precision": "tf32"} if name == "tf32" else {"dtype": name}))
    many, few = (limits(asked, "output", name) for asked in (dataclasses.replace(case, batch=100), case))
    assert few.peak == many.peak, "no element may be farther off"
    rounded = 2.33 * UNIT_ROUNDOFF[name]
    assert few.typical - many.typical == pytest.approx((2.4 / math.sqrt(elements) - 1) * rounded, rel=1e-9)
    for unrounded in ("float32", "float64"):
        assert limits(case, "output", unrounded) == limits(dataclasses.replace(case, batch=100), "output", unrounded)


def test_six_elements_are_no_longer_few_and_no_elements_are_no_error():
    for name in ("tf32", "float16", "bfloat16"):
        many = limits(Case(100, 8, 8, 1), "output", name)
        assert limits(Case(6, 8, 8, 1), "output", name) == limits(Case(2, 8, 8, 3), "output", name) == many
        assert limits(Case(5, 8, 8, 1), "output", name).typical > many.typical
        assert math.isfinite(limits(Case(0, 8, 8, 1), "output", name).typical)


def test_excess_is_the_larger_figure_over_its_limit():
    allowed = limits(STEP, "output", "float32")
    assert excess(STEP, "output", allowed, "float32") == 1
    assert excess(STEP, "output", Errors(allowed.peak / 4, allowed.typical / 2), "float32") == 0.5
    assert excess(STEP, "output", Errors(allowed.peak * 3, allowed.typical * 2), "float32") == 3
    assert place(STEP, {"output": allowed}) == "float32"
    for beyond in (
        Errors(np.nextafter(allowed.peak, 1), allowed.typical),
        Errors(allowed.peak, np.nextafter(allowed.typical, 1)),
    ):
        assert place(STEP, {"output": beyond}) == "tf32"


def test_peak_leaves_out_the_last_rounding_and_underflow():
    expected, scale = np.array([4.0, -1.0, 0.0]), np.array([8.0, 2.0, 1.0])
    rounding = U * np.abs(expected) + TINY["float32"]
    assert measure(STEP, expected, scale, 1.0, expected + rounding).peak == 0
    beyond = np.array([1.0, 0.5, -0.125]) * 2.0**-10
    found = measure(STEP, expected, scale, 1.0, expected + np.sign(beyond) * rounding + beyond)
    assert found.peak == pytest.approx(2.0**-12, rel=1e-6)


def test_typical_is_the_rms_error_over_that_of_q():
    expected, scale = np.array([[4.0, -1.0, 0.0, 7.0]]), np.ones((1, 4))
    rounding = U * np.abs(expected) + TINY["float32"]
    assert measure(STEP, expected, scale, 0.25, expected - rounding).typical == 0
    beyond = np.array([[3.0, -4.0, 0.0, 0.0]]) * 2.0**-20
    found = measure(STEP, expected, scale, 0.25, expected + np.where(beyond < 0, -rounding, rounding) + beyond)
    assert found.typical == pytest.approx(2.5 * 2.0**-20 / 0.25, rel=1e-9)


@pytest.mark.parametrize("dtype", DTYPES)
def test_results_that_are_rounded_once_to_their_dtype_have_no_error_at_all(dtype):
    case = dataclasses.replace(STEP, dtype=dtype)
    _, values, scales, quadratics, wide = question(case)
    for name, value in values.items():
        exact, scale = value.numpy(), scales[name].numpy()
        if name in wide:
            positions, exact = wide[name]
            scale = scale.reshape(-1)[positions]
        rounded = exact.astype(np.float64) if dtype == "float64" else round_to(exact.astype(np.float32), dtype)
        assert np.any(rounded != exact), name
        assert measure(case, exact, scale, quadratics[name], rounded) == Errors(0, 0), name


def test_an_element_expected_as_zero_must_be_zero():
    zero, scale = np.zeros((2, 2)), np.zeros((2, 2))
    assert measure(STEP, zero, scale, 0.0, zero) == Errors(0, 0)
    assert measure(STEP, zero, scale, 0.0, zero + TINY["float32"]) == Errors(0, 0)
    assert measure(STEP, zero, scale, 0.0, zero + 1e-30) == Errors(math.inf, math.inf)
    assert measure(STEP, zero[:0], scale[:0], 0.0, zero[:0]) == Errors(0, 0)


def test_errors_too_large_to_be_squared_are_infinite_and_in_no_class():
    case = dataclasses.replace(STEP, dtype="float64")
    found = measure(case, np.zeros(2), np.ones(2), 1.0, np.array([0.0, 1e300]))
    assert found == Errors(1e300, math.inf)
    assert place(case, {"output": found}) is None

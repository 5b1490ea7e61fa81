"""The conduct probe: storage, types of arrays, operators, CPUs, and bits that changed."""

from __future__ import annotations

import numpy as np
import pytest

from harness.correctness.conduct import (
    Storage,
    judge_affinity,
    judge_intact,
    judge_operators,
    judge_repeated,
    judge_storage,
    judge_tampering,
    judge_type,
    judge_unchanged,
    same_bits,
)
from harness.correctness.verdict import passed, refused

YES = passed("conduct")


def no(reason, cause=""):
    return refused("conduct", reason, hypothesis=cause)


def results(**changed):
    made = {"output": np.arange(6, dtype=np.float32).reshape(2, 3), "grad_bias": np.array([1.0, -0.0, np.nan])}
    return made | changed


@pytest.mark.parametrize(
    ("one", "other", "wanted"),
    [
        ((100, 10), (100, 10), True),
        ((100, 10), (105, 10), True),
        ((100, 10), (109, 1), True),
        ((100, 10), (102, 3), True),
        ((100, 10), (110, 10), False),
        ((100, 10), (90, 10), False),
        ((100, 10), (300, 10), False),
        ((100, 10), (105, 0), False),
        ((100, 0), (100, 0), False),
        ((0, 0), (0, 10), False),
    ],
)
def test_two_storages_overlap_where_their_ranges_meet(one, other, wanted):
    assert Storage(*one).overlaps(Storage(*other)) == wanted
    assert Storage(*other).overlaps(Storage(*one)) == wanted


@pytest.mark.parametrize(
    ("native_type", "bases"),
    [
        ("numpy.ndarray", ["builtins.object"]),
        ("torch.Tensor", ["torch._C.TensorBase", "builtins.object"]),
        ("jaxlib._jax.ArrayImpl", ["jax._src.basearray.Array", "builtins.object"]),
        ("outsider.Array", ["builtins.object"]),
    ],
)
def test_a_frameworks_own_arrays_pass(native_type, bases):
    assert judge_type(native_type, bases, home_made=False) == YES


@pytest.mark.parametrize(
    ("native_type", "bases", "home_made", "reason"),
    [
        ("mine.Late", [], True, "its arrays are mine.Late, a type of its own, expected a framework's"),
        ("mine.Late", ["numpy.ndarray"], True, "its arrays are mine.Late, a type of its own, expected a framework's"),
        # The name of a type says nothing about its origin.
        ("numpy.ndarray", [], True, "its arrays are numpy.ndarray, a type of its own, expected a framework's"),
        (
            "elsewhere.Late",
            ["elsewhere.Middle", "numpy.ndarray", "builtins.object"],
            False,
            "its arrays are elsewhere.Late, derived from numpy.ndarray, expected numpy.ndarray itself",
        ),
        (
            "torch.nn.parameter.Parameter",
            ["torch.Tensor"],
            False,
            "its arrays are torch.nn.parameter.Parameter, derived from torch.Tensor, expected torch.Tensor itself",
        ),
        (
            "numpy.ndarray (another type of that name)",
            [],
            False,
            "its arrays are numpy.ndarray (another type of that name), expected the framework's own",
        ),
    ],
)
def test_arrays_of_a_type_that_could_put_work_off_are_refused(native_type, bases, home_made, reason):
    assert judge_type(native_type, bases, home_made) == no(reason)


def test_inputs_stay_unchanged_or_are_named():
    assert judge_unchanged([]) == YES
    place = "Does it compute in place?"
    assert judge_unchanged(["input2"]) == no("changed its input: input2", place)
    assert judge_unchanged(["input1", "weight"]) == no("changed its input: input1, weight", place)


INPUTS = {"input1": Storage(1000, 100), "weight": Storage(1100, 100)}
EARLIER = {"output": Storage(2000, 40), "grad_bias": Storage(2040, 8)}


def test_results_in_memory_of_their_own_may_be_neighbours():
    found = {"output": Storage(3000, 40), "grad_input1": Storage(3040, 40)}
    assert judge_storage(found, INPUTS, EARLIER) == YES
    assert judge_storage(found, INPUTS, {}) == YES
    assert judge_storage({}, INPUTS, EARLIER) == YES


def test_unknown_memory_and_empty_results_overlap_nothing():
    assert judge_storage({"output": Storage(0, 0), "grad_bias": Storage(0, 0)}, {"input1": Storage(0, 0)}, {}) == YES
    assert judge_storage({"output": Storage(1000, 0)}, INPUTS, EARLIER) == YES


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        (Storage(1090, 20), "grad_input1 is in the memory of the input input1"),
        (Storage(1199, 1), "grad_input1 is in the memory of the input weight"),
        (Storage(2000, 40), "grad_input1 is in the memory of an earlier output"),
        (Storage(2047, 40), "grad_input1 is in the memory of an earlier grad_bias"),
        (Storage(3039, 2), "output and grad_input1 are in the same memory"),
        # The results alternate number by number in one buffer: they share no byte, but their ranges overlap.
        (Storage(3004, 40), "output and grad_input1 are in the same memory"),
    ],
)
def test_a_result_in_the_memory_of_another_array_is_refused(place, reason):
    assert judge_storage({"output": Storage(3000, 40), "grad_input1": place}, INPUTS, EARLIER).reason == reason


def test_unchanged_results_are_intact_with_nan_and_minus_zero():
    assert judge_intact(results(), results()) == YES


@pytest.mark.parametrize("later", [[1.0, 0.0, np.nan], [1.0, -0.0, 0.0], [np.nextafter(1.0, 2), -0.0, np.nan]])
def test_a_result_that_changed_by_a_bit_after_it_was_returned_is_refused(later):
    assert judge_intact(results(), results(grad_bias=np.array(later))) == no(
        "grad_bias changed after it had been returned"
    )


def test_other_bits_from_the_same_inputs_are_flagged_and_not_refused():
    assert judge_repeated(results(), results()) == YES
    other = results(grad_bias=np.array([1.0, 0.0, np.nan]))
    assert judge_repeated(results(), other) == passed("conduct", "nondeterministic")
    assert judge_repeated(results(), results(output=results()["output"] * 2)).remark == "nondeterministic"


@pytest.mark.parametrize("called", [[], ["aten::matmul", "aten::bmm", "aten::einsum"]])
def test_other_operators_of_pytorch_are_allowed(called):
    for baseline in (True, False):
        assert judge_operators(called, baseline, "torch.Tensor") == YES
        assert judge_operators(called, baseline, "numpy.ndarray") == YES


@pytest.mark.parametrize("operator", ["aten::bilinear", "aten::_trilinear"])
def test_calling_nn_bilinear_is_flagged_in_pytorch_and_refused_elsewhere(operator):
    called = ["aten::add", operator]
    assert judge_operators(called, True, "torch.Tensor") == YES
    assert judge_operators(called, False, "torch.Tensor") == passed("conduct", "calls_nn_bilinear")
    assert judge_operators(called, False, "numpy.ndarray") == no(
        f"computes by calling nn.Bilinear ({operator}), though its arrays are numpy.ndarray"
    )


def test_replaced_clocks_and_functions_are_named():
    assert judge_tampering([]) == YES
    assert judge_tampering(["numpy.save", "time.perf_counter"]) == no("replaced numpy.save, time.perf_counter")


def test_a_backend_that_leaves_the_cpus_it_was_given_is_refused():
    assert judge_affinity([0, 3], [0, 3]) == YES
    assert judge_affinity(None, None) == YES, "where a system has no affinity there is nothing to leave"
    assert judge_affinity([0], [0, 1]) == no("runs on the CPUs [0, 1], was held to [0]")
    assert judge_affinity([0, 1], [0]) == no("runs on the CPUs [0], was held to [0, 1]")
    assert judge_affinity([0], [1]) == no("runs on the CPUs [1], was held to [0]")


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_bits_are_the_same_for_nan_and_differ_between_zero_and_minus_zero(kind):
    one = np.array([[1.5, np.nan, 0.0], [np.inf, -0.0, -1.0]], kind)
    assert same_bits(one, one.copy())
    assert not same_bits(np.zeros(3, kind), -np.zeros(3, kind))
    assert same_bits(np.array([np.nan], kind), np.array([-np.nan], kind))
    assert not same_bits(np.array([np.nan], kind), np.array([1.0], kind))
    other = one.copy()
    other[1, 2] = np.nextafter(other[1, 2], kind(0))
    assert not same_bits(one, other)


def test_bits_are_not_the_same_in_another_dtype_or_shape():
    one = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert not same_bits(one, one.astype(np.float64))
    assert not same_bits(one, one.view(np.int32))
    assert not same_bits(one, one.reshape(3, 2))
    assert not same_bits(one[:1], one)
    assert not same_bits(np.zeros((0, 3), np.float32), np.zeros((3, 0), np.float32))


def test_bits_are_compared_in_order_whatever_the_strides():
    one = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert same_bits(np.asfortranarray(one), one)
    assert same_bits(one[:, ::-1], np.ascontiguousarray(one[:, ::-1]))
    assert not same_bits(one[:, ::-1], one)
    assert same_bits(one[:0], one[:0])

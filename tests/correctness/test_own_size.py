"""Telling rows, and NaN and infinity, at a case's own sizes."""

from __future__ import annotations

import numpy as np
import oracle
import pytest

from harness.case import MODES, Case
from harness.correctness import own_size, reference, telling_rows
from harness.correctness.drawn import Drawn
from harness.correctness.inputs import make_inputs
from harness.correctness.verdict import Expected
from harness.record import Flag

SIZES = ((64, 24, 20, 12), (33, 7, 9, 5), (8, 3, 2, 4), (1, 5, 3, 2), (2, 1, 1, 1))
CASE = Case(*SIZES[0], seed=3)
STEP = CASE.with_mode("forward_backward")
JUDGES = {
    "rows": (telling_rows.ROWS, telling_rows.ROWS),
    "nonfinite": (telling_rows.NONFINITE, "normal"),
}


def verdict(case, judge, spoil=lambda inputs: inputs, compute=oracle.output, part=None):
    """Judge an honest computation whose inputs or output are spoilt; on a part of the results if one is given."""
    kind, asked = JUDGES[judge]
    right = make_inputs(case, kind=asked)
    values, scales = (
        {name: tensor.numpy() for name, tensor in found.items()}
        for found in (reference.expected(case, right), reference.scales(case, right))
    )
    given = spoil(make_inputs(case, kind=kind))
    arrays = given["input1"], given["input2"], given["weight"], given.get("bias")
    with np.errstate(all="ignore"):
        actual = {"output": compute(*arrays)}
        if case.mode == "forward_backward":
            names = ("grad_input1", "grad_input2", "grad_weight", "grad_bias")
            actual |= dict(zip(names, oracle.gradients(given["grad_output"], *arrays), strict=True))
    results = {name: actual[name] for name in case.result_shapes()}
    if part is not None:
        values, scales = ({name: part.of(name, array) for name, array in found.items()} for found in (values, scales))
    return own_size.JUDGES[judge](case, Expected(values, scales, drawn=part), results)


def changing(name, change):
    """Return what changes one of the inputs."""
    return lambda inputs: inputs | {name: change(inputs[name]).astype(inputs[name].dtype)}


@pytest.mark.parametrize("judge", JUDGES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("sizes", SIZES)
def test_honest_results_pass_without_a_flag(sizes, mode, bias, dtype, judge):
    for seed in range(5):
        found = verdict(Case(*sizes, mode=mode, bias=bias, dtype=dtype, seed=seed), judge)
        assert (found.ok, found.remark) == (True, ""), found.reason


def test_products_of_any_two_factors_may_be_flushed_if_subnormal():
    # XLA flushes on a CPU, and multiplies any two of the three factors of grad_weight first.
    axes = {"grad_output": "o", "input1": "i", "input2": "j"}
    for seed in range(10):
        case = Case(128, 20, 30, 40, mode="forward_backward", seed=seed)
        given = {name: array.astype(float) for name, array in make_inputs(case, kind=telling_rows.ROWS).items()}
        expected = reference.expected(case, given)["grad_weight"].numpy()
        scale = reference.scales(case, given)["grad_weight"].numpy()
        for last in axes:
            one, other = (name for name in axes if name != last)
            products = np.einsum(f"b{axes[one]},b{axes[other]}->b{axes[one]}{axes[other]}", given[one], given[other])
            products[abs(products) < np.finfo(np.float32).tiny] = 0
            made = np.einsum(f"b{axes[one]}{axes[other]},b{axes[last]}->oij", products, given[last])
            assert (abs(made - expected) <= 2.0**-24 * scale).all(), (seed, last)


FAULTS = {
    "values above 1e30 clipped": changing("input2", lambda array: np.clip(array, -1e30, 1e30)),
    "large values clipped": changing("input1", lambda array: np.clip(array, -65504, 65504)),
    "small values flushed": changing("input2", lambda array: np.where(abs(array) < 1e-30, 0, array)),
    "one scale for all rows": changing("input1", lambda array: np.rint(array / abs(array).max() * 2**23)),
    "small entries dropped": changing("input1", lambda array: np.where(abs(array) < 1e-6 * abs(array).max(), 0, array)),
    "sparse rows dropped": changing("input1", lambda array: np.where((array != 0).sum(1)[:, None] == 1, 0, array)),
    "operands in tf32": changing("input1", oracle.to_tf32),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("case", [CASE, STEP], ids=MODES)
def test_rows_of_any_scale_must_be_right(case, fault):
    found = verdict(case, "rows", FAULTS[fault])
    assert not found.ok
    assert "expected" in found.reason
    assert found.elements is not None


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("case", [CASE, STEP], ids=MODES)
def test_drawn_rows_show_the_same_and_nothing_else(case, fault):
    ends = [int(row) for rows in telling_rows.ends(telling_rows.roles(case)) for row in rows]
    part = Drawn(tuple(sorted({*ends, *range(0, case.batch, 2)})), (0, 7))
    assert not verdict(case, "rows", FAULTS[fault], part=part).ok
    assert verdict(case, "rows", part=part) == verdict(case, "rows")


@pytest.mark.parametrize("name", ["input1", "grad_output"])
def test_gradients_of_rows_of_any_scale_must_be_right(name):
    assert not verdict(STEP, "rows", changing(name, lambda array: np.clip(array, -1000, 1000))).ok


def test_flushed_subnormal_rows_are_flagged():
    tiny = np.finfo(np.float32).tiny
    for case in (CASE, STEP):
        found = verdict(case, "rows", changing("input1", lambda array: np.where(abs(array) < tiny, 0, array)))
        assert (found.ok, found.remark) == (True, Flag.FLUSHES_SUBNORMALS), found.reason


def test_rows_that_drown_in_the_largest_are_flagged():
    def mixes(input1, input2, weight, bias):
        # As in Strassen's product, a row is added and subtracted again.
        large = input1[abs(input1).max(axis=1).argmax()]
        # It is so in another order of sums, or one BLAS may round both alike, and what is left would be zero.
        inner = (input1 + large) @ weight - large[::-1] @ weight[:, None, ::-1]
        right = (inner.reshape(len(weight), *input2.shape) * input2).sum(2).T
        return right + bias

    found = verdict(CASE, "rows", compute=mixes)
    assert (found.ok, found.remark) == (True, Flag.NORMWISE), found.reason


def test_results_that_hide_nan_are_flagged():
    found = verdict(CASE, "nonfinite", lambda inputs: {name: np.nan_to_num(array) for name, array in inputs.items()})
    assert (found.ok, found.remark) == (True, Flag.NONFINITE_DIFFERS)


def test_skipping_rows_of_zeros_is_flagged():
    def skips(input1, *others):
        return np.where(input1.any(axis=1)[:, None], oracle.output(input1, *others), others[-1])

    assert verdict(CASE, "nonfinite", compute=skips).remark == Flag.NONFINITE_DIFFERS


def test_finite_results_next_to_nan_must_be_right():
    def spoilt(*given):
        right = oracle.output(*given)
        return np.where(np.isfinite(right), right + 0.01, right)

    assert "expected" in verdict(CASE, "nonfinite", compute=spoilt).reason


def test_every_role_has_rows_and_telling_values():
    made, role = make_inputs(STEP, kind=telling_rows.ROWS), telling_rows.roles(STEP)
    assert set(role) == set(telling_rows.ROLES)
    assert ((made["input1"][role == "sparse"] != 0).sum(axis=1) == 1).all()
    assert (abs(made["input1"][role == "subnormal"]).max(axis=1) < 2.0**-125).all()
    assert not made["input1"][role == "zero"].any()
    assert all(np.isfinite(array).all() for array in made.values())
    assert np.array_equal(made["weight"], make_inputs(STEP)["weight"])

"""Integers whose structure tells: what is planted, and that results after a change follow exactly."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from oracle import results

from harness.case import MODES, Case
from harness.correctness import exact, telling
from harness.correctness.telling_changes import Variant, expected

SIZES = ((64, 24, 20, 12), (16, 8, 4, 3), (9, 5, 3, 11), (7, 1, 1, 1), (1, 5, 3, 2), (3, 2, 1, 2))


def wide(arrays):
    """Return arrays in float64."""
    return {name: array.astype(np.float64) for name, array in arrays.items()}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("sizes", SIZES)
def test_results_after_a_change_follow_from_those_before(sizes, mode, dtype, bias):
    case = Case(*sizes, mode=mode, dtype=dtype, bias=bias, seed=5)
    base = results(case, wide(telling.integers(case)))
    weights = [(change, telling.KIND) for change in range(1, telling.weight_changes(case) + 1)]
    both = [(change, telling.EXCHANGED) for change, _ in weights[:2]]
    for change, kind in [*((0, kind) for kind in telling.KINDS), *weights, *both]:
        right = results(case, wide(telling.integers(case, change, kind)))
        for name, values in expected(case, change, kind, base).items():
            assert np.array_equal(values, right[name]), (name, change, kind)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("sizes", [*SIZES, (300, 40, 30, 20)])
def test_every_sum_is_exact_in_the_cases_format(sizes, dtype):
    case = Case(*sizes, mode="forward_backward", dtype=dtype, seed=5)
    for kind in telling.KINDS:
        sizes_of_terms = {name: abs(array) for name, array in wide(telling.integers(case, 1, kind)).items()}
        assert all(values.max() <= exact.LIMITS[dtype] for values in results(case, sizes_of_terms).values())


def test_few_elements_change():
    case = Case(64, 24, 20, 12, mode="forward_backward", seed=5)
    base, changed, exchanged, alone = (telling.integers(case, kind=kind) for kind in telling.KINDS)
    for name in ("input1", "input2", "grad_output"):
        assert (base[name] != changed[name]).sum() == 1
        assert np.array_equal(np.sort(changed[name], axis=0), np.sort(exchanged[name], axis=0))
        assert not np.array_equal(changed[name], exchanged[name])
        assert np.array_equal(np.sort(base[name], axis=0), np.sort(alone[name], axis=0))
        assert not np.array_equal(base[name], alone[name])
    one, two = (telling.integers(case, change)["weight"] for change in (1, 2))
    assert (base["weight"] != one).sum() == 2
    assert (base["weight"] != two).sum() == 1
    assert base["weight"].sum() == one.sum()


def test_rows_of_zeros_single_ones_and_equal_ends_are_among_dense_ones():
    case = Case(64, 24, 20, 12, seed=5)
    made = telling.integers(case)
    for name in ("input1", "input2"):
        assert np.array_equal(made[name][0], made[name][-1])
        assert (abs(made[name]).sum(1) == 1).sum() >= 2
    assert not made["input1"].any(axis=1).all()
    one, other = telling.structure(case).cancelling
    assert np.mean(made["weight"][:, one] == -made["weight"][:, other]) > 0.8


def test_another_seed_plants_in_other_places():
    cases = [Case(64, 24, 20, 12, seed=seed) for seed in (1, 2)]
    places = [dataclasses.astuple(telling.structure(case))[0] for case in cases]
    assert places[0] != places[1]


def test_a_variant_comes_back_from_the_name_of_its_folder():
    variant = Variant(3, telling.CHANGED, "in place")
    assert Variant.of(variant.folder) == variant
    assert str(Variant(2, telling.KIND, "another kernel")) == "weight, change 2, another kernel"
    assert str(Variant(1, telling.EXCHANGED, "in place")) == "weight, change 1 and exchanged rows, in place"

"""The drawn part of a large case: what it is, what the reference computes for it, and how often it misses a fault."""

from __future__ import annotations

import dataclasses
import math
import random

import numpy as np
import oracle
import pytest
from reference_results import expect

from harness.case import Case
from harness.correctness import drawn
from harness.correctness.drawn import PAGES, ROWS, Drawn, draw
from harness.correctness.gate import judge
from harness.correctness.inputs import make_inputs
from harness.correctness.verdict import Expected
from harness.process.protocol import Expect
from harness.worker.reference_worker import ReferenceWorker

STEP = Case(4 * ROWS, 3, 2, 4 * PAGES, mode="forward_backward")
LARGE = Case(16000, 220, 220, 97)


@pytest.fixture
def all_large(monkeypatch):
    monkeypatch.setattr(drawn, "LARGE_FLOP", 0)


def of_part(whole, part):
    """Return what the reference gives for a part, taken from the whole."""
    values, scales = (
        {name: part.of(name, array) for name, array in arrays.items()} for arrays in (whole.values, whole.scales)
    )
    return Expected(values, scales, whole.quadratics, drawn=part)


def passes(whole, part, actual):
    """True if a part of results passes."""
    taken = part.of_all(STEP, actual)
    return taken is not None and judge(STEP, of_part(whole, part), taken).ok


def test_first_and_last_are_always_in_the_part_and_the_rest_changes():
    parts = [draw(LARGE.with_mode("forward_backward"), random.Random(seed)) for seed in range(20)]
    for part in parts:
        for indices, size, count in ((part.rows, 16000, ROWS), (part.pages, 97, PAGES)):
            assert len(set(indices)) == count
            assert list(indices) == sorted(indices)
            assert (indices[0], indices[-1]) == (0, size - 1)
    assert len({part.rows for part in parts}) == len({part.pages for part in parts}) == len(parts)


def test_every_row_is_in_some_part(all_large):
    case = Case(2 * ROWS, 3, 2, 1)
    seen = {row for seed in range(30) for row in draw(case, random.Random(seed)).rows}
    assert seen == set(range(2 * ROWS))


@pytest.mark.parametrize(
    ("case", "rows", "pages"),
    [
        (Case(128, 20, 30, 40, mode="forward_backward"), None, None),
        (LARGE, ROWS, 0),
        (dataclasses.replace(LARGE, batch=ROWS, out_features=400), None, None),
        (Case(ROWS, 220, 220, 97, mode="forward_backward"), ROWS, PAGES),
        (Case(64, 512, 512, PAGES, mode="forward_backward"), None, None),
        (Case(4096, 512, 512, 1, mode="forward_backward"), ROWS, 1),
    ],
    ids=repr,
)
def test_part_is_drawn_where_it_saves_work(case, rows, pages):
    part = draw(case, random.Random(0))
    assert (rows, pages) == (None, None) if part is None else (len(part.rows), len(part.pages)) == (rows, pages)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("bias", [True, False])
def test_reference_of_a_part_is_the_part_of_the_reference(tmp_path, dtype, bias):
    case, part = dataclasses.replace(STEP, dtype=dtype, bias=bias), Drawn((0, 3, 77, 1023), (0, 9, 63))
    whole = expect(case, make_inputs(case, 1))
    reply = ReferenceWorker().expect(Expect(case, 1, "normal", tmp_path, drawn=part))
    for name in case.result_shapes():
        for suffix, right in (("", whole.values), (".scale", whole.scales)):
            found = np.load(tmp_path / f"{name}{suffix}.npy")
            assert found == pytest.approx(part.of(name, right[name]), rel=1e-12, abs=1e-13)
        if dtype == "float64":
            positions, wide = (np.load(tmp_path / f"{name}.{file}.npy") for file in ("positions", "wide"))
            assert wide == pytest.approx(part.of(name, whole.values[name]).reshape(-1)[positions], rel=1e-11)
    squares = oracle.results(case, {name: array.astype(float) ** 2 for name, array in make_inputs(case, 1).items()})
    for name, square in squares.items():
        assert reply.quadratics[name] == pytest.approx(math.sqrt(part.of(name, square).mean()), rel=1e-5)


@pytest.mark.parametrize(
    ("name", "share"), [("output", ROWS / 1024), ("grad_input2", ROWS / 1024), ("grad_weight", PAGES / 64)]
)
def test_wrong_row_or_page_is_missed_as_often_as_stated(all_large, name, share):
    inputs = make_inputs(STEP)
    whole, honest, generator = expect(STEP, inputs), oracle.results(STEP, inputs), random.Random(7)
    missed = 0
    for _ in range(200):
        wrong = np.array(honest[name])
        place = generator.randrange(len(wrong))
        wrong[place] += 1
        missed += passes(whole, draw(STEP, generator), honest | {name: wrong})
    deviation = math.sqrt(200 * share * (1 - share))
    assert abs(missed - 200 * (1 - share)) < 4 * deviation


def test_wrong_first_or_last_row_is_never_missed(all_large):
    inputs = make_inputs(STEP)
    whole, honest = expect(STEP, inputs), oracle.results(STEP, inputs)
    for name in honest:
        for place in (0, -1):
            wrong = np.array(honest[name])
            wrong[place] += 1
            assert not passes(whole, draw(STEP, random.Random(1)), honest | {name: wrong})


def test_nan_and_shapes_outside_of_the_part_are_seen(all_large):
    inputs, part = make_inputs(STEP), Drawn((0, 1023), (0, 63))
    whole, honest = expect(STEP, inputs), oracle.results(STEP, inputs)
    assert passes(whole, part, honest)
    for name in honest:
        wrong = np.array(honest[name])
        wrong[5] = np.nan
        assert not passes(whole, part, honest | {name: wrong})
        assert not passes(whole, part, honest | {name: honest[name][:-1]})

"""Count coverage as `studies/interval_coverage.py` does, with fewer traces, under every kind of noise."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from harness.timing import estimates

SPEC = importlib.util.spec_from_file_location(
    "coverage_study", Path(__file__).parents[2] / "studies" / "interval_coverage.py"
)
coverage = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(coverage)

TRACES = 300
#: A level of 99 % misses 3 of 300; more than 10 it misses in one of 5,000 such tests.
LEAST = 1 - 10 / TRACES
PLANS = [
    (kind, *plan) for kind in coverage.KINDS for plan in coverage.PLANS if not (kind == "hierarchical" and plan[0] == 1)
]


@pytest.mark.parametrize(("kind", "processes", "blocks"), PLANS)
def test_the_interval_covers_the_true_ratio_as_often_as_it_says_and_never_errs_in_its_sign(kind, processes, blocks):
    found = coverage.coverage(kind, processes, blocks, TRACES)
    assert found["covered"] >= LEAST
    assert found["wrong_sign"] <= 1 / TRACES


def test_counting_the_blocks_of_processes_that_differ_covers_far_less_often():
    missed = 0
    for seed in range(TRACES):
        other, this = coverage.hierarchical(np.random.default_rng(seed), 12, 10).reshape(2, -1)
        found = estimates.compare(dict(enumerate(np.exp(this))), dict(enumerate(np.exp(other))), {})
        missed += not found.ratio.low <= 1 <= found.ratio.high
    assert missed > TRACES / 3

"""Intervals cover the true ratio where the rule stops measuring, as in `studies/interval_coverage.py`."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

from harness.timing import estimates

STUDIES = Path(__file__).parents[2] / "studies"


def study(name):
    """Import a study, which imports others of its folder."""
    sys.path.insert(0, str(STUDIES))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(STUDIES))


coverage, selection = study("interval_coverage"), study("selection")

TRACES = 40
#: Each trace has four ratios, and a level of 99 % misses 1.6 of 160 on average. They share a baseline, so a bad trace
#: may miss all four: three such traces are rarer than one in 5,000.
LEAST = 1 - 9 / 160


@pytest.mark.parametrize(("kind", "plan"), [cell for cell in coverage.cells() if cell[1] == "quick"])
def test_interval_covers_the_true_ratio_where_the_rule_stops(kind, plan):
    row = coverage.coverage(kind, plan, TRACES)
    assert row["covered"] >= LEAST
    assert row["wrong_sign"] <= 2 / (4 * TRACES)


def test_processes_that_differ_are_covered_and_more_of_them_are_taken():
    row = coverage.coverage("hierarchical", "models", 10)
    assert row["covered"] >= 1 - 4 / 40
    assert row["processes"] > 10


def test_blocks_of_different_processes_counted_as_values_cover_too_seldom():
    missed = 0
    for seed in range(300):
        other, this = coverage.hierarchical(np.random.default_rng(seed), 2, 12, 10).reshape(2, -1)
        comparison = estimates.compare(dict(enumerate(np.exp(this))), dict(enumerate(np.exp(other))), {})
        missed += not comparison.ratio.low <= 1 <= comparison.ratio.high
    assert missed > 100


def test_first_group_has_the_best_backend_in_every_noise():
    for name, noise in selection.noises().items():
        row = selection.row(name, noise, 5)
        assert row["best_missed"] == 0, name
        assert row["far_slower_in_first_group"] <= 0.5, name


def test_leaving_takes_less_time_than_equal_shares():
    row = selection.row("heavy", selection.noises()["heavy"], 10)
    assert row["seconds_until_near"] <= row["equal_shares_seconds"]

"""Intervals of the median and of the mean, against tables and by counting coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import wilcoxon

from harness.timing.intervals import Interval, hodges_lehmann, median_interval, student


@pytest.mark.parametrize(("count", "low", "high"), [(8, 1, 8), (12, 2, 11), (20, 4, 17), (30, 8, 23)])
def test_interval_of_the_median_has_the_ranks_of_the_table(count, low, high):
    values = np.random.default_rng(count).permutation(np.arange(1.0, count + 1))
    assert median_interval(values) == Interval((count + 1) / 2, low, high)


def test_fewer_than_eight_values_have_no_interval_of_the_median():
    assert median_interval(range(1, 8)) == Interval(4.0, None, None)
    assert median_interval([5.0]) == Interval(5.0, None, None)


def test_interval_covers_the_median_of_a_skewed_distribution():
    generator = np.random.default_rng(2024)
    intervals = [median_interval(generator.lognormal(size=30)) for _ in range(4000)]
    missed = sum(not interval.low <= 1.0 <= interval.high for interval in intervals)
    # The 8th to the 23rd of 30 leave 0.52 % outside: about 21 of 4000. More than 40 is over the level of 1 %.
    assert 5 <= missed <= 40


@pytest.mark.parametrize(("count", "rank"), [(8, 1), (10, 4), (12, 8), (20, 38), (30, 110)])
def test_signed_rank_interval_has_the_ranks_of_the_textbooks_table(count, rank):
    # Hollander, Wolfe and Chicken, Table A.4: largest k with P(W < k) <= 0.005.
    values = np.random.default_rng(count).normal(size=count)
    averages = np.sort([(a + b) / 2 for n, a in enumerate(values) for b in values[: n + 1]])
    interval = hodges_lehmann(values)
    assert (interval.low, interval.high) == pytest.approx((averages[rank - 1], averages[-rank]))
    assert interval.estimate == pytest.approx(np.median(averages))


@pytest.mark.parametrize("count", [12, 30, 50])
def test_signed_rank_interval_ends_where_scipys_test_rejects(count):
    values = np.random.default_rng(count).normal(size=count)
    low = hodges_lehmann(values).low
    assert wilcoxon(values - (low - 1e-9), method="exact").pvalue < 0.01
    assert wilcoxon(values - (low + 1e-9), method="exact").pvalue < 0.013, "the next Walsh average"
    inside = np.sort([(a + b) / 2 for n, a in enumerate(values) for b in values[: n + 1]])
    following = inside[np.searchsorted(inside, low, side="right")]
    assert wilcoxon(values - (following + 1e-9), method="exact").pvalue > 0.01 * 0.9


def test_normal_approximation_continues_the_exact_table_smoothly():
    values = np.random.default_rng(0).normal(size=202)
    widths = [hodges_lehmann(values[:count]).half_width for count in (199, 200, 201, 202)]
    assert max(widths) / min(widths) < 1.05


def test_fewer_than_eight_values_have_no_signed_rank_interval():
    assert hodges_lehmann([1.0, 2.0, 4.0]) == Interval(2.25, None, None)


def test_students_interval_needs_three_values_and_is_wide():
    assert student([1.0, 2.0]) == Interval(1.5, None, None)
    interval = student([1.0, 2.0, 3.0])
    assert interval.half_width == pytest.approx(9.925 / math.sqrt(3), rel=1e-4)  # t(2), 99 %, tables

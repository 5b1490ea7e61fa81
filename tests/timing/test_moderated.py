"""Moderated variances: a few values are judged with those of the other backends, and no less than by their own."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from harness.timing import moderated
from harness.timing.intervals import student
from harness.timing.moderated import Prior


def with_variance(variance, count=3):
    """Return values of a variance, around 0."""
    values = np.linspace(-1, 1, count)
    return values * math.sqrt(variance / values.var(ddof=1))


def test_few_samples_have_no_prior():
    assert moderated.prior([]) is None
    assert moderated.prior([[0.1, 0.2, 0.3]]) is None
    assert moderated.prior([[0.1, 0.2, 0.3]] * 3 + [[0.1, 0.2]]) is None
    assert moderated.prior([[0.1, 0.2, 0.3]] * 4) is not None


def test_variances_that_hardly_differ_have_a_prior_of_the_most_freedom():
    prior = moderated.prior([with_variance(spread**2) for spread in (0.020, 0.021, 0.022, 0.019)])
    assert prior.freedom == 2 * 3 / 5
    assert math.sqrt(prior.variance) == pytest.approx(0.0205, rel=0.5)


def test_prior_is_found_again_from_many_variances_that_come_from_it():
    generator, freedom, variance, own = np.random.default_rng(3), 6.0, 0.04, 5
    true = freedom * variance / generator.chisquare(freedom, 4000)
    prior = moderated.prior([generator.normal(0, math.sqrt(each), own + 1) for each in true])
    assert prior.freedom == pytest.approx(freedom, rel=0.25)
    assert prior.variance == pytest.approx(variance, rel=0.1)


def test_interval_of_three_values_is_narrower_with_a_prior():
    values = [0.01, 0.02, 0.05]
    prior = Prior(12.0, float(np.var(values, ddof=1)))
    assert moderated.interval(values, prior).half_width < student(values).half_width / 2
    assert moderated.interval(values, prior).estimate == student(values).estimate


def test_interval_is_never_taken_from_less_than_the_own_variance():
    values = [0.0, 0.3, 0.9]
    own = moderated.interval(values, Prior(12.0, 1e-6)).half_width
    usual = stats.t.ppf(0.995, 14) * np.std(values, ddof=1) / math.sqrt(3)
    assert own == pytest.approx(usual)


def test_values_that_agree_by_chance_take_the_variance_of_the_others():
    agreeing = moderated.interval([0.1, 0.1, 0.1], Prior(8.0, 0.01))
    assert agreeing.half_width == pytest.approx(stats.t.ppf(0.995, 10) * math.sqrt(0.8 * 0.01 / 3))


def test_two_values_have_no_interval():
    assert moderated.interval([0.1, 0.2], Prior(8.0, 0.01)).low is None
    assert moderated.differences([[0.1, 0.2], [0.1, 0.2, 0.3]])[0] is None


def test_interval_covers_the_truth_as_often_as_it_says():
    generator, missed, runs = np.random.default_rng(5), 0, 2000
    for _ in range(runs):
        samples = generator.normal(0, 0.05, (7, 4))
        interval = moderated.interval(samples[0], moderated.prior(samples))
        missed += not interval.low <= 0 <= interval.high
    assert missed / runs <= 0.013


def test_one_outlier_moves_a_mean_by_little():
    values = np.random.default_rng(1).normal(0.1, 0.02, 20)
    values[7] = math.log(10)
    (difference,) = moderated.differences([values])
    assert difference.mean == pytest.approx(0.1, abs=0.03)
    assert difference.exceeds(0.0, 0.01)


def test_two_speeds_that_alternate_are_no_outliers():
    # Six of ten values are of one speed; moving the rare ones there would make it look certain.
    (difference,) = moderated.differences([[0.3] * 6 + [0.0] * 4])
    assert difference.mean == pytest.approx(0.18)
    assert not difference.exceeds(0.05, 0.005)


def test_same_values_need_more_where_more_backends_are_compared():
    values = [0.10, 0.16, 0.13, 0.11]
    for count in (2, 12):
        difference = moderated.differences([values] * count)[0]
        chance = count * stats.t.sf(difference.mean / difference.error, difference.freedom)
        assert difference.among == count
        assert difference.exceeds(0.0, 1.01 * chance)
        assert not difference.exceeds(0.0, 0.99 * chance)
        assert not difference.exceeds(difference.mean - 2 * difference.error, 0.01)
    few = moderated.differences([values] * 2)[0]
    assert few.exceeds(0.0, 0.01)


def test_values_without_any_noise_decide():
    (difference, _) = moderated.differences([[0.2] * 4, [0.0] * 4])
    assert difference.exceeds(0.1, 0.001)
    assert not difference.exceeds(0.3, 0.001)

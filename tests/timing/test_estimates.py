"""Comparisons of two backends: ratio, interval, relation and rank."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.record import Relation
from harness.timing.estimates import BAND, LEAST_VALUES, agrees, compare, relate, summarize
from harness.timing.intervals import Interval, hodges_lehmann, median_interval, student

ONE = {}  # all blocks in one process


def blocks(values):
    return dict(enumerate(values))


def test_summary_has_quantiles_and_mean_of_the_values():
    summary = summarize([4.0, 1.0, 3.0, 2.0, 100.0])
    assert (summary.minimum, summary.p25, summary.median.estimate, summary.mean, summary.p75) == (1, 2, 3, 22, 4)
    assert summary.p95 == pytest.approx(4 + 0.8 * 96)


@pytest.mark.parametrize("seconds", [[], [1.0, 0.0], [1.0, -1.0], [math.nan], [math.inf]])
def test_summary_refuses_times_that_no_clock_reads(seconds):
    with pytest.raises(ValueError, match="times must be positive"):
        summarize(seconds)


@pytest.mark.parametrize(
    ("estimate", "low", "high", "relation"),
    [
        (0.05, 0.01, 0.09, Relation.FASTER),
        (-0.05, -0.09, -0.01, Relation.SLOWER),
        (0.05, -0.01, 0.11, Relation.AMBIGUOUS),  # 1 is in the interval
        (0.015, 0.010, 0.025, Relation.AMBIGUOUS),  # certain, and too small to act on
        (0.015, 0.011, 0.019, Relation.EQUIVALENT),
        (0.0, -0.019, 0.019, Relation.EQUIVALENT),
        (0.0, -0.021, 0.019, Relation.AMBIGUOUS),
        (0.5, None, None, Relation.AMBIGUOUS),
    ],
)
def test_relation_follows_from_the_interval(estimate, low, high, relation):
    assert relate(Interval(estimate, low, high), BAND) is relation


def test_wider_band_turns_a_difference_into_equivalence():
    ten_percent = Interval(math.log(1.10), math.log(1.09), math.log(1.11))
    assert relate(ten_percent, 0.02) is Relation.FASTER
    assert relate(ten_percent, 0.12) is Relation.EQUIVALENT


def test_comparison_uses_only_the_blocks_of_both_backends():
    comparison = compare({0: 1.0, 1: 3.0, 9: 1e9}, {1: 6.0, 0: 2.0, 5: 1e9}, ONE)
    assert (comparison.ratio.estimate, comparison.units) == (pytest.approx(2.0), 2)
    assert compare({0: 1.0}, {1: 1.0}, ONE) is None


def test_noise_of_a_whole_block_cancels_from_the_ratio():
    noise = np.random.default_rng(1).lognormal(sigma=1.0, size=20)
    comparison = compare(blocks(noise), blocks(3.0 * noise), ONE)
    assert (comparison.ratio.estimate, comparison.ratio.low, comparison.ratio.high) == pytest.approx((3.0, 3.0, 3.0))
    assert comparison.relation is Relation.FASTER


@pytest.mark.parametrize("sign", [1, -1])
def test_difference_without_the_medians_support_is_ambiguous(sign):
    # The ratios are not symmetric: two thirds are far faster, one third is a little slower. The averages of pairs show
    # a difference, the median does not.
    ratios = sign * np.array([0.5] * 14 + [-0.01] * 7)
    comparison = compare(blocks(np.exp(-ratios)), blocks(np.ones(21)), ONE)
    shown = Relation.FASTER if sign > 0 else Relation.SLOWER
    assert relate(hodges_lehmann(ratios)) is shown
    assert not agrees(shown, median_interval(ratios))
    assert comparison.relation is Relation.AMBIGUOUS


def test_median_outside_the_band_does_not_support_equivalence():
    assert agrees(Relation.EQUIVALENT, Interval(0.019, -0.1, 0.1))
    assert not agrees(Relation.EQUIVALENT, Interval(0.03, -0.1, 0.1))
    assert agrees(Relation.AMBIGUOUS, Interval(0.03, None, None))


def test_values_of_several_processes_are_the_processes_not_their_blocks():
    generator = np.random.default_rng(7)
    centres = np.repeat(generator.normal(0, 0.03, 12), 10)
    times, processes = np.exp(centres + generator.normal(0, 0.005, 120)), {block: block // 10 for block in range(120)}
    comparison = compare(blocks(times), blocks(np.ones(120)), processes)
    assert (comparison.unit, comparison.units) == ("process", 12)
    assert comparison.process_spread == pytest.approx(0.03, rel=0.5)
    assert comparison.block_spread == pytest.approx(0.005, rel=0.3)
    pooled = compare(blocks(times), blocks(np.ones(120)), ONE)
    assert pooled.half_width < comparison.half_width / 2, "pseudo-replication claims too narrow an interval"


def test_processes_count_even_where_they_do_not_seem_to_differ():
    generator = np.random.default_rng(0)
    times, processes = np.exp(generator.normal(0, 0.02, 30)), {block: block // 10 for block in range(30)}
    comparison = compare(blocks(times), blocks(np.ones(30)), processes)
    assert (comparison.unit, comparison.units) == ("process", 3)


def test_ten_values_are_the_fewest_for_a_signed_rank_interval():
    assert LEAST_VALUES == 10
    values = np.linspace(0.03, 0.05, 10)
    comparison = compare(blocks(np.exp(-values)), blocks(np.ones(10)), ONE)
    assert comparison.ratio.low == pytest.approx(math.exp(hodges_lehmann(values).low))
    fewer = compare(blocks(np.exp(-values[:9])), blocks(np.ones(9)), ONE)
    assert fewer.ratio.low == pytest.approx(math.exp(student(values[:9]).low))


MIRRORED = {Relation.FASTER: Relation.SLOWER, Relation.SLOWER: Relation.FASTER}


@st.composite
def two_backends(draw):
    """Draw times of two backends, and processes, by block.

    The logarithms of the times are on a grid of 0.001; those of one backend are moved by 0.00011. So no end of an
    interval is 0 or an edge of the band, where rounding would decide the relation.
    """
    noise = draw(st.lists(st.tuples(st.integers(-20, 20), st.integers(-20, 20)), min_size=1, max_size=30))
    shift = draw(st.integers(-60, 60))
    times, others = ([0.001 * pair[0] for pair in noise], [0.001 * (pair[1] + shift) + 0.00011 for pair in noise])
    blocks_each = draw(st.sampled_from([2, 5, 30]))
    return blocks(np.exp(times)), blocks(np.exp(others)), {block: block // blocks_each for block in range(len(noise))}


@given(two_backends())
def test_comparison_is_the_reciprocal_of_the_exchanged_comparison(measured):
    times, others, processes = measured
    ahead, back = compare(times, others, processes), compare(others, times, processes)
    assert back.ratio.estimate == pytest.approx(1 / ahead.ratio.estimate)
    if ahead.ratio.low is None:
        assert (back.ratio.low, back.ratio.high) == (None, None)
    else:
        assert (back.ratio.low, back.ratio.high) == pytest.approx((1 / ahead.ratio.high, 1 / ahead.ratio.low))
        assert back.half_width == pytest.approx(ahead.half_width, abs=1e-12)
    assert back.relation is MIRRORED.get(ahead.relation, ahead.relation)
    assert (back.unit, back.units) == (ahead.unit, ahead.units)


@given(two_backends(), st.floats(1e-9, 1e9))
def test_comparison_does_not_depend_on_the_unit_of_time(measured, factor):
    times, others, processes = measured
    scaled = [{block: factor * seconds for block, seconds in series.items()} for series in (times, others)]
    comparison, rescaled = compare(times, others, processes), compare(*scaled, processes)
    assert rescaled.ratio.estimate == pytest.approx(comparison.ratio.estimate)
    if comparison.ratio.low is None:
        assert (rescaled.ratio.low, rescaled.ratio.high) == (None, None)
    else:
        ends = (comparison.ratio.low, comparison.ratio.high)
        assert (rescaled.ratio.low, rescaled.ratio.high) == pytest.approx(ends)
    assert rescaled.relation is comparison.relation

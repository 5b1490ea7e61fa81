"""Comparisons of two backends: ratio, interval, relation and rank."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.record import Relation
from harness.timing.estimates import BAND, LEAST_VALUES, agrees, compare, ranks, relate, summarize, tie
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
    assert ranks({"slow": blocks(1.1 * noise), "fast": blocks(noise)}, ONE) == {"fast": 1, "slow": 2}


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


def test_backends_that_tie_share_a_rank_and_the_next_rank_is_skipped():
    even, odd = np.tile([1.0, 1.1], 10), np.tile([1.1, 1.0], 10)
    times = {"last": 2 * even, "a": even, "middle": 1.5 * even, "b": odd}
    rank_of = ranks({name: blocks(values) for name, values in times.items()}, ONE)
    assert rank_of == {"a": 1, "b": 1, "middle": 3, "last": 4}


def test_backends_within_the_band_tie_however_sure_the_difference_is():
    base = np.linspace(1.0, 1.2, 20)
    assert tie(blocks(base), blocks(1.019 * base), ONE)
    assert not tie(blocks(base), blocks(1.021 * base), ONE)
    assert tie(blocks(base), blocks(1.09 * base), ONE, band=0.10)


def test_one_or_two_slow_samples_separate_only_by_a_large_factor():
    assert tie({0: 1.0, 1: 1.0}, {0: 1.6, 1: 1.4}, ONE)
    assert not tie({0: 1.0, 1: 1.0}, {0: 1.6, 1: 1.7}, ONE)


def test_a_tie_with_a_tied_backend_is_no_tie_with_the_fastest():
    base = np.linspace(1.0, 1.2, 20)
    times = {"a": base, "b": 1.015 * base, "c": 1.03 * base}
    assert ranks({name: blocks(values) for name, values in times.items()}, ONE) == {"a": 1, "b": 1, "c": 3}
    assert ranks({}, ONE) == {}


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


@given(two_backends(), st.floats(1e-9, 1e9))
def test_ranks_do_not_depend_on_the_unit_of_time(measured, factor):
    times, others, processes = measured
    scaled = [{block: factor * seconds for block, seconds in series.items()} for series in (times, others)]
    rank_of = ranks({"this": times, "other": others}, processes)
    assert ranks({"this": scaled[0], "other": scaled[1]}, processes) == rank_of


@st.composite
def several_backends(draw):
    """Draw times of up to six backends by block, some of which lack blocks, and processes by block.

    The grid is that of ``two_backends``, moved by a different fraction for each backend.
    """
    count = draw(st.integers(1, 25))
    blocks_each = draw(st.sampled_from([2, 5, 25]))
    seconds = {}
    for number in range(draw(st.integers(2, 6))):
        noise = draw(st.lists(st.integers(-20, 20), min_size=count, max_size=count))
        shift, joins = draw(st.integers(-60, 60)), draw(st.integers(1, count))
        logs = [0.001 * (step + shift) + 0.00011 * number for step in noise]
        seconds[f"backend-{number}"] = blocks(np.exp(logs[:joins]))
    return seconds, {block: block // blocks_each for block in range(count)}


def first_of(rank_of, seconds):
    """Return the backend with the lowest median of each rank."""
    ordered = sorted(rank_of, key=lambda name: (np.median(list(seconds[name].values())), name), reverse=True)
    return {rank_of[name]: name for name in ordered}


@given(several_backends())
def test_rank_1_has_exactly_what_is_not_shown_slower_than_the_fastest(measured):
    seconds, processes = measured
    rank_of = ranks(seconds, processes)
    fastest = first_of(rank_of, seconds)[1]
    assert np.median(list(seconds[fastest].values())) == min(np.median(list(own.values())) for own in seconds.values())
    for name, own in seconds.items():
        assert (rank_of[name] == 1) == (name == fastest or tie(seconds[fastest], own, processes))


@given(several_backends())
def test_each_backend_is_shown_slower_than_the_first_of_every_better_rank(measured):
    seconds, processes = measured
    rank_of = ranks(seconds, processes)
    firsts = first_of(rank_of, seconds)
    for name, rank in rank_of.items():
        assert all(not tie(seconds[first], seconds[name], processes) for of, first in firsts.items() if of < rank)
        assert name == firsts[rank] or tie(seconds[firsts[rank]], seconds[name], processes)


@given(several_backends())
def test_a_rank_is_one_more_than_the_number_of_backends_of_better_ranks(measured):
    rank_of = ranks(*measured)
    assert all(rank == 1 + sum(other < rank for other in rank_of.values()) for rank in rank_of.values())


@given(several_backends(), st.randoms(use_true_random=False))
def test_ranks_do_not_depend_on_the_order_of_the_backends(measured, lot):
    seconds, processes = measured
    names = lot.sample(sorted(seconds), len(seconds))
    assert ranks({name: seconds[name] for name in names}, processes) == ranks(seconds, processes)


@given(several_backends(), st.sampled_from([1.0, 1.003, 1.03, 1.3]))
def test_a_backend_that_becomes_slower_gets_no_better_rank(measured, factor):
    seconds, processes = measured
    before = ranks(seconds, processes)
    for name, own in seconds.items():
        slowed = {block: factor * time for block, time in own.items()}
        assert ranks(seconds | {name: slowed}, processes)[name] >= before[name]


@given(several_backends())
def test_a_backend_of_a_later_rank_changes_no_better_rank(measured):
    seconds, processes = measured
    before = ranks(seconds, processes)
    for name, rank in before.items():
        without = ranks({other: own for other, own in seconds.items() if other != name}, processes)
        assert {other: of for other, of in without.items() if before[other] < rank} == {
            other: of for other, of in before.items() if of < rank
        }


def test_a_noisy_backend_behind_a_precise_one_is_not_left_out_of_rank_1():
    base = np.linspace(1.0, 1.2, 20)
    noise = np.exp(np.random.default_rng(0).normal(0, 0.5, 20))
    times = {"fastest": base, "precise": 1.1 * base, "noisy": 1.2 * base * noise}
    rank_of = ranks({name: blocks(values) for name, values in times.items()}, ONE)
    assert rank_of == {"fastest": 1, "noisy": 1, "precise": 3}


def test_without_a_common_block_only_a_large_factor_separates_backends():
    assert ranks({"a": {0: 1.0, 1: 1.1}, "b": {2: 1.6, 3: 2.0}}, ONE) == {"a": 1, "b": 1}
    assert ranks({"a": {0: 1.0, 1: 1.1}, "b": {2: 1.7, 3: 2.0}}, ONE) == {"a": 1, "b": 2}

"""Ranks and leaving: the best backend stays, and what is shown slower goes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.timing import selection, stopping
from harness.timing.selection import FIRST_LOOK, group_prior, next_look, ranks, shown_slower

#: All blocks of one process.
ONE: dict[int, int] = {}


def blocks(values):
    """Return times by block."""
    return {block: float(value) for block, value in enumerate(values)}


def noisy(count, spread=0.02, seed=0):
    """Return noise, as a factor of a time."""
    return np.exp(np.random.default_rng(seed).normal(0, spread, count))


def known(seconds, baseline):
    """Return the backends whose ratio to the baseline is known well enough to leave."""
    prior = None if baseline is None else group_prior(seconds, baseline, ONE)
    return {name for name, times in seconds.items() if stopping.known(stopping.look(times, baseline, ONE, 0.05, prior))}


def test_looks_are_a_quarter_apart():
    looks = [next_look(0)]
    while len(looks) < 11:
        looks.append(next_look(looks[-1]))
    assert looks == [4, 5, 6, 8, 10, 12, 15, 19, 24, 30, 38]


def test_errors_of_all_looks_add_up_to_the_leaving_error():
    total = sum(selection.leaving_error(look) for look in range(100_000))
    assert total == pytest.approx(selection.LEAVING_ERROR, rel=1e-4)


def test_far_slower_backend_is_shown_slower_in_four_blocks():
    seconds = {"fast": blocks(noisy(FIRST_LOOK)), "slow": blocks(3 * noisy(FIRST_LOOK, seed=1))}
    seconds["near"] = blocks(1.02 * noisy(FIRST_LOOK, seed=2))
    assert shown_slower(seconds, ONE, 0.05, 0.003) == {"slow": "fast"}


def test_backend_within_the_margin_is_never_shown_slower():
    base = noisy(400)
    seconds = {"fast": blocks(base), "near": blocks(1.04 * base * noisy(400, 0.001, 1)), "far": blocks(1.2 * base)}
    assert shown_slower(seconds, ONE, 0.05, 0.003) == {"far": "fast"}


def test_smaller_chance_shows_fewer_backends_slower():
    factors = (1.0, 1.01, 1.16, 1.2, 3.0)
    seconds = {str(factor): blocks(factor * noisy(6, 0.02, seed)) for seed, factor in enumerate(factors)}
    found = [set(shown_slower(seconds, ONE, 0.05, chance)) for chance in (0.1, 1e-3, 1e-9)]
    assert found[0] >= found[1] >= found[2]
    assert found[0] > found[2]


def test_ratio_is_known_by_a_narrow_interval_or_by_ten_blocks():
    baseline, wide = noisy(6, 0.02, 9), 20 * noisy(6, 0.3, 3)
    seconds = {"fast": noisy(6), "wide": wide, "slow": 2 * noisy(6, seed=2)}
    by_block = {name: blocks(times) for name, times in seconds.items()}
    assert known(by_block, blocks(baseline)) == {"fast", "slow"}
    assert known(by_block, None) == {"fast", "slow", "wide"}
    longer = {name: blocks([*times, *times]) for name, times in seconds.items()}
    assert known(longer, blocks([*baseline, *baseline])) == {"fast", "slow", "wide"}


def test_one_backend_is_slower_than_no_other():
    assert shown_slower({"one": blocks(noisy(5))}, ONE, 0.05, 0.003) == {}


def test_backends_that_tie_share_a_rank_and_the_next_rank_is_skipped():
    even, odd = np.tile([1.0, 1.1], 10), np.tile([1.1, 1.0], 10)
    times = {"last": 2 * even, "a": even, "middle": 1.5 * even, "b": odd}
    assert ranks({name: blocks(values) for name, values in times.items()}, ONE) == {
        "a": 1,
        "b": 1,
        "middle": 3,
        "last": 4,
    }


def test_backends_within_the_band_tie_however_sure_the_difference_is():
    base = np.linspace(1.0, 1.2, 20)
    assert ranks({"a": blocks(base), "b": blocks(1.019 * base)}, ONE) == {"a": 1, "b": 1}
    assert ranks({"a": blocks(base), "b": blocks(1.021 * base)}, ONE) == {"a": 1, "b": 2}
    assert ranks({"a": blocks(base), "b": blocks(1.09 * base)}, ONE, band=0.10) == {"a": 1, "b": 1}


def test_three_blocks_separate_backends_that_differ_by_a_third():
    factors = {"best": 1.0, "by a third": 1.35, "by half": 1.45, "twice": 2.0, "thrice": 3.0, "ten times": 10.0}
    seconds = {name: blocks(factor * noisy(3, 0.03, seed)) for seed, (name, factor) in enumerate(factors.items())}
    assert {name for name, rank in ranks(seconds, ONE).items() if rank == 1} == {"best"}


def test_outlier_of_the_best_does_not_keep_a_far_slower_backend():
    seconds = {
        "best": {0: 53.0, 1: 51.0, 2: 101.0},
        "far": {0: 316.0, 1: 483.0, 2: 480.0},
        "near": {0: 65.0, 1: 57.0, 2: 75.0},
    }
    assert ranks(seconds, ONE) == {"best": 1, "near": 1, "far": 3}


def test_one_or_two_slow_samples_separate_only_by_a_large_factor():
    assert ranks({"a": {0: 1.0, 1: 1.0}, "b": {0: 1.6, 1: 1.4}}, ONE) == {"a": 1, "b": 1}
    assert ranks({"a": {0: 1.0, 1: 1.0}, "b": {0: 1.6, 1: 1.7}}, ONE) == {"a": 1, "b": 2}


def test_without_a_common_block_only_a_large_factor_separates_backends():
    assert ranks({"a": {0: 1.0, 1: 1.1}, "b": {2: 1.6, 3: 2.0}}, ONE) == {"a": 1, "b": 1}
    assert ranks({"a": {0: 1.0, 1: 1.1}, "b": {2: 1.7, 3: 2.0}}, ONE) == {"a": 1, "b": 2}


def test_a_tie_with_a_tied_backend_is_no_tie_with_the_fastest():
    base = np.linspace(1.0, 1.2, 20)
    times = {"a": base, "b": 1.015 * base, "c": 1.03 * base}
    assert ranks({name: blocks(values) for name, values in times.items()}, ONE) == {"a": 1, "b": 1, "c": 3}
    assert ranks({}, ONE) == {}


def test_a_noisy_backend_behind_a_precise_one_is_not_left_out_of_rank_1():
    base = np.linspace(1.0, 1.2, 20)
    times = {"fastest": base, "precise": 1.1 * base, "noisy": 1.2 * base * noisy(20, 0.5)}
    assert ranks({name: blocks(values) for name, values in times.items()}, ONE) == {
        "fastest": 1,
        "noisy": 1,
        "precise": 3,
    }


def test_backend_that_left_has_a_later_rank_than_the_one_it_left_for():
    # In its four blocks the machine was fast: its median is the lowest, but the other was faster in the same blocks.
    quick, later = noisy(4) * 0.5, noisy(16, seed=1)
    stayed, left = blocks([*quick, *later]), blocks(1.3 * quick)
    assert ranks({"stayed": stayed, "left": left}, ONE, left={"left": "stayed"}) == {"stayed": 1, "left": 2}
    assert ranks({"left": left}, ONE, left={"left": "a backend that was rejected later"}) == {"left": 1}


@st.composite
def several_backends(draw):
    """Draw times of up to six backends by block, some of which lack blocks, and processes by block.

    The logarithms of the times are on a grid of 0.001, moved by a different fraction for each backend: so no difference
    is 0 or an edge of the band, where rounding would decide.
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


@given(several_backends())
def test_the_lowest_median_is_in_rank_1(measured):
    seconds, processes = measured
    rank_of = ranks(seconds, processes)
    medians = {name: np.median(list(times.values())) for name, times in seconds.items()}
    assert 1 in {rank_of[name] for name, median in medians.items() if median == min(medians.values())}


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
def test_a_backend_that_becomes_slower_does_not_enter_rank_1(measured, factor):
    seconds, processes = measured
    before = ranks(seconds, processes)
    for name, own in seconds.items():
        slowed = {block: factor * time for block, time in own.items()}
        assert before[name] == 1 or ranks(seconds | {name: slowed}, processes)[name] > 1


@given(several_backends(), st.floats(1e-6, 1e6))
def test_ranks_do_not_depend_on_the_unit_of_time(measured, factor):
    seconds, processes = measured
    scaled = {name: {block: factor * time for block, time in own.items()} for name, own in seconds.items()}
    assert ranks(scaled, processes) == ranks(seconds, processes)

"""Which samples come next, and when measuring stops: pure decisions."""

from __future__ import annotations

import dataclasses
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.timing import estimates, stopping, variance
from harness.timing.stopping import Look, Next, State

WIDE = Look(0.5, counts_processes=False)
BETWEEN = Look(0.5, counts_processes=True, units=4, split=variance.Split(0.01, 0.02))
RICH = State(processes=5, most_processes=40, left_seconds=1000.0, block_seconds=1.0, process_seconds=5.0)
states = st.builds(
    State,
    processes=st.integers(1, 40),
    most_processes=st.just(40),
    left_seconds=st.floats(-10, 1000),
    block_seconds=st.floats(0.01, 10),
    process_seconds=st.floats(0.01, 100),
)
looks = st.builds(Look, half_width=st.none() | st.floats(0, 1), counts_processes=st.booleans())


@pytest.mark.parametrize(
    ("lacking", "change", "action", "why"),
    [
        ([], {}, "stop", "target"),
        ([WIDE], {}, "process", ""),
        ([WIDE], {"left_seconds": 1.0}, "block", ""),
        ([BETWEEN], {"left_seconds": 1.0}, "stop", "budget"),
        ([BETWEEN], {"processes": 40}, "stop", "processes"),
        ([WIDE, BETWEEN], {"processes": 40}, "block", ""),
        ([], {"processes": 1}, "process", ""),
        ([], {"processes": 1, "most_processes": 1}, "stop", "target"),
        # The pilot's other two processes take 2 * (5 + 10 * 1) s.
        ([WIDE], {"processes": 1, "left_seconds": 29.0}, "block", ""),
        ([WIDE], {"processes": 1, "left_seconds": 30.0}, "process", ""),
        ([WIDE], {"processes": 3, "left_seconds": 15.0}, "process", ""),
    ],
)
def test_look_decides_between_block_process_and_stop(lacking, change, action, why):
    due = stopping.after_look(lacking, dataclasses.replace(RICH, **change))
    assert (due.action, due.why) == (action, why)


def test_process_after_the_pilot_gets_the_share_that_the_noise_asks_for():
    share = variance.blocks_per_process(BETWEEN.split, RICH.process_seconds, RICH.block_seconds)
    assert stopping.after_look([BETWEEN], RICH) == Next("process", share=share)
    assert stopping.after_look([BETWEEN], dataclasses.replace(RICH, processes=2)) == Next("process")


@given(st.lists(looks, max_size=4), states)
def test_measuring_never_begins_more_processes_than_allowed_or_paid_for(lacking, state):
    if stopping.after_look(lacking, state).action == "process":
        assert state.processes < state.most_processes
        assert state.process_seconds + variance.FEWEST_BLOCKS * state.block_seconds <= state.left_seconds


@given(st.lists(looks, min_size=1, max_size=4), states)
def test_target_is_never_why_measuring_stops_while_an_interval_is_wide(lacking, state):
    assert stopping.after_look(lacking, state).why != "target"


@given(st.lists(looks, max_size=4), states, st.floats(1, 100))
def test_more_budget_never_stops_measuring_earlier(lacking, state, more):
    richer = dataclasses.replace(state, left_seconds=state.left_seconds + more)
    if stopping.after_look(lacking, state).action != "stop":
        assert stopping.after_look(lacking, richer).action != "stop"


@pytest.mark.parametrize(
    ("seen", "most_processes", "narrow_enough"),
    [
        (Look(0.02), 40, True),
        (Look(0.021), 40, False),
        (Look(None), 40, False),
        (Look(0.001, counts_processes=True, units=9), 40, False),
        (Look(0.001, counts_processes=True, units=10), 40, True),
        (Look(0.001, counts_processes=True, units=4), 4, True),
    ],
)
def test_target_is_reached_by_narrow_intervals_of_enough_values(seen, most_processes, narrow_enough):
    assert stopping.reached(seen, 0.02, most_processes) is narrow_enough


def test_look_without_a_baseline_is_at_the_median():
    seconds = {block: 1.0 + block / 100 for block in range(20)}
    assert stopping.look(seconds, None, {}, 0.02).half_width == estimates.relative_half_width(seconds.values())


def test_look_without_a_common_block_knows_no_interval():
    assert stopping.look({0: 1.0}, {1: 1.0}, {}, 0.02) == Look(None)


@given(st.lists(st.floats(0.5, 2), min_size=10, max_size=30), st.floats(0.001, 1000))
def test_look_at_a_ratio_does_not_depend_on_the_unit_of_time(times, scale):
    seconds = dict(enumerate(times))
    baseline = {block: 1.0 + block / 50 for block in seconds}
    scaled = [{block: scale * time for block, time in series.items()} for series in (seconds, baseline)]
    processes = dict.fromkeys(seconds, 0)
    half_width = stopping.look(seconds, baseline, processes, 0.02).half_width
    assert stopping.look(*scaled, processes, 0.02).half_width == pytest.approx(half_width, abs=1e-9)


@given(st.floats(1e-6, 100), st.floats(0.1, 1000))
def test_slow_baseline_joins_three_blocks_and_slow_backends_at_most_five(call_seconds, budget_seconds):
    baseline, other = (stopping.blocks_to_join(call_seconds, budget_seconds, each) for each in (True, False))
    assert other >= 1
    assert baseline >= min(other, stopping.LEAST_BLOCKS)
    if call_seconds > stopping.SLOW_SECONDS:
        assert other <= stopping.SLOW_BLOCKS
        assert baseline >= stopping.LEAST_BLOCKS
    else:
        assert other == stopping.ALL_BLOCKS


@pytest.mark.parametrize(
    ("fewest", "first", "left", "over"),
    [
        (2, True, -100.0, False),
        (3, True, -9.5, True),
        (3, True, -8.5, False),
        (3, False, 0.5, True),
        (10, True, 0.5, True),
        (10, True, 1.0, False),
    ],
    ids=["least blocks", "twice the budget", "second budget", "later process", "enough blocks", "room for a block"],
)
def test_budget_is_over_when_it_has_no_room_for_a_block(fewest, first, left, over):
    assert stopping.budget_is_over(fewest, first, left, budget_seconds=10.0, block_seconds=1.0) is over


@given(st.integers(1, 1000), st.booleans(), st.integers())
def test_one_block_of_each_range_is_kept_and_two_of_the_first_in_a_pilot(joins, first, seed):
    kept = stopping.draw_kept_blocks(random.Random(seed), joins, first)
    sure = {block for block in kept if block < stopping.LEAST_BLOCKS}
    for low, high in (*stopping.KEPT_RANGES, *(stopping.EARLY_RANGES if first else stopping.LATER_RANGES)):
        assert len([block for block in kept if low <= block < high]) == 1
    if first:
        assert len(sure) == min(stopping.KEPT_FIRST, joins)
        assert all(block < joins for block in sure)


@given(st.sets(st.integers(0, 5000), min_size=1), st.booleans(), st.floats(1e-7, 10), st.integers())
def test_judged_calls_are_some_of_those_that_are_held(numbers, copied, call_seconds, seed):
    held = [*numbers, *([-1] if copied else [])]
    drawn = stopping.draw_judged_calls(random.Random(seed), held, call_seconds)
    assert set(drawn) <= set(held)
    assert 1 <= len(drawn) == len(set(drawn)) <= stopping.JUDGED_CALLS
    assert len(drawn) == 1 or len(drawn) * call_seconds <= stopping.JUDGED_SECONDS
    assert len(drawn) == 1 or not copied or -1 in drawn

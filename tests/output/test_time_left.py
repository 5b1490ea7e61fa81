"""The time that is left, by a clock that the tests move."""

from __future__ import annotations

import dataclasses

import pytest

from harness.case import MODES, Case
from harness.catalog.suites import suite
from harness.output.time_left import (
    BACKEND_SECONDS,
    BASELINE_WORK_SECONDS,
    ONCE_SECONDS,
    STEP_TIMES,
    WORK_SECONDS,
    Line,
    Planned,
    TimeLeft,
)
from harness.timing import roofline

SMALL, STEP, LARGE = (
    Planned("forward", "cpu", 0.0),
    Planned("forward_backward", "cpu", 0.0),
    Planned("forward", "cpu", 1),
)
FIXED, ONCE = 30.0 + BACKEND_SECONDS, ONCE_SECONDS
SLOPE = BASELINE_WORK_SECONDS + WORK_SECONDS


def left(*groups):
    return TimeLeft(dict(enumerate(groups, start=1)), backends=1, budget_seconds=30.0)


def after(left, *taken):
    """Let groups take these times, in seconds, of which the first has a part that is done once; return the time."""
    now = 0.0
    for number, (seconds, once) in enumerate(taken, start=1):
        left.begin(now, number)
        now += seconds
        left.end(now, once)
    return now


@pytest.mark.parametrize("mode", MODES)
def test_the_work_of_a_case_is_its_flop(mode):
    case = Case(1000, 20, 30, 40, mode=mode)
    assert Planned.of(case, "cuda") == Planned(mode, "cuda", pytest.approx(roofline.flop(case) / 1e9))


def test_the_time_left_counts_down_within_a_group():
    estimate = left(SMALL, SMALL, SMALL)
    estimate.begin(100.0, 1)
    whole, each = 3 * FIXED + ONCE, FIXED + ONCE
    assert [estimate.seconds(100.0 + past) for past in (0.0, 10.0, 1000.0)] == [whole, whole - 10.0, whole - each]


def test_a_guess_knows_work_and_training_steps():
    estimate = left(STEP, LARGE)
    estimate.begin(0.0, 1)
    assert estimate.seconds(0.0) == pytest.approx(FIXED * STEP_TIMES + ONCE + FIXED + SLOPE)


def test_what_is_done_once_does_not_count_for_later_groups():
    estimate = left(SMALL, SMALL, SMALL)
    now = after(estimate, (300.0 + FIXED, 300.0))
    assert estimate.seconds(now) == pytest.approx(2 * FIXED)


def test_what_is_done_once_counts_for_each_device():
    estimate = left(SMALL, Planned("forward", "cuda", 0.0))
    now = after(estimate, (300.0 + FIXED, 300.0))
    assert estimate.seconds(now) == pytest.approx(300.0 + FIXED)


@pytest.mark.parametrize("seconds", [8.0, 120.0])
def test_groups_of_a_mode_tell_the_time_of_the_others(seconds):
    estimate = left(*[SMALL] * 3, *[STEP] * 2)
    now = after(estimate, *[(seconds, 0.0)] * 3)
    assert estimate.seconds(now) == pytest.approx(2 * STEP_TIMES * seconds, rel=0.2)


def test_one_slow_group_decides_little():
    estimate = left(*[SMALL] * 6)
    now = after(estimate, (30.0, 0.0), (30.0, 0.0), (900.0, 0.0))
    assert estimate.seconds(now) < 1.5 * 3 * 30.0


def test_the_time_grows_with_the_work_as_it_did_before():
    line = Line(10.0, 1.0).fitted([(0.0, 5.0), (1.0, 25.0), (2.0, 45.0)] * 20)
    assert (line.fixed, line.slope) == pytest.approx((5.0, 20.0), rel=0.1)


@pytest.mark.parametrize("groups", [[(1.0, 50.0), (2.0, 10.0)] * 9, [(1.0, 1.0), (9.0, 500.0)] * 9])
def test_neither_part_of_a_time_is_negative(groups):
    line = Line(10.0, 10.0).fitted(groups)
    assert line.fixed >= 0
    assert line.slope >= 0
    assert line.fixed + line.slope > 0


def test_a_group_without_time_leaves_some_for_the_others():
    estimate = left(SMALL, SMALL)
    assert estimate.seconds(after(estimate, (0.0, 0.0))) > 0


def test_groups_that_are_not_measured_take_no_time():
    estimate = TimeLeft({3: SMALL}, backends=1, budget_seconds=30.0)
    estimate.begin(0.0, 3)
    assert estimate.seconds(0.0) == FIXED + ONCE
    estimate.end(FIXED, 0.0)
    assert estimate.seconds(FIXED) == 0.0


#: Two runs of ``quick`` on two busy CPUs, the first with edge cases to ask: backends, budget, the time of the first
#: group for starting, edge cases and preparing, and the time of each group, in seconds.
RUNS = (
    (8, 5.0, 32.0, (50.0, 18.0, 13.0, 19.0, 16.0, 18.0, 24.0, 46.0, 37.0, 63.0, 27.0, 63.0)),
    (8, 5.0, 12.0, (27.0, 18.0, 14.0, 17.0, 13.0, 15.0, 19.0, 33.0, 26.0, 55.0, 21.0, 50.0)),
)


@pytest.mark.parametrize(("backends", "budget_seconds", "once", "taken"), RUNS)
def test_the_time_left_of_a_run_was_right_within_a_factor_of_1_5(backends, budget_seconds, once, taken):
    cases = [dataclasses.replace(entry.case, mode=mode) for entry in suite("quick").entries for mode in MODES]
    groups = {number: Planned.of(case, "cpu") for number, case in enumerate(cases, start=1)}
    estimate, now = TimeLeft(groups, backends, budget_seconds), 0.0
    factors = []
    for number, seconds in enumerate(taken[:-1], start=1):
        estimate.begin(now, number)
        now += seconds
        estimate.end(now, once)
        factors.append(estimate.seconds(now) / (sum(taken) - now))
    assert min(factors) > 1 / 1.5
    assert max(factors) < 1.5

"""The conduct probe: times that show memoised answers, deferred work, or a clock that is wrong."""

from __future__ import annotations

import numpy as np
import pytest

from harness.correctness.clocks import (
    LONG_SHARE,
    UNSEEN_SECONDS,
    UNSEEN_SHARE,
    UNSEEN_TIMES,
    judge_clock,
    judge_long_sample,
)
from harness.correctness.conduct import (
    CONVERT_CALLS,
    CONVERT_SECONDS,
    CONVERT_SECONDS_PER_BYTE,
    FRESH_RATIO,
    FRESH_SECONDS,
    judge_conversion,
    judge_memory_of_answers,
)
from harness.correctness.verdict import passed, refused

YES = passed("conduct")


def no(reason):
    return refused("conduct", reason)


def test_new_inputs_as_fast_as_seen_ones_show_no_memoising():
    assert judge_memory_of_answers([0.011, 0.010, 0.012], [0.010, 0.011, 0.009]) == YES
    assert judge_memory_of_answers([0.002, 0.002, 0.002], [0.010, 0.010, 0.010]) == YES
    assert judge_memory_of_answers([], []) == YES


def test_new_inputs_that_take_far_longer_than_seen_ones_are_refused():
    assert judge_memory_of_answers([0.5, 0.25, 0.75], [0.001, 0.003, 0.001]) == no(
        "remembers answers: new inputs take 0.5 s a call, inputs seen before 0.001 s"
    )


def test_a_few_outlying_calls_do_not_decide_about_memoising():
    assert judge_memory_of_answers([0.010, 0.010, 9.0, 0.010, 9.0], [0.010] * 5) == YES
    assert judge_memory_of_answers([0.5] * 5, [0.5, 0.5, 1e-6, 0.5, 1e-6]) == YES
    assert not judge_memory_of_answers([0.5, 1e-6, 0.5, 0.5, 0.5], [0.010] * 5).ok
    assert not judge_memory_of_answers([0.5] * 5, [9.0, 0.010, 9.0, 0.010, 0.010]).ok


def test_calls_that_a_busy_machine_delays_show_no_memoising():
    delayed = [0.010, 50e-6, 0.010, 50e-6, 0.010, 0.010, 50e-6, 0.010]
    assert float(np.median(delayed)) > 100 * 50e-6, "most of them are delayed"
    assert judge_memory_of_answers(delayed, [50e-6] * 5 + [0.010] * 3) == YES


@pytest.mark.parametrize(
    ("fresh", "seen", "ok"),
    [
        (0.99 * FRESH_RATIO, 1.0, True),
        (1.01 * FRESH_RATIO, 1.0, False),
        # A cold cache explains a few microseconds, whatever the ratio.
        (0.99 * FRESH_SECONDS, 1e-9, True),
        (1.01 * FRESH_SECONDS, 1e-9, False),
        (1e-3 * FRESH_SECONDS, 0.0, True),
        # A cold cache explains twice the time, and not three times.
        (2.0, 1.0, True),
        (3.0, 1.0, False),
        (6e-6, 1e-6, True),
        (60e-6, 20e-6, False),
    ],
)
def test_memoising_shows_in_times_longer_than_a_cold_cache_explains(fresh, seen, ok):
    assert judge_memory_of_answers([fresh] * 3, [seen] * 3).ok == ok


def test_copying_results_that_are_there_takes_no_longer_than_copying_does():
    assert judge_conversion(0.0, 0.0, 0) == YES
    assert judge_conversion(0.0, 0.01, 4000) == YES
    assert judge_conversion(100e-6, 10e-6, 4000) == YES


def test_results_computed_while_they_are_copied_are_refused():
    assert judge_conversion(0.5, 0.001, 4000) == no(
        "puts off its work: a call takes 0.001 s, copying its results 0.5 s"
    )
    # A call that only notes its work takes 5 us; the work takes 1 ms when the results are copied.
    assert not judge_conversion(1e-3, 5e-6, 4000).ok


@pytest.mark.parametrize(
    ("call", "size", "allowed"),
    [
        (0.0, 0, CONVERT_SECONDS),
        (1.0, 0, CONVERT_CALLS + CONVERT_SECONDS),
        (CONVERT_SECONDS / CONVERT_CALLS, 0, 2 * CONVERT_SECONDS),
        (0.0, 10**9, CONVERT_SECONDS_PER_BYTE * 10**9 + CONVERT_SECONDS),
        (1.0, 10**9, CONVERT_CALLS + CONVERT_SECONDS_PER_BYTE * 10**9 + CONVERT_SECONDS),
    ],
)
def test_copying_has_an_allowance_of_calls_seconds_and_bytes(call, size, allowed):
    assert judge_conversion(0.99 * allowed, call, size) == YES
    assert not judge_conversion(1.01 * allowed, call, size).ok


def test_a_clock_that_accounts_for_the_time_that_passed_is_right():
    assert judge_clock([0.001, 0.002, 0.001], [0.1, 0.1, 0.1]) == YES
    assert judge_clock([], []) == YES


def test_a_clock_that_says_far_less_than_passed_is_refused():
    assert judge_clock([0.5, 0.4, 0.5], [0.1, 0.1, 0.2]) == no("its samples say 0.1 s where 0.6 s passed")


@pytest.mark.parametrize(
    ("unseen", "measured", "ok"),
    [
        (0.99 * UNSEEN_SECONDS, 0.0, True),
        (1.01 * UNSEEN_SECONDS, 0.0, False),
        (0.99 * UNSEEN_SHARE, 1.0, True),
        (1.01 * UNSEEN_SHARE, 1.0, False),
    ],
)
def test_unseen_time_may_be_that_of_pipes_or_a_share_of_the_measured_time(unseen, measured, ok):
    assert judge_clock([unseen] * 3, [measured] * 3).ok == ok


def test_where_time_was_lost_to_all_alike_a_clock_is_not_wrong_for_it():
    lost = [10 * UNSEEN_SECONDS] * 3

    def others(share):
        return [[9.0] * 3, [], [share * lost[0] / UNSEEN_TIMES] * 3]

    assert judge_clock(lost, [0.01] * 3, others=others(1.01)) == YES
    assert not judge_clock(lost, [0.01] * 3, others=others(0.99)).ok, "the one that lost least counts"


def test_waits_for_a_cpu_explain_time_up_to_their_own_length():
    lost = [10 * UNSEEN_SECONDS] * 3
    assert judge_clock(lost, [0.01] * 3, [1.01 * lost[0]] * 3) == YES
    assert not judge_clock(lost, [0.01] * 3, [0.99 * lost[0]] * 3).ok
    assert not judge_clock(lost, [0.01] * 3, [0.0, 9.0, 0.0]).ok, "a few long waits explain nothing"


def test_a_few_blocks_with_much_lost_time_do_not_make_a_clock_wrong():
    assert judge_clock([0.001, 9.0, 0.001, 9.0, 0.001], [0.1] * 5) == YES
    assert not judge_clock([9.0, 0.001, 9.0, 0.001, 9.0], [0.1] * 5).ok


@pytest.mark.parametrize(("share", "ok"), [(0.99, True), (1.01, False)])
def test_long_sample_tells_a_clock_that_is_a_twentieth_too_slow(share, ok):
    beyond = share * LONG_SHARE * 0.4
    assert judge_long_sample(0.4, 0.003 + beyond, 0.0, [0.009, 0.003, 0.2]).ok == ok


def test_waits_and_what_others_lose_explain_the_time_of_a_long_sample():
    assert judge_long_sample(0.4, 0.1, 0.0, [0.002], [[0.01], [0.05]]) == no(
        "its clock says 0.4 s of a sample of 0.498 s"
    )
    assert judge_long_sample(0.4, 0.1, 0.099, [0.002]) == YES
    assert judge_long_sample(0.4, 0.1, 0.0, [0.002], [[0.04], [0.05]]) == YES

"""The trend of a series of times: flat, warming up, slowing down, or none."""

from __future__ import annotations

import numpy as np
import pytest

from harness.timing import steady_state
from harness.timing.steady_state import FLAT, LEAST_TIMES, NO_STEADY_STATE, SLOWING_DOWN, WARMING_UP, classify

BLOCKS = np.arange(30)


def word(shape, processes=1, noise=0.02, seed=0):
    """Return the class of a series of log-times, which is the same in each of several processes."""
    generator = np.random.default_rng(seed)
    logs = np.concatenate([shape + generator.normal(0, noise, len(shape)) for _ in range(processes)])
    return classify(dict(enumerate(np.exp(logs))), {n: n // len(shape) for n in range(len(logs))})


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        (0.0 * BLOCKS, FLAT),
        (np.where(BLOCKS < 10, 0.3, 0.0), WARMING_UP),
        (np.where(BLOCKS < 10, 0.6, np.where(BLOCKS < 18, 0.3, 0.0)), WARMING_UP),
        (np.where(BLOCKS < 10, 0.0, 0.3), SLOWING_DOWN),
        (np.where((BLOCKS >= 10) & (BLOCKS < 20), 0.3, 0.0), NO_STEADY_STATE),
        (0.3 * (BLOCKS % 2), NO_STEADY_STATE),  # compiles at every other call
        (0.3 * (BLOCKS // 5 % 2), NO_STEADY_STATE),
        (np.where(BLOCKS < 22, 0.0, 0.3), NO_STEADY_STATE),  # too short to be a steady state
    ],
    ids=["flat", "one step", "two steps", "slower", "hump", "every other", "every five", "at the end"],
)
def test_series_is_classified_by_its_levels(shape, expected):
    assert word(shape) == expected


def test_spikes_are_no_change_of_level():
    assert word(np.where(BLOCKS % 12 == 5, 2.0, 0.0)) == FLAT


def test_change_below_five_percent_is_no_change_of_level():
    assert word(np.where(BLOCKS < 15, 0.04, 0.0), noise=0.005) == FLAT


def test_noise_alone_is_flat_in_nearly_all_cases():
    words = [word(0.0 * BLOCKS, noise=0.03, seed=seed) for seed in range(300)]
    assert words.count(FLAT) >= 294


def test_a_change_is_seen_in_at_most_one_of_a_hundred_series_without_one():
    generator = np.random.default_rng(0)
    changed = sum(bool(steady_state._changes(generator.normal(size=LEAST_TIMES), 0)) for _ in range(2000))
    assert changed <= 0.013 * 2000


def test_speeds_of_single_processes_are_no_change_of_level():
    shape = np.where(np.arange(12) < 5, 0.3, 0.0)
    assert word(shape, processes=5) == WARMING_UP
    speeds = np.repeat([0.0, 0.5, 0.1], 12) + np.random.default_rng(1).normal(0, 0.01, 36)
    assert classify(dict(enumerate(np.exp(speeds))), {n: n // 12 for n in range(36)}) == FLAT


def test_too_few_times_are_not_classified():
    assert classify(dict.fromkeys(range(LEAST_TIMES - 1), 1.0), {}) is None
    assert classify({}, {}) is None

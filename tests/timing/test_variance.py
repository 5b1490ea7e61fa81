"""Variance between processes and between blocks, and the blocks that they call for."""

from __future__ import annotations

import numpy as np
import pytest

from harness.timing.variance import FEWEST_BLOCKS, MOST_BLOCKS, Split, blocks_per_process, split


def processes(between, within, count=8, blocks=10, seed=0):
    generator = np.random.default_rng(seed)
    return [generator.normal(centre, within, blocks) for centre in generator.normal(0, between, count)]


def test_split_estimates_both_spreads():
    spreads = split(processes(0.03, 0.01, count=200, blocks=20))
    assert spreads.between == pytest.approx(0.03, rel=0.15)
    assert spreads.within == pytest.approx(0.01, rel=0.1)


def test_split_subtracts_the_blocks_noise_and_withstands_spikes():
    alike = split(processes(0.0, 0.02, count=200))
    assert alike.between < 0.005
    spiked = [np.append(group, 2.0) for group in processes(0.0, 0.02, count=200)]
    assert split(spiked).within == pytest.approx(alike.within, rel=0.2)


def test_too_few_values_have_no_spread():
    assert split([[0.1]]) == Split(None, None)
    assert split([[0.1, 0.1, 0.1]]) == Split(0.0, None)


@pytest.mark.parametrize(
    ("spreads", "process_seconds", "blocks"),
    [
        (Split(0.02, 0.01), 4.0, 13),  # sqrt(4 / 0.1) * 2 = 12.6
        (Split(0.02, 0.01), 400.0, MOST_BLOCKS),
        (Split(0.01, 0.05), 4.0, FEWEST_BLOCKS),
        (Split(0.02, 0.0), 4.0, MOST_BLOCKS),  # processes do not differ
        (Split(0.02, None), 4.0, FEWEST_BLOCKS),
    ],
)
def test_blocks_of_a_process_weigh_its_cost_against_its_variance(spreads, process_seconds, blocks):
    assert blocks_per_process(spreads, process_seconds, 0.1) == blocks

"""The rule of a cohort: looks, leaving, and intervals that are narrow at two looks in a row."""

from __future__ import annotations

import numpy as np
import pytest

from harness.timing.deciding import Measured, Rule
from harness.timing.stopping import State
from harness.timing.variance import FEWEST_BLOCKS

RICH = State(processes=1, most_processes=1, left_seconds=1000.0, block_seconds=1.0, process_seconds=5.0)


def measured(taken, classes=None, rival=None, **factors):
    """Return times with noise of 1 %, each backend's times a factor; the baseline takes 1 s."""
    noise = np.exp(np.random.default_rng(0).normal(0, 0.01, (len(factors) + 1, taken)))
    series = [
        dict(enumerate(map(float, factor * row))) for row, factor in zip(noise, [1.0, *factors.values()], strict=True)
    ]
    seconds = dict(zip(factors, series[1:], strict=True))
    return Measured(seconds, series[0], rival, classes or {}, dict.fromkeys(range(taken), 0), taken)


def decisions(rule, taken, **factors):
    """Return the decisions after each block up to a number of them."""
    return [rule.after_block(measured(count, **factors), RICH) for count in range(1, taken + 1)]


def test_before_the_first_look_another_block_follows():
    for decision in decisions(Rule(0.05, 0.05, 1), 3, fast=0.1, slow=3.0):
        assert (decision.left, decision.precise, decision.next.action) == ({}, None, "block")


def test_far_slower_backend_leaves_once_its_ratio_is_known_at_two_looks():
    found = decisions(Rule(0.05, 0.05, 1), 5, fast=0.1, slow=3.0)
    assert [decision.left for decision in found] == [{}, {}, {}, {}, {"slow": "fast"}]


def test_interval_is_narrow_enough_at_the_second_look_only():
    found = decisions(Rule(0.05, 0.05, 1), 12, fast=0.1, near=0.101)
    assert [number + 1 for number, decision in enumerate(found) if decision.precise is not None] == [10, 12]
    assert (found[9].precise, found[11].precise) == (frozenset(), {"fast", "near"})
    assert (found[11].next.action, found[11].next.why) == ("stop", "target")


def test_interval_that_is_wide_again_begins_from_one_look():
    rule = Rule(0.05, 0.05, 1)
    assert rule.after_block(measured(10, one=1.0), RICH).precise == frozenset()
    wide = measured(12, one=1.0)
    wide.seconds["one"].update({block: 5.0 + block for block in range(0, 12, 2)})
    assert rule.after_block(wide, RICH).precise == frozenset()
    assert rule.after_block(measured(15, one=1.0), RICH).precise == frozenset()
    assert rule.after_block(measured(19, one=1.0), RICH).precise == {"one"}


def test_measuring_stops_where_no_compared_backend_is_left():
    decision = decisions(Rule(0.05, 0.05, 1), 5, rival="baseline", slow=2.0)[-1]
    assert decision.left == {"slow": "baseline"}
    assert (decision.next.action, decision.next.why) == ("stop", "target")


def test_baseline_that_is_no_rival_drives_no_backend_away():
    assert not any(decision.left for decision in decisions(Rule(0.05, 0.05, 1), 8, slow=2.0))


def test_baseline_itself_never_leaves():
    assert not any(
        "baseline" in decision.left for decision in decisions(Rule(0.05, 0.05, 1), 8, rival="baseline", one=0.1)
    )


@pytest.mark.parametrize("alike", [True, False])
def test_backends_of_two_precision_classes_are_not_compared(alike):
    classes = {"fast": "tf32", "slow": "tf32" if alike else "float32"}
    assert (decisions(Rule(0.05, 0.05, 1), 5, classes=classes, fast=0.1, slow=3.0)[-1].left == {}) is not alike


def test_a_share_of_blocks_begins_a_process_where_there_may_be_several():
    state = State(processes=1, most_processes=40, left_seconds=1000.0, block_seconds=1.0, process_seconds=5.0)
    rule = Rule(0.02, 0.02, 40)
    found = [rule.after_block(measured(count, fast=0.1, slow=3.0), state) for count in range(1, FEWEST_BLOCKS + 1)]
    assert found[-1].next.action == "process"
    assert not any(decision.left for decision in found)

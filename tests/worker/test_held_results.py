"""Holding the results of many calls."""

from __future__ import annotations

import types

import numpy as np
import pytest

from harness.worker import held_results


@pytest.mark.parametrize(("call_seconds", "calls"), [(1.0, 2), (0.2, 2), (0.001, 250), (0.0001, 2000)])
def test_calls_are_held_until_time_or_calls_are_spent(monkeypatch, call_seconds, calls):
    now = types.SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(held_results, "time", types.SimpleNamespace(perf_counter=lambda: now.seconds))

    def call():
        now.seconds += call_seconds
        return {"output": np.empty(4)}

    held, fastest = held_results.hold(call, 32)
    assert len(held) == calls
    assert fastest == pytest.approx(call_seconds)


def test_one_slow_call_does_not_tell_the_time_of_a_call(monkeypatch):
    now = types.SimpleNamespace(seconds=0.0, step=1.0)
    monkeypatch.setattr(held_results, "time", types.SimpleNamespace(perf_counter=lambda: now.seconds))

    def call():
        now.seconds, now.step = now.seconds + now.step, 0.001
        return {}

    assert held_results.hold(call, 32)[1] == pytest.approx(0.001)


def test_large_results_are_held_up_to_their_bytes():
    held, _ = held_results.hold(lambda: {}, held_results.HELD_BYTES // 3)
    assert len(held) == 3
    held, _ = held_results.hold(lambda: {}, held_results.HELD_BYTES * 3)
    assert len(held) == 2


@pytest.mark.parametrize("buffers", [1, 8, 64, 1000])
def test_buffers_in_turn_are_seen_to_overlap(buffers):
    slab = np.empty((buffers, 6))
    calls = [{"output": slab[number % buffers]} for number in range(1500)]
    earlier, later = held_results.overlapping(calls)
    assert (later - earlier) % buffers == 0
    assert earlier < later


def test_results_in_memory_of_their_own_do_not_overlap():
    base = np.empty((2, 100))
    calls = [{"output": base[0], "grad_input1": base[0, 50:]}, {"output": base[1]}, {"output": np.empty(0)}]
    assert held_results.overlapping(calls) is None

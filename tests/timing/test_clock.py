"""The clock, by a fake time: samples, warmup, and a clock that cannot be right."""

from __future__ import annotations

import gc
import itertools

import pytest

from harness.timing.clock import (
    CLOCK_TOLERANCE,
    LAUNCH_SHARE,
    SAMPLE_SECONDS,
    SAMPLE_TICKS,
    Clock,
    HeldResults,
    Holding,
    calls_per_sample,
    device_faults,
)


class FakeTime:
    """A time that advances by ``call_seconds`` at each call alone."""

    def __init__(self, call_seconds=0.25, sets=2):
        self.time = 100.0
        self.log = []
        self.calls = [lambda number=number: self.call(number, call_seconds) for number in range(sets)]

    def now(self):
        return self.time

    def call(self, number, seconds):
        self.time += seconds
        self.log.append(f"call {number}")
        return f"result {number}"

    def synchronize(self, result):
        self.time += 0.5
        self.log.append(f"synchronize {result}")

    def called(self):
        return [int(line.split()[1]) for line in self.log if line.startswith("call")]


@pytest.mark.parametrize("first", [0, 1, 5])
def test_sample_is_its_calls_in_rotation_each_synchronised(first):
    fake = FakeTime(sets=3)
    taken, held = Clock(fake.now).sample(fake.calls, fake.synchronize, 4, first)
    assert taken == 4 * (0.25 + 0.5)
    assert held == HeldResults({3: f"result {(first + 3) % 3}"}, None)
    sets = [(first + index) % 3 for index in range(4)]
    assert fake.log == [line for number in sets for line in (f"call {number}", f"synchronize result {number}")]


@pytest.mark.parametrize(
    ("cuts", "held"), [((), [4, 5]), ((1,), [0, 4, 5]), ((2, 4), [0, 1, 2, 3, 4, 5]), ((5, 5), [3, 4, 5])]
)
def test_sample_holds_the_latest_results_and_those_before_each_cut(cuts, held):
    fake = FakeTime(sets=3)
    taken, results = Clock(fake.now).sample(
        fake.calls, fake.synchronize, 6, 1, Holding(results=2, cuts=cuts, copy=lambda result: f"copy of {result}")
    )
    assert results == HeldResults({call: f"result {(1 + call) % 3}" for call in held}, "copy of result 0")
    assert taken == 6 * (0.25 + 0.5)
    assert fake.called() == [1, 2, 0, 1, 2, 0]


def test_rows_are_written_and_the_last_result_is_copied_in_time():
    memory, written = bytearray(2), []
    fake = FakeTime()
    calls = [lambda: written.append(bytes(memory))]
    writes = [[(memoryview(memory)[1:], memoryview(bytes([number])))] for number in (3, 4, 5)]
    fake_copy = lambda result: fake.call(9, 7.0)  # noqa: E731  # a copy that takes time
    taken, _ = Clock(fake.now).sample(calls, lambda _: None, 3, holding=Holding(writes, copy=fake_copy))
    assert written == [b"\0\3", b"\0\4", b"\0\5"]
    assert taken == 7.0


def test_passes_of_a_long_sample_add_up():
    fake = FakeTime(sets=2)
    taken, held = Clock(fake.now).sample(fake.calls, fake.synchronize, 3, holding=Holding(results=16, passes=4))
    assert taken == 12 * (0.25 + 0.5)
    assert fake.called() == [0, 1, 0] * 4
    assert list(held.results) == [0, 1, 2]


@pytest.mark.parametrize("collecting", [True, False])
@pytest.mark.parametrize("raises", [True, False])
def test_garbage_collection_is_off_inside_a_sample_and_restored_after(collecting, raises):
    seen = []

    def call():
        seen.append(gc.isenabled())
        if raises:
            raise ZeroDivisionError

    before = gc.isenabled()
    try:
        gc.enable() if collecting else gc.disable()
        if raises:
            with pytest.raises(ZeroDivisionError):
                Clock().sample([call], lambda _: None, 2)
        else:
            Clock().sample([call], lambda _: None, 2)
        after = gc.isenabled()
    finally:
        gc.enable() if before else gc.disable()
    assert seen == [False] * (1 if raises else 2)
    assert after is collecting


@pytest.mark.parametrize(("seconds", "calls"), [(0, 0), (1e-9, 1), (0.75, 1), (0.76, 2), (3.0, 4)])
def test_settling_calls_for_its_time_and_never_for_zero_seconds(seconds, calls):
    fake = FakeTime()
    Clock(fake.now).settle(fake.calls, fake.synchronize, seconds)
    assert fake.called() == [index % 2 for index in range(calls)]
    assert len(fake.log) == 2 * calls


def test_warm_up_doubles_short_stretches_until_its_time_is_over():
    fake = FakeTime(call_seconds=0.001)
    stretches = Clock(fake.now).warm_up(fake.calls, lambda _: None, seconds=0.040, at_least=0)
    counts = [count for count, _ in stretches]
    assert counts == [1, 2, 4, 8, 16, 16]
    assert [taken for _, taken in stretches] == pytest.approx([0.001 * count for count in counts])
    assert fake.called() == [index % 2 for index in range(sum(counts))]


def test_warm_up_makes_the_least_number_of_calls_after_its_time():
    fake = FakeTime(call_seconds=5.0)
    stretches = Clock(fake.now).warm_up(fake.calls, fake.synchronize, seconds=1.0, at_least=3)
    assert stretches == [(1, 5.5), (1, 5.5), (1, 5.5)]


def test_sample_lasts_its_least_seconds_and_ticks():
    assert calls_per_sample(0.001, 1e-9) == 20
    assert calls_per_sample(0.001, 1e-3) == SAMPLE_TICKS
    assert calls_per_sample(60.0, 1e-9) == 1
    for call in (0.0134, 0.009, 0.0007):
        assert calls_per_sample(call, 1e-9) * call >= SAMPLE_SECONDS
        assert (calls_per_sample(call, 1e-9) - 1) * call < SAMPLE_SECONDS


@pytest.mark.parametrize("seconds", [0.0, -1.0])
def test_clock_that_stood_still_or_went_back_is_refused(seconds):
    with pytest.raises(ValueError, match="the clock stood still"):
        calls_per_sample(seconds, 1e-9)


def test_tick_is_the_smallest_step_between_different_readings():
    readings = itertools.accumulate(itertools.cycle([0, 0, 4, 0, 2, 8]))
    assert Clock(lambda: float(next(readings))).tick_seconds() == 2.0


def test_overhead_is_the_least_time_of_a_call_that_does_nothing():
    # A sample reads the clock twice: five samples take 7, 3, 9, 5 and 4 seconds.
    readings = iter([0, 7, 10, 13, 20, 29, 30, 35, 40, 44])
    assert Clock(lambda: float(next(readings))).overhead_seconds(count=6) == 3 / 6


def test_queued_calls_share_one_synchronisation_after_the_last():
    fake = FakeTime(sets=2)
    assert Clock(fake.now).queued(fake.calls, fake.synchronize, 3) == 3 * 0.25 + 0.5
    assert fake.log == ["call 0", "call 1", "call 0", "synchronize result 0"]


@pytest.mark.parametrize(
    ("queued", "device", "flags"),
    [
        (1.0, 1.0, []),
        (None, None, []),
        (0.99 * CLOCK_TOLERANCE, 0.99 * CLOCK_TOLERANCE, []),
        (1.01 * CLOCK_TOLERANCE, 1.0, ["queued_over_host"]),
        (1.0, 1.01 * CLOCK_TOLERANCE, ["device_over_host"]),
        (1.0, 0.99 * LAUNCH_SHARE, ["launch_bound"]),
        (None, 1.01 * LAUNCH_SHARE, []),
    ],
)
def test_device_time_above_the_hosts_time_is_flagged(queued, device, flags):
    assert device_faults(1.0, queued, device) == flags


def test_work_between_calls_is_not_timed_and_each_call_is_synchronised():
    fake = FakeTime(sets=2)

    def between():
        fake.time += 100.0
        fake.log.append("between")

    holding = Holding(results=2, copy=lambda result: f"copy of {result}")
    taken, held = Clock(fake.now).sample_apart(fake.calls, fake.synchronize, 3, 1, holding, between=between)
    assert taken == 3 * (0.25 + 0.5)
    assert held == HeldResults({1: "result 0", 2: "result 1"}, "copy of result 1")
    assert fake.log == [
        line for number in (1, 0, 1) for line in ("between", f"call {number}", f"synchronize result {number}")
    ]

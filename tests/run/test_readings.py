"""Readings around a sample: spot peak, activity, the GPU's state, and unaccounted time."""

from __future__ import annotations

import dataclasses
import itertools
import os

import pytest
from fakes import NARROW_BLOCKS, QUIET, FakeWorker, Faults

from harness.correctness.clocks import LONG_SAMPLES
from harness.machine.gpu import State as GpuState
from harness.machine.standing import Standing
from harness.machine.usage import Usage
from harness.process.protocol import SampleTaken, Stretch, TakeSample, WarmedUp, WarmUp
from harness.record import Status
from harness.run.plan import BASELINE

STOLEN = dataclasses.replace(QUIET, steal_seconds=1.0)


def test_clock_that_stood_still_is_a_failure_and_never_a_time_of_zero(measure):
    run = measure(faults={"other": Faults(instead={TakeSample: SampleTaken(0.0, None, 0)})})
    assert run.row("other").status is Status.FAILED
    assert "the clock cannot be right" in run.row("other").reason
    assert "other" in run.workers.discarded, "the next case gets a new process"


def test_time_that_a_busy_machine_takes_from_all_alike_is_no_lie(measure):
    lost = Faults(unseen_seconds=0.2)
    run = measure(faults={"other": lost, BASELINE: lost})
    assert {row.status for row in run.records} == {Status.TIMED}


@pytest.mark.parametrize(("unseen_seconds", "status"), [(0.2, Status.TIMED), (0.3, Status.REJECTED)])
def test_time_that_the_hypervisor_took_hides_no_larger_lie(measure, unseen_seconds, status):
    stolen = 0.2 * os.cpu_count()  # one CPU's share is 0.2 s
    states = (dataclasses.replace(QUIET, steal_seconds=stolen * look) for look in itertools.count())
    run = measure(states=states, faults={"other": Faults(unseen_seconds=unseen_seconds)})
    assert run.row("other").status is status


BUSY = dataclasses.replace(QUIET, running=6)


def waiting(seconds):
    """Return the usage of two threads that worked together and waited for some seconds in all."""
    half = int(seconds * 1e9 / 2)
    return (Usage(10_000_000, half, 20), Usage(10_000_000, half, 20))


@pytest.mark.parametrize(
    ("state", "usage", "status"),
    [
        (BUSY, waiting(0.21), Status.TIMED),
        (BUSY, (), Status.TIMED),  # the system does not count waits
        (BUSY, waiting(0.1), Status.REJECTED),
        (QUIET, waiting(0.21), Status.REJECTED),  # its threads waited for each other
        (QUIET, (), Status.REJECTED),
    ],
)
def test_time_that_a_worker_waited_for_a_cpu_that_others_used_is_no_lie(measure, state, usage, status):
    run = measure(states=itertools.repeat(state), faults={"other": Faults(unseen_seconds=0.2, usage=usage)})
    assert run.row("other").status is status


def test_load_that_ends_during_a_sample_still_explains_its_waits(measure):
    late = Faults(unseen_seconds=0.2, usage=waiting(0.21))
    run = measure(states=itertools.cycle([BUSY, QUIET]), faults={"other": late})
    assert run.row("other").status is Status.TIMED


def test_nn_bilinear_is_never_refused_for_what_the_machine_took(measure):
    run = measure(faults={BASELINE: Faults(unseen_seconds=0.2, fresh_seconds=(0.2,))})
    assert (run.row(BASELINE).status, run.row("other").status) == (Status.TIMED, Status.TIMED)


@pytest.mark.parametrize(
    ("blocks", "status", "samples"), [(1, Status.TIMED, 2), (LONG_SAMPLES, Status.REJECTED, LONG_SAMPLES)]
)
def test_clock_of_a_slow_backend_is_refused_only_after_further_blocks(measure, blocks, status, samples):
    class Pausing(FakeWorker):
        def request(self, request, time_limit_seconds):
            reply = super().request(request, time_limit_seconds)
            self.elapsed_seconds += 9.0 if self.blocks <= blocks else 0.0
            return reply

    run = measure(faults={"other": Faults(kind=Pausing, call_seconds=3.0)}, budget_seconds=20.0)
    assert run.row("other").status is status
    assert run.workers.asked("other").count(TakeSample) == samples


def test_machine_that_slows_down_after_the_warmup_makes_no_liar(measure):
    warm = WarmedUp((Stretch(1, 0.08),), None)
    assert measure(faults={"other": Faults(instead={WarmUp: warm}, call_seconds=0.24)}).row("other").status == "timed"


def test_flushing_the_l2_before_each_call_is_no_lie_of_the_clock(measure_on_gpu):
    run = measure_on_gpu(faults={"other": Faults(unseen_seconds=0.2)}, flush_l2=True)
    row = run.row("other")
    assert (row.status, row.flush_l2, row.device_seconds) == (Status.TIMED, True, None)
    assert {request.flush_l2 for _, request in run.workers.log if isinstance(request, TakeSample)} == {True}


def test_threads_of_one_backend_that_take_each_others_cpus_disturb_nothing(measure):
    class Switching(FakeWorker):
        def sample(self, request):
            reply = super().sample(request)
            switches = int(2000 * reply.seconds) + (500 if self.blocks == 7 else 0)
            return dataclasses.replace(reply, involuntary_switches=switches)

    run = measure(faults={"other": Faults(kind=Switching)})
    assert run.row("other").disturbed_blocks == 1
    assert [sample.disturbance for sample in run.samples if sample.disturbance] == ["switches"]


def test_disturbed_blocks_are_flagged_and_kept(measure):
    run = measure(states=itertools.chain([QUIET], itertools.repeat(STOLEN)))
    hit = [sample for sample in run.samples if sample.disturbance]
    assert [(sample.block, sample.disturbance, sample.steal_seconds) for sample in hit] == [(0, "steal", 1.0)]
    assert sorted(run.row(name).disturbed_blocks for name in (BASELINE, "other")) == [0, 1]
    assert all(row.blocks == NARROW_BLOCKS for row in run.records)
    # The nine undisturbed blocks are fewer than LEAST_VALUES, so their interval is Student's.
    assert (run.row("other").comparison, run.row("other").comparison_undisturbed) == ("equivalent", "equivalent")


class Stopped(FakeWorker):
    """The run is stopped for half an hour in its warmup and in its third sample."""

    def request(self, request, time_limit_seconds):
        before = self.blocks
        stopped = isinstance(request, WarmUp | TakeSample) and before in (0, 2) and not self.stopped_seconds
        reply = super().request(request, time_limit_seconds)
        self.stopped_seconds = 1800.0 if stopped else 0.0
        self.clock.now += self.stopped_seconds
        self.elapsed_seconds += self.stopped_seconds
        return reply

    def warm_up(self, request):
        reply = super().warm_up(request)
        return reply if self.stopped_seconds else WarmedUp((Stretch(1, 1800.0),), reply.busy)


def test_a_stop_of_the_run_disturbs_its_block_and_costs_no_budget(measure):
    run = measure(faults={"other": Faults(kind=Stopped)}, budget_seconds=100.0)
    row = run.row("other")
    assert (row.status, row.stopped_by, row.disturbed_blocks) == (Status.TIMED, "target", 2)
    assert {sample.disturbance for sample in run.of("other", "call")} == {"stopped", None}


def test_time_of_reading_the_gpu_is_in_no_sample(measure_on_gpu):
    states = itertools.chain([QUIET], itertools.repeat(STOLEN))
    slow = Faults(gpu_seconds=100.0)
    run = measure_on_gpu(faults={"other": slow, BASELINE: slow}, states=states, budget_seconds=1e6)
    assert [sample.disturbance for sample in run.samples if sample.kind == "call"][:2] == ["steal", None]


def test_gpu_that_is_held_back_or_lowers_its_clock_disturbs_a_block(measure_on_gpu):
    quiet = GpuState(1980.0, 40.0, "")
    disturbed = [
        dataclasses.replace(quiet, clock_mhz=1700.0),
        dataclasses.replace(quiet, held_back="hardware slowdown"),
    ]
    states = itertools.chain([quiet, *disturbed], itertools.repeat(quiet))
    run = measure_on_gpu(faults={"other": Faults(gpu_states=states)})
    taken = run.of("other", "call")
    assert [sample.disturbance for sample in taken[:4]] == [None, "gpu_clock", "gpu_held_back", None]
    assert (taken[1].gpu_clock_mhz, taken[1].gpu_temperature_celsius) == (1700.0, 40.0)
    assert (taken[2].gpu_held_back, taken[0].gpu_held_back) == ("hardware slowdown", None)
    assert run.row("other").disturbed_blocks == 2


def test_spot_peak_is_measured_once_before_each_sample_and_kept_with_it(measure):
    asked = []

    def spot_peak(dtype, seconds):
        asked.append(dtype)
        return float(len(asked))

    run = measure(spot_peak=spot_peak)
    taken = [sample.spot_peak_flop_per_second for sample in run.samples if sample.kind == "call"]
    assert taken == [float(number) for number in range(2, len(asked) + 1)], "once before all, to compile"
    assert set(asked) == {"float32"}
    assert {sample.spot_peak_flop_per_second for sample in run.samples if sample.kind == "warmup"} == {None}


@pytest.mark.parametrize(("call_seconds", "longest"), [(0.2, 0.05), (3.0, 0.2)])
def test_spot_peak_takes_a_quarter_of_the_sample_within_bounds(measure, call_seconds, longest):
    asked = []
    measure(
        spot_peak=lambda dtype, seconds: asked.append(seconds) or 1e9,
        faults={"other": Faults(call_seconds=call_seconds)},
    )
    assert (min(asked), max(asked)) == pytest.approx((0.004, longest)), "nn.Bilinear's samples are short"


def test_spot_peak_of_the_cpus_is_not_measured_for_rows_on_a_gpu(measure_on_gpu):
    asked = []
    run = measure_on_gpu(spot_peak=lambda dtype, seconds: asked.append(dtype))
    assert run.row("other").status is Status.TIMED
    assert asked == []


def granted(**changes):
    """Return what grants a worker the same at all times, and a second of CPU time in a second."""
    return lambda now: dataclasses.replace(Standing(frozenset({0}), os.nice(0), False, now), **changes)


@pytest.mark.parametrize(
    ("standing", "reason"),
    [
        (granted(cpus=frozenset({0, 1})), "runs on the CPUs [0, 1], was held to [0]"),
        (granted(nice=-2), "runs at nice -2, was started at 0"),
        (granted(real_time=True), "runs in a real-time scheduling class"),
        (lambda now: granted(cpu_seconds=2 * now)(now), "s of CPU time in"),
    ],
)
def test_worker_that_takes_more_than_its_budget_is_rejected(measure, monkeypatch, standing, reason):
    monkeypatch.setattr("os.getpriority", lambda *_: 0)
    run = measure(faults={"other": Faults(standing=standing)})
    assert run.row("other").status is Status.REJECTED
    assert reason in run.row("other").reason
    assert run.row(BASELINE).status is Status.TIMED


def test_thread_that_comes_and_goes_within_a_call_is_seen_before_timing(measure):
    looks = (Standing(frozenset({0}), 99, False, 0.0), Standing(frozenset({0, 1}), 99, False, 0.0))
    run = measure(faults={"other": Faults(looks=looks), "third": Faults(looks=looks[:1])})
    assert run.row("other").reason == "conduct: runs on the CPUs [0, 1], was held to [0]"
    assert (run.row("other").phase, run.row("third").status) == ("gate", Status.TIMED)


def test_worker_whose_standing_is_unknown_is_timed(measure):
    assert measure(faults={"other": Faults(standing=lambda now: None)}).row("other").status is Status.TIMED


class Lying(FakeWorker):
    """Says that samples took a tenth less than they did."""

    def sample(self, request):
        reply = super().sample(request)
        return dataclasses.replace(reply, seconds=0.9 * reply.seconds)


def test_long_samples_tell_a_clock_that_is_a_tenth_too_slow(measure):
    run = measure(faults={"other": Faults(kind=Lying), "third": Faults(unseen_seconds=0.01)})
    assert run.row("other").reason.startswith("conduct: its clock says 0.")
    assert (run.row("other").phase, run.row("third").status) == ("timing", Status.TIMED)
    passes = {
        name: [each.passes for each in run.workers.requests(name) if isinstance(each, TakeSample)]
        for name in ("other", "third")
    }
    assert sorted(passes["other"])[-LONG_SAMPLES - 1] == 1
    assert sorted(passes["other"])[-LONG_SAMPLES] > 1
    assert [number > 1 for number in passes["third"]].count(True) == 1
    first, *others = sorted(passes["other"])[-LONG_SAMPLES:]
    assert others[-1] >= 4 * first, "each one is longer"


def test_samples_of_slow_calls_are_long_enough_to_tell_a_tenth(measure):
    run = measure(faults={"other": Faults(kind=Lying, call_seconds=0.5)})
    assert run.row("other").reason.startswith("conduct: its clock says 0.45 s of a sample of 0.5 s")


def test_long_sample_is_one_of_the_first_three(measure):
    places = set()
    for _ in range(12):
        requests = [each for each in measure().workers.requests("other") if isinstance(each, TakeSample)]
        (place,) = [number for number, each in enumerate(requests) if each.passes > 1]
        places.add(place)
    assert places <= {0, 1, 2}
    assert len(places) > 1

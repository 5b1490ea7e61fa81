"""Sampling: blocks and their order, fresh processes, the budget, and the end of a measurement."""

from __future__ import annotations

import collections
import dataclasses
import itertools
import math

import pytest
from fakes import CASE, NARROW_BLOCKS, STEP, FakeWorker, Faults

from harness.process.handle import WorkerError
from harness.process.protocol import KeptResults, Load, Stretch, TakeSample, WarmedUp, WarmUp
from harness.record import Status
from harness.run.plan import BASELINE
from harness.timing.estimates import LEAST_VALUES
from harness.timing.selection import FIRST_LOOK, next_look
from harness.timing.stopping import LEAST_BLOCKS
from harness.timing.variance import FEWEST_BLOCKS, MOST_BLOCKS, PILOT

#: Blocks, and processes, after which a backend leaves that is far slower: its ratio is known at two looks.
LEAVING_BLOCKS, LEAVING_PROCESSES = next_look(FIRST_LOOK), next_look(PILOT)
#: Processes after which an interval that is always narrow has been so at two looks in a row.
NARROW_PROCESSES = next_look(LEAST_VALUES)


def test_block_holds_each_backend_once_in_an_order_that_changes(measure):
    run = measure(faults={"third": Faults(call_seconds=0.01)})
    calls = [sample for sample in run.samples if sample.kind == "call"]
    blocks = [
        [sample.backend for sample in block] for _, block in itertools.groupby(calls, lambda sample: sample.block)
    ]
    assert all(sorted(block) == sorted([BASELINE, "other", "third"]) for block in blocks)
    assert len({tuple(block) for block in blocks}) > 1
    assert [sample.position for sample in calls] == [0, 1, 2] * len(blocks)


def test_number_of_calls_varies_and_is_never_below_what_a_sample_needs(measure):
    run = measure(faults={"other": Faults(call_seconds=0.001)})
    calls = {sample.calls for sample in run.of("other", "call")}
    assert len(calls) > 1
    assert min(calls) >= 20


def test_input_sets_take_turns_from_block_to_block(measure):
    requests = measure().workers.requests("other")
    assert [request.first for request in requests if isinstance(request, TakeSample)] == list(range(NARROW_BLOCKS))


def test_step_has_samples_of_its_forward(measure):
    run = measure(STEP)
    assert {sample.kind for sample in run.samples} == {"warmup", "call", "forward"}


def test_slow_backend_joins_the_first_blocks_only_and_the_others_go_on(measure):
    run = measure(budget_seconds=8.0, faults={"other": Faults(call_seconds=0.5), "third": Faults()})
    assert (run.row("other").blocks, run.row("other").stopped_by) == (4, "blocks")  # a quarter of the budget
    assert "few_blocks" in run.row("other").flags
    assert run.row(BASELINE).blocks == run.row("third").blocks == NARROW_BLOCKS


def test_backend_that_is_shown_slower_leaves_and_the_others_go_on(measure):
    run = measure(faults={"other": Faults(call_seconds=0.005), "third": Faults(call_seconds=0.02)})
    left, best = run.row("third"), run.row("other")
    assert (left.blocks, left.stopped_by, left.rank) == (LEAVING_BLOCKS, "slower than other", 3)
    assert (best.blocks, best.stopped_by, best.rank) == (NARROW_BLOCKS, "target", 1)
    assert run.row(BASELINE).blocks == NARROW_BLOCKS


def test_backend_of_another_precision_class_drives_no_backend_away(measure):
    case = dataclasses.replace(CASE, precision="tf32")
    coarse = Faults(noise=2.0**-12, call_seconds=0.001)
    run = measure(case, faults={"other": coarse, "third": Faults(call_seconds=0.008)})
    assert run.row("third", case).stopped_by == "target"
    assert run.row("other", case).blocks == NARROW_BLOCKS


def test_noisy_backend_stays_until_its_ratio_is_known(measure):
    noisy = Faults(call_seconds=0.1, spread=(0.0, 0.4))
    run = measure(target=0.0001, budget_seconds=30.0, faults={"other": noisy, "third": Faults(call_seconds=0.005)})
    assert LEAVING_BLOCKS < run.row("other").blocks <= NARROW_BLOCKS


def test_backend_leaves_after_four_of_several_processes(measure):
    run = measure(processes=40, faults={"other": Faults(call_seconds=0.013), "third": Faults()})
    left = run.row("other")
    assert left.processes == LEAVING_PROCESSES
    assert left.stopped_by.startswith("slower than ")
    assert run.row("third").processes == NARROW_PROCESSES


def test_only_far_slower_backends_leave_where_no_other_process_is_paid_for(measure):
    slow = Faults(call_seconds=0.02, spread=(0.0, 0.02))
    faults = {"other": Faults(call_seconds=0.013, import_seconds=20.0, spread=(0.0, 0.02)), "third": slow}
    run = measure(processes=40, budget_seconds=10.0, target=0.0001, faults=faults)
    far, near = run.row("third"), run.row("other")
    assert (far.processes, far.stopped_by) == (1, f"slower than {BASELINE}")
    assert near.stopped_by != f"slower than {BASELINE}"
    assert near.blocks > far.blocks


def test_measuring_ends_where_every_backend_is_slower_than_the_baseline(measure):
    run = measure(faults={"other": Faults(call_seconds=0.02)})
    assert run.row("other").stopped_by == f"slower than {BASELINE}"
    assert run.row(BASELINE).blocks == LEAVING_BLOCKS


def test_backend_that_was_slow_only_in_its_warmup_gets_all_blocks(measure):
    run = measure(faults={"other": Faults(instead={WarmUp: WarmedUp((Stretch(1, 0.5),), None)})})
    assert run.row("other").blocks == NARROW_BLOCKS


def test_slow_backend_was_warmed_up_by_the_gate(measure):
    workers = measure(faults={"other": Faults(call_seconds=0.3)}).workers
    assert WarmUp not in workers.asked("other")
    assert WarmUp in workers.asked(BASELINE)


def test_results_inside_samples_are_judged_even_if_the_budget_ends_early(measure):
    asked = measure(budget_seconds=0.05).workers.asked("other")
    assert asked.count(TakeSample) == LEAST_BLOCKS
    assert asked.count(KeptResults) == 2


def test_measuring_stops_when_the_budget_is_used_up(measure):
    row = measure(budget_seconds=5.0, faults={"other": Faults(spread=(0.0, 0.5))}).row("other")
    assert (row.stopped_by, row.seconds_to_target) == ("budget", None)
    assert row.blocks > FEWEST_BLOCKS


def test_few_blocks_are_taken_even_if_the_budget_is_over(measure):
    row = measure(budget_seconds=0.05).row("other")
    assert (row.stopped_by, row.blocks) == ("budget", LEAST_BLOCKS)
    assert "few_blocks" in row.flags


def test_larger_budget_gives_a_slow_baseline_more_blocks_and_no_other(measure):
    slow = Faults(call_seconds=0.5)
    faults = {BASELINE: slow, "other": Faults(spread=(0.0, 0.05)), "third": slow}
    run = measure(target=0.0001, budget_seconds=40.0, faults=faults)
    assert run.row(BASELINE).blocks == 20  # a quarter of the budget pays for 20
    assert run.row("third").blocks == LEAVING_BLOCKS


def test_slow_baseline_does_not_eat_up_the_blocks_of_the_others(measure):
    run = measure(budget_seconds=8.0, faults={BASELINE: Faults(call_seconds=2.4)})
    baseline, row = run.row(BASELINE), run.row("other")
    assert (baseline.blocks, baseline.stopped_by) == (LEAST_BLOCKS, "blocks")
    assert (row.blocks, row.stopped_by) == (NARROW_BLOCKS, "target")
    assert (row.comparison, row.speedup) == ("faster", pytest.approx(240))


def test_time_of_a_slow_baseline_is_not_in_the_budget(measure):
    noisy = Faults(call_seconds=0.05, spread=(0.0, 0.2))
    slow, usual = (
        measure(target=0.0001, budget_seconds=5.0, faults={BASELINE: Faults(call_seconds=each), "other": noisy})
        for each in (3.0, 0.05)
    )
    assert slow.row("other").blocks > 1.5 * usual.row("other").blocks  # without the baseline's 50 ms a block


def test_measuring_goes_on_until_the_interval_is_narrow_enough(measure):
    noisy = {"other": Faults(spread=(0.0, 0.05))}
    wide, narrow = (measure(target=target, faults=noisy).row("other") for target in (0.05, 0.01))
    assert (wide.stopped_by, narrow.stopped_by) == ("target", "target")
    assert wide.blocks < narrow.blocks / 4
    half = math.log(narrow.speedup_high / narrow.speedup_low) / 2
    assert 0.005 < half <= 0.01
    assert 0 < wide.seconds_to_target < narrow.seconds_to_target


def test_backend_that_has_reached_the_target_stops_and_the_baseline_stays(measure):
    faults = {"other": Faults(spread=(0.0, 0.001)), "third": Faults(spread=(0.0, 0.06))}
    run = measure(target=0.02, faults=faults)
    quiet, noisy, baseline = (run.row(name) for name in ("other", "third", BASELINE))
    assert quiet.blocks == NARROW_BLOCKS
    assert noisy.blocks > 3 * FEWEST_BLOCKS
    assert baseline.blocks == noisy.blocks
    assert quiet.seconds_to_target < noisy.seconds_to_target


def test_what_the_interval_says_does_not_stop_measuring(measure):
    # After ten blocks it is certain that it is faster, but the ratio is not yet known to 1 %.
    run = measure(target=0.01, faults={"other": Faults(call_seconds=0.005, spread=(0.0, 0.05))})
    assert run.row("other").blocks > 10 * FEWEST_BLOCKS


def test_there_are_twelve_processes_since_few_can_agree_by_chance(measure):
    run = measure(processes=40, faults={"other": Faults(spread=(0.0, 0.001))})
    row = run.row("other")
    assert (row.processes, row.unit, row.stopped_by) == (NARROW_PROCESSES, "process", "target")
    assert run.workers.asked("other").count(Load) == NARROW_PROCESSES
    assert sorted({sample.process for sample in run.samples}) == list(range(NARROW_PROCESSES))


def test_where_there_can_be_no_more_processes_few_are_enough(measure):
    row = measure(processes=4, faults={"other": Faults(spread=(0.0, 0.001))}).row("other")
    assert (row.processes, row.stopped_by, row.comparison) == (4, "target", "equivalent")


def test_more_processes_are_taken_where_they_differ_more(measure):
    differing = {"other": Faults(spread=(0.03, 0.002), call_seconds=0.0105)}
    row = measure(processes=40, faults=differing).row("other")
    assert row.unit == "process"
    assert row.processes > LEAST_VALUES
    assert row.process_spread == pytest.approx(0.03, rel=0.7)
    pooled = measure(processes=1, faults=differing).row("other")
    assert (pooled.processes, pooled.unit) == (1, "block")


def test_processes_after_the_pilot_take_more_blocks_where_processes_agree(measure):
    run = measure(processes=12, faults={"other": Faults(spread=(0.0, 0.05))})
    blocks = collections.Counter(sample.process for sample in run.of("other", "call"))
    assert [blocks[process] for process in range(PILOT)] == [FEWEST_BLOCKS] * PILOT
    assert FEWEST_BLOCKS < blocks[PILOT] <= MOST_BLOCKS


def test_last_process_gets_no_more_blocks_where_processes_count(measure):
    row = measure(processes=4, faults={"other": Faults(spread=(0.1, 0.002))}).row("other")
    assert (row.processes, row.blocks, row.stopped_by) == (4, 4 * FEWEST_BLOCKS, "processes")
    assert row.comparison == "ambiguous"


def test_baseline_does_not_go_on_alone(measure):
    noisy = {BASELINE: Faults(spread=(0.0, 0.05))}
    run = measure(target=0.0001, faults=noisy | {"other": Faults(call_seconds=0.3)})
    assert run.row(BASELINE).blocks <= FEWEST_BLOCKS


def test_baseline_goes_on_where_it_is_the_only_backend(measure):
    run = measure(target=0.01, faults={BASELINE: Faults(spread=(0.0, 0.05))}, backends=(BASELINE,))
    assert run.row(BASELINE).blocks > FEWEST_BLOCKS


def test_fresh_processes_that_the_budget_cannot_pay_for_are_not_started(measure):
    row = measure(processes=40, budget_seconds=10.0, faults={"other": Faults(import_seconds=20.0)}).row("other")
    assert (row.processes, row.stopped_by) == (1, "target")


def test_first_results_of_a_process_are_judged_before_its_times_count(measure):
    class Changeling(FakeWorker):
        def prepare(self, request):
            reply = super().prepare(request)
            if self.number > 6:
                self.results(self.case, 5, request.directory)
            return reply

    run = measure(processes=40, faults={"other": Faults(kind=Changeling), "third": Faults()})
    row = run.row("other")
    assert (row.status, row.phase) == (Status.REJECTED, "timing")
    assert run.row("third").status is Status.TIMED
    assert {sample.process for sample in run.of("other")} == {0}


def test_fresh_process_that_does_not_start_costs_its_own_cell(measure):
    class Once(FakeWorker):
        def load(self, request):
            if self.number > 6:
                raise WorkerError(Status.FAILED, "injected")
            return super().load(request)

    run = measure(processes=40, faults={"other": Faults(kind=Once), "third": Faults()})
    row = run.row("other")
    assert (row.status, row.reason) == (Status.FAILED, "in a fresh process: injected")
    assert run.row("third").processes == NARROW_PROCESSES


def test_call_longer_than_the_budget_is_too_slow_and_never_sampled(measure):
    run = measure(faults={"other": Faults(call_seconds=3.0)}, budget_seconds=2.0)
    row = run.row("other")
    assert row.status is Status.TOO_SLOW
    assert "3 s" in row.reason
    assert not run.of("other", "call")


def test_baseline_is_never_too_slow(measure):
    run = measure(budget_seconds=2.0, faults={BASELINE: Faults(call_seconds=3.0)})
    assert run.row(BASELINE).status is Status.TIMED
    assert run.row("other").speedup == pytest.approx(300)


def test_threads_that_wait_for_each_other_are_flagged(measure):
    run = measure(faults={"other": Faults(runnable=2.3)})
    assert run.row("other").flags == "oversubscribed(2.3)"
    assert run.row(BASELINE).flags is None


def test_warmup_is_kept_apart_from_the_blocks(measure):
    run = measure(faults={"other": Faults(stretches=(Stretch(1, 0.01), Stretch(2, 0.02)))})
    assert [(s.calls, s.seconds, s.block) for s in run.of("other", "warmup")] == [(1, 0.01, None), (2, 0.02, None)]
    assert run.row("other").calls * 0.01 == pytest.approx(0.02, rel=0.6)
    assert CASE.name == run.row("other").case

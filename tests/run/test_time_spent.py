"""What the wall time of a run went into: every second on one stage."""

from __future__ import annotations

import contextlib

import pytest
from command_line import ROOT
from fakes import CASE, QUIET, Clock, FakePool

from harness.catalog.registry import Entry
from harness.output.time_table import OF_SAMPLES
from harness.run.context import RunContext
from harness.run.plan import BASELINE, Plan
from harness.run.session import Runner
from harness.run.time_spent import Stage, TimeSpent


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def spent(clock):
    return TimeSpent(lambda: clock.now)


def seconds(spent):
    return spent.as_json()["seconds"]


def test_the_stages_add_up_to_the_wall_time(clock, spent):
    clock.now += 1.0
    with spent(Stage.START):
        clock.now += 2.0
    clock.now += 4.0
    assert seconds(spent) == {Stage.START: 2.0, Stage.OTHER: 5.0}


def test_an_inner_stage_pauses_the_outer_one(clock, spent):
    with spent(Stage.GATE):
        clock.now += 1.0
        with spent(Stage.RIGHT_RESULTS):
            clock.now += 2.0
        clock.now += 4.0
    assert seconds(spent) == {Stage.RIGHT_RESULTS: 2.0, Stage.GATE: 5.0}


def test_a_stage_that_raises_ends(clock, spent):
    with contextlib.suppress(KeyboardInterrupt), spent(Stage.PREPARE):
        clock.now += 1.0
        raise KeyboardInterrupt
    clock.now += 2.0
    assert seconds(spent) == {Stage.PREPARE: 1.0, Stage.OTHER: 2.0}


def test_the_request_of_a_sample_is_divided(clock, spent):
    with spent(Stage.FREEZE):
        clock.now += 10.0
        spent.add_sample(call_seconds=6.0, passed_seconds=9.0)
        clock.now += 0.5
    assert spent.as_json() == {"seconds": {Stage.CALLS: 6.0, Stage.SETTLE: 3.0, Stage.FREEZE: 1.5}, "samples": 1}


def test_calls_take_no_longer_than_their_request(clock, spent):
    with spent(Stage.FREEZE):
        clock.now += 2.0
        spent.add_sample(call_seconds=60.0, passed_seconds=2.0)
    assert seconds(spent) == {Stage.CALLS: 2.0}


def test_a_run_has_its_stages_and_they_add_up_to_its_wall_time(tmp_path):
    workers = FakePool(tmp_path)

    def now():
        workers.clock.now += 1e-3  # so that every stage takes time
        return workers.clock.now

    backends = {name: Entry(name, "m:C", (), "test 1") for name in (BASELINE, "other")}
    fixed = {"run_id": "run", "suite": "suite", "cases": (CASE,), "devices": ("cpu",), "threads": 1}
    plan = Plan(**fixed, backends=backends, budget_seconds=30.0, processes=2)
    samples = []
    context = RunContext(plan, workers, keep_sample=samples.append, now=now, look=lambda: QUIET)
    begun, runner = workers.clock.now, Runner(context)
    assert [row.status for row in runner.run()] == ["timed", "timed"]
    found = runner.time_spent
    assert set(Stage) - set(found["seconds"]) == {Stage.PEAKS, Stage.GPU_CLOCK, Stage.GPU_TIMES}
    assert sum(found["seconds"].values()) == pytest.approx(workers.clock.now - begun, abs=1e-4)
    assert found["samples"] == sum(sample.kind == "call" for sample in samples)


def test_every_stage_is_explained():
    page = (ROOT / "docs" / "reading-results.md").read_text()
    assert [stage for stage in Stage if f"| `{stage}` | " not in page] == []


def test_the_stages_of_samples_begin_with_one_word():
    assert Stage.CALLS.startswith(OF_SAMPLES)
    assert not Stage.OTHER.startswith(OF_SAMPLES)

"""The runner's protocol, with fake workers and a fake clock: nothing here is started, timed or waited for."""

from __future__ import annotations

import dataclasses
import types
from pathlib import Path

import numpy as np
import pytest

from harness.case import Case
from harness.correctness.inputs import make_inputs
from harness.panel import BLOCKS, LEAST_BLOCKS
from harness.plan import BASELINE, Plan, interrupted
from harness.process.supervisor import WorkerError
from harness.record import Status
from harness.registry import Entry
from harness.runner import Runner

CASE = Case(3, 2, 2, 2)
GIB = 2**30


class FakeWorker:
    """Answers like a worker. `call_seconds` is what a call takes; the clock of the run moves on by as much."""

    def __init__(self, name, folder, log, clock, call_seconds=0.01, **spoilt):
        self.name, self.directory, self.log, self.clock = name, folder, log, clock
        self.call_seconds, self.spoilt = call_seconds, spoilt
        self.alive = True
        folder.mkdir(parents=True)

    def request(self, do, time_limit_seconds, **fields):
        self.log.append((self.name, do, fields))
        if do in self.spoilt:
            spoilt = self.spoilt[do]
            if isinstance(spoilt, WorkerError):
                raise spoilt
            return spoilt
        return getattr(self, do)(**fields)

    def load(self, **_):
        clock = {"tick_seconds": 1e-7, "overhead_seconds": 1e-8}
        return {"available": True, "version": "fake 1", "import_seconds": 0.1, **clock}

    def support(self, **_):
        return {"supported": True, "workspace_bytes": self.spoilt.get("workspace_bytes", 0)}

    def prepare(self, case, directory, **_):
        self.case = Case(**case)
        threads = {"affinity": [0], "pools": []}
        return {"prepare_seconds": 0.1, "first_call_seconds": 0.2, "threads": threads, **self.results(0, directory)}

    def check(self, variation, directory):
        return self.results(variation + self.spoilt.get("wrong_later", 0), directory)

    def results(self, variation, directory):
        for name, value in answer(self.case, variation).items():
            np.save(Path(directory) / f"{name}.npy", value.astype(np.float32))
        shapes = self.case.result_shapes()
        fact = {"type": "ndarray", "dtype": "float32", "device": "cpu"}
        return {"facts": {name: {**fact, "shape": list(shape)} for name, shape in shapes.items()}}

    def warm_up(self, **_):
        return {"stretches": [[1, self.call_seconds]]}

    def sample(self, calls, forward, **_):
        self.clock.now += calls * self.call_seconds * (1.5 if forward else 1)
        alone = calls * self.call_seconds / 2 if forward else None
        return {"seconds": calls * self.call_seconds, "forward_seconds": alone}

    def release(self):
        return {}

    def expect(self, case, variation, directory):
        for name, value in answer(Case(**case), variation).items():
            np.save(Path(directory) / f"{name}.npy", value)
            np.save(Path(directory) / f"{name}.scale.npy", np.abs(value) + 1)
        return {"seconds": 0.0}


def answer(case, variation):
    """The right results, in float64."""
    given = {name: array.astype(np.float64) for name, array in make_inputs(case, variation).items()}
    one, two, weight = given["input1"], given["input2"], given["weight"]
    results = {"output": np.einsum("bi,oij,bj->bo", one, weight, two) + given["bias"]}
    if case.mode == "forward_backward":
        grad = given["grad_output"]
        results |= {
            "grad_input1": np.einsum("bo,oij,bj->bi", grad, weight, two),
            "grad_input2": np.einsum("bo,oij,bi->bj", grad, weight, one),
            "grad_weight": np.einsum("bo,bi,bj->oij", grad, one, two),
            "grad_bias": grad.sum(0),
        }
    return results


class FakeWorkers:
    """A supervisor of fake workers, each with its own faults."""

    def __init__(self, folder, spoilt):
        self.folder, self.spoilt = folder, spoilt
        self.log, self.clock, self.cold = [], types.SimpleNamespace(now=0.0), False
        self.kept, self.discarded, self.started = {}, [], 0

    def worker(self, name, device):
        if name not in self.kept or not self.kept[name].alive:
            self.started += 1
            self.kept[name] = FakeWorker(
                name, self.folder / f"{name}{self.started}", self.log, self.clock, **self.spoilt.get(name, {})
            )
        return self.kept[name], self.cold

    def referee(self):
        return self.worker("reference", "cpu")[0]

    def discard(self, name, device):
        self.discarded.append(name)
        if name in self.kept:
            self.kept.pop(name).alive = False


class Silent:
    """An observer that does not look."""

    def group(self, *_):
        pass

    def stage(self, *_):
        pass


@pytest.fixture
def measure(tmp_path):
    """Run a plan with the given faults; return records by (case, mode, backend), the workers and the samples."""

    def run(*cases, free_bytes=64 * GIB, timing=True, budget=1000.0, **spoilt):
        spoilt = {name.replace("_", "-"): faults for name, faults in spoilt.items()}
        names = [BASELINE, "other", *(name for name in spoilt if name not in (BASELINE, "other", "reference"))]
        workers = FakeWorkers(tmp_path, spoilt)
        plan = Plan(
            run_id="run",
            suite="suite",
            cases=cases or (CASE,),
            backends={name: Entry(name, "m:C", (), "test 1") for name in names},
            devices=("cpu",),
            threads=1,
            budget_seconds=budget,
            timing=timing,
        )
        samples = []
        runner = Runner(plan, workers, Silent(), samples.append, lambda: workers.clock.now, lambda: free_bytes)
        records = list(runner.run())
        planned = [cell for case, device in plan.groups() for cell in plan.cells(case, device)]
        assert [record.cell for record in records] == planned, "one row for every planned cell, whatever happens"
        return {(record.case, record.mode, record.backend): record for record in records}, workers, samples

    return run


def test_a_right_backend_is_timed_and_compared_with_the_baseline(measure):
    records, _, samples = measure(other={"call_seconds": 0.005})
    row = records[CASE.name, "forward", "other"]
    assert row.status is Status.TIMED
    assert row.median_seconds == pytest.approx(0.005)
    assert row.speedup == pytest.approx(2.0)
    assert (row.blocks, row.rank, row.stopped_by) == (BLOCKS, 1, "blocks")
    assert records[CASE.name, "forward", BASELINE].rank == 2
    assert {sample.phase for sample in samples} == {"warmup", "call"}


def test_the_gate_comes_before_the_clock_and_again_after_it(measure):
    _, workers, _ = measure()
    did = [do for name, do, _ in workers.log if name == "other"]
    assert did[:4] == ["load", "support", "prepare", "warm_up"]
    assert did[-2:] == ["check", "release"]
    assert set(did[4:-2]) == {"sample"}


def test_every_contestant_runs_before_the_right_answer_exists(measure):
    _, workers, _ = measure()
    did = [(name, do) for name, do, _ in workers.log]
    assert did.index(("reference", "expect")) > max(did.index((name, "prepare")) for name in (BASELINE, "other"))


def test_a_step_has_a_forward_time_of_its_own_and_the_rest_is_backward(measure):
    records, _, samples = measure(CASE.with_mode("forward_backward"))
    row = records[CASE.name, "forward_backward", "other"]
    assert row.forward_seconds == pytest.approx(row.median_seconds / 2)
    assert row.backward_seconds == pytest.approx(row.median_seconds / 2)
    assert {sample.phase for sample in samples} == {"warmup", "call", "forward"}


def test_a_block_holds_each_backend_once_in_an_order_that_changes(measure):
    _, _, samples = measure(third={})
    blocks = {}
    for sample in samples:
        if sample.phase == "call":
            blocks.setdefault(sample.block, []).append(sample.backend)
    assert all(sorted(block) == sorted([BASELINE, "other", "third"]) for block in blocks.values())
    assert len({tuple(block) for block in blocks.values()}) > 1


def test_the_number_of_calls_varies_and_is_never_below_what_a_sample_needs(measure):
    _, _, samples = measure(other={"call_seconds": 0.001})
    calls = {sample.calls for sample in samples if sample.backend == "other" and sample.phase == "call"}
    assert len(calls) > 1
    assert min(calls) >= 20


def test_input_sets_take_turns_from_block_to_block(measure):
    _, workers, _ = measure()
    first = [fields["first"] for name, do, fields in workers.log if name == "other" and do == "sample"]
    assert first == list(range(BLOCKS))


def test_a_slow_backend_joins_the_first_blocks_only_and_the_others_go_on(measure):
    records, _, _ = measure(other={"call_seconds": 0.3})
    assert records[CASE.name, "forward", "other"].blocks == LEAST_BLOCKS
    assert "few_blocks" in records[CASE.name, "forward", "other"].flags
    assert records[CASE.name, "forward", BASELINE].blocks == BLOCKS


def test_measuring_stops_when_the_budget_is_used_up(measure):
    records, _, _ = measure(budget=0.5)
    row = records[CASE.name, "forward", "other"]
    assert row.stopped_by == "budget"
    assert LEAST_BLOCKS <= row.blocks < BLOCKS


def test_a_backend_whose_call_is_over_the_budget_is_too_slow_and_never_sampled(measure):
    records, _, samples = measure(other={"call_seconds": 3.0}, budget=2.0)
    row = records[CASE.name, "forward", "other"]
    assert row.status is Status.TOO_SLOW
    assert "3 s" in row.reason
    assert not [sample for sample in samples if sample.backend == "other" and sample.phase == "call"]


def test_the_baseline_is_never_too_slow(measure):
    records, _, _ = measure(budget=2.0, torch_bilinear={"call_seconds": 3.0})
    assert records[CASE.name, "forward", BASELINE].status is Status.TIMED
    assert records[CASE.name, "forward", "other"].speedup == pytest.approx(300)


@pytest.mark.parametrize("phase", ["load", "support", "prepare", "warm_up", "sample", "check"])
@pytest.mark.parametrize("status", [Status.FAILED, Status.TIMEOUT, Status.OUT_OF_MEMORY])
def test_a_failure_anywhere_costs_its_own_cell_and_no_other(measure, phase, status):
    records, _, _ = measure(other={phase: WorkerError(status, "planted")}, third={})
    row = records[CASE.name, "forward", "other"]
    assert (row.status, row.reason) == (status, "planted")
    assert row.median_seconds is None
    assert row.phase == {"warm_up": "timing", "sample": "timing", "check": "recheck"}.get(phase, phase)
    assert records[CASE.name, "forward", "third"].status is Status.TIMED


def test_a_wrong_backend_is_rejected_before_it_could_be_timed(measure):
    facts = {"output": {"type": "ndarray", "dtype": "float64", "shape": [3, 2], "device": "cpu"}}
    said = {"prepare_seconds": 0.1, "first_call_seconds": 0.1, "threads": {"affinity": [0], "pools": []}}
    records, workers, _ = measure(other={"prepare": {**said, "facts": facts}})
    row = records[CASE.name, "forward", "other"]
    assert (row.status, row.phase) == (Status.REJECTED, "gate")
    assert "sample" not in [do for name, do, _ in workers.log if name == "other"]


def test_a_backend_that_turns_wrong_after_timing_has_no_times(measure):
    records, _, _ = measure(other={"wrong_later": 1})
    row = records[CASE.name, "forward", "other"]
    assert (row.status, row.phase, row.median_seconds) == (Status.REJECTED, "recheck", None)


def test_without_a_reference_nothing_is_timed(measure):
    records, _, samples = measure(reference={"expect": WorkerError(Status.FAILED, "planted")})
    assert {row.status for row in records.values()} == {Status.FAILED}
    assert all("no reference to check against: planted" in row.reason for row in records.values())
    assert not samples


def test_the_gate_alone_leaves_checked_rows_and_no_samples(measure):
    records, workers, samples = measure(timing=False)
    assert {row.status for row in records.values()} == {Status.CHECKED}
    assert not samples
    assert sum(do == "check" for _, do, _ in workers.log) == 2


def test_work_of_size_zero_is_checked_and_never_timed(measure):
    empty = dataclasses.replace(CASE, batch=0)
    records, _, samples = measure(empty)
    assert {row.status for row in records.values()} == {Status.CHECKED}
    assert not samples


def test_an_unavailable_backend_is_asked_once_and_not_kept(measure):
    gone = {"load": {"available": False, "reason": "no such package", "offered": True}}
    records, workers, _ = measure(CASE, dataclasses.replace(CASE, batch=4), other=gone)
    assert {row.status for key, row in records.items() if key[2] == "other"} == {Status.UNAVAILABLE}
    assert [do for name, do, _ in workers.log if name == "other"] == ["load"]
    assert "other" in workers.discarded


def test_a_device_that_a_backend_does_not_offer_is_unsupported(measure):
    records, _, _ = measure(other={"load": {"available": False, "reason": "runs on cpu", "offered": False}})
    assert records[CASE.name, "forward", "other"].status is Status.UNSUPPORTED


def test_what_would_not_fit_alone_is_out_of_memory_and_not_attempted(measure):
    records, workers, _ = measure(other={"workspace_bytes": 100 * GIB})
    row = records[CASE.name, "forward", "other"]
    assert row.status is Status.OUT_OF_MEMORY
    assert "100.6 GiB" in row.reason
    assert "prepare" not in [do for name, do, _ in workers.log if name == "other"]


def test_what_does_not_fit_together_is_split_and_each_part_has_the_baseline(measure):
    hungry = {"workspace_bytes": 20 * GIB}
    records, workers, samples = measure(free_bytes=32 * GIB, other=hungry, third=hungry)
    assert {row.status for row in records.values()} == {Status.TIMED}
    assert all(row.speedup is not None for row in records.values())
    prepared = [name for name, do, _ in workers.log if do == "prepare"]
    assert prepared == [BASELINE, "other", BASELINE, "third"]
    together = [{s.backend for s in samples if s.block == block and s.phase == "call"} for block in (0, BLOCKS)]
    assert together == [{BASELINE, "other"}, {BASELINE, "third"}]


def test_a_clock_that_stood_still_is_a_failure_and_never_a_time_of_zero(measure):
    records, _, _ = measure(other={"sample": {"seconds": 0.0, "forward_seconds": None}})
    assert records[CASE.name, "forward", "other"].status is Status.FAILED


def test_interrupted_rows_fill_what_is_missing_and_nothing_else():
    plan = Plan(run_id="run", suite="s", cases=(CASE,), backends={"other": None}, devices=("cpu",), threads=1)
    done = frozenset({(CASE.name, "forward", BASELINE, "cpu")})
    rows = list(interrupted(plan, done))
    assert [(row.backend, row.status) for row in rows] == [("other", Status.INTERRUPTED)]

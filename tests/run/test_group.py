"""The journey of a case: ask, prepare, check, time, check again, release; each failure costs its own cell."""

from __future__ import annotations

import dataclasses

import pytest
from fakes import CASE, GIB, LARGER, NARROW_BLOCKS, FakeWorker, Faults

from harness.correctness.questions import SCENARIOS
from harness.process.handle import WorkerError
from harness.process.protocol import (
    AskSupport,
    CheckFresh,
    CheckIntegrity,
    DrawValues,
    Expect,
    KeptResults,
    Load,
    Loaded,
    MeasureMemory,
    MoveArrays,
    Prepare,
    Release,
    RunScenario,
    TakeSample,
    WarmUp,
)
from harness.record import Status
from harness.run.plan import BASELINE
from harness.timing.estimates import LEAST_VALUES


def test_gate_comes_before_the_clock_within_it_and_after_it(measure):
    asked = measure().workers.asked("other")
    before = [Load, AskSupport, Prepare, *[RunScenario] * len(SCENARIOS), CheckIntegrity, WarmUp]
    after = [MeasureMemory, CheckIntegrity, CheckFresh, Release]
    assert asked[: len(before)] == before
    assert asked[-len(after) :] == after
    within = asked[len(before) : -len(after)]
    assert set(within) == {MoveArrays, DrawValues, TakeSample, KeptResults}
    assert within.count(TakeSample) == NARROW_BLOCKS
    # Kept results come from two of the first three blocks, from one of the fourth and fifth, from one until the tenth,
    # and from one until the twentieth.
    assert within.count(KeptResults) in (4, 5)
    assert all(
        within[number - 2 : number] == [MoveArrays, DrawValues]
        for number, kind in enumerate(within)
        if kind is TakeSample
    )


@pytest.mark.parametrize(
    ("request_type", "phase"),
    [
        (Load, "load"),
        (AskSupport, "support"),
        (Prepare, "prepare"),
        (WarmUp, "timing"),
        (TakeSample, "timing"),
        (CheckFresh, "recheck"),
    ],
)
@pytest.mark.parametrize("status", [Status.FAILED, Status.TIMEOUT, Status.OUT_OF_MEMORY])
def test_failure_anywhere_costs_its_own_cell_and_no_other(measure, request_type, phase, status):
    run = measure(faults={"other": Faults(instead={request_type: WorkerError(status, "injected")}), "third": Faults()})
    row = run.row("other")
    assert (row.status, row.reason, row.phase, row.median_seconds) == (status, "injected", phase, None)
    assert run.row("third").status is Status.TIMED


def test_worker_out_of_memory_is_ended_before_the_next_is_prepared(measure):
    full = []

    class Full(FakeWorker):
        def prepare(self, request):
            full.append(self)
            raise WorkerError(Status.OUT_OF_MEMORY, "OutOfMemoryError: CUDA out of memory")

    class Alone(FakeWorker):
        """Fits into memory only where the other worker has ended."""

        def prepare(self, request):
            assert not full[0].alive
            return super().prepare(request)

    run = measure(faults={BASELINE: Faults(kind=Full), "other": Faults(kind=Alone)})
    assert run.row(BASELINE).status is Status.OUT_OF_MEMORY
    assert run.row("other").status is Status.TIMED


@pytest.mark.parametrize(
    ("trims", "workspace_bytes", "ended"), [(True, 2 * GIB, 0), (False, 2 * GIB, 1), (False, 2**20, 0)]
)
def test_worker_that_keeps_a_gpus_memory_is_ended_after_a_large_case(measure_on_gpu, trims, workspace_bytes, ended):
    run = measure_on_gpu(faults={"other": Faults(trims=trims, workspace_bytes=workspace_bytes)})
    assert run.workers.discarded.count("other") == ended


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (Status.FAILED, "AcceleratorError: CUDA error: an illegal memory access was encountered"),
        (Status.OUT_OF_MEMORY, "OutOfMemoryError: CUDA out of memory"),
    ],
)
def test_unusable_process_costs_one_cell_and_the_next_case_has_a_new_one(measure_on_gpu, status, reason):
    class Poisoned(FakeWorker):
        """Fails in the first case; after that every request to the same process fails."""

        poisoned = False

        def prepare(self, request):
            self.poisoned = self.poisoned or request.case.batch == CASE.batch
            if self.poisoned:
                raise WorkerError(status, reason)
            return super().prepare(request)

    run = measure_on_gpu(CASE, LARGER, faults={"other": Faults(kind=Poisoned)})
    row = run.row("other")
    assert (row.status, row.phase, row.reason) == (status, "prepare", reason)
    assert run.row("other", LARGER).status is Status.TIMED
    assert {run.row(BASELINE, case).status for case in (CASE, LARGER)} == {Status.TIMED}


def test_untimeable_backend_is_checked_twice_and_never_timed(measure):
    run = measure(faults={"other": Faults(untimeable="it is simulated")})
    row = run.row("other")
    assert (row.status, row.phase, row.median_seconds) == (Status.CHECKED, "recheck", None)
    assert row.reason == "passed the gate; not timed, because it is simulated"
    asked = set(run.workers.asked("other"))
    assert CheckFresh in asked
    assert not asked & {WarmUp, TakeSample, MeasureMemory}
    assert run.row(BASELINE).status is Status.TIMED


def test_untimeable_backend_is_refused_like_any_other(measure):
    run = measure(faults={"other": Faults(untimeable="it is simulated", wrong_later=1)})
    assert run.row("other").status is Status.REJECTED


def test_misconduct_ends_the_process_and_a_wrong_result_does_not(measure):
    faults = {"other": Faults(replaced=("time.perf_counter",)), "third": Faults(wrong_later=1)}
    workers = measure(CASE, LARGER, faults=faults).workers
    assert workers.discarded.count("other") == 2
    assert "third" not in workers.discarded
    assert workers.asked("other").count(Load) == 2


def test_without_a_reference_no_backend_is_timed(measure):
    run = measure(faults={"reference": Faults(instead={Expect: WorkerError(Status.FAILED, "injected")})})
    assert {row.status for row in run.records} == {Status.FAILED}
    assert all("no reference to check against: injected" in row.reason for row in run.records)
    assert not run.samples


def test_gate_alone_leaves_checked_rows_and_no_samples(measure):
    run = measure(timing=False)
    assert {row.status for row in run.records} == {Status.CHECKED}
    assert not run.samples
    assert sum(isinstance(request, CheckFresh) for _, request in run.workers.log) == 2


def test_work_of_size_zero_is_checked_and_never_timed(measure):
    run = measure(dataclasses.replace(CASE, batch=0))
    assert {row.status for row in run.records} == {Status.CHECKED}
    assert not run.samples


def test_unavailable_backend_is_loaded_once_and_not_kept(measure):
    gone = Faults(instead={Load: Loaded(available=False, reason="no such package")})
    run = measure(CASE, LARGER, faults={"other": gone})
    assert {row.status for row in run.records if row.backend == "other"} == {Status.UNAVAILABLE}
    assert run.workers.asked("other") == [Load]
    assert "other" in run.workers.discarded


def test_device_that_a_backend_does_not_offer_is_unsupported(measure):
    gone = Faults(instead={Load: Loaded(available=False, reason="runs on cpu", offered=False)})
    assert measure(faults={"other": gone}).row("other").status is Status.UNSUPPORTED


def test_backend_that_would_not_fit_alone_is_not_attempted(measure):
    run = measure(faults={"other": Faults(workspace_bytes=100 * GIB)})
    row = run.row("other")
    assert row.status is Status.OUT_OF_MEMORY
    assert "100.6 GiB" in row.reason
    assert Prepare not in run.workers.asked("other")


def test_no_backend_is_attempted_where_the_reference_does_not_fit(measure):
    run = measure(free_bytes=2**20)
    assert {row.status for row in run.records} == {Status.OUT_OF_MEMORY}
    assert all(row.reason.startswith("the reference would need") for row in run.records)
    assert not run.workers.log


@pytest.mark.parametrize("room", [{"free_bytes": 32 * GIB}, {"free_bytes": 1000 * GIB, "device_bytes": 32 * GIB}])
def test_backends_too_large_for_memory_are_split_each_with_the_baseline(measure, room):
    hungry = Faults(workspace_bytes=20 * GIB)
    run = measure(**room, faults={"other": hungry, "third": hungry})
    assert {row.status for row in run.records} == {Status.TIMED}
    assert all(row.speedup is not None for row in run.records)
    asked = [name for name, request in run.workers.log if isinstance(request, Prepare)]
    prepared = [name for name in asked if not name.startswith("edge cases")]
    assert prepared == [BASELINE, "other", BASELINE, "third"]
    assert run.row(BASELINE).blocks == NARROW_BLOCKS, "its row is that of its first cohort"
    together = [
        {s.backend for s in run.samples if s.block == block and s.kind == "call"} for block in (0, NARROW_BLOCKS)
    ]
    assert together == [{BASELINE, "other"}, {BASELINE, "third"}]


@pytest.mark.parametrize("processes", [1, LEAST_VALUES])
def test_worker_is_warm_after_its_first_case_however_often_it_was_renewed(measure, processes):
    run = measure(CASE, LARGER, processes=processes, faults={"other": Faults(spread=(0.0, 0.001))})
    assert [run.row("other", case).compile_cache for case in (CASE, LARGER)] == ["filled", "warm_worker"]


def test_memory_is_what_a_call_takes_beyond_its_results(measure):
    run = measure(faults={"other": Faults(peak_bytes=5000), "third": Faults(peak_bytes=None)})
    assert run.row("other").peak_memory_bytes == 5000 - CASE.result_bytes
    assert run.row(BASELINE).peak_memory_bytes == 2**20 - CASE.result_bytes
    assert run.row("third").peak_memory_bytes is None

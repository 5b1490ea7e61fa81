"""Times by a GPU's own clock: they have columns and flags, and decide no verdict."""

from __future__ import annotations

import pytest
from fakes import Faults

from harness.process.handle import WorkerError
from harness.process.protocol import MeasureDeviceTimes
from harness.record import Status
from harness.run.plan import BASELINE


def test_row_on_a_gpu_has_device_times_and_says_that_launching_takes_most(measure_on_gpu):
    row = measure_on_gpu().row(BASELINE)
    assert row.status is Status.TIMED
    assert (row.queued_seconds, row.device_seconds, row.graph_seconds) == pytest.approx((0.009, 0.0025, 0.003))
    assert row.flags == "launch_bound"


def test_device_times_that_are_absent_leave_their_column_empty(measure_on_gpu):
    run = measure_on_gpu(faults={"other": Faults(device_shares={"graph_seconds": None})})
    assert run.row("other").graph_seconds is None
    assert [sample.kind for sample in run.of("other", "queued", "device", "graph")] == ["queued"] * 10 + ["device"] * 10


@pytest.mark.parametrize(
    ("fault", "flag"),
    [
        ({"device_shares": {"device_seconds": 1.2}}, "device_over_host"),
        ({"device_shares": {"queued_seconds": 1.2, "device_seconds": 0.8}}, "queued_over_host"),
        ({"device_shares": {"device_seconds": 1.05}}, None),
        ({"instead": {MeasureDeviceTimes: WorkerError(Status.FAILED, "signal 11")}}, "no_device_times(failed)"),
    ],
    ids=["device", "queued", "within tolerance", "crash"],
)
def test_device_clock_that_cannot_be_right_is_flagged_and_costs_no_time(measure_on_gpu, fault, flag):
    row = measure_on_gpu(faults={"other": Faults(**fault)}).row("other")
    assert (row.status, row.flags) == (Status.TIMED, flag)


def test_call_that_cannot_be_captured_keeps_its_times_not_its_process(measure_on_gpu):
    reason = {"graph_seconds": "RuntimeError: operation not permitted when stream is capturing"}
    run = measure_on_gpu(faults={"other": Faults(absent=reason, device_shares={"graph_seconds": None})})
    row = run.row("other")
    assert (row.status, row.graph_seconds) == (Status.TIMED, None)
    assert row.device_seconds is not None
    assert "other" in run.workers.discarded
    assert BASELINE not in run.workers.discarded
    assert run.runner.worker_reports["other on cuda"]["absent_times"] == reason


def test_rows_on_a_cpu_are_not_asked_for_device_times(measure):
    run = measure()
    assert run.row(BASELINE).device_seconds is None
    assert MeasureDeviceTimes not in {type(request) for _, request in run.workers.log}

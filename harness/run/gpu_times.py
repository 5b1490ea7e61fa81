"""Measure a GPU's share of a call: times by the device's clock, with launches queued and without; in no verdict.

A user waits for ``median_seconds``. Rows on a GPU have three more times of a call. Where these are far less,
launching takes most of the time.

* ``queued_seconds``: many calls, one synchronisation.
* ``device_seconds``: between two events, launched while the device was busy.
* ``graph_seconds``: replayed from a CUDA graph.
"""

from __future__ import annotations

import functools
import statistics
from collections.abc import Sequence
from typing import Final

from harness.case import Case
from harness.process.handle import WorkerError
from harness.process.protocol import DeviceTimes, MeasureDeviceTimes
from harness.record import Flag
from harness.run.cell import Cell
from harness.run.context import RunContext
from harness.timing import clock

#: Number of samples of each kind.
SAMPLES: Final = 10
#: Constant part of the request's time limit, in seconds.
LIMIT_SECONDS: Final = 10.0
#: Part of the request's time limit that grows with it, in multiples of the time of its calls.
LIMIT_TIMES: Final = 60.0


def measure(context: RunContext, case: Case, device: str, cells: Sequence[Cell], process: int) -> None:
    """Measure cells that have been timed; a cell whose worker dies of it keeps its other times.

    Args:
        context: Plan, workers and sources of the run.
        case: The case.
        device: Device of the cells; not the CPU.
        cells: Cells that passed the gate, still prepared.
        process: Number of their present processes in the group.
    """
    for cell in cells:
        if not cell.timings.seconds or cell.worker is None:
            continue
        context.progress.stage(f"time {cell.name} by the GPU's clock")
        calls, call_seconds = cell.schedule.base_calls, statistics.median(cell.timings.seconds.values())
        limit = min(context.plan.time_limit_seconds, LIMIT_SECONDS + LIMIT_TIMES * SAMPLES * calls * call_seconds)
        try:
            reply = cell.worker.request(MeasureDeviceTimes(calls, call_seconds, SAMPLES), limit)
        except WorkerError as error:
            context.workers.discard(cell.name, device)
            cell.flag(Flag.NO_DEVICE_TIMES.detailed(error.status))
            continue
        cell.replies.absent_times = reply.absent
        if reply.broken:
            context.workers.discard(cell.name, device)
        _keep(context, case, device, cell, reply, process)
        known = cell.timings.device_seconds
        for flag in clock.device_faults(call_seconds, known.get("queued_seconds"), known.get("device_seconds")):
            cell.flag(flag)


def _keep(context: RunContext, case: Case, device: str, cell: Cell, reply: DeviceTimes, process: int) -> None:
    """Keep the samples, and each column's median of a call."""
    keep = functools.partial(context.keep, case, device)
    calls = cell.schedule.base_calls
    for column, kind, sampled, calls_per_sample in (
        ("queued_seconds", "queued", reply.queued_seconds, calls),
        ("device_seconds", "device", reply.device_seconds, 1),  # one call behind each delay
        ("graph_seconds", "graph", reply.graph_seconds, calls),
    ):
        for seconds in sampled:
            keep(backend=cell.name, kind=kind, process=process, calls=calls_per_sample, seconds=seconds)
        if sampled:
            cell.timings.device_seconds[column] = statistics.median(sampled) / calls_per_sample

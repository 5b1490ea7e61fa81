"""A GPU's share of a call: its time by the device's clock, with launches queued, and without them; in no verdict.

``median_seconds`` is what a user waits for. Beside it stand, for rows on a GPU, ``queued_seconds`` (many calls, one
synchronisation), ``device_seconds`` (between two events, launched while the device was busy) and ``graph_seconds``
(replayed from a CUDA graph): where they are far less, launching is what takes the time.
"""

from __future__ import annotations

import functools
import statistics
from collections.abc import Sequence
from typing import Final

from harness.case import Case
from harness.process.handle import WorkerError
from harness.process.protocol import MeasureDeviceTimes
from harness.record import Flag
from harness.run.cell import Cell
from harness.run.context import RunContext
from harness.timing import clock

#: Samples of each.
SAMPLES: Final = 10
#: The kind of their samples, by column.
KINDS: Final = {"queued_seconds": "queued", "device_seconds": "device", "graph_seconds": "graph"}


def measure(context: RunContext, case: Case, device: str, cells: Sequence[Cell], process: int) -> None:
    """Fill the columns of cells that have been timed; one whose worker does not survive it keeps its other times.

    Args:
        context: What the run shares.
        case: The case.
        device: Where; not the CPU.
        cells: Right, and still prepared.
        process: The number of their present processes in the group.
    """
    keep = functools.partial(context.keep, case, device)
    for cell in cells:
        if not cell.seconds or cell.worker is None:
            continue
        context.progress.stage(f"device times of {cell.name}")
        call_seconds = statistics.median(cell.seconds.values())
        limit = min(context.plan.time_limit_seconds, 10 + 60 * SAMPLES * cell.base_calls * call_seconds)
        try:
            said = cell.worker.request(MeasureDeviceTimes(cell.base_calls, call_seconds, SAMPLES), limit)
        except WorkerError as error:
            context.workers.discard(cell.name, device)
            cell.flag(Flag.NO_DEVICE_TIMES.detailed(error.status))
            continue
        if said.absent:
            cell.said["absent_times"] = said.absent  # the reasons, for environment.json
        if said.broken:
            context.workers.discard(cell.name, device)
        for column, kind in KINDS.items():
            # Behind a delay there is one call.
            calls = 1 if kind == "device" else cell.base_calls
            samples: tuple[float, ...] = getattr(said, column)
            for seconds in samples:
                keep(backend=cell.name, kind=kind, process=process, calls=calls, seconds=seconds)
            if samples:
                cell.columns[column] = statistics.median(samples) / calls
        known = [cell.columns.get(column) for column in ("queued_seconds", "device_seconds")]
        for flag in clock.device_faults(call_seconds, *known):
            cell.flag(flag)

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
from harness.entrant import Entrant
from harness.process.supervisor import WorkerError
from harness.sitting import Sitting
from harness.timing import clock

#: Samples of each.
SAMPLES: Final = 10
#: The phase of their samples, by column.
PHASES: Final = {"queued_seconds": "queued", "device_seconds": "device", "graph_seconds": "graph"}


def measure(sitting: Sitting, case: Case, device: str, entrants: Sequence[Entrant], process: int) -> None:
    """Fill the columns of entrants that have been timed; one whose worker does not survive it keeps its other times.

    Args:
        sitting: What the run shares.
        case: The case.
        device: Where; not the CPU.
        entrants: Right, and still prepared.
        process: The number of their present processes in the group.
    """
    keep = functools.partial(sitting.keep, case, device)
    for entrant in entrants:
        if not entrant.seconds or entrant.worker is None:
            continue
        sitting.observer.stage(f"device times of {entrant.name}")
        call_seconds = statistics.median(entrant.seconds.values())
        asked = {"calls": entrant.base_calls, "call_seconds": call_seconds, "repeats": SAMPLES}
        limit = min(sitting.plan.time_limit_seconds, 10 + 60 * SAMPLES * entrant.base_calls * call_seconds)
        try:
            said = entrant.worker.request("device_times", limit, **asked)
        except WorkerError as error:
            sitting.workers.discard(entrant.name, device)
            entrant.flag(f"no_device_times ({error.status})")
            continue
        if said["absent"]:
            entrant.loaded["absent_times"] = said["absent"]  # the reasons, for environment.json
        if said["broken"]:
            sitting.workers.discard(entrant.name, device)
        for column, phase in PHASES.items():
            # Behind a delay there is one call.
            calls = 1 if phase == "device" else entrant.base_calls
            for seconds in said[column]:
                keep(backend=entrant.name, phase=phase, process=process, calls=calls, seconds=seconds)
            if said[column]:
                entrant.columns[column] = statistics.median(said[column]) / calls
        known = [entrant.columns.get(column) for column in ("queued_seconds", "device_seconds")]
        for flag in clock.device_faults(call_seconds, *known):
            entrant.flag(flag)

"""Readings around a sample: the state of the machine before it and after it.

Each reading has ``before()`` and ``after(sample) -> columns``. They are nested around the sample: the last one is read
right before it and right after it.
"""

from __future__ import annotations

import dataclasses
import os
import statistics
from collections.abc import Sequence
from typing import Final, Protocol

from harness.case import Case
from harness.machine import activity, gpu
from harness.machine.standing import Standing
from harness.machine.usage import Usage, waited_around
from harness.process.protocol import ReadGpu
from harness.run.cell import Cell
from harness.run.context import RunContext
from harness.run.granted import judge_granted
from harness.run.time_spent import Stage
from harness.timing import roofline

#: Columns of a sample.
Columns = dict[str, float | int | str | None]
#: Time of the spot peak, as a share of the time that the sample will take: right before a call of a second, noise of a
#: few milliseconds differs from the noise over that call.
SPOT_PEAK_SHARE: Final = 0.25
#: Least and longest time of the spot peak, in seconds.
SPOT_PEAK_SECONDS: Final = (0.004, 0.2)


@dataclasses.dataclass(frozen=True, slots=True)
class SampleSeen:
    """One sample, with the times that the run has seen around it.

    Attributes:
        block: Number of its block in the group.
        measured_seconds: Time of its calls as the worker measured it, forwards alone included.
        passed_seconds: Time between the request and the reply, by the run's clock, less that in which it was stopped.
        settled_seconds: Time of calls in the request that are not recorded.
        usage: CPU time and waits of each thread of the worker; empty if they are unknown.
        involuntary_switches: Times that a thread of the worker lost its CPU to another.
        long: True if the sample was long enough for the run's own clock.
        stopped: True if the run or its machine was stopped in it, so that neither clock can be judged.
    """

    block: int
    measured_seconds: float
    passed_seconds: float
    settled_seconds: float
    usage: Sequence[Usage]
    involuntary_switches: int
    long: bool = False
    stopped: bool = False


class Reading(Protocol):
    """One reading around a sample."""

    def before(self) -> None:
        """Read before the sample."""
        ...

    def after(self, sample: SampleSeen) -> Columns:
        """Read after the sample; return its columns."""
        ...


class SpotPeak:
    """The CPUs' FMA peak right before a sample.

    Args:
        context: Plan, workers and sources of the run.
        case: The case, whose arithmetic is measured.
        cell: The cell.
        sample_seconds: Time that the sample will take, in seconds.
    """

    def __init__(self, context: RunContext, case: Case, cell: Cell, sample_seconds: float) -> None:
        self._context, self._case, self._cell = context, case, cell
        least, most = SPOT_PEAK_SECONDS
        self._seconds = min(max(least, sample_seconds * SPOT_PEAK_SHARE), most)
        self._flop_per_second: float | None = None

    def before(self) -> None:
        """Measure the peak."""
        with self._context.spent(Stage.SPOT_PEAK):
            self._flop_per_second = self._context.spot_peak(roofline.arithmetic_of(self._case), self._seconds)

    def after(self, sample: SampleSeen) -> Columns:
        """Keep the peak as the block's, unless it is unknown."""
        if self._flop_per_second is not None:
            self._cell.timings.spot_peaks[sample.block] = self._flop_per_second
        return {"spot_peak_flop_per_second": self._flop_per_second}


class GpuState:
    """The GPU's clock and temperature after a sample, and the reasons for a lower clock; none after a failed request.

    Args:
        cell: The cell.
        limit_seconds: Time limit of the request, in seconds.
    """

    def __init__(self, cell: Cell, limit_seconds: float) -> None:
        self._cell, self._limit_seconds = cell, limit_seconds

    def before(self) -> None:
        """Read nothing: an idle GPU soon lowers its clock."""

    def after(self, sample: SampleSeen) -> Columns:
        """Read in a request of its own: a driver may take as long to reply as the sample took."""
        reply = self._cell.request(ReadGpu(), self._limit_seconds)
        if reply is None or reply.state is None:
            return {}
        state, timings = reply.state, self._cell.timings
        timings.best_gpu_clock_mhz = max(timings.best_gpu_clock_mhz, state.clock_mhz)
        return {
            "gpu_clock_mhz": state.clock_mhz or None,
            "gpu_temperature_celsius": state.temperature_celsius or None,
            "gpu_held_back": state.held_back or None,
            "disturbance": gpu.disturbed(state, timings.best_gpu_clock_mhz),
        }


class Activity:
    """Activity of the machine: stolen time, context switches, load, clock, swap; and time that is not accounted for.

    Args:
        context: Plan, workers and sources of the run.
        cell: The cell.
        flush_l2: True if the sample flushes the GPU's L2 between its calls, which is most of the time around it.
    """

    def __init__(self, context: RunContext, cell: Cell, flush_l2: bool) -> None:
        self._context, self._cell, self._flush_l2 = context, cell, flush_l2
        self._before: activity.State | None = None

    def before(self) -> None:
        """Read the machine's counters."""
        self._before = self._context.look()

    def after(self, sample: SampleSeen) -> Columns:
        """Read the counters again; return their growth, and the disturbances of the sample."""
        context, cpus = self._context, os.cpu_count() or 1
        after = context.look()
        before = self._before or after
        stolen = activity.stolen_seconds(before, after)
        if not self._flush_l2 and not sample.stopped:
            self._account(sample, before, after)
        context.best_clock_mhz = max(context.best_clock_mhz, after.clock_mhz or 0.0)
        switches = self._foreign_switches(sample)
        best = context.best_clock_mhz or None
        found = activity.disturbed(before, after, sample.passed_seconds, cpus, switches, best)
        return {
            "steal_seconds": stolen,
            "involuntary_switches": sample.involuntary_switches,
            "others_running": after.running,
            "clock_mhz": after.clock_mhz,
            "disturbance": "+".join(filter(None, (found, "stopped" * sample.stopped))) or None,
        }

    def _account(self, sample: SampleSeen, before: activity.State, after: activity.State) -> None:
        """Keep the time around a sample that the worker does not account for, and what waits for a CPU explain of it.

        The worker does not hold back what the hypervisor took. Whether that was within the request is unknown, so a
        false time of the same size, and no larger one, is missed in such a block. Waits explain nothing where nothing
        else ran before and after the sample, since a worker can make its own threads wait for each other. Where the
        system does not count waits, a block with something else running is not judged.
        """
        stolen = activity.stolen_seconds(before, after) or 0.0
        of_worker = stolen * self._context.plan.threads / (os.cpu_count() or 1)
        waited = waited_around(sample.usage) if before.running or after.running else 0.0
        if waited is not None:
            unseen = sample.passed_seconds - sample.measured_seconds - sample.settled_seconds - of_worker
            timings = self._cell.timings
            if sample.long:
                return timings.long_samples.append((sample.measured_seconds, unseen, waited))
            timings.unseen_seconds.append(unseen)
            timings.waited_seconds.append(waited)

    def _foreign_switches(self, sample: SampleSeen) -> int:
        """Return the switches beyond the cell's usual rate: its own threads may take the CPUs from each other."""
        rates, seconds = self._cell.timings.switch_rates, sample.passed_seconds
        rates.append(sample.involuntary_switches / seconds if seconds else 0.0)
        return round(sample.involuntary_switches - statistics.median(rates) * seconds)


class Budget:
    """What the worker and its descendants are granted, and the CPU time they take, against the budget.

    Args:
        context: Plan, workers and sources of the run.
        cell: The cell.
    """

    def __init__(self, context: RunContext, cell: Cell) -> None:
        self._context, self._cell = context, cell
        self._before: Standing | None = None
        self._start = 0.0

    def before(self) -> None:
        """Read the CPU time until now."""
        self._before, self._start = self._read(), self._context.now()

    def after(self, sample: SampleSeen) -> Columns:
        """Add up the CPU time, and refuse a worker that is granted more than it was started with."""
        seconds, after = self._context.now() - self._start, self._read()
        timings = self._cell.timings
        if self._before is None or after is None:
            return {}
        took, passed = timings.cpu_and_wall_seconds
        timings.cpu_and_wall_seconds = took + after.cpu_seconds - self._before.cpu_seconds, passed + seconds
        judge_granted(self._cell, after)
        return {}

    def _read(self) -> Standing | None:
        return None if self._cell.worker is None else self._cell.worker.standing()


def readings(context: RunContext, case: Case, device: str, cell: Cell, sample_seconds: float) -> list[Reading]:
    """Return the readings around a sample on a device, the outermost first.

    Args:
        context: Plan, workers and sources of the run.
        case: The case.
        device: Device of the cell.
        cell: The cell.
        sample_seconds: Time that the sample will take, in seconds.
    """
    outer: Reading = SpotPeak(context, case, cell, sample_seconds)
    if device != "cpu":
        outer = GpuState(cell, context.plan.time_limit_seconds)
    inner = Activity(context, cell, context.plan.flush_l2)
    # The threads of a GPU's driver are not the backend's.
    return [outer, inner] if device != "cpu" else [outer, Budget(context, cell), inner]


def columns_after(around: list[Reading], sample: SampleSeen) -> Columns:
    """Read after a sample, the innermost first; return all columns, and the disturbances as one."""
    columns: Columns = {}
    disturbances = []
    for reading in reversed(around):
        read = reading.after(sample)
        disturbances.append(read.pop("disturbance", None))
        columns |= read
    return columns | {"disturbance": "+".join(str(word) for word in disturbances if word) or None}

"""Warm a backend up, and take one sample of it.

Length: what a sample takes and leaves, in the order of taking.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from typing import Final

from harness.case import Case
from harness.correctness.sample_values import SampleValues
from harness.machine import usage
from harness.process.handle import WorkerHandle
from harness.process.protocol import DrawValues, MoveArrays, SampleTaken, SteadyGpuClock, TakeSample, WarmUp
from harness.record import Flag, Status
from harness.run.cell import Cell
from harness.run.context import RunContext
from harness.run.plan import BASELINE
from harness.run.readings import Columns, SampleSeen, columns_after, readings
from harness.run.time_spent import Stage
from harness.timing import clock, roofline, stopping

#: Least time of a backend's warmup, in seconds; at least one call.
WARM_UP_SECONDS: Final = 0.1
#: Number of the warmup's last stretches whose median is the time of a call.
LATEST_STRETCHES: Final = 3
#: Share of a call from which the cost of the timing loop is flagged.
OVERHEAD_SHARE: Final = 0.05
#: Ratio of a call's time in the warmup to its time in a sample, from which the backend is planned again.
FASTER_TIMES: Final = 4
#: Largest arrays of a case that move before every sample, in bytes: for larger ones it matters less and takes long.
PLACED_BYTES: Final = 8 * 2**20
#: Longest preparation with its first call, in seconds, after which the kernel is prepared again before every sample.
KERNEL_SECONDS: Final = 0.020
#: Largest arrays, in bytes, with which it is prepared again: the inputs must not exist while it is prepared.
KERNEL_BYTES: Final = 2**20
#: Calls that a sample needs, divided by the most further calls; their number is drawn, so that no backend foresees it.
FURTHER_CALLS: Final = 4

#: Least time of the first long sample, in seconds: 5 % of it are what the run's own clock misses of a sample. Each one
#: after it takes twice as long, so what it misses counts for half.
LONG_SECONDS: Final = 0.1


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """Place of a sample.

    Attributes:
        process: Number of the process in the group.
        block: Number of the block in the group.
        position: Place in the block's order, from 0.
    """

    process: int
    block: int
    position: int


@dataclasses.dataclass(frozen=True, slots=True)
class Judged:
    """Results of a sample that are to be judged.

    Attributes:
        values: Values of the sample.
        calls: Numbers of the calls of which one is judged; -1 for the copy of the last result.
        passes: Number of passes of the sample.
        changing: True if rows of the inputs changed before each call.
    """

    values: SampleValues
    calls: tuple[int, ...]
    passes: int
    changing: bool


class Sampler:
    """Takes samples of one case on one device.

    Args:
        context: Plan, workers and sources of the run.
        case: The case.
        device: Device of the cells.
    """

    def __init__(self, context: RunContext, case: Case, device: str) -> None:
        self._context = context
        self._plan = context.plan
        self._case = case
        self._device = device

    def warm_up(self, cell: Cell, process: int, first_process: bool) -> None:
        """Warm up, learn the time of a call, and from that the number of calls in a sample.

        The gate has called a slow backend before, at least twice, which has warmed it up and told the time of a call.

        Args:
            cell: A prepared cell.
            process: Number of its process in the group.
            first_process: True in the group's first process, which also decides how many blocks the cell joins.
        """
        loaded = cell.replies.latest
        if loaded is None or not ((first_process and cell.schedule.slow) or self._warmed_up(cell, process)):
            return
        try:
            cell.schedule.base_calls = clock.calls_per_sample(cell.schedule.call_seconds, loaded.tick_seconds)
        except ValueError as error:
            cell.end(Status.FAILED, str(error))
            return
        if first_process:
            self._schedule(cell, loaded.overhead_seconds)

    def _warmed_up(self, cell: Cell, process: int) -> bool:
        """Call until the time of a call is known; return False if the cell has ended."""
        self._context.progress.stage(f"warm up {cell.name}")
        with self._context.spent(Stage.WARM_UP):
            reply = cell.request(WarmUp(WARM_UP_SECONDS, 1), self._plan.time_limit_seconds)
            if reply is not None and cell.worker is not None and cell.worker.stopped_seconds:
                # The stop was in its times.
                reply = cell.request(WarmUp(WARM_UP_SECONDS, 1), self._plan.time_limit_seconds)
        if reply is None:
            return False
        for stretch in reply.stretches:
            self._keep(cell, process, "warmup", stretch.calls, stretch.seconds)
        latest = reply.stretches[-LATEST_STRETCHES:]
        cell.schedule.call_seconds = statistics.median(stretch.seconds / stretch.calls for stretch in latest)
        cell.replies.busy = reply.busy
        cell.flag(usage.overload(reply.busy, self._plan.threads))
        return True

    def _schedule(self, cell: Cell, overhead_seconds: float) -> None:
        """Decide how many blocks a cell joins."""
        call_seconds, budget = cell.schedule.call_seconds, self._plan.budget_seconds
        if call_seconds > budget and cell.base_name != BASELINE:
            cell.end(Status.TOO_SLOW, f"one call takes {call_seconds:.3g} s, the budget is {budget:g} s")
        cell.schedule.joins = stopping.blocks_to_join(call_seconds, budget, cell.name == BASELINE)
        if overhead_seconds > OVERHEAD_SHARE * call_seconds:
            cell.flag(Flag.OVERHEAD)

    def take(self, cell: Cell, place: Place, judged: bool, long_seconds: float = 0.0) -> Judged | None:
        """Take a sample.

        Args:
            cell: A warm cell.
            place: Place of the sample.
            judged: True if a result of it is judged; it is drawn after the sample, from those that are still there.
            long_seconds: Least time of a long sample, in seconds; 0 for any other.

        Returns:
            Results to judge; None without any.
        """
        request, secret = self._request(cell, place.block, long_seconds), self._context.secret.getrandbits(48)
        if not self._settle(cell) or cell.worker is None:
            return None
        with self._context.spent(Stage.VALUES):
            cell.request(DrawValues(secret, request.calls, request.first), self._plan.time_limit_seconds)
        if not cell.going:
            return None
        around = readings(self._context, self._case, self._device, cell, request.calls * cell.schedule.call_seconds)
        with self._context.spent(Stage.READINGS):
            for reading in around:
                reading.before()
        reply = self._requested(cell, request)
        if reply is None:
            return None
        if not reply.seconds > 0 or (request.forward and not (reply.forward_seconds or 0.0) > 0):
            reason = f"a sample of {request.calls} calls took {reply.seconds} s: the clock cannot be right"
            cell.end(Status.FAILED, reason)
            return None
        seen = _seen(cell, cell.worker, place.block, request, reply)
        with self._context.spent(Stage.READINGS):
            columns = columns_after(around, seen)
        if not cell.going:
            return None
        self._note(cell, place, request, reply, columns)
        if not judged or not reply.held:
            return None
        chosen = stopping.draw_judged_calls(self._context.secret, reply.held, cell.schedule.call_seconds)
        values = SampleValues(self._case, secret, request.calls, request.first, roofline.INPUT_SETS)
        return Judged(values, chosen, request.passes, reply.changing)

    def _request(self, cell: Cell, block: int, long_seconds: float) -> TakeSample:
        """Return the request for a cell's sample."""
        secret, base_calls = self._context.secret, cell.schedule.base_calls
        calls = base_calls + secret.randrange(base_calls // FURTHER_CALLS + 1)
        passes = math.ceil(long_seconds / (calls * cell.schedule.call_seconds))
        if long_seconds and not cell.schedule.slow:
            passes = max(passes, 2)
        return TakeSample(
            calls=calls,
            first=block,
            # In a slow call the 10 ms of coming back do not show, and settling would cost a whole call.
            settle_seconds=0.0 if cell.schedule.slow else clock.SETTLE_SECONDS,
            forward=self._case.mode == "forward_backward",
            passes=max(passes, 1),
            flush_l2=self._plan.flush_l2,
        )

    def _requested(self, cell: Cell, request: TakeSample) -> SampleTaken | None:
        """Return the worker's reply, and book the request's time."""
        with self._context.spent(Stage.FREEZE):
            reply = cell.request(request, self._plan.time_limit_seconds)
            if reply is not None and cell.worker is not None:
                call_seconds = reply.seconds + (reply.forward_seconds or 0.0)
                self._context.spent.add_sample(call_seconds, cell.worker.elapsed_seconds)
        return reply

    def _settle(self, cell: Cell) -> bool:
        """Move the arrays and steady the GPU's clock where that is due; return False if the cell has ended."""
        limit, size = self._plan.time_limit_seconds, roofline.array_bytes(self._case)
        if size <= PLACED_BYTES and not cell.schedule.slow:
            new_kernel = size <= KERNEL_BYTES and cell.schedule.kernel_seconds <= KERNEL_SECONDS
            with self._context.spent(Stage.MOVE):
                cell.request(MoveArrays(new_kernel), limit)
        if cell.going and self._device != "cpu":
            # A request of its own, since it may take long, and the time around a sample is judged.
            with self._context.spent(Stage.GPU_CLOCK):
                cell.request(SteadyGpuClock(), limit)
        return cell.going

    def _note(self, cell: Cell, place: Place, request: TakeSample, reply: SampleTaken, columns: Columns) -> None:
        """Keep a sample in the cell's timings and as rows."""
        timings, block, calls = cell.timings, place.block, request.calls * request.passes
        timings.measured_seconds.append(reply.seconds + (reply.forward_seconds or 0.0))
        timings.calls.append(calls)
        timings.seconds[block] = reply.seconds / calls
        if columns["disturbance"]:
            timings.disturbed_blocks.add(block)
        _plan_again(cell, reply.seconds / calls)
        columns = columns | {"block": block, "position": place.position}
        self._keep(cell, place.process, "call", calls, reply.seconds, **columns)
        if reply.forward_seconds is not None:
            timings.forward_seconds[block] = reply.forward_seconds / request.calls
            self._keep(cell, place.process, "forward", request.calls, reply.forward_seconds, **columns)

    def _keep(
        self, cell: Cell, process: int, kind: str, calls: int, seconds: float, **columns: float | int | str | None
    ) -> None:
        """Keep one row of ``samples.csv``."""
        fixed = {"backend": cell.name, "kind": kind, "process": process, "calls": calls, "seconds": seconds}
        self._context.keep(self._case, self._device, **fixed, **columns)


def long_seconds(cell: Cell) -> float:
    """Return the least time of a cell's next long sample, in seconds."""
    return LONG_SECONDS * 2.0 ** len(cell.timings.long_samples)


def _seen(cell: Cell, worker: WorkerHandle, block: int, request: TakeSample, reply: SampleTaken) -> SampleSeen:
    """Return a sample as the run sees it."""
    # Settling ends with a whole call, which may be longer than what is left of its time, and than in the warmup.
    longest = max(cell.schedule.call_seconds, reply.seconds / (request.calls * request.passes))
    return SampleSeen(
        block=block,
        measured_seconds=reply.seconds + (reply.forward_seconds or 0.0),
        passed_seconds=worker.elapsed_seconds - worker.stopped_seconds,
        settled_seconds=request.settle_seconds + longest if request.settle_seconds else 0.0,
        usage=worker.usage,
        involuntary_switches=reply.involuntary_switches,
        long=request.passes > 1 or cell.schedule.slow,
        stopped=worker.stopped_seconds > 0,
    )


def _plan_again(cell: Cell, call_seconds: float) -> None:
    """Plan a cell again that is far faster than in its warmup: it gets as many blocks as the others."""
    schedule, loaded = cell.schedule, cell.replies.latest
    if loaded is not None and call_seconds < schedule.call_seconds / FASTER_TIMES:
        schedule.call_seconds = call_seconds
        schedule.base_calls = clock.calls_per_sample(call_seconds, loaded.tick_seconds)
        if not cell.schedule.slow:
            schedule.joins = stopping.ALL_BLOCKS

"""A cohort: backends that are prepared together, judged together and timed in the same blocks.

Each public method is one step for every cell that is going; a backend that fails in a step stops, and the others go on.

Length: the steps of a case, from preparing to releasing, in their order.
"""

from __future__ import annotations

import dataclasses
import statistics
from typing import Final

from harness.case import Case
from harness.correctness import gate, promises
from harness.correctness.questions import AGAIN, AS_IN_SAMPLES, FIRST, SCENARIOS, Question
from harness.machine import threads
from harness.process.handle import WorkerError
from harness.process.protocol import MeasureMemory, Release, WarmUp
from harness.record import Status
from harness.run import gpu_times
from harness.run.cell import Cell
from harness.run.checker import Checker
from harness.run.context import Loader, RunContext
from harness.run.edge_case_pool import EdgeCasePool
from harness.run.plan import BASELINE
from harness.run.reference_cache import ReferenceCache
from harness.run.sampling import Blocks, Sampling
from harness.run.time_spent import Stage
from harness.timing import roofline, stopping

#: Pairs of single calls after the blocks, one on new inputs and one on inputs seen before: at least and at most.
FRESH_PAIRS: Final = (4, 24)
#: Time of the calls on new inputs, in seconds: it decides the number of pairs.
FRESH_SECONDS: Final = 0.010
#: A longer call, in seconds, is its own average, and a cold cache hardly shows in it: one pair is enough, and no call
#: comes before it.
LONG_SECONDS: Final = 0.020
#: Attempts before a backend is rejected for memoising: on a busy machine one attempt in nine refuses an honest one.
FRESH_ATTEMPTS: Final = 10
#: A framework that gives no memory of a GPU back may keep this many bytes until the next case.
KEPT_BYTES: Final = 2**30


@dataclasses.dataclass(frozen=True, slots=True)
class Services:
    """What the groups of a run share.

    Attributes:
        loader: Loads backends.
        edge_case_pool: The findings of the edge cases.
        reference_cache: The right results.
    """

    loader: Loader
    edge_case_pool: EdgeCasePool
    reference_cache: ReferenceCache


class Cohort:
    """The cells of one group that are in memory at the same time.

    Args:
        context: What the run shares.
        case: The case.
        device: Device of the cells.
        cells: Cells that were asked; the baseline first, if it is among them.
        services: What the groups of the run share.
    """

    def __init__(self, context: RunContext, case: Case, device: str, cells: list[Cell], services: Services) -> None:
        self._context = context
        self._plan = context.plan
        self._spent = context.spent
        self._stage = context.progress.stage
        self._case = case
        self._device = device
        self._cells = cells
        self._edge_case_pool = services.edge_case_pool
        self._loader = services.loader
        self._reference_cache = services.reference_cache
        self._checker = Checker(
            case,
            device,
            services.reference_cache,
            self._plan.time_limit_seconds,
            self._stage,
            context.secret,
            context.spent,
        )

    def end(self, status: Status, reason: str) -> None:
        """End every cell that is going."""
        for cell in self._going():
            cell.end(status, reason)

    def _going(self) -> list[Cell]:
        return [cell for cell in self._cells if cell.going]

    def prepare(self) -> None:
        """Prepare every cell; its first call is made before any right result exists."""
        for cell in self._going():
            # An earlier cohort may have replaced the worker.
            cell.worker = self._loader.load(cell.name, self._device).worker or cell.worker
            cell.phase = "prepare"
            self._stage(f"compile {cell.name}")
            with cell.gating(self._spent):
                prepared = self._checker.prepare(cell)
            if prepared is None:
                continue
            # Preparing and the first call have columns of their own.
            cell.gate.seconds -= prepared.prepare_seconds + prepared.first_call_seconds
            cell.replies.prepared = prepared
            if cell.base_name == BASELINE and prepared.first_call_seconds > stopping.SLOW_SECONDS:
                self._call_once_more(cell)
            cell.compile_cache = self._loader.compile_cache(cell.name, self._device)
            cell.flag(threads.fault(prepared.threads, self._plan.threads))
            cell.phase = "gate"
            self._checker.conclude(cell)

    def _call_once_more(self, cell: Cell) -> None:
        """Learn whether the baseline is slow before its questions: a first call may start libraries, too."""
        with self._spent(Stage.PREPARE):
            reply = cell.request(WarmUp(0.0, 1), self._plan.time_limit_seconds)
        if reply is not None:
            cell.schedule.call_seconds = reply.stretches[-1].seconds / reply.stretches[-1].calls

    def check(self) -> None:
        """Put the gate's questions: edge cases, first results, scenarios."""
        self._edge_case_pool.begin(self._going(), self._case, self._device)
        if self._going():
            self._checker.expect(FIRST)  # while edge-case workers import and compile
        self._stage("check odd sizes and special values")
        with self._spent(Stage.EDGE_CASES):
            self._edge_case_pool.judge(self._going(), self._case, self._device)
        self._judge_first()
        for scenario in SCENARIOS:
            self._put(scenario)
        for cell in self._going():
            with cell.gating(self._spent):
                self._checker.finish_scenarios(cell)
            self._checker.conclude(cell)

    def _judge_first(self) -> None:
        """Judge the first results, and how far their output is from the baseline's."""
        baseline_output = None
        for cell in self._going():
            self._stage(f"check {cell.name}")
            with cell.gating(self._spent):
                actual = self._checker.judge_first(cell)
            if actual is None:
                continue
            if cell.name == BASELINE:
                baseline_output = actual["output"]
            elif baseline_output is not None:
                difference = gate.mean_absolute_difference(actual["output"], baseline_output)
                cell.gate.mean_absolute_error = difference

    def _put(self, scenario: Question) -> None:
        """Ask all, have the reference compute, judge all."""
        wanted = [cell for cell in self._going() if not (self._slow(cell) and self._spared(cell, scenario))]
        asked = [cell for cell in wanted if self._asked(cell, scenario)]
        if wanted:
            self._checker.expect(scenario)
        for cell in asked:
            with cell.gating(self._spent):
                self._checker.judge(cell, scenario)
        if scenario.kind != FIRST.kind:
            self._reference_cache.forget(self._case, scenario.kind)
        if scenario == AGAIN:
            return  # a refused backend is asked for integers, too: they say more about its fault
        for cell in self._going():
            self._checker.conclude(cell)

    def _slow(self, cell: Cell) -> bool:
        """True if a call takes long, and samples will be taken."""
        timed = self._plan.timing and not self._case.empty and not cell.untimeable
        sampled = cell.base_name == BASELINE or cell.schedule.call_seconds <= self._plan.budget_seconds
        return timed and cell.schedule.slow and sampled

    def _spared(self, cell: Cell, scenario: Question) -> bool:
        """True if a slow cell is not asked: its samples stand for the question, or it is the baseline.

        The baseline is PyTorch's own operator. All others would wait for its slow calls, so its first results and its
        samples are judged alone.
        """
        return scenario in AS_IN_SAMPLES or cell.base_name == BASELINE

    def _asked(self, cell: Cell, scenario: Question) -> bool:
        self._stage(f"check {cell.name}")
        with cell.gating(self._spent):
            return self._checker.ask(cell, scenario)

    def time(self, blocks: Blocks) -> None:
        """Time the cells, then measure the memory of a call, in calls that are not timed.

        Args:
            blocks: The group's blocks until now; this cohort's are added.
        """
        if not self._plan.timing or self._case.empty:
            return
        timeable = [cell for cell in self._cells if not cell.untimeable]
        Sampling(self._context, self._case, self._device, timeable, self._checker, self._loader, blocks).run()
        for cell in [cell for cell in timeable if cell.going and cell.timings.peak_memory_bytes is None]:
            self._stage(f"memory of {cell.name}")
            with self._spent(Stage.MEMORY):
                peak = cell.request(MeasureMemory(), self._plan.time_limit_seconds)
            if peak is not None:
                cell.timings.keep_memory(peak.peak_bytes, self._case.result_bytes)

    def check_again(self) -> None:
        """Judge results for inputs that no call has seen before; those of a slow baseline's samples are enough."""
        last = self._draw_variation()
        asked = [cell for cell in self._going() if not (self._slow(cell) and cell.base_name == BASELINE)]
        for cell in asked:
            cell.phase = "recheck"
            self._stage(f"check {cell.name} again")
            with cell.gating(self._spent):
                self._call_on_unseen(cell, last)
        asked = [cell for cell in asked if cell.going]
        if asked:
            self._checker.expect(self._checker.unseen, last)
        for cell in asked:
            with cell.gating(self._spent):
                self._checker.judge_check(cell, last)
            self._checker.conclude(cell)

    def _call_on_unseen(self, cell: Cell, last: int) -> None:
        """Call on new inputs, those numbered ``last`` at the end; a refusal is noted only at the last attempt.

        nn.Bilinear is not refused: it remembers nothing, so the machine made it slower.
        """
        # The first call counts, too: a backend may be slow in its samples to be asked less.
        prepared, seconds = cell.replies.prepared, cell.timings.seconds.values()
        seen = statistics.median(seconds) if seconds else stopping.SLOW_SECONDS
        if prepared is not None:
            seen = min(seen, prepared.first_call_seconds)
        for attempt in range(1, FRESH_ATTEMPTS + 1):
            variations = [self._draw_variation() for _ in range(_pairs(seen))]
            verdict = self._checker.check_again(cell, [*variations, last], settle=seen < LONG_SECONDS)
            if verdict is None or verdict.ok or cell.base_name == BASELINE:
                return
            if attempt == FRESH_ATTEMPTS:
                cell.note(verdict, promise=promises.UNSEEN)

    def _draw_variation(self) -> int:
        """Return the number of an input set that no backend can foresee."""
        return self._context.secret.randrange(roofline.INPUT_SETS, 2**31)

    def time_by_device(self, process: int) -> None:
        """Measure by the device's own clock; last of all, since a failed capture may leave a process unusable.

        Args:
            process: Number of the present processes in the group.
        """
        with self._spent(Stage.GPU_TIMES):
            gpu_times.measure(self._context, self._case, self._device, self._going(), process)

    def release(self) -> None:
        """Let the case go; end workers that misbehaved or failed, or that keep memory."""
        workers = self._context.workers
        for cell in self._cells:
            if cell.gate.misbehaved or cell.status is Status.FAILED:
                # It may have changed its process, or left it unusable. The next case gets a new one.
                workers.discard(cell.name, self._device)
            elif cell.worker is not None and cell.worker.alive:
                try:
                    # Not through the cell: an error now is no longer the measured cell's.
                    released = cell.worker.request(Release(), self._plan.time_limit_seconds)
                except WorkerError:
                    workers.discard(cell.name, self._device)
                    continue
                if not released.trimmed and cell.predicted_bytes > KEPT_BYTES:
                    workers.discard(cell.name, self._device)


def _pairs(call_seconds: float) -> int:
    """Return the number of pairs of calls for a call of that time, in seconds; 0 for a slow one."""
    if call_seconds >= stopping.SLOW_SECONDS:
        return 0
    if call_seconds >= LONG_SECONDS:
        return 1
    fewest, most = FRESH_PAIRS
    # An even number: each of the two comes first as often as the other.
    return min(most, max(fewest, 2 * int(FRESH_SECONDS / call_seconds / 2)))

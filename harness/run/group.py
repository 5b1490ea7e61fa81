"""A panel: backends that are prepared together, judged together and timed in the same blocks.

The gate comes before the clock, looks at results of timed calls, and comes again after; a backend that fails anywhere
leaves the panel, and the others go on.
"""

from __future__ import annotations

import statistics
from typing import Final

from harness.case import Case
from harness.correctness import gate
from harness.machine import threads
from harness.process.handle import WorkerError
from harness.process.protocol import MeasureMemory, Release, encode
from harness.record import Status
from harness.run import gpu_times, sampling
from harness.run.cell import Cell
from harness.run.checker import SCENARIOS, Checker, ReferenceCache, ReferenceUnavailable
from harness.run.context import RunContext
from harness.run.edge_case_pool import EdgeCasePool
from harness.run.loader import Loader
from harness.run.plan import BASELINE
from harness.timing import roofline

#: Calls whose memory is measured; of those that take longer than this, in seconds, one.
MEMORY_CALLS, MEMORY_SECONDS = 3, 0.020
#: Pairs of single calls after the blocks, one on inputs of its own and one on inputs seen before; at least, at most.
FRESH_PAIRS: Final = (4, 24)
#: As many calls on inputs of their own as this time allows, in seconds.
FRESH_SECONDS: Final = 0.010
#: A call that takes longer, in seconds, is its own average, and a cache that has to be filled again hardly shows in it:
#: so many pairs do, with no call before.
LONG_SECONDS, LONG_PAIRS = 0.020, 2
#: Who seems to remember answers is asked so often before that is believed: a busy machine can make it seem so.
#: With one busy process beside it on two CPUs nn.Bilinear seemed so in 17 of 120 attempts (medians of 6 or 12 pairs).
FRESH_ATTEMPTS: Final = 6
#: What a framework that gives no memory of a GPU back may keep of it until the next case, in bytes.
KEPT_BYTES: Final = 2**30


class Cohort:
    """One case on one device, and the cells that hold it at the same time.

    Args:
        context: What the run shares.
        case: The case.
        device: Where.
        cells: Loaded and asked; the baseline first, if it is among them.
        edge_case_pool: Know what the structure probe says of each backend.
        reference_cache: The reference's answers.
        loader: Starts fresh processes.
    """

    def __init__(
        self,
        context: RunContext,
        case: Case,
        device: str,
        cells: list[Cell],
        edge_case_pool: EdgeCasePool,
        reference_cache: ReferenceCache,
        loader: Loader,
    ) -> None:
        self._context = context
        self._plan = context.plan
        self._case = case
        self._device = device
        self._entrants = cells
        self._edge_case_pool = edge_case_pool
        self._reference_cache = reference_cache
        self._loader = loader
        self._checker = Checker(case, device, reference_cache, context.plan.time_limit_seconds)

    def measure(self, begun: float, processes: dict[int, int]) -> None:
        """Gate, time, gate again, let go.

        Args:
            begun: When the group began, by the context's clock.
            processes: For each block of the group so far, its process; this panel's are added.
        """
        try:
            self._gate_first()
            if self._plan.timing and not self._case.empty:
                sampling.Sampling(
                    self._context,
                    self._case,
                    self._device,
                    [cell for cell in self._entrants if not cell.untimeable],
                    self._checker,
                    self._expect,
                    self._loader,
                    begun,
                    processes,
                ).run()
                self._measure_memory()
            self._gate_again()
            if processes and self._device != "cpu" and not self._plan.flush_l2:
                # Last of all: a call that cannot be captured may leave its process in pieces.
                gpu_times.measure(self._context, self._case, self._device, self._going(), max(processes.values()))
        except ReferenceUnavailable as error:
            for cell in self._going():
                cell.end(error.status, error.reason)
        for cell in self._entrants:
            if cell.misbehaved or cell.status is Status.FAILED:
                # It may have changed its process, or left it in pieces. The next case gets a new one.
                self._context.workers.discard(cell.name, self._device)
            elif cell.worker is not None and cell.worker.alive:
                # Not cell.ask: what goes wrong now is no longer the measured cell's.
                try:
                    released = cell.worker.request(Release(), self._plan.time_limit_seconds)
                except WorkerError:
                    self._context.workers.discard(cell.name, self._device)
                    continue
                if not released.trimmed and cell.predicted_bytes > KEPT_BYTES:
                    self._context.workers.discard(cell.name, self._device)

    def _going(self) -> list[Cell]:
        return [cell for cell in self._entrants if cell.going]

    def _gate_first(self) -> None:
        """Prepare every cell, then ask all the gate asks; all of them run before the right answer exists."""
        for cell in self._going():
            cell.phase = "prepare"
            self._context.progress.stage(f"prepare {cell.name}, and compile what no cache has")
            with cell.gating(self._context.now):
                said = self._checker.prepare(cell, roofline.INPUT_SETS)
            if said is None:
                continue
            # Preparing and the first call have columns of their own.
            cell.gate_seconds -= said.prepare_seconds + said.first_call_seconds
            cell.columns |= {
                "prepare_seconds": said.prepare_seconds,
                "first_call_seconds": said.first_call_seconds,
                "tuning": said.tuning or None,
                "compile_cache": self._loader.compile_cache(cell.name, self._device),
            }
            cell.said["threads"] = encode(said.threads)
            cell.flag(threads.fault(said.threads, self._plan.threads))
            cell.phase = "gate"
            cell.conclude()
        self._context.progress.stage("examine all")
        self._edge_case_pool.answer(self._going(), self._case, self._device)
        self._judge_first()
        for what in SCENARIOS:
            done: list[Cell] = []
            for cell in self._going():
                self._context.progress.stage(f"gate {cell.name}")
                with cell.gating(self._context.now):
                    if self._checker.scenario(cell, what):
                        done.append(cell)
            kind, variation = self._checker.question(what)
            self._expect(kind, variation)
            for cell in done:
                with cell.gating(self._context.now):
                    self._checker.judge_scenario(cell, what)
            if kind != "normal":
                self._reference_cache.forget(self._case, kind)
            for cell in self._going():
                cell.conclude()
        for cell in self._going():
            with cell.gating(self._context.now):
                self._checker.finish_scenarios(cell)
            cell.conclude()

    def _judge_first(self) -> None:
        """Judge the first results, and how far their output is from the baseline's."""
        self._expect("normal", 0)
        baseline_output = None
        for cell in self._going():
            self._context.progress.stage(f"gate {cell.name}")
            with cell.gating(self._context.now):
                actual = self._checker.judge_first(cell)
            if actual is None:
                continue
            if cell.name == BASELINE:
                baseline_output = actual["output"]
            elif baseline_output is not None:
                difference = gate.mean_absolute_difference(actual["output"], baseline_output)
                cell.columns["mean_absolute_error"] = difference

    def _expect(self, kind: str, variation: int) -> None:
        """Have the reference answer now, so that its time is nobody's."""
        if not self._going():
            return
        self._context.progress.stage("reference")
        self._reference_cache.of(self._case, kind, variation)

    def _gate_again(self) -> None:
        """Judge results for inputs that no call has seen before."""
        last = self._draw_variation()
        for cell in self._going():
            cell.phase = "recheck"
            self._context.progress.stage(f"check {cell.name} again")
            with cell.gating(self._context.now):
                self._check_again(cell, last)
        self._expect(self._checker.renewed, last)
        for cell in self._going():
            with cell.gating(self._context.now):
                self._checker.judge_check(cell, last)
            cell.conclude()

    def _check_again(self, cell: Cell, last: int) -> None:
        """Call on inputs that are new to it, ``last`` at the end; who seems to remember answers is asked again."""
        pairs = 0
        seen = statistics.median(cell.seconds.values()) if cell.seconds else sampling.SLOW_SECONDS
        if seen < sampling.SLOW_SECONDS:
            fewest, most = FRESH_PAIRS
            # An even number: each of the two comes first as often as the other.
            pairs = min(most, max(fewest, 2 * int(FRESH_SECONDS / seen / 2))) if seen < LONG_SECONDS else LONG_PAIRS
        for attempt in range(1, FRESH_ATTEMPTS + 1):
            variations = [self._draw_variation() for _ in range(pairs)]
            verdict = self._checker.check_again(cell, [*variations, last], settle=seen < LONG_SECONDS)
            if verdict is None or verdict.ok:
                return
            if attempt == FRESH_ATTEMPTS:
                cell.note(verdict)

    def _draw_variation(self) -> int:
        """Number input sets that nobody can foresee."""
        return self._context.secret.randrange(roofline.INPUT_SETS, 2**31)

    def _measure_memory(self) -> None:
        """Measure what a call takes at its peak, in calls that are not timed."""
        for cell in [cell for cell in self._going() if not cell.untimeable]:
            self._context.progress.stage(f"memory of {cell.name}")
            calls = 1 if cell.call_seconds > MEMORY_SECONDS else MEMORY_CALLS
            said = cell.ask(MeasureMemory(calls), self._plan.time_limit_seconds)
            if said is not None and said.peak_bytes is not None:
                # What it returns is its job, and is no workspace.
                cell.columns["peak_memory_bytes"] = max(0, said.peak_bytes - self._case.result_bytes)

"""Measure one cohort: blocks in fresh processes, until intervals are narrow enough or the budget is used.

A block is one sample of every backend, in an order that is drawn. Each of several fresh processes takes a few blocks,
because the places of its memory are fixed while it lives. Their number follows from the noise within and between
processes (``timing.variance``). ``timing.stopping`` decides what comes next; this module does it.

Length: the steps of a cohort share its blocks, processes and times.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping

from harness.case import Case
from harness.correctness import budget, clocks
from harness.correctness.questions import FIRST, IN_SAMPLE
from harness.process.handle import WorkerError
from harness.record import SLOWER_THAN, Status
from harness.run.cell import Cell
from harness.run.checker import Checker
from harness.run.context import Loader, RunContext
from harness.run.plan import BASELINE
from harness.run.readings import SPOT_PEAK_SECONDS
from harness.run.sample import WARM_UP_SECONDS, Judged, Place, Sampler, long_seconds
from harness.run.time_spent import Stage
from harness.timing import roofline, stopping
from harness.timing.deciding import Measured, Rule
from harness.timing.stopping import State


@dataclasses.dataclass
class Blocks:
    """The blocks of a group; each cohort continues where the one before ended.

    Attributes:
        begun: Time of the group's beginning, by the run's clock, in seconds.
        processes: Number of the process, by block.
    """

    begun: float
    processes: dict[int, int] = dataclasses.field(default_factory=dict)


class Sampling:
    """Times the cells of a cohort.

    Args:
        context: Plan, workers and sources of the run.
        case: The case.
        device: Device of the cells.
        cells: Cells that passed the gate; the baseline first, if it is among them.
        checker: Checker, which judges fresh processes, and results from inside the samples.
        loader: Loader, which starts fresh processes.
        blocks: Blocks of the group until now; this cohort's are added.
    """

    def __init__(
        self,
        context: RunContext,
        case: Case,
        device: str,
        cells: list[Cell],
        checker: Checker,
        loader: Loader,
        blocks: Blocks,
    ) -> None:
        self._context = context
        self._plan = context.plan
        self._case = case
        self._device = device
        self._cells = cells
        self._checker = checker
        self._loader = loader
        self._sampler = Sampler(context, case, device)
        self._begun, self._processes = blocks.begun, blocks.processes
        self._block = len(self._processes)
        self._process = self._first_process = max(self._processes.values(), default=-1) + 1
        self._rule = Rule(self._plan.target, self._plan.band, self._plan.processes)
        #: Blocks of the present process until now.
        self._taken = 0
        self._start = self._stopped_before = 0.0
        #: Time that is not in the budget, in seconds: of judging, and of a slow baseline, which no backend waits for.
        self._uncounted_seconds = 0.0
        self._block_seconds: list[float] = []
        self._process_seconds: list[float] = []

    def run(self) -> None:
        """Warm up, then take blocks; an error ends its cell."""
        if self._device == "cpu":
            # The first spot peak starts a process and compiles.
            with self._context.spent(Stage.SPOT_PEAK):
                self._context.spot_peak(roofline.arithmetic_of(self._case), SPOT_PEAK_SECONDS[0])
        self._start = self._context.now()
        self._stopped_before = sum(cell.timings.stopped_seconds for cell in self._cells)
        for cell in self._going():
            cell.phase = "timing"
        self._warm_up_all(self._going())
        while joining := self._open():
            if self._over(joining):
                self._stop("budget")
                break
            self._take_block(joining)
            if not self._go_on():
                break
        for cell in self._going():
            self._judge_clock(cell)
            self._judge_long(cell)
            if not cell.going:
                continue
            cell.note(budget.judge_cpu_seconds(*cell.timings.cpu_and_wall_seconds, self._plan.threads))
            cell.conclude()

    def _judge_clock(self, cell: Cell) -> None:
        """Refuse a clock that says too little; with fewer than ``CLOCK_BLOCKS`` blocks take further ones first."""
        timings, unseen = cell.timings, cell.timings.unseen_seconds
        others = [other.timings.unseen_seconds for other in self._cells if other is not cell]
        for _ in range(clocks.CLOCK_BLOCKS):
            verdict = clocks.judge_clock(unseen, timings.measured_seconds, timings.waited_seconds, others)
            if verdict.ok or cell.base_name == BASELINE or not cell.going:
                return  # nn.Bilinear falsifies no time: what is missing there is what the machine took
            if len(unseen) >= clocks.CLOCK_BLOCKS:
                return cell.note(verdict)
            self._take_block([cell])

    def _judge_long(self, cell: Cell) -> None:
        """Refuse a clock that says less than the run's own clock in each of ``LONG_SAMPLES`` long samples."""
        timings = cell.timings
        usual = [other.timings.unseen_seconds for other in self._cells if other is not cell]
        for _ in range(clocks.LONG_SAMPLES):
            verdicts = [clocks.judge_long_sample(*long, timings.unseen_seconds, usual) for long in timings.long_samples]
            if not verdicts or any(verdict.ok for verdict in verdicts) or cell.base_name == BASELINE or not cell.going:
                return
            if len(verdicts) >= clocks.LONG_SAMPLES:
                return cell.note(verdicts[-1])
            cell.schedule.long_block = self._block
            self._take_block([cell])

    def _going(self) -> list[Cell]:
        return [cell for cell in self._cells if cell.going]

    def _open(self) -> list[Cell]:
        """Return the cells that still join, and so can become more precise."""
        return [cell for cell in self._going() if len(cell.timings.seconds) < cell.schedule.joins]

    def _shuffled(self, cells: list[Cell]) -> list[Cell]:
        return self._context.order.sample(cells, len(cells))

    def _left(self) -> float:
        """Return what is left of the budget, in seconds; the time in which the run was stopped is not in it."""
        stopped = sum(cell.timings.stopped_seconds for cell in self._cells) - self._stopped_before
        return self._plan.budget_seconds - (self._context.now() - self._start - self._uncounted_seconds - stopped)

    def _over(self, joining: list[Cell]) -> bool:
        """True if the budget has no room for another block of these cells."""
        fewest = min(len(cell.timings.seconds) for cell in joining)
        counted = [cell for cell in joining if not _is_slow_baseline(cell)]
        predicted = sum(cell.schedule.call_seconds * cell.schedule.base_calls for cell in counted)
        first = self._process == self._first_process
        return stopping.budget_is_over(fewest, first, self._left(), self._plan.budget_seconds, predicted)

    def _stop(self, why: str) -> None:
        """Set the reason why the cells that still join stop; for a cell that is precise enough it is the target."""
        for cell in self._open():
            cell.schedule.stopped_by = "target" if cell.schedule.seconds_to_target is not None else why

    def _go_on(self) -> bool:
        """Follow the rule, and return True if more is to be measured.

        A cell that leaves, or is precise enough, stops; its time goes to the rest. The baseline joins until the end.
        """
        had = self._process - self._first_process + 1
        compared = self._compared()
        block_seconds = statistics.median(self._block_seconds)
        state = State(had, self._plan.processes, self._left(), block_seconds, self._predicted_process())
        due = self._rule.after_block(self._measured(compared), state)
        for name, cell in compared.items():
            schedule, taken = cell.schedule, len(cell.timings.seconds)
            if name in due.left:
                schedule.joins, schedule.stopped_by = taken, f"{SLOWER_THAN}{due.left[name]}"
            elif due.precise is not None:
                since = self._context.now() - self._begun
                schedule.seconds_to_target = (schedule.seconds_to_target or since) if name in due.precise else None
                if name in due.precise and not stopping.piloting(had, self._plan.processes):
                    schedule.joins, schedule.stopped_by = taken, "target"
        if due.next.action == "stop":
            self._stop(due.next.why)
        elif due.next.action == "process":
            self._begin_process()
        return due.next.action != "stop"

    def _compared(self) -> dict[str, Cell]:
        """Return the cells that still join and are compared; the baseline only where no other cell is going."""
        rivals = any(cell.name != BASELINE for cell in self._going())
        return {cell.name: cell for cell in self._open() if cell.name != BASELINE or not rivals}

    def _measured(self, compared: Mapping[str, Cell]) -> Measured:
        """Return what the rule reads; the baseline's times count while it joins and is not the only backend."""
        baseline = next((cell for cell in self._open() if cell.name == BASELINE and BASELINE not in compared), None)
        return Measured(
            seconds={name: cell.timings.seconds for name, cell in compared.items()},
            baseline=baseline.timings.seconds if baseline else None,
            rival=baseline.name if baseline else None,
            classes={cell.name: cell.gate.precision_class for cell in self._going()},
            processes=self._processes,
            taken=self._taken,
        )

    def _predicted_process(self) -> float:
        """Return the time of a fresh process of every cell until its first block, in seconds."""
        if self._process_seconds:
            return statistics.median(self._process_seconds)
        seconds = 0.0
        for cell in self._open():
            loaded, prepared = cell.replies.loaded, cell.replies.prepared
            seconds += WARM_UP_SECONDS + (loaded.import_seconds if loaded else 0.0)
            seconds += prepared.prepare_seconds + prepared.first_call_seconds if prepared else 0.0
        return seconds

    def _begin_process(self) -> None:
        """Give every cell that still joins a fresh process, and judge its first results."""
        start, uncounted = self._context.now(), self._uncounted_seconds
        renewed = self._open()
        self._context.progress.stage("start every backend again")
        fresh = self._loader.renew([cell.name for cell in renewed], self._device)
        for cell, loaded in zip(renewed, fresh, strict=True):
            if isinstance(loaded.reply, WorkerError):
                cell.end(loaded.reply.status, f"in a fresh process: {loaded.reply.reason}")
            elif not loaded.reply.available:
                cell.end(Status.FAILED, f"in a fresh process: {loaded.reply.reason}")
            else:
                cell.worker, cell.replies.latest = loaded.worker, loaded.reply
                self._prepare_again(cell)
        self._process += 1
        self._taken = 0
        self._warm_up_all([cell for cell in renewed if cell.going])
        judged = self._uncounted_seconds - uncounted
        self._process_seconds.append(self._context.now() - start - judged)

    def _prepare_again(self, cell: Cell) -> None:
        if self._checker.prepare(cell) is None:
            return
        judging = self._context.now()
        self._checker.expect(FIRST)
        with cell.gating(self._context.spent):
            self._checker.judge_first(cell)
        cell.conclude()
        self._uncounted_seconds += self._context.now() - judging

    def _warm_up_all(self, cells: list[Cell]) -> None:
        first = self._process == self._first_process
        for cell in self._shuffled(cells):
            self._sampler.warm_up(cell, self._process, first)
            schedule, secret = cell.schedule, self._context.secret
            schedule.kept_blocks = stopping.draw_kept_blocks(secret, schedule.joins, first)
            if first and self._device == "cpu" and not schedule.slow:
                schedule.long_block = self._block + secret.randrange(stopping.LEAST_BLOCKS)

    def _take_block(self, joining: list[Cell]) -> None:
        """Take a sample of every cell, and judge some of the results."""
        start = self._context.now()
        self._context.progress.stage(f"time every backend, round {self._block + 1}")
        self._processes[self._block] = self._process
        judged: list[tuple[Cell, Judged]] = []
        apart = 0.0
        for position, cell in enumerate(self._shuffled(joining)):
            begun = self._context.now()
            place = Place(self._process, self._block, position)
            keep = self._taken in cell.schedule.kept_blocks
            long = long_seconds(cell) if self._block == cell.schedule.long_block else 0.0
            taken = self._sampler.take(cell, place, keep, long)
            if taken is not None:
                judged.append((cell, taken))
            apart += self._context.now() - begun if _is_slow_baseline(cell) else 0.0
        judging = self._context.now()
        self._uncounted_seconds += apart
        self._block_seconds.append(judging - start - apart)
        for variation in range(roofline.INPUT_SETS if judged else 0):
            self._checker.expect(IN_SAMPLE, variation)
        for cell, taken in judged:
            with cell.gating(self._context.spent, Stage.JUDGE):
                self._checker.judge_kept(cell, taken)
            cell.conclude()
        self._uncounted_seconds += self._context.now() - judging
        self._block += 1
        self._taken += 1


def _is_slow_baseline(cell: Cell) -> bool:
    """True if the cell is the baseline, and joins only some blocks because its calls are long."""
    return cell.name == BASELINE and cell.schedule.slow

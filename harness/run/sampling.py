"""The measurement of one panel: blocks in fresh processes, until the intervals are narrow enough or the budget is used.

A block is one sample of every backend, in an order that is drawn. A few blocks are taken in each of several fresh
processes, since a process keeps what it was born with; how many blocks follows from how the noise splits
(``timing.levels``). Measuring stops on the width of the intervals or on the
budget, never on what they say: to stop as soon as a difference is significant would find one in every pair.
"""

from __future__ import annotations

import dataclasses
import os
import statistics
import sys
from collections.abc import Callable
from typing import Any, Final

from harness.case import Case
from harness.correctness import conduct
from harness.machine import activity, gpu, threads
from harness.process.handle import WorkerError
from harness.process.protocol import MoveArrays, ReadGpu, SteadyGpuClock, TakeSample, WarmUp, encode
from harness.record import Flag, Status
from harness.run.cell import Cell
from harness.run.checker import Checker
from harness.run.context import RunContext
from harness.run.loader import Loader
from harness.run.plan import BASELINE
from harness.timing import clock, estimates, roofline, variance

#: Blocks that are taken even if the budget is over.
LEAST_BLOCKS: Final = 3
#: Blocks between two looks at the intervals, once a process has had its share; a tenth of those taken, if more.
LOOK_BLOCKS: Final = 5
#: Backends whose call takes longer, in seconds, join the first few blocks only; how many that is at most, and at least
#: for the baseline.
SLOW_SECONDS: Final = 0.250
SLOW_BLOCKS: Final = 5
#: Warmup of every backend alike, in seconds of calls (at least one call).
WARM_UP_SECONDS: Final = 0.2
#: In each of these ranges of a process's blocks one is drawn whose results are judged; in the very first process, two
#: of its first few besides.
KEPT_RANGES: Final = ((3, 10), (10, 20), (20, 40), (40, 80), (80, 160), (160, 320), (320, 640))
#: Calls of such a block whose results are kept, at most, and bytes that they may take.
KEPT_CALLS, KEPT_BYTES = 4, 64 * 2**20
#: A loop that costs more than this share of a call is worth a flag.
OVERHEAD_SHARE: Final = 0.05
#: Arrays of a case of up to so many bytes lie at new places for every sample: for larger ones it matters less, and
#: takes longer.
PLACED_BYTES: Final = 8 * 2**20
#: A kernel that is made and first called in so many seconds is made anew, too, if the inputs, which must not exist
#: meanwhile, are soon drawn again.
KERNEL_SECONDS, KERNEL_BYTES = 0.020, 2**20
#: The spot_peak before a sample is measured for this share of the time that the sample will take, within these bounds, in
#: seconds: noise of a few milliseconds is another one right before a call of a second than over it.
SPOT_PEAK_SHARE: Final = 0.25
SPOT_PEAK_SECONDS: Final = (0.004, 0.2)
#: What emptying the caches takes at most, in seconds, for the time limit of a sample.
FLUSH_SECONDS: Final = 0.010
#: No limit to the blocks that a backend joins.
ALL_BLOCKS: Final = sys.maxsize


@dataclasses.dataclass(frozen=True, slots=True)
class _Look:
    """What a look at an cell's times says: how precise they are, what counts in that, and how the noise splits."""

    half_width: float | None
    counts_processes: bool = False
    units: int = estimates.LEAST_VALUES
    split: variance.Split | None = None


class Sampling:
    """Times the cells of a panel.

    Args:
        context: What the run shares.
        case: The case.
        device: Where.
        cells: Prepared and judged; the baseline first, if it is among them.
        checker: Judges fresh processes, and results from inside the samples.
        expect: Has the reference answer for a kind and a variation, so that its time is nobody's.
        loader: Starts fresh processes.
        begun: When the group began, by the context's clock.
        processes: For each block of the group so far, its process; goes on here.
    """

    def __init__(
        self,
        context: RunContext,
        case: Case,
        device: str,
        cells: list[Cell],
        checker: Checker,
        expect: Callable[[str, int], None],
        loader: Loader,
        begun: float,
        processes: dict[int, int],
    ) -> None:
        self._context = context
        self._plan = context.plan
        self._case = case
        self._device = device
        self._entrants = cells
        self._checker = checker
        self._expect = expect
        self._loader = loader
        self._begun = begun
        self._processes = processes
        self._block = len(processes)
        self._process = max(processes.values(), default=-1) + 1
        self._first_process = self._process
        #: Blocks of this process so far, how many it shall have before the next one, and when to look at it.
        self._taken, self._share = 0, variance.FEWEST_BLOCKS
        self._look_at = self._share
        self._start = 0.0
        self._aside = 0.0  # time that was spent on judging
        self._block_seconds: list[float] = []
        self._process_seconds: list[float] = []

    def run(self) -> None:
        """Warm up, then take blocks; whatever ends a cell is noted in its cell."""
        self._spot_peak()  # the first time it takes a process and a compiler
        self._start = self._context.now()
        for cell in self._shuffled(self._going()):
            cell.phase = "timing"
            self._warm_up(cell)
            cell.kept_blocks = self._draw_blocks(cell.joins)
        while joining := self._open():
            if self._over(joining):
                self._stop("budget")
                break
            self._take_block(joining)
            if self._taken >= self._look_at:
                self._look_at = self._taken + max(LOOK_BLOCKS, self._taken // 10)
                if not self._go_on():
                    break
        for cell in self._going():
            others = [other.unseen_seconds for other in self._entrants if other is not cell]
            cell.note(conduct.judge_clock(cell.unseen_seconds, cell.measured_seconds, others))
            cell.conclude()

    def _going(self) -> list[Cell]:
        return [cell for cell in self._entrants if cell.going]

    def _spot_peak(self, sample_seconds: float = 0.0) -> float | None:
        """What the CPUs multiply before such a sample in the case's arithmetic, in flop per second; None if unknown."""
        if self._device != "cpu":
            return None
        least, most = SPOT_PEAK_SECONDS
        return self._context.spot_peak(
            roofline.arithmetic_of(self._case), min(max(least, sample_seconds * SPOT_PEAK_SHARE), most)
        )

    def _shuffled(self, cells: list[Cell]) -> list[Cell]:
        return self._context.order.sample(cells, len(cells))

    def _left(self) -> float:
        """What is left of the budget, in seconds; judging is not in it."""
        return self._plan.budget_seconds - (self._context.now() - self._start - self._aside)

    def _over(self, joining: list[Cell]) -> bool:
        """Whether the budget has no room for another block of these.

        Slow ones, the baseline among them perhaps, may have used it up while the others have not enough blocks for an
        interval that a few outliers cannot move; so these may take as much again.
        """
        fewest = min(self._count(cell) for cell in joining)
        more = (
            self._plan.budget_seconds
            if fewest < estimates.LEAST_VALUES and self._process == self._first_process
            else 0.0
        )
        return fewest >= LEAST_BLOCKS and self._left() + more < self._predicted_block(joining)

    def _predicted_block(self, joining: list[Cell]) -> float:
        return sum(cell.call_seconds * cell.base_calls for cell in joining)

    def _count(self, cell: Cell) -> int:
        return len(cell.seconds)

    def _stop(self, why: str) -> None:
        """Note why those that still join stop; one that was precise enough in the pilot is done all the same."""
        for cell in self._open():
            cell.stopped_by = "target" if cell.seconds_to_target is not None else why

    def _go_on(self) -> bool:
        """Look at the intervals; say whether more is to be measured, and start fresh processes if that is due.

        Who is known precisely enough leaves, so that the time goes to the others; the baseline stays until the end.
        """
        had = self._process - self._first_process + 1
        piloting = had < min(variance.PILOT, self._plan.processes)
        lacking = []
        for cell in self._compared():
            look = self._look(cell)
            # A few values can agree by chance, so they are no reason to stop, unless there cannot be more.
            enough = look.units >= min(estimates.LEAST_VALUES, self._plan.processes) or not look.counts_processes
            reached = enough and look.half_width is not None and look.half_width <= self._plan.target
            # Since when it has been narrow enough.
            since = cell.seconds_to_target or self._context.now() - self._begun
            cell.seconds_to_target = since if reached else None
            if not reached:
                lacking.append(look)
            elif not piloting:
                cell.joins, cell.stopped_by = self._count(cell), "target"
        if not lacking and not piloting:
            self._stop("target")
            return False
        block_seconds = statistics.median(self._block_seconds)
        # With fewer than the pilot's few there is no interval between processes: then better one alone.
        more = variance.PILOT - 1 if had == 1 else 1
        needed = more * (self._predicted_process() + variance.FEWEST_BLOCKS * block_seconds)
        if had < self._plan.processes and needed <= self._left():
            if not piloting:
                splits = [look.split for look in lacking if look.split is not None]
                shares = [
                    variance.blocks_per_process(split, self._predicted_process(), block_seconds) for split in splits
                ]
                self._share = min(shares, default=variance.MOST_BLOCKS)
            self._begin_process()
            return True
        if all(look.counts_processes for look in lacking):
            # More blocks of the same processes would say nothing new.
            self._stop("processes" if had == self._plan.processes else "budget")
            return False
        return True

    def _compared(self) -> list[Cell]:
        """Those that still join and are compared; the baseline only where there is nobody else."""
        rivals = any(cell.name != BASELINE for cell in self._going())
        return [cell for cell in self._open() if cell.name != BASELINE or not rivals]

    def _open(self) -> list[Cell]:
        """Those that still join, and so can become more precise."""
        return [cell for cell in self._going() if self._count(cell) < cell.joins]

    def _look(self, cell: Cell) -> _Look:
        """Look at the ratio to the baseline; where no baseline goes on joining, at the cell's own median."""
        baseline = next((other for other in self._open() if other.name == BASELINE), None)
        if baseline is None or cell is baseline:
            return _Look(estimates.relative_half_width(cell.seconds.values()))
        found = estimates.compare(cell.seconds, baseline.seconds, self._processes, self._plan.band)
        if found is None:
            return _Look(None)
        split = variance.Split(found.block_spread, found.process_spread)
        return _Look(found.half_width, found.unit == "process", found.units, split)

    def _predicted_process(self) -> float:
        """What a fresh process of everybody takes until its first block, in seconds."""
        if self._process_seconds:
            return statistics.median(self._process_seconds)
        costs = ("import_seconds", "prepare_seconds", "first_call_seconds")
        started = self._open()
        return sum(float(cell.columns.get(name, 0.0)) for cell in started for name in costs) + (
            WARM_UP_SECONDS * len(started)
        )

    def _begin_process(self) -> None:
        """Give everybody who goes on a fresh process, and judge what it returns first."""
        start, aside = self._context.now(), self._aside
        renewed = self._open()
        self._context.progress.stage(f"process {self._process - self._first_process + 2}")
        loaded = self._loader.renew([cell.name for cell in renewed], self._device)
        for cell, (worker, answer) in zip(renewed, loaded, strict=True):
            if isinstance(answer, WorkerError):
                cell.end(answer.status, f"in a fresh process: {answer.reason}")
            elif not answer.available:
                cell.end(Status.FAILED, f"in a fresh process: {answer.reason}")
            else:
                cell.worker, cell.loaded = worker, answer
                self._prepare_again(cell)
        self._process += 1
        self._taken, self._look_at = 0, self._share
        for cell in self._shuffled([cell for cell in renewed if cell.going]):
            self._warm_up(cell)
            cell.kept_blocks = self._draw_blocks(cell.joins)
        self._process_seconds.append(self._context.now() - start - (self._aside - aside))

    def _prepare_again(self, cell: Cell) -> None:
        if self._checker.prepare(cell, roofline.INPUT_SETS) is None:
            return
        judging = self._context.now()
        self._expect("normal", 0)
        with cell.gating(self._context.now):
            self._checker.judge_first(cell)
        cell.conclude()
        self._aside += self._context.now() - judging

    def _draw_blocks(self, joins: int) -> frozenset[int]:
        """Draw the blocks of this process whose results are judged; in the first one, two that are reached for sure."""
        sample = self._context.secret.sample
        first = self._process == self._first_process
        drawn = sample(range(min(LEAST_BLOCKS, joins)), min(2, joins)) if first else []
        ranges = KEPT_RANGES if first else ((0, KEPT_RANGES[0][1]), *KEPT_RANGES[1:])
        return frozenset([*drawn, *(sample(range(*bounds), 1)[0] for bounds in ranges)])

    def _draw_calls(self, calls: int) -> list[int]:
        """Draw the calls of a sample whose results are kept: of one input set, so that they can be compared."""
        alike = range(self._context.secret.randrange(min(calls, roofline.INPUT_SETS)), calls, roofline.INPUT_SETS)
        count = max(1, min(KEPT_CALLS, KEPT_BYTES // max(self._case.result_bytes, 1), len(alike)))
        return sorted(self._context.secret.sample(alike, count))

    def _warm_up(self, cell: Cell) -> None:
        """Run it in, learn how long a call takes, and from that how many make a sample."""
        self._context.progress.stage(f"warm up {cell.name}")
        said = cell.ask(WarmUp(WARM_UP_SECONDS, 1), self._plan.time_limit_seconds)
        if said is None or cell.loaded is None:
            return
        for stretch in said.stretches:
            self._keep(cell, "warmup", stretch.calls, stretch.seconds)
        latest = [stretch.seconds / stretch.calls for stretch in said.stretches[-3:]]
        cell.call_seconds = statistics.median(latest)
        try:
            cell.base_calls = clock.calls_per_sample(cell.call_seconds, cell.loaded.tick_seconds)
        except ValueError as error:
            cell.end(Status.FAILED, str(error))
            return
        cell.said["busy"] = encode(said.busy)
        cell.flag(threads.overload(said.busy, self._plan.threads))
        if self._process > self._first_process:
            return
        budget = self._plan.budget_seconds
        if cell.call_seconds > budget and cell.base_name != BASELINE:
            cell.end(Status.TOO_SLOW, f"one call takes {cell.call_seconds:.3g} s, the budget is {budget:g} s")
        cell.joins = ALL_BLOCKS
        if cell.call_seconds > SLOW_SECONDS:
            # A slow one may take a quarter of the budget, and one block at the least. All ratios hang on the baseline:
            # it gets a few in any case, and more than others if there is time.
            quarter = int(budget / 4 / cell.call_seconds)
            few = max(SLOW_BLOCKS, quarter) if cell.name == BASELINE else min(SLOW_BLOCKS, quarter)
            cell.joins = max(1, few)
        if cell.loaded.overhead_seconds > OVERHEAD_SHARE * cell.call_seconds:
            cell.flag(Flag.OVERHEAD)

    def _take_block(self, joining: list[Cell]) -> None:
        """Take a sample of everybody, and judge some of what came out."""
        start = self._context.now()
        self._context.progress.stage(f"process {self._process - self._first_process + 1}, block {self._taken + 1}")
        self._processes[self._block] = self._process
        kept: list[tuple[Cell, int]] = []
        for position, cell in enumerate(self._shuffled(joining)):
            keep = self._taken in cell.kept_blocks
            if (variation := self._sample(cell, position, keep)) is not None:
                kept.append((cell, variation))
        judging = self._context.now()
        self._block_seconds.append(judging - start)
        for cell, variation in kept:
            self._expect("normal", variation)
            with cell.gating(self._context.now):
                self._checker.judge_kept(cell, variation)
            cell.conclude()
        self._aside += self._context.now() - judging
        self._block += 1
        self._taken += 1

    def _sample(self, cell: Cell, position: int, keep: bool) -> int | None:
        """Take a sample; return the input set of the call whose results were kept, if they were to be."""
        # A number of calls that nobody can foresee; a little more than needed, never less.
        calls = cell.base_calls + self._context.secret.randrange(cell.base_calls // 4 + 1)
        kept = self._draw_calls(calls) if keep else []
        slow = cell.call_seconds > SLOW_SECONDS
        stepping = self._case.mode == "forward_backward"
        limit = self._plan.time_limit_seconds
        if (size := roofline.array_bytes(self._case)) <= PLACED_BYTES and not slow:
            cell.ask(MoveArrays(size <= KERNEL_BYTES and cell.kernel_seconds <= KERNEL_SECONDS), limit)
            if not cell.going:
                return None
        if self._device != "cpu":
            # A request of its own: it takes as long as it takes, and what passes around a sample is looked at.
            cell.ask(SteadyGpuClock(), limit)
            if not cell.going:
                return None
        flush = self._plan.flush_l2
        expected = calls * (cell.call_seconds + (FLUSH_SECONDS if flush else 0.0)) * (2 if stepping else 1)
        spot_peak = self._spot_peak(calls * cell.call_seconds)
        before = self._context.look()
        request = TakeSample(
            calls=calls,
            first=self._block,
            # Against a quarter of a second and more, 10 ms of coming back do not show; a whole call would cost.
            settle_seconds=(settle := 0.0 if slow else clock.SETTLE_SECONDS),
            forward=stepping,
            keep=tuple(kept),
            flush_l2=flush,
        )
        said = cell.ask(request, min(limit, 10 + 20 * expected))
        if said is None or cell.worker is None:
            return None
        after, passed_seconds = self._context.look(), cell.worker.elapsed_seconds
        seconds, forward = said.seconds, said.forward_seconds
        if not seconds > 0 or (stepping and not (forward or 0.0) > 0):
            cell.end(Status.FAILED, f"a sample of {calls} calls took {seconds} s: the clock cannot be right")
            return None
        measured = seconds + (forward or 0.0)
        cell.measured_seconds.append(measured)
        # Settling ends with a whole call, longer perhaps than what is left of its time, or than it was in warming up.
        settled = settle + max(cell.call_seconds, seconds / calls) if settle else 0.0
        if not flush:  # else what passes between the calls is most of it
            # What the hypervisor took from these CPUs the worker did not keep back; where within the request it did,
            # nobody says, so a lie of as much, and no larger one, goes unseen in such a block.
            stolen = (activity.stolen_seconds(before, after) or 0.0) * self._plan.threads / (os.cpu_count() or 1)
            cell.unseen_seconds.append(passed_seconds - measured - settled - stolen)
        self._correct(cell, seconds / calls)
        if spot_peak is not None:
            cell.spot_peaks[self._block] = spot_peak
        cell.calls.append(calls)
        cell.seconds[self._block] = seconds / calls
        switches = said.involuntary_switches
        of_gpu = None
        if self._device != "cpu":
            # After it, and in a request of its own: a driver may take as long as a sample to answer.
            told = cell.ask(ReadGpu(), limit)
            if told is None:
                return None
            of_gpu = told.state
        seen = self._disturbances(before, after, passed_seconds, cell, switches, of_gpu)
        seen["spot_peak_flop_per_second"] = spot_peak
        if seen["disturbance"]:
            cell.disturbed_blocks.add(self._block)
        self._keep(cell, "call", calls, seconds, self._block, position, **seen)
        if forward is not None:
            cell.forward_seconds[self._block] = forward / calls
            self._keep(cell, "forward", calls, forward, self._block, position, **seen)
        return (self._block + kept[0]) % roofline.INPUT_SETS if kept else None

    def _disturbances(
        self,
        before: activity.State,
        after: activity.State,
        seconds: float,
        cell: Cell,
        switches: int,
        of_gpu: gpu.State | None,
    ) -> dict[str, Any]:
        """What the machine did during an cell's sample of so many seconds, as columns of the sample."""
        self._context.best_clock_mhz = max(self._context.best_clock_mhz, after.clock_mhz or 0.0)
        best = self._context.best_clock_mhz or None
        # Threads of one backend may take the CPUs from each other all the time: that is its way, and no disturbance.
        cell.switch_rates.append(switches / seconds if seconds else 0.0)
        foreign = round(switches - statistics.median(cell.switch_rates) * seconds)
        found = [activity.disturbed(before, after, seconds, os.cpu_count() or 1, foreign, best)]
        columns: dict[str, Any] = {}
        if of_gpu is not None:
            columns = {f"gpu_{name}": value or None for name, value in dataclasses.asdict(of_gpu).items()}
            cell.best_gpu_clock_mhz = max(cell.best_gpu_clock_mhz, of_gpu.clock_mhz)
            found.append(gpu.disturbed(of_gpu, cell.best_gpu_clock_mhz))
        return columns | {
            "steal_seconds": activity.stolen_seconds(before, after),
            "involuntary_switches": switches,
            "others_running": after.running,
            "clock_mhz": after.clock_mhz,
            "disturbance": "+".join(word for word in found if word) or None,
        }

    def _correct(self, cell: Cell, call_seconds: float) -> None:
        """Plan anew for one that is far faster than it was when it was run in: it gets as many blocks as others."""
        if cell.loaded is not None and call_seconds < cell.call_seconds / 4:
            cell.call_seconds = call_seconds
            cell.base_calls = clock.calls_per_sample(call_seconds, cell.loaded.tick_seconds)
            cell.joins = ALL_BLOCKS if call_seconds <= SLOW_SECONDS else cell.joins

    def _keep(
        self,
        cell: Cell,
        kind: str,
        calls: int,
        seconds: float,
        block: int | None = None,
        position: int | None = None,
        **seen: Any,
    ) -> None:
        self._context.keep(
            self._case,
            self._device,
            backend=cell.name,
            kind=kind,
            process=self._process,
            block=block,
            position=position,
            calls=calls,
            seconds=seconds,
            **seen,
        )

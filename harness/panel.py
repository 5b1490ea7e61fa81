"""A panel: backends that are prepared together, judged together and timed in the same blocks.

The gate comes before the clock, looks at results of timed calls, and comes again after; a backend that fails anywhere
leaves the panel, and the others go on.
"""

from __future__ import annotations

import statistics as python_statistics
from typing import Final

from harness.case import Case
from harness.correctness import behaviour, gate
from harness.entrant import Entrant
from harness.examination import EXERCISES, Examination, Expectations, NoReference
from harness.examiners import Examiners
from harness.machine import threads
from harness.plan import BASELINE
from harness.process.supervisor import WorkerError
from harness.record import Sample, Status
from harness.sitting import Sitting
from harness.timing import clock, cost

#: Most blocks of a panel.
BLOCKS: Final = 30
#: Blocks that are taken even if the budget is over.
LEAST_BLOCKS: Final = 3
#: Backends whose call takes longer join the first few blocks only, in seconds.
SLOW_SECONDS: Final = 0.250
#: Warmup of every backend alike, in seconds of calls (at least one call).
WARM_UP_SECONDS: Final = 0.2
#: Blocks of each backend whose results are judged, of those that it takes part in; two are among the first few.
KEPT_BLOCKS: Final = 4
#: Calls of such a block whose results are kept, at most, and bytes that they may take.
KEPT_CALLS, KEPT_BYTES = 4, 64 * 2**20
#: Single calls on inputs of their own, after the blocks, at least and at most: do they take as long as others?
FRESH_CALLS: Final = (3, 24)
#: As many of them as this time allows, in seconds.
FRESH_SECONDS: Final = 0.010
#: Who seems to remember answers is asked so often before that is believed: a busy machine can make it seem so.
FRESH_ATTEMPTS: Final = 3
#: A loop that costs more than this share of a call is worth a flag.
OVERHEAD_SHARE: Final = 0.05


class Panel:
    """One case on one device, and the entrants that hold it at the same time.

    Args:
        sitting: What the run shares.
        case: The case.
        device: Where.
        entrants: Loaded and asked; the baseline first, if it is among them.
        examiners: Know what the structure probe says of each backend.
        expectations: The reference's answers.
    """

    def __init__(
        self,
        sitting: Sitting,
        case: Case,
        device: str,
        entrants: list[Entrant],
        examiners: Examiners,
        expectations: Expectations,
    ) -> None:
        self._sitting = sitting
        self._plan = sitting.plan
        self._case = case
        self._device = device
        self._entrants = entrants
        self._examiners = examiners
        self._expectations = expectations
        self._examination = Examination(case, device, expectations, sitting.plan.time_limit_seconds)
        self.stopped_by = "blocks"

    def measure(self, first_block: int) -> int:
        """Gate, time, gate again, let go; return the number of the next block."""
        block = first_block
        try:
            self._gate_first()
            if self._plan.timing and not self._case.empty:
                block = self._time(first_block)
            self._gate_again()
        except NoReference as error:
            for entrant in self._going():
                entrant.end(error.status, error.reason)
        for entrant in self._entrants:
            if entrant.misbehaved:
                # It may have changed its process; the next case gets a new one.
                self._sitting.workers.discard(entrant.name, self._device)
            elif entrant.worker is not None and entrant.worker.alive:
                # Not entrant.ask: what goes wrong now is no longer the measured cell's.
                try:
                    entrant.worker.request("release", self._plan.time_limit_seconds)
                except WorkerError:
                    self._sitting.workers.discard(entrant.name, self._device)
        return block

    def _going(self) -> list[Entrant]:
        return [entrant for entrant in self._entrants if entrant.going]

    def _gate_first(self) -> None:
        """Prepare every entrant, then ask all the gate asks; all of them run before the right answer exists."""
        for entrant in self._going():
            entrant.phase = "prepare"
            self._sitting.observer.stage(f"prepare {entrant.name}")
            with entrant.gating(self._sitting.now):
                said = self._examination.prepare(entrant, cost.INPUT_SETS)
            if said is None:
                continue
            # Preparing and the first call have columns of their own.
            entrant.gate_seconds -= said["prepare_seconds"] + said["first_call_seconds"]
            entrant.columns |= {
                "prepare_seconds": said["prepare_seconds"],
                "first_call_seconds": said["first_call_seconds"],
                # Only the first case that a worker prepares can be cold.
                "cold": entrant.loaded.pop("cold", False),
            }
            entrant.loaded["threads"] = said["threads"]
            if flag := threads.fault(said["threads"], self._plan.threads):
                entrant.flags.append(flag)
            entrant.phase = "gate"
            entrant.conclude()
        for entrant in self._going():
            self._sitting.observer.stage(f"examine {entrant.name}")
            self._examiners.answer(entrant, self._case, self._device)
        self._judge_first()
        for what in EXERCISES:
            done: list[Entrant] = []
            for entrant in self._going():
                self._sitting.observer.stage(f"gate {entrant.name}")
                with entrant.gating(self._sitting.now):
                    if self._examination.exercise(entrant, what):
                        done.append(entrant)
            kind, variation = self._examination.question(what)
            self._expect(kind, variation)
            for entrant in done:
                with entrant.gating(self._sitting.now):
                    self._examination.judge_exercise(entrant, what)
            if kind != "normal":
                self._expectations.forget(self._case, kind)
            for entrant in self._going():
                entrant.conclude()
        for entrant in self._going():
            with entrant.gating(self._sitting.now):
                self._examination.finish_exercises(entrant)
            entrant.conclude()

    def _judge_first(self) -> None:
        """Judge the first results, and how far their output is from the baseline's."""
        self._expect("normal", 0)
        baseline_output = None
        for entrant in self._going():
            self._sitting.observer.stage(f"gate {entrant.name}")
            with entrant.gating(self._sitting.now):
                actual = self._examination.judge_first(entrant)
            if actual is None:
                continue
            if entrant.name == BASELINE:
                baseline_output = actual["output"]
            elif baseline_output is not None:
                difference = gate.mean_absolute_difference(actual["output"], baseline_output)
                entrant.columns["mean_absolute_error"] = difference

    def _expect(self, kind: str, variation: int) -> None:
        """Have the reference answer now, so that its time is nobody's."""
        if not self._going():
            return
        self._sitting.observer.stage("reference")
        self._expectations.of(self._case, kind, variation)

    def _gate_again(self) -> None:
        """Judge results for inputs that no call has seen before."""
        last = self._draw_variation()
        for entrant in self._going():
            entrant.phase = "recheck"
            self._sitting.observer.stage(f"check {entrant.name} again")
            with entrant.gating(self._sitting.now):
                self._check_again(entrant, last)
        self._expect(self._examination.renewed, last)
        for entrant in self._going():
            with entrant.gating(self._sitting.now):
                self._examination.judge_check(entrant, last)
            entrant.conclude()

    def _check_again(self, entrant: Entrant, last: int) -> None:
        """Call on inputs that are new to it, ``last`` at the end; who seems to remember answers is asked again."""
        pairs = 0
        if entrant.seconds and (seen := python_statistics.median(entrant.seconds.values())) < SLOW_SECONDS:
            pairs = min(FRESH_CALLS[1], max(FRESH_CALLS[0], int(FRESH_SECONDS / seen)))
        for attempt in range(1, FRESH_ATTEMPTS + 1):
            variations = [self._draw_variation() for _ in range(pairs)]
            verdict = self._examination.check_again(entrant, [*variations, last])
            if verdict is None or verdict.ok:
                return
            if attempt == FRESH_ATTEMPTS:
                entrant.note(verdict)

    def _draw_variation(self) -> int:
        """Number input sets that nobody can foresee."""
        return self._sitting.secret.randrange(cost.INPUT_SETS, 2**31)

    def _time(self, block: int) -> int:
        """Warm up, then take blocks until all are done or the budget is; return the number of the next block."""
        now, observer = self._sitting.now, self._sitting.observer
        start = now()
        for entrant in self._shuffled(self._going()):
            entrant.phase = "timing"
            observer.stage(f"warm up {entrant.name}")
            self._warm_up(entrant)
            entrant.kept_blocks = self._draw_blocks(entrant.joins)
        aside = 0.0  # time that was spent on judging
        for number in range(BLOCKS):
            going = [entrant for entrant in self._going() if number < entrant.joins]
            if not going:
                break
            estimate = sum(entrant.call_seconds * entrant.base_calls for entrant in going)
            if number >= LEAST_BLOCKS and now() - start - aside + estimate > self._plan.budget_seconds:
                self.stopped_by = "budget"
                break
            observer.stage(f"block {number + 1} of {BLOCKS}")
            kept: list[tuple[Entrant, int]] = []
            for position, entrant in enumerate(self._shuffled(going)):
                keep = number in entrant.kept_blocks
                if (variation := self._sample(entrant, block, position, keep)) is not None:
                    kept.append((entrant, variation))
            judging = now()
            for entrant, variation in kept:
                self._judge_kept(entrant, variation)
            aside += now() - judging
            block += 1
        for entrant in self._going():
            entrant.note(behaviour.judge_clock(entrant.unseen_seconds, entrant.measured_seconds))
            entrant.conclude()
        return block

    def _draw_blocks(self, joins: int) -> frozenset[int]:
        """Draw the blocks whose results are judged: two that are reached in any case, the others from the rest."""
        sample = self._sitting.secret.sample
        sure = sample(range(min(LEAST_BLOCKS, joins)), min(2, joins))
        others = [block for block in range(joins) if block not in sure]
        return frozenset([*sure, *sample(others, min(KEPT_BLOCKS - 2, len(others)))])

    def _draw_calls(self, calls: int) -> list[int]:
        """Draw the calls of a sample whose results are kept: of one input set, so that they can be compared."""
        alike = range(self._sitting.secret.randrange(min(calls, cost.INPUT_SETS)), calls, cost.INPUT_SETS)
        count = max(1, min(KEPT_CALLS, KEPT_BYTES // max(self._case.result_bytes, 1), len(alike)))
        return sorted(self._sitting.secret.sample(alike, count))

    def _judge_kept(self, entrant: Entrant, variation: int) -> None:
        """Judge what came out of a timed sample."""
        self._expect("normal", variation)
        with entrant.gating(self._sitting.now):
            self._examination.judge_kept(entrant, variation)
        entrant.conclude()

    def _shuffled(self, entrants: list[Entrant]) -> list[Entrant]:
        return self._sitting.order.sample(entrants, len(entrants))

    def _warm_up(self, entrant: Entrant) -> None:
        """Run it in, learn how long a call takes, and from that how many make a sample."""
        said = entrant.ask("warm_up", self._plan.time_limit_seconds, seconds=WARM_UP_SECONDS, at_least=1)
        if said is None:
            return
        for calls, seconds in said["stretches"]:
            self._keep(entrant, "warmup", calls, seconds)
        latest = [seconds / calls for calls, seconds in said["stretches"][-3:]]
        entrant.call_seconds = python_statistics.median(latest)
        try:
            entrant.base_calls = clock.calls_per_sample(entrant.call_seconds, entrant.loaded["tick_seconds"])
        except ValueError as error:
            entrant.end(Status.FAILED, str(error))
            return
        budget = self._plan.budget_seconds
        if entrant.call_seconds > budget and entrant.name.partition("#")[0] != BASELINE:
            entrant.end(Status.TOO_SLOW, f"one call takes {entrant.call_seconds:.3g} s, the budget is {budget:g} s")
        entrant.joins = BLOCKS
        if entrant.call_seconds > SLOW_SECONDS:
            # A slow one may take a quarter of the budget, in three blocks at the most and one at the least.
            entrant.joins = max(1, min(LEAST_BLOCKS, int(budget / 4 / entrant.call_seconds)))
        if entrant.loaded["overhead_seconds"] > OVERHEAD_SHARE * entrant.call_seconds:
            entrant.flags.append("overhead")

    def _sample(self, entrant: Entrant, block: int, position: int, keep: bool) -> int | None:
        """Take a sample; return the input set of the call whose results were kept, if they were to be."""
        # A number of calls that nobody can foresee; a little more than needed, never less.
        calls = entrant.base_calls + self._sitting.secret.randrange(entrant.base_calls // 4 + 1)
        kept = self._draw_calls(calls) if keep else []
        slow = entrant.call_seconds > SLOW_SECONDS
        stepping = self._case.mode == "forward_backward"
        expected = calls * entrant.call_seconds * (2 if stepping else 1)
        said = entrant.ask(
            "sample",
            min(self._plan.time_limit_seconds, 10 + 20 * expected),
            calls=calls,
            first=block,
            # Against a quarter of a second and more, 10 ms of coming back do not show; a whole call would cost.
            settle_seconds=(settle := 0.0 if slow else clock.SETTLE_SECONDS),
            forward=stepping,
            keep=kept,
        )
        if said is None or entrant.worker is None:
            return None
        seconds, forward = said["seconds"], said["forward_seconds"]
        if not seconds > 0 or (stepping and not forward > 0):
            entrant.end(Status.FAILED, f"a sample of {calls} calls took {seconds} s: the clock cannot be right")
            return None
        measured = seconds + (forward or 0.0)
        entrant.measured_seconds.append(measured)
        # Settling ends with a whole call, longer perhaps than what is left of its time, or than it was in warming up.
        settled = settle + max(entrant.call_seconds, seconds / calls) if settle else 0.0
        entrant.unseen_seconds.append(entrant.worker.elapsed_seconds - measured - settled)
        self._correct(entrant, seconds / calls)
        entrant.calls.append(calls)
        entrant.seconds[block] = seconds / calls
        self._keep(entrant, "call", calls, seconds, block, position)
        if stepping:
            entrant.forward_seconds[block] = forward / calls
            self._keep(entrant, "forward", calls, forward, block, position)
        return (block + kept[0]) % cost.INPUT_SETS if kept else None

    def _correct(self, entrant: Entrant, call_seconds: float) -> None:
        """Plan anew for one that is far faster than it was when it was run in: it gets as many blocks as others."""
        if call_seconds < entrant.call_seconds / 4:
            entrant.call_seconds = call_seconds
            entrant.base_calls = clock.calls_per_sample(call_seconds, entrant.loaded["tick_seconds"])
            entrant.joins = BLOCKS if call_seconds <= SLOW_SECONDS else entrant.joins

    def _keep(
        self,
        entrant: Entrant,
        phase: str,
        calls: int,
        seconds: float,
        block: int | None = None,
        position: int | None = None,
    ) -> None:
        self._sitting.keep_sample(
            Sample(
                case=self._case.name,
                mode=self._case.mode,
                device=self._device,
                backend=entrant.name,
                phase=phase,
                block=block,
                position=position,
                calls=calls,
                seconds=seconds,
            )
        )

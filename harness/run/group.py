"""A panel: backends that are prepared together, judged together and timed in the same blocks.

The gate comes before the clock, looks at results of timed calls, and comes again after; a backend that fails anywhere
leaves the panel, and the others go on.
"""

from __future__ import annotations

import statistics as python_statistics
from typing import Final

from harness import device_times, measurement
from harness.case import Case
from harness.correctness import gate
from harness.entrant import Entrant
from harness.examination import EXERCISES, Examination, Expectations, NoReference
from harness.examiners import Examiners
from harness.loader import Loader
from harness.machine import threads
from harness.plan import BASELINE
from harness.process.supervisor import WorkerError
from harness.record import Status
from harness.sitting import Sitting
from harness.timing import cost

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


class Panel:
    """One case on one device, and the entrants that hold it at the same time.

    Args:
        sitting: What the run shares.
        case: The case.
        device: Where.
        entrants: Loaded and asked; the baseline first, if it is among them.
        examiners: Know what the structure probe says of each backend.
        expectations: The reference's answers.
        loader: Starts fresh processes.
    """

    def __init__(
        self,
        sitting: Sitting,
        case: Case,
        device: str,
        entrants: list[Entrant],
        examiners: Examiners,
        expectations: Expectations,
        loader: Loader,
    ) -> None:
        self._sitting = sitting
        self._plan = sitting.plan
        self._case = case
        self._device = device
        self._entrants = entrants
        self._examiners = examiners
        self._expectations = expectations
        self._loader = loader
        self._examination = Examination(case, device, expectations, sitting.plan.time_limit_seconds)

    def measure(self, begun: float, processes: dict[int, int]) -> None:
        """Gate, time, gate again, let go.

        Args:
            begun: When the group began, by the sitting's clock.
            processes: For each block of the group so far, its process; this panel's are added.
        """
        try:
            self._gate_first()
            if self._plan.timing and not self._case.empty:
                measurement.Measurement(
                    self._sitting,
                    self._case,
                    self._device,
                    [entrant for entrant in self._entrants if not entrant.untimeable],
                    self._examination,
                    self._expect,
                    self._loader,
                    begun,
                    processes,
                ).run()
                self._measure_memory()
            self._gate_again()
            if processes and self._device != "cpu" and self._plan.cache == "hot":
                # Last of all: a call that cannot be captured may leave its process in pieces.
                device_times.measure(self._sitting, self._case, self._device, self._going(), max(processes.values()))
        except NoReference as error:
            for entrant in self._going():
                entrant.end(error.status, error.reason)
        for entrant in self._entrants:
            if entrant.misbehaved or entrant.status is Status.FAILED:
                # It may have changed its process, or left it in pieces. The next case gets a new one.
                self._sitting.workers.discard(entrant.name, self._device)
            elif entrant.worker is not None and entrant.worker.alive:
                # Not entrant.ask: what goes wrong now is no longer the measured cell's.
                try:
                    said = entrant.worker.request("release", self._plan.time_limit_seconds)
                except WorkerError:
                    self._sitting.workers.discard(entrant.name, self._device)
                    continue
                if not said["trimmed"] and entrant.predicted_bytes > KEPT_BYTES:
                    self._sitting.workers.discard(entrant.name, self._device)

    def _going(self) -> list[Entrant]:
        return [entrant for entrant in self._entrants if entrant.going]

    def _gate_first(self) -> None:
        """Prepare every entrant, then ask all the gate asks; all of them run before the right answer exists."""
        for entrant in self._going():
            entrant.phase = "prepare"
            self._sitting.observer.stage(f"prepare {entrant.name}, and compile what no cache has")
            with entrant.gating(self._sitting.now):
                said = self._examination.prepare(entrant, cost.INPUT_SETS)
            if said is None:
                continue
            # Preparing and the first call have columns of their own.
            entrant.gate_seconds -= said["prepare_seconds"] + said["first_call_seconds"]
            entrant.columns |= {
                "prepare_seconds": said["prepare_seconds"],
                "first_call_seconds": said["first_call_seconds"],
                "choice": said["choice"] or None,
                # After its first case a worker is warm.
                "cold": entrant.loaded.pop("cold", "warm_worker"),
            }
            entrant.loaded["threads"] = said["threads"]
            entrant.flag(threads.fault(said["threads"], self._plan.threads))
            entrant.phase = "gate"
            entrant.conclude()
        self._sitting.observer.stage("examine all")
        self._examiners.answer(self._going(), self._case, self._device)
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
        seen = python_statistics.median(entrant.seconds.values()) if entrant.seconds else measurement.SLOW_SECONDS
        if seen < measurement.SLOW_SECONDS:
            fewest, most = FRESH_PAIRS
            # An even number: each of the two comes first as often as the other.
            pairs = min(most, max(fewest, 2 * int(FRESH_SECONDS / seen / 2))) if seen < LONG_SECONDS else LONG_PAIRS
        for attempt in range(1, FRESH_ATTEMPTS + 1):
            variations = [self._draw_variation() for _ in range(pairs)]
            verdict = self._examination.check_again(entrant, [*variations, last], settle=seen < LONG_SECONDS)
            if verdict is None or verdict.ok:
                return
            if attempt == FRESH_ATTEMPTS:
                entrant.note(verdict)

    def _draw_variation(self) -> int:
        """Number input sets that nobody can foresee."""
        return self._sitting.secret.randrange(cost.INPUT_SETS, 2**31)

    def _measure_memory(self) -> None:
        """Measure what a call takes at its peak, in calls that are not timed."""
        for entrant in [entrant for entrant in self._going() if not entrant.untimeable]:
            self._sitting.observer.stage(f"memory of {entrant.name}")
            calls = 1 if entrant.call_seconds > MEMORY_SECONDS else MEMORY_CALLS
            said = entrant.ask("memory", self._plan.time_limit_seconds, calls=calls)
            if said is not None and said["peak_bytes"] is not None:
                # What it returns is its job, and is no workspace.
                entrant.columns["peak_memory_bytes"] = max(0, said["peak_bytes"] - self._case.result_bytes)

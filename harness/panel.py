"""A panel: backends that are prepared together, judged together and timed in the same blocks.

The gate comes before the clock and again after it; a backend that fails anywhere leaves the panel, and the others go
on.
"""

from __future__ import annotations

import dataclasses
import random
import shutil
import statistics as python_statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np

from harness.case import Case
from harness.correctness import gate
from harness.entrant import Entrant, Remote
from harness.machine import threads
from harness.plan import BASELINE, Plan
from harness.process.supervisor import WorkerError
from harness.record import Sample, Status
from harness.timing import clock, cost

#: Most blocks of a panel.
BLOCKS: Final = 30
#: Blocks that are taken even if the budget is over.
LEAST_BLOCKS: Final = 3
#: Backends whose call takes longer join the first few blocks only, in seconds.
SLOW_SECONDS: Final = 0.250
#: Warmup of every backend alike, in seconds of calls (at least one call).
WARM_UP_SECONDS: Final = 0.2
#: A loop that costs more than this share of a call is worth a flag.
OVERHEAD_SHARE: Final = 0.05


class Workers(Protocol):
    """A supervisor, as the runner sees it."""

    cold: bool

    def worker(self, name: str, device: str) -> tuple[Remote, bool]:
        """Return a contestant's worker, and whether it has just been started with empty compile caches."""
        ...

    def referee(self) -> Remote:
        """Return the reference's worker."""
        ...

    def discard(self, name: str, device: str) -> None:
        """End a worker."""
        ...


class Observer(Protocol):
    """Who wants to know how far the run is. Called only while every worker is stopped."""

    def group(self, number: int, total: int, case: Case, device: str) -> None:
        """A group begins; numbers are from 1."""
        ...

    def stage(self, text: str) -> None:
        """What comes next within the group."""
        ...


class Panel:
    """One case on one device, and the entrants that hold it at the same time.

    Args:
        plan: Limits, budget and thread count.
        case: The case.
        device: Where.
        entrants: Loaded and asked; the baseline first, if it is among them.
        workers: The supervisor.
        observer: Told what comes next.
        keep_sample: Called with every sample, warmup included, as it comes.
        shuffle: Draws the order of measuring.
        now: A monotonic clock, in seconds, for the budget.
    """

    def __init__(
        self,
        plan: Plan,
        case: Case,
        device: str,
        entrants: list[Entrant],
        workers: Workers,
        observer: Observer,
        keep_sample: Callable[[Sample], None],
        shuffle: random.Random,
        now: Callable[[], float],
    ) -> None:
        self._plan = plan
        self._case = case
        self._device = device
        self._entrants = entrants
        self._workers = workers
        self._observer = observer
        self._keep_sample = keep_sample
        self._random = shuffle
        self._now = now
        self.stopped_by = "blocks"

    def measure(self, first_block: int) -> int:
        """Gate, time, gate again, let go; return the number of the next block."""
        self._gate_first()
        block = first_block
        if self._plan.timing and not self._case.empty:
            block = self._time(first_block)
        self._gate_again()
        for entrant in self._entrants:
            if entrant.worker is not None and entrant.worker.alive:
                # Not entrant.ask: what goes wrong now is no longer the measured cell's.
                try:
                    entrant.worker.request("release", self._plan.time_limit_seconds)
                except WorkerError:
                    self._workers.discard(entrant.name, self._device)
        return block

    def _going(self) -> list[Entrant]:
        return [entrant for entrant in self._entrants if entrant.going]

    def _gate_first(self) -> None:
        """Prepare every entrant and judge its first results; all of them run before the right answer exists."""
        for entrant in self._going():
            entrant.phase = "prepare"
            self._observer.stage(f"prepare {entrant.name}")
            said = self._results_of(entrant, "prepare", case=dataclasses.asdict(self._case), input_sets=cost.INPUT_SETS)
            if said is None:
                continue
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
            self._judge_facts(entrant, said["facts"])
        self._judge(variation=0)

    def _gate_again(self) -> None:
        """Judge results for inputs that no call has seen before."""
        variation = self._random.randrange(cost.INPUT_SETS, 2**31)
        for entrant in self._going():
            entrant.phase = "recheck"
            self._observer.stage(f"check {entrant.name} again")
            said = self._results_of(entrant, "check", variation=variation)
            if said is not None:
                self._judge_facts(entrant, said["facts"])
        self._judge(variation)

    def _results_of(self, entrant: Entrant, do: str, **fields: Any) -> dict[str, Any] | None:
        """Ask for results, into a folder that is empty before."""
        folder = entrant.results_folder()
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return entrant.ask(do, self._plan.time_limit_seconds, directory=str(folder), **fields)

    def _judge_facts(self, entrant: Entrant, said: Mapping[str, Any]) -> None:
        facts = {
            name: gate.Facts(**{**fact, "shape": None if fact["shape"] is None else tuple(fact["shape"])})
            for name, fact in said.items()
        }
        verdict = gate.judge_facts(self._case, self._device, facts)
        if not verdict.ok:
            entrant.end(Status.REJECTED, verdict.reason)

    def _judge(self, variation: int) -> None:
        """Compare the results that lie in the entrants' folders with the reference's."""
        if not self._going():
            return
        self._observer.stage("reference")
        try:
            expected, scales = self._expected(variation)
        except WorkerError as error:
            for entrant in self._going():
                entrant.end(error.status, f"no reference to check against: {error.reason}")
            return
        baseline_output = None
        for entrant in self._going():
            self._observer.stage(f"gate {entrant.name}")
            try:
                actual = _arrays(entrant.results_folder(), self._case)
                verdict = gate.judge(self._case, expected, scales, actual)
            except (OSError, ValueError) as error:
                entrant.end(Status.FAILED, f"it could not be checked: {error}")
                continue
            entrant.verdicts.append(verdict)
            if not verdict.ok:
                entrant.end(Status.REJECTED, verdict.reason)
            if entrant.name == BASELINE:
                baseline_output = actual["output"]
            elif baseline_output is not None and "mean_absolute_error" not in entrant.columns:
                difference = gate.mean_absolute_difference(actual["output"], baseline_output)
                entrant.columns["mean_absolute_error"] = difference

    def _expected(self, variation: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the right results and their scales, from the reference's worker."""
        referee = self._workers.referee()
        folder = referee.directory / "expected"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        case = dataclasses.asdict(self._case)
        limit = self._plan.time_limit_seconds
        referee.request("expect", limit, case=case, variation=variation, directory=str(folder))
        return _arrays(folder, self._case), _arrays(folder, self._case, ".scale")

    def _time(self, block: int) -> int:
        """Warm up, then take blocks until all are done or the budget is; return the number of the next block."""
        start = self._now()
        for entrant in self._shuffled(self._going()):
            entrant.phase = "timing"
            self._observer.stage(f"warm up {entrant.name}")
            self._warm_up(entrant)
        for number in range(BLOCKS):
            going = [entrant for entrant in self._going() if number < entrant.joins]
            if not going:
                break
            estimate = sum(entrant.call_seconds * entrant.base_calls for entrant in going)
            if number >= LEAST_BLOCKS and self._now() - start + estimate > self._plan.budget_seconds:
                self.stopped_by = "budget"
                break
            self._observer.stage(f"block {number + 1} of {BLOCKS}")
            for position, entrant in enumerate(self._shuffled(going)):
                self._sample(entrant, block, position)
            block += 1
        return block

    def _shuffled(self, entrants: list[Entrant]) -> list[Entrant]:
        return self._random.sample(entrants, len(entrants))

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

    def _sample(self, entrant: Entrant, block: int, position: int) -> None:
        # A number of calls that nobody can foresee; a little more than needed, never less.
        calls = entrant.base_calls + self._random.randrange(entrant.base_calls // 4 + 1)
        slow = entrant.call_seconds > SLOW_SECONDS
        stepping = self._case.mode == "forward_backward"
        expected = calls * entrant.call_seconds * (2 if stepping else 1)
        said = entrant.ask(
            "sample",
            min(self._plan.time_limit_seconds, 10 + 20 * expected),
            calls=calls,
            first=block,
            # Against a quarter of a second and more, 10 ms of coming back do not show; a whole call would cost.
            settle_seconds=0.0 if slow else clock.SETTLE_SECONDS,
            forward=stepping,
        )
        if said is None:
            return
        seconds, forward = said["seconds"], said["forward_seconds"]
        if not seconds > 0 or (stepping and not forward > 0):
            entrant.end(Status.FAILED, f"a sample of {calls} calls took {seconds} s: the clock cannot be right")
            return
        entrant.calls.append(calls)
        entrant.seconds[block] = seconds / calls
        self._keep(entrant, "call", calls, seconds, block, position)
        if stepping:
            entrant.forward_seconds[block] = forward / calls
            self._keep(entrant, "forward", calls, forward, block, position)

    def _keep(
        self,
        entrant: Entrant,
        phase: str,
        calls: int,
        seconds: float,
        block: int | None = None,
        position: int | None = None,
    ) -> None:
        self._keep_sample(
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


def _arrays(folder: Path, case: Case, suffix: str = "") -> dict[str, Any]:
    """Map the files of a case's results, by name."""
    return {
        name: np.load(folder / f"{name}{suffix}.npy", mmap_mode="r", allow_pickle=False)
        for name in case.result_shapes()
    }

"""A panel: backends that are prepared together, judged together and timed in the same blocks.

The gate comes before the clock and again after it; a backend that fails anywhere leaves the panel, and the others go on.
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


class Remote(Protocol):
    """A worker, as the runner sees it."""

    directory: Path

    @property
    def alive(self) -> bool:
        """Whether it can still be asked."""
        ...

    def request(self, do: str, time_limit_seconds: float, **fields: Any) -> dict[str, Any]:
        """Ask; raises WorkerError."""
        ...


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


@dataclasses.dataclass
class _Entrant:
    """One cell on its way to a record."""

    name: str
    worker: Remote | None = None
    status: Status | None = None
    phase: str = "plan"
    reason: str = ""
    predicted_bytes: int = 0
    call_seconds: float = 0.0
    base_calls: int = 1
    joins: int = BLOCKS
    calls: list[int] = dataclasses.field(default_factory=list)
    seconds: dict[int, float] = dataclasses.field(default_factory=dict)
    forward_seconds: dict[int, float] = dataclasses.field(default_factory=dict)
    verdicts: list[gate.Verdict] = dataclasses.field(default_factory=list)
    flags: list[str] = dataclasses.field(default_factory=list)
    #: Columns that are known already.
    columns: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def going(self) -> bool:
        return self.status is None

    def end(self, status: Status, reason: str) -> None:
        """Settle what becomes of the cell."""
        self.status, self.reason = status, reason

    def again(self) -> _Entrant:
        """The same cell, asked but not yet prepared, for another panel."""
        return _Entrant(self.name, worker=self.worker, predicted_bytes=self.predicted_bytes)


class Panel:
    """One case on one device, and the entrants that hold it at the same time.

    Args:
        plan: Limits, budget and thread count.
        case: The case.
        device: Where.
        entrants: Loaded and asked; the baseline first, if it is among them.
        instruments: What all panels of a run share.
    """

    # The gate.

    def _gate_first(self, panel: list[_Entrant], case: Case, device: str) -> None:
        """Prepare every entrant and judge its first results; all of them run before the right answer exists."""
        for entrant in panel:
            entrant.phase = "prepare"
            self._observer.stage(f"prepare {entrant.name}")
            try:
                said = self._prepare(entrant, case)
            except WorkerError as error:
                entrant.end(error.status, error.reason)
                continue
            loaded = self._loaded[entrant.name, device][1]
            assert isinstance(loaded, dict)  # noqa: S101  # it was prepared, so it was loaded; tells mypy
            entrant.columns |= {
                "prepare_seconds": said["prepare_seconds"],
                "first_call_seconds": said["first_call_seconds"],
                "cold": loaded.pop("cold", False),
            }
            self.workers_said[f"{entrant.name} on {device}"] = {
                **{key: loaded[key] for key in ("version", "tick_seconds", "overhead_seconds")},
                **said["threads"],
            }
            if flag := threads.fault(said["threads"], self._plan.threads):
                entrant.flags.append(flag)
            entrant.phase = "gate"
            self._judge_facts(entrant, case, device, said["facts"])
        self._judge(panel, case, variation=0)

    def _prepare(self, entrant: _Entrant, case: Case) -> dict[str, Any]:
        return self._request(
            entrant,
            "prepare",
            case=dataclasses.asdict(case),
            input_sets=cost.INPUT_SETS,
            directory=str(self._results_folder(entrant)),
        )

    def _gate_again(self, panel: list[_Entrant], case: Case, device: str) -> None:
        """Judge results for inputs that no call has seen before."""
        variation = self._random.randrange(cost.INPUT_SETS, 2**31)
        for entrant in panel:
            if not entrant.going:
                continue
            entrant.phase = "recheck"
            self._observer.stage(f"check {entrant.name} again")
            try:
                folder = str(self._results_folder(entrant))
                said = self._request(entrant, "check", variation=variation, directory=folder)
            except WorkerError as error:
                entrant.end(error.status, error.reason)
                continue
            self._judge_facts(entrant, case, device, said["facts"])
        self._judge(panel, case, variation)

    def _judge_facts(self, entrant: _Entrant, case: Case, device: str, said: Mapping[str, Any]) -> None:
        facts = {
            name: gate.Facts(**{**fact, "shape": None if fact["shape"] is None else tuple(fact["shape"])})
            for name, fact in said.items()
        }
        verdict = gate.judge_facts(case, device, facts)
        if not verdict.ok:
            entrant.end(Status.REJECTED, verdict.reason)

    def _judge(self, panel: list[_Entrant], case: Case, variation: int) -> None:
        """Compare the results that lie in the entrants' folders with the reference's."""
        going = [entrant for entrant in panel if entrant.going]
        if not going:
            return
        self._observer.stage("reference")
        try:
            expected, scales = self._expected(case, variation)
        except WorkerError as error:
            for entrant in going:
                entrant.end(error.status, f"no reference to check against: {error.reason}")
            return
        baseline_output = None
        for entrant in going:
            self._observer.stage(f"gate {entrant.name}")
            try:
                actual = _arrays(self._results_folder(entrant, keep=True), case)
            except (OSError, ValueError) as error:
                entrant.end(Status.FAILED, f"its results could not be read: {error}")
                continue
            verdict = gate.judge(case, expected, scales, actual)
            entrant.verdicts.append(verdict)
            if not verdict.ok:
                entrant.end(Status.REJECTED, verdict.reason)
            if entrant.name == BASELINE:
                baseline_output = np.array(actual["output"])
            elif baseline_output is not None and "mean_absolute_error" not in entrant.columns:
                entrant.columns["mean_absolute_error"] = gate.mean_absolute_difference(
                    actual["output"], baseline_output
                )

    def _expected(self, case: Case, variation: int) -> tuple[dict[str, Any], dict[str, Any]]:
        referee = self._workers.referee()
        folder = referee.directory / "expected"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        referee.request(
            "expect",
            self._plan.time_limit_seconds,
            case=dataclasses.asdict(case),
            variation=variation,
            directory=str(folder),
        )
        return _arrays(folder, case), _arrays(folder, case, ".scale")

    def _results_folder(self, entrant: _Entrant, keep: bool = False) -> Path:
        assert entrant.worker is not None  # noqa: S101  # it was loaded; tells mypy
        folder = entrant.worker.directory / "results"
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
        return folder

    # The clock.

    def _time(self, panel: list[_Entrant], case: Case, device: str, block: int) -> tuple[int, str]:
        """Warm up, then take blocks until all are done or the budget is; return the next block and why it ended."""
        start = self._now()
        going = [entrant for entrant in panel if entrant.going]
        for entrant in self._random.sample(going, len(going)):
            entrant.phase = "timing"
            self._observer.stage(f"warm up {entrant.name}")
            self._warm_up(entrant, case, device)
        for number in range(BLOCKS):
            going = [entrant for entrant in panel if entrant.going and number < entrant.joins]
            if not going:
                return block, "blocks"
            estimate = sum(entrant.call_seconds * entrant.base_calls for entrant in going)
            if number >= LEAST_BLOCKS and self._now() - start + estimate > self._plan.budget_seconds:
                return block, "budget"
            self._observer.stage(f"block {number + 1} of {BLOCKS}")
            for position, entrant in enumerate(self._random.sample(going, len(going))):
                self._sample(entrant, case, device, block, position)
            block += 1
        return block, "blocks"

    def _warm_up(self, entrant: _Entrant, case: Case, device: str) -> None:
        """Run it in, learn how long a call takes, and from that how many make a sample."""
        try:
            said = self._request(entrant, "warm_up", seconds=WARM_UP_SECONDS, at_least=1)
        except WorkerError as error:
            entrant.end(error.status, error.reason)
            return
        for calls, seconds in said["stretches"]:
            self._keep(entrant, case, device, "warmup", calls, seconds)
        latest = [seconds / calls for calls, seconds in said["stretches"][-3:]]
        entrant.call_seconds = python_statistics.median(latest)
        loaded = self._loaded[entrant.name, device][1]
        assert isinstance(loaded, dict)  # noqa: S101  # it was loaded; tells mypy
        try:
            entrant.base_calls = clock.calls_per_sample(entrant.call_seconds, loaded["tick_seconds"])
        except ValueError as error:
            entrant.end(Status.FAILED, str(error))
            return
        budget = self._plan.budget_seconds
        if entrant.call_seconds > budget and entrant.name != BASELINE:
            entrant.end(Status.TOO_SLOW, f"one call takes {entrant.call_seconds:.3g} s, the budget is {budget:g} s")
        if entrant.call_seconds > SLOW_SECONDS:
            # A slow one may take a quarter of the budget, in three blocks at the most and one at the least.
            entrant.joins = max(1, min(LEAST_BLOCKS, int(budget / 4 / entrant.call_seconds)))
        if loaded["overhead_seconds"] > OVERHEAD_SHARE * entrant.call_seconds:
            entrant.flags.append("overhead")

    def _sample(self, entrant: _Entrant, case: Case, device: str, block: int, position: int) -> None:
        # A number of calls that nobody can foresee; a little more than needed, never less.
        calls = entrant.base_calls + self._random.randrange(entrant.base_calls // 4 + 1)
        slow = entrant.call_seconds > SLOW_SECONDS
        stepping = case.mode == "forward_backward"
        expected = calls * entrant.call_seconds * (2 if stepping else 1)
        try:
            said = self._request(
                entrant,
                "sample",
                limit=min(self._plan.time_limit_seconds, 10 + 20 * expected),
                calls=calls,
                first=block,
                # Against a quarter of a second and more, 10 ms of coming back do not show; a whole call would cost.
                settle_seconds=0.0 if slow else clock.SETTLE_SECONDS,
                forward=stepping,
            )
        except WorkerError as error:
            entrant.end(error.status, error.reason)
            return
        seconds, forward = said["seconds"], said["forward_seconds"]
        if not seconds > 0 or (stepping and not forward > 0):
            entrant.end(Status.FAILED, f"a sample of {calls} calls took {seconds} s: the clock cannot be right")
            return
        entrant.calls.append(calls)
        entrant.seconds[block] = seconds / calls
        self._keep(entrant, case, device, "call", calls, seconds, block, position)
        if stepping:
            entrant.forward_seconds[block] = forward / calls
            self._keep(entrant, case, device, "forward", calls, forward, block, position)

    def _keep(
        self,
        entrant: _Entrant,
        case: Case,
        device: str,
        phase: str,
        calls: int,
        seconds: float,
        block: int | None = None,
        position: int | None = None,
    ) -> None:
        self._keep_sample(
            Sample(
                case=case.name,
                mode=case.mode,
                device=device,
                backend=entrant.name,
                phase=phase,
                block=block,
                position=position,
                calls=calls,
                seconds=seconds,
            )
        )

    def _request(self, entrant: _Entrant, do: str, limit: float | None = None, **fields: Any) -> dict[str, Any]:
        assert entrant.worker is not None  # noqa: S101  # it was loaded; tells mypy
        return entrant.worker.request(do, self._plan.time_limit_seconds if limit is None else limit, **fields)

    def _release(self, panel: list[_Entrant], device: str) -> None:
        for entrant in panel:
            if entrant.worker is None or not entrant.worker.alive:
                continue
            try:
                self._request(entrant, "release")
            except WorkerError:
                self._workers.discard(entrant.name, device)



def _arrays(folder: Path, case: Case, suffix: str = "") -> dict[str, Any]:
    return {
        name: np.load(folder / f"{name}{suffix}.npy", mmap_mode="r", allow_pickle=False)
        for name in case.result_shapes()
    }

"""Cases and backends in, records out: the only place where the instruments meet.

For each case, mode and device (a group): ask every backend whether it can, prepare it, let the gate judge its first
results, time those that passed in blocks, let the gate judge them again on inputs they have not seen, and yield one
record for every planned cell, whatever happened.
"""

from __future__ import annotations

import dataclasses
import random
import shutil
import statistics as python_statistics
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np

from harness.case import Case
from harness.correctness import gate
from harness.machine import environment, threads
from harness.process.supervisor import WorkerError
from harness.record import Record, Sample, Status
from harness.registry import Entry
from harness.timing import clock, cost, statistics

#: The speed denominator, planned in every group.
BASELINE: Final = "torch-bilinear"
#: Most blocks of a group.
BLOCKS: Final = 30
#: Blocks that are taken even if the budget is over.
LEAST_BLOCKS: Final = 3
#: Backends whose call takes longer join the first few blocks only, in seconds.
SLOW_SECONDS: Final = 0.250
#: Warmup of every backend alike, in seconds of calls (at least one call).
WARM_UP_SECONDS: Final = 0.2
#: A loop that costs more than this share of a call is worth a flag.
OVERHEAD_SHARE: Final = 0.05
#: An interval needs this many blocks (2 / 2^8 < 1 %).
INTERVAL_BLOCKS: Final = 8


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be measured, and how.

    Attributes:
        run_id: Identifies the run in every row.
        suite: Name of the suite.
        cases: The cases, mode included, in order.
        backends: Entries by the name used in the rows; the baseline is added if missing.
        devices: In order; one group never mixes two.
        threads: CPUs of every worker.
        seed: Of the order of measuring (the cases carry the seed of their inputs).
        budget_seconds: Measuring time of a group.
        time_limit_seconds: Limit of any one request: a preparation with its first call, say.
        timing: False for the gate alone.
    """

    run_id: str
    suite: str
    cases: tuple[Case, ...]
    backends: Mapping[str, Entry]
    devices: tuple[str, ...]
    threads: int
    seed: int = 0
    budget_seconds: float = 12.0
    time_limit_seconds: float = 120.0
    timing: bool = True

    def groups(self) -> list[tuple[Case, str]]:
        """Return (case, device) in the order of measuring."""
        return [(case, device) for device in self.devices for case in self.cases]

    def cells(self, case: Case, device: str) -> list[tuple[str, str, str, str]]:
        """Identify the planned rows of a group, as ``Record.cell`` does; the baseline first."""
        names = [BASELINE, *(name for name in self.backends if name != BASELINE)]
        return [(case.name, case.mode, name, device) for name in names]


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


class Runner:
    """Carries out a plan.

    Args:
        plan: What to measure.
        workers: The supervisor.
        observer: Told how far it is.
        keep_sample: Called with every sample, warmup included, as it comes.
        now: A monotonic clock, in seconds, for the budget.
        free_bytes: Memory that the workers may take together, asked when a group begins, in bytes.
    """

    def __init__(
        self,
        plan: Plan,
        workers: Workers,
        observer: Observer,
        keep_sample: Callable[[Sample], None] = lambda sample: None,
        now: Callable[[], float] = time.monotonic,
        free_bytes: Callable[[], int] = environment.available_bytes,
    ) -> None:
        self._plan = plan
        self._workers = workers
        self._observer = observer
        self._keep_sample = keep_sample
        self._now = now
        self._free_bytes = free_bytes
        self._random = random.Random(plan.seed)  # noqa: S311  # an order of measuring, recorded and repeatable
        #: Versions, clock and thread pools of each worker, in its own words, for ``environment.json``.
        self.workers_said: dict[str, dict[str, Any]] = {}
        #: What a load answered: kept while its worker lives, for good if the backend cannot be had.
        self._loaded: dict[tuple[str, str], tuple[Remote | None, dict[str, Any] | WorkerError]] = {}

    def run(self, skip: frozenset[tuple[str, str, str]] = frozenset()) -> Iterator[Record]:
        """Yield the records of every group but those in ``skip`` (case, mode, device)."""
        groups = self._plan.groups()
        for number, (case, device) in enumerate(groups, start=1):
            if (case.name, case.mode, device) in skip:
                continue
            self._observer.group(number, len(groups), case, device)
            yield from self._group(case, device)

    def _group(self, case: Case, device: str) -> Iterator[Record]:
        free = self._free_bytes()
        entrants = [_Entrant(cell[2]) for cell in self._plan.cells(case, device)]
        baselines: list[_Entrant] = []
        block, stopped_by = 0, "blocks"
        try:
            needed = cost.reference_bytes(case)
            if needed > free:
                for entrant in entrants:
                    entrant.end(Status.OUT_OF_MEMORY, _too_large("the reference", needed, free))
            free -= needed  # it holds its results while the contestants hold theirs
            for entrant in entrants:
                self._ask(entrant, case, device, free)
            for panel in _panels(entrants, free):
                if panel[0].name == BASELINE:
                    baselines.append(panel[0])
                self._gate_first(panel, case, device)
                if self._plan.timing and not case.empty:
                    block, stopped_by = self._time(panel, case, device, block)
                self._gate_again(panel, case, device)
                self._release(panel, device)
        finally:
            if self._workers.cold:
                for entrant in entrants:
                    self._workers.discard(entrant.name, device)
        yield from self._records(entrants, baselines, case, device, stopped_by)

    # Questions.

    def _ask(self, entrant: _Entrant, case: Case, device: str, free: int) -> None:
        """Load and ask whether it is here, can do this, and fits."""
        if not entrant.going:
            return
        entrant.phase = "load"
        try:
            loaded = self._load(entrant, device)
            if loaded is None or entrant.worker is None:
                return
            entrant.columns |= {
                "backend_version": loaded["version"],
                "import_seconds": loaded["import_seconds"],
            }
            entrant.phase = "support"
            said = self._request(entrant, "support", case=dataclasses.asdict(case))
        except WorkerError as error:
            entrant.end(error.status, error.reason)
            return
        if not said["supported"]:
            entrant.end(Status.UNSUPPORTED, said["reason"])
            return
        entrant.predicted_bytes = cost.contestant_bytes(case, said["workspace_bytes"])
        if device == "cpu" and entrant.predicted_bytes > free:
            entrant.end(Status.OUT_OF_MEMORY, _too_large(entrant.name, entrant.predicted_bytes, free))

    def _load(self, entrant: _Entrant, device: str) -> dict[str, Any] | None:
        """Return what loading answered; None where the entrant's end is settled. Asks each worker only once."""
        key = (entrant.name, device)
        worker, answer = self._loaded.get(key, (None, None))
        if answer is None or (worker is not None and not worker.alive):
            entry = self._plan.backends[entrant.name]
            installed = entry.installed()
            if not installed.ok:
                answer = {"available": False, "reason": installed.reason, "offered": True}
            else:
                self._observer.stage(f"start {entrant.name}")
                try:
                    worker, cold = self._workers.worker(entrant.name, device)
                    answer = worker.request(
                        "load",
                        self._plan.time_limit_seconds,
                        name=entrant.name.partition("#")[0],
                        target=entry.target,
                        device=device,
                    )
                    answer["cold"] = cold
                except WorkerError as error:
                    answer = error
            if isinstance(answer, WorkerError) or not answer["available"]:
                # It will be no different for the next case: do not keep the process, do not ask again.
                self._workers.discard(entrant.name, device)
                worker = None
            self._loaded[key] = (worker, answer)
        if isinstance(answer, WorkerError):
            raise answer
        if not answer["available"]:
            entrant.end(Status.UNAVAILABLE if answer["offered"] else Status.UNSUPPORTED, answer["reason"])
            return None
        entrant.worker = worker
        return answer

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

    # Records.

    def _records(
        self, entrants: list[_Entrant], baselines: list[_Entrant], case: Case, device: str, stopped_by: str
    ) -> Iterator[Record]:
        baseline: dict[int, float] = {}
        for entrant in baselines:
            if entrant.going:
                baseline |= entrant.seconds
        timed = {entrant.name: entrant.seconds for entrant in entrants if entrant.going and entrant.seconds}
        ranks = statistics.ranks(timed)
        for entrant in entrants:
            columns = dict(entrant.columns)
            verdict = gate.combine(*entrant.verdicts)
            columns |= {
                "max_error_over_bound": verdict.error_over_bound,
                "max_absolute_error": verdict.absolute_error,
                "gflop": cost.flop(case) / 1e9,
                "flags": ";".join(entrant.flags) or None,
            }
            status, reason = entrant.status, entrant.reason
            if status is None and entrant.seconds:
                status = Status.TIMED
                columns |= _times(entrant, baseline, case) | {"rank": ranks[entrant.name], "stopped_by": stopped_by}
            elif status is None:
                why = "there is nothing to compute" if case.empty else "only the gate was asked for"
                status, reason = Status.CHECKED, f"passed the gate; not timed, because {why}"
            yield record(self._plan, case, device, entrant.name, status, reason or None, phase=entrant.phase, **columns)


def record(
    plan: Plan, case: Case, device: str, backend: str, status: Status, reason: str | None, **columns: Any
) -> Record:
    """Build the row of a cell."""
    fields = {field.name: getattr(case, field.name) for field in dataclasses.fields(case)}
    return Record(
        run_id=plan.run_id,
        suite=plan.suite,
        case=case.name,
        **fields,
        backend=backend,
        device=device,
        threads=plan.threads,
        cache="hot",
        status=status,
        reason=reason,
        **columns,
    )


def interrupted(plan: Plan, done: frozenset[tuple[str, str, str, str]]) -> Iterator[Record]:
    """Yield a row for every planned cell that is not among ``done``."""
    for case, device in plan.groups():
        for cell in plan.cells(case, device):
            if cell not in done:
                reason = "the run was stopped before this cell was done; --resume does it"
                yield record(plan, case, device, cell[2], Status.INTERRUPTED, reason, phase="plan")


def _times(entrant: _Entrant, baseline: Mapping[int, float], case: Case) -> dict[str, Any]:
    """The columns that only a timed row has."""
    summary = statistics.summarize(list(entrant.seconds.values()))
    columns: dict[str, Any] = {
        "processes": 1,
        "blocks": len(entrant.seconds),
        "calls": round(python_statistics.median(entrant.calls)),
        "min_seconds": summary.minimum,
        "p25_seconds": summary.p25,
        "median_seconds": summary.median.estimate,
        "mean_seconds": summary.mean,
        "p75_seconds": summary.p75,
        "p95_seconds": summary.p95,
        "median_low_seconds": summary.median.low,
        "median_high_seconds": summary.median.high,
        "gflop_per_second": cost.flop(case) / 1e9 / summary.median.estimate,
    }
    if entrant.forward_seconds:
        columns["forward_seconds"] = python_statistics.median(entrant.forward_seconds.values())
        columns["backward_seconds"] = columns["median_seconds"] - columns["forward_seconds"]
    ratio = statistics.paired_ratio(baseline, entrant.seconds)
    if ratio is not None:
        shared = [baseline[block] for block in sorted(set(baseline) & set(entrant.seconds))]
        columns |= {
            "baseline": BASELINE,
            "baseline_median_seconds": python_statistics.median(shared),
            "speedup": ratio.estimate,
            "speedup_low": ratio.low,
            "speedup_high": ratio.high,
        }
    if len(entrant.seconds) < INTERVAL_BLOCKS:
        entrant.flags.append("few_blocks")
        columns["flags"] = ";".join(entrant.flags)
    return columns


def _panels(entrants: list[_Entrant], free: int) -> list[list[_Entrant]]:
    """Split a group into panels whose predicted memory fits; each part after the first gets a baseline of its own."""
    going = [entrant for entrant in entrants if entrant.going]
    baseline = next((entrant for entrant in going if entrant.name == BASELINE), None)
    panels: list[list[_Entrant]] = [[]]
    for entrant in going:
        taken = sum(member.predicted_bytes for member in panels[-1])
        if panels[-1] and taken + entrant.predicted_bytes > free:
            # Alone, and so without a ratio, where it would not fit beside the baseline.
            together = baseline is not None and baseline.predicted_bytes + entrant.predicted_bytes <= free
            panels.append([baseline.again()] if baseline is not None and together else [])
        panels[-1].append(entrant)
    return [panel for panel in panels if panel]


def _arrays(folder: Path, case: Case, suffix: str = "") -> dict[str, Any]:
    return {
        name: np.load(folder / f"{name}{suffix}.npy", mmap_mode="r", allow_pickle=False)
        for name in case.result_shapes()
    }


def _too_large(who: str, needed: int, free: int) -> str:
    return f"{who} would need {needed / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are free: not attempted"

"""The objects that one run shares, and the loader of its backends."""

from __future__ import annotations

import dataclasses
import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from harness.case import Case
from harness.machine import activity
from harness.machine.activity import State
from harness.process.handle import WorkerError, WorkerHandle
from harness.process.protocol import Load, Loaded
from harness.process.supervisor import WorkerPool
from harness.record import Record, Sample
from harness.run.plan import Plan
from harness.run.time_spent import Stage, TimeSpent


class Progress(Protocol):
    """Callback for how far the run is; called only while every worker is stopped."""

    def group(self, number: int, total: int, case: Case, device: str) -> None:
        """Show that a group begins; numbers are from 1."""
        ...

    def stage(self, text: str) -> None:
        """Show the next step within the group, or before the first one."""
        ...

    def finished(self, number: int, total: int, records: Sequence[Record], once_seconds: float) -> None:
        """Show how a group ended, with its rows; numbers are from 1.

        Args:
            number: Number of the group.
            total: Number of all groups.
            records: The rows.
            once_seconds: Part of the group's time that no later one takes again, in seconds.
        """
        ...


class NoProgress:
    """A callback that does nothing."""

    def group(self, number: int, total: int, case: Case, device: str) -> None:
        """Do nothing."""

    def stage(self, text: str) -> None:
        """Do nothing."""

    def finished(self, number: int, total: int, records: Sequence[Record], once_seconds: float) -> None:
        """Do nothing."""


@dataclasses.dataclass
class RunContext:
    """Plan, workers and sources that a run shares.

    Attributes:
        plan: Cases, backends, limits, budget and thread count.
        workers: Supervisor of the workers.
        progress: Callback for the next step.
        keep_sample: Callback for every sample, warmup included.
        now: Monotonic clock for budgets, in seconds.
        order: Random source of the order of measuring, seeded by the plan.
        secret: Random source that no backend can foresee: it draws which results are judged and which inputs come last.
        look: Function that reads the state of the machine.
        spot_peak: Function that measures the CPUs' FMA peak in a dtype now, for a number of seconds, in flop per
            second; it returns None if the peak is unknown.
        best_clock_mhz: Highest clock of the CPUs so far, in MHz; 0 where the system does not report it.
        spent: Stopwatch of what the run's wall time goes into, by ``now``.
    """

    plan: Plan
    workers: WorkerPool
    progress: Progress = dataclasses.field(default_factory=NoProgress)
    keep_sample: Callable[[Sample], None] = lambda sample: None
    now: Callable[[], float] = time.monotonic
    order: random.Random = dataclasses.field(default_factory=random.Random)
    secret: random.Random = dataclasses.field(default_factory=random.SystemRandom)
    look: Callable[[], State] = activity.read
    spot_peak: Callable[[str, float], float | None] = lambda dtype, seconds: None
    best_clock_mhz: float = 0.0
    spent: TimeSpent = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.spent = TimeSpent(self.now)
        self.order.seed(self.plan.seed)

    def keep(self, case: Case, device: str, **columns: Any) -> None:
        """Keep a sample of a case on a device; the other columns by name."""
        self.keep_sample(Sample(case=case.name, mode=case.mode, device=device, **columns))


@dataclasses.dataclass
class LoadedWorker:
    """A backend's worker, or the reason why there is none.

    Attributes:
        worker: The worker; None if the backend is not available.
        reply: Reply to ``Load``, or the error in place of one.
        compile_cache: State of the compile caches before the worker's first case; ``warm_worker`` after it.
    """

    worker: WorkerHandle | None
    reply: Loaded | WorkerError
    compile_cache: str = "warm_worker"


class Loader:
    """Loads backends: one worker for each backend and device, loaded once and kept; or a fresh one.

    Args:
        context: Plan, workers and progress.
    """

    def __init__(self, context: RunContext) -> None:
        self._context = context
        #: Kept while the worker lives, or for the whole run if the backend is not available.
        self._loaded: dict[tuple[str, str], LoadedWorker] = {}

    def load(self, name: str, device: str) -> LoadedWorker:
        """Return a backend's worker, loaded now if there is none; each worker is loaded once."""
        return self.load_all([name], device)[0]

    def load_all(self, names: Sequence[str], device: str) -> list[LoadedWorker]:
        """Return the workers of several backends; those that are not loaded are loaded at the same time."""
        plan = self._context.plan
        missing = []
        for name in names:
            kept = self._loaded.get((name, device))
            if kept is not None and (kept.worker is None or kept.worker.alive):
                continue
            if (installed := plan.backends[name].installed()).ok:
                missing.append(name)
            else:
                self._loaded[name, device] = LoadedWorker(None, Loaded(available=False, reason=installed.reason))
        if missing:
            what = missing[0] if len(missing) == 1 else f"{len(missing)} backends"
            self._context.progress.stage(f"start {what}")
            self._load_missing(missing, device)
        return [self._loaded[name, device] for name in names]

    def compile_cache(self, name: str, device: str) -> str:
        """Return the state of a worker's compile caches before the present case; after it the worker is warm."""
        loaded = self._loaded[name, device]
        state, loaded.compile_cache = loaded.compile_cache, "warm_worker"
        return state

    def renew(self, names: Sequence[str], device: str) -> list[LoadedWorker]:
        """End these backends' workers and load fresh ones at the same time, while nothing is measured."""
        for name in names:
            self._context.workers.discard(name, device)
        self._load_missing(names, device, Stage.START_AGAIN)
        for name in names:
            self._loaded[name, device].compile_cache = "warm_worker"  # the next case finds it warm
        return [self._loaded[name, device] for name in names]

    def _load_missing(self, names: Sequence[str], device: str, stage: Stage = Stage.START) -> None:
        """Start and load workers; as many load at a time as there are threads."""
        with self._context.spent(stage):
            # In this thread, not in the pool: a worker dies with the thread that started it (PR_SET_PDEATHSIG).
            started = [self._start(name, device) for name in names]
            with ThreadPoolExecutor(max_workers=self._context.plan.threads) as pool:
                loaded = pool.map(lambda pair: self._load(pair[0], device, pair[1]), zip(names, started, strict=True))
                self._loaded |= {(name, device): each for name, each in zip(names, loaded, strict=True)}

    def _start(self, name: str, device: str) -> tuple[WorkerHandle, bool] | WorkerError:
        """Return a started worker, and True if its compile caches are empty; or the error in place of one."""
        try:
            return self._context.workers.worker(name, device)
        except WorkerError as error:
            return error

    def _load(self, name: str, device: str, started: tuple[WorkerHandle, bool] | WorkerError) -> LoadedWorker:
        """Have a worker load the backend; a worker whose backend is not available is ended."""
        reply: Loaded | WorkerError
        if isinstance(started, WorkerError):
            reply = started
        else:
            worker, empty = started
            plan = self._context.plan
            try:
                load = Load(name.partition("#")[0], plan.backends[name].target, device)
                reply = worker.request(load, plan.time_limit_seconds)
                if reply.available:
                    return LoadedWorker(worker, reply, "empty" if empty else "filled")
            except WorkerError as error:
                reply = error
        # The next case would get the same reply: the backend is not loaded again.
        self._context.workers.discard(name, device)
        return LoadedWorker(None, reply)

"""A context: what everything in one run shares, and whom it talks to."""

from __future__ import annotations

import dataclasses
import random
import time
from collections.abc import Callable
from typing import Any, Protocol

from harness.case import Case
from harness.machine import activity
from harness.machine.activity import State
from harness.process.supervisor import WorkerPool
from harness.record import Sample
from harness.run.plan import Plan


class Progress(Protocol):
    """Who wants to know how far the run is. Called only while every worker is stopped."""

    def group(self, number: int, total: int, case: Case, device: str) -> None:
        """A group begins; numbers are from 1."""
        ...

    def stage(self, text: str) -> None:
        """What comes next within the group."""
        ...


class RunProgress(Progress, Protocol):
    """The same, for what comes before the first group."""

    def begin(self, text: str) -> None:
        """Say what comes before the first group."""
        ...


class NoProgress:
    """An progress that does not look."""

    def group(self, number: int, total: int, case: Case, device: str) -> None:
        """Do nothing."""

    def stage(self, text: str) -> None:
        """Do nothing."""


@dataclasses.dataclass
class RunContext:
    """What a run shares.

    Attributes:
        plan: What to measure, with limits, budget and thread count.
        workers: The supervisor.
        progress: Told what comes next.
        keep_sample: Called with every sample, warmup included, as it comes.
        now: A monotonic clock, in seconds, for budgets.
        order: Draws the order of measuring; seeded by the plan.
        secret: Draws what no backend shall foresee: which results are looked at, which inputs come after timing.
        look: Tells what the machine is doing.
        spot_peak: Measures what the CPUs multiply in a dtype at the moment, for so many seconds, in flop per second; None if
            that is not known.
        best_clock_mhz: The highest clock of the CPUs seen so far; 0 where the system does not tell.
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

    def __post_init__(self) -> None:
        self.order.seed(self.plan.seed)

    def keep(self, case: Case, device: str, **columns: Any) -> None:
        """Keep a sample of a case on a device; the other columns by name."""
        self.keep_sample(Sample(case=case.name, mode=case.mode, device=device, **columns))

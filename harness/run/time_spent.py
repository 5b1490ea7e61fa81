"""Book the wall time of a run, each second on one stage: the stages add up to the whole."""

from __future__ import annotations

import contextlib
import enum
import time
from collections.abc import Callable, Iterator
from typing import Any


class Stage(enum.StrEnum):
    """What a run spends its time on; a stage of samples begins with ``output.time_table.OF_SAMPLES``."""

    PEAKS = "peaks of the machine"
    START = "start of backends"
    START_AGAIN = "start of fresh processes"
    PREPARE = "preparing and first calls"
    EDGE_CASES = "waiting for edge cases"
    RIGHT_RESULTS = "waiting for right results"
    GATE = "gate: asking and judging"
    WARM_UP = "warmup"
    CALLS = "samples: timed calls"
    SETTLE = "samples: settling, other calls"
    FREEZE = "samples: thawing and freezing"
    MOVE = "samples: moving arrays"
    VALUES = "samples: drawing values"
    SPOT_PEAK = "samples: spot peak"
    READINGS = "samples: reading the machine"
    GPU_CLOCK = "samples: steadying the GPU"
    JUDGE = "samples: judging results"
    MEMORY = "memory of a call"
    GPU_TIMES = "times by the GPU's clock"
    STATISTICS = "comparing and ranking"
    OTHER = "other"


class TimeSpent:
    """A stopwatch that runs for one stage at a time; calling it begins a stage, within which others pause it.

    It belongs to one thread. What no stage claims goes to ``Stage.OTHER``.

    Args:
        now: Monotonic clock, in seconds.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self.now = now
        self._seconds = dict.fromkeys(Stage, 0.0)
        self._open = [Stage.OTHER]
        self._since = now()
        self._samples = 0

    @contextlib.contextmanager
    def __call__(self, stage: Stage) -> Iterator[None]:
        """Book the time within on a stage, then go on with the one before."""
        self._book()
        self._open.append(stage)
        try:
            yield
        finally:
            self._book()
            self._open.pop()

    def add_sample(self, call_seconds: float, passed_seconds: float) -> None:
        """Divide the request of a sample, which has just ended in the present stage.

        Args:
            call_seconds: Time of the timed calls by the worker's clock, in seconds.
            passed_seconds: Time between the request and the reply by the run's clock, in seconds; the rest of it is
                ``Stage.SETTLE``.
        """
        self._samples += 1
        self._book()
        calls = min(call_seconds, passed_seconds)  # a worker's clock may say anything
        for stage, seconds in ((Stage.CALLS, calls), (Stage.SETTLE, passed_seconds - calls)):
            self._seconds[stage] += seconds
            self._seconds[self._open[-1]] -= seconds

    @property
    def once_seconds(self) -> float:
        """Return the time of what a device's first group does for all, in seconds.

        Most of its preparing is importing compilers and reading their caches.
        """
        self._book()
        return sum(self._seconds[stage] for stage in (Stage.START, Stage.EDGE_CASES, Stage.PREPARE))

    def as_json(self) -> dict[str, Any]:
        """Return the seconds of each stage that took any, and the number of samples, for ``environment.json``."""
        self._book()
        taken = {str(stage): round(seconds, 6) for stage, seconds in self._seconds.items() if seconds}
        return {"seconds": taken, "samples": self._samples}

    def _book(self) -> None:
        """Book the time until now on the present stage."""
        now = self.now()
        self._seconds[self._open[-1]] += now - self._since
        self._since = now

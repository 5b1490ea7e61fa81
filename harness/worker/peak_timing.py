"""How the peak workers time repetitions: on one thread for each CPU (``Team``), or call by call (``best_seconds``)."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from harness.machine import threads

#: Runs a number of rounds.
Run = Callable[[int], Any]
ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


class Team:
    """One thread on each CPU of the budget. Use as a context manager."""

    def __init__(self) -> None:
        cpus: Sequence[int | None] | None = threads.affinity()
        if cpus is None:  # a system without affinity: the variable of the thread pools holds the budget
            cpus = [None] * int(os.environ.get("OMP_NUM_THREADS", "1"))
        self.size = len(cpus)
        waiting = list(cpus)
        self._barrier = threading.Barrier(self.size)
        self._pool = ThreadPoolExecutor(self.size, initializer=lambda: _bind_thread(waiting.pop()))

    def __enter__(self) -> Team:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def best_rate(
        self, runs: Sequence[Run], work: float, repetition_seconds: float, repetitions: int, first: int
    ) -> float:
        """Return the work per second of all threads together, of the best repetition.

        Args:
            runs: Function of each thread that runs a number of rounds.
            work: Work in one round of one thread, in flop or bytes.
            repetition_seconds: Approximate length of a repetition, in seconds.
            repetitions: Number of repetitions.
            first: Rounds of the first call, which compiles.
        """
        count = self.rounds(runs, work, repetition_seconds, first)
        return max(self.rate(runs, work, count) for _ in range(repetitions))

    def rounds(self, runs: Sequence[Run], work: float, repetition_seconds: float, first: int) -> int:
        """Return the number of rounds that take about ``repetition_seconds``; see ``best_rate`` for the arguments."""
        count = first
        self.rate(runs, work, count)
        for _ in range(2):  # the second pass extrapolates from a longer run
            seconds = work * count / (self.rate(runs, work, count) / self.size)
            count = max(1, round(count * min(1000.0, repetition_seconds / seconds)))
        return count

    def rate(self, runs: Sequence[Run], work: float, count: int) -> float:
        """Return the work per second of all threads together in one repetition, each timed for itself."""
        return sum(self.together(lambda run: work * count / _seconds(run, count), runs))

    def together(self, do: Callable[[ItemT], ResultT], items: Sequence[ItemT]) -> list[ResultT]:
        """Call a function in all threads at once, with one item each; the barrier keeps a thread from taking two."""

        def wait_and_do(item: ItemT) -> ResultT:
            self._barrier.wait()
            return do(item)

        return list(self._pool.map(wait_and_do, items))


def best_seconds(work: Callable[[], ResultT], repetitions: int, enough_seconds: float) -> tuple[float, ResultT]:
    """Return the shortest time of a call, after one that warms up, and the result of the last call.

    Args:
        work: Function to be timed.
        repetitions: Most calls that are timed; the fewest are two.
        enough_seconds: Total time of timed calls after which no other begins, in seconds.
    """
    work()
    seconds: list[float] = []
    while len(seconds) < 2 or (len(seconds) < repetitions and sum(seconds) < enough_seconds):
        start = time.perf_counter()
        result = work()
        seconds.append(time.perf_counter() - start)
    return min(seconds), result


def _bind_thread(cpu: int | None) -> None:
    """Bind the calling thread, and no other, to one CPU."""
    if cpu is not None:
        with contextlib.suppress(OSError):  # not allowed: the kernel places the thread
            os.sched_setaffinity(0, {cpu})


def _seconds(run: Run, count: int) -> float:
    start = time.perf_counter()
    run(count)
    return time.perf_counter() - start

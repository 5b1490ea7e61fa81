"""Which other processes compute now: CPU time of each process, before and after a watch."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Final

import psutil

#: Least share of a CPU at which a process counts as busy.
LEAST_SHARE: Final = 0.1
#: Most processes that are named.
MOST_NAMED: Final = 3

#: Name and CPU time in seconds of each process, by its number.
CpuTimes = Mapping[int, tuple[str, float]]


def cpu_times() -> dict[int, tuple[str, float]]:
    """Return name and CPU time of every process, by its number."""
    found = {}
    for process in psutil.process_iter(["pid", "name", "cpu_times"]):
        if (times := process.info["cpu_times"]) is not None:
            found[process.info["pid"]] = (process.info["name"] or "?", times.user + times.system)
    return found


def busiest(before: CpuTimes, after: CpuTimes, seconds: float, ours: Set[int]) -> tuple[str, ...]:
    """Return the processes that computed most, as in ``python3 (process 4711, 98 % of a CPU)``.

    Args:
        before: Processes at the start of the watch.
        after: Processes at its end.
        seconds: Time between the two, in seconds.
        ours: Numbers of processes that are left out.
    """
    shares = {
        number: (used - before[number][1]) / seconds
        for number, (_, used) in after.items()
        if number in before and number not in ours
    }
    busy = sorted((number for number in shares if shares[number] >= LEAST_SHARE), key=lambda number: -shares[number])
    return tuple(
        f"{after[number][0]} (process {number}, {shares[number]:.0%} of a CPU)" for number in busy[:MOST_NAMED]
    )

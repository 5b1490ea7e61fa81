"""How the threads of a process come by their CPU time: how many are busy, and how long they wait for a CPU."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from harness.record import Flag

#: Largest mean number of runnable threads above the budget. A main thread that hands over to its pool, and other
#: processes of the machine, stay below it.
OVERLOAD: Final = 0.5
#: Turns on a CPU around timed calls: the worker wakes up, finishes settling, and replies; the run reads the reply.
TURNS: Final = 4
#: Least share of a process's CPU time of a thread that works alone.
ALONE_SHARE: Final = 0.9


@dataclasses.dataclass(frozen=True, slots=True)
class Busy:
    """The threads of a process in a period.

    Attributes:
        threads: Number of threads that ran for a tenth of the period or more.
        runnable: Mean number of threads that ran or waited for a CPU.
    """

    threads: int
    runnable: float


class Usage(NamedTuple):
    """How a thread came by its CPU time: the numbers of schedstat (Documentation/scheduler/sched-stats.rst of Linux).

    Attributes:
        ran: Time on a CPU, in ns.
        waited: Time in which the thread could run and had no CPU, in ns.
        turns: Number of times that it got a CPU.
    """

    ran: int = 0
    waited: int = 0
    turns: int = 0


def read(tasks: Path = Path("/proc/self/task")) -> dict[str, Usage]:
    """Return how each thread of a process came by its CPU time; {} if unknown.

    Args:
        tasks: Folder with a folder for each thread; by default that of this process.
    """
    times = {}
    for path in tasks.glob("*/schedstat"):
        with contextlib.suppress(OSError, ValueError):  # a thread may end before its file is read
            times[path.parent.name] = Usage(*map(int, path.read_text().split()))
    return times


def gained(before: Mapping[str, Usage], after: Mapping[str, Usage]) -> list[Usage]:
    """Return the growth of each thread's usage between two readings.

    A thread without a turn is left out: it has had one if it exists, so the system does not count.

    Args:
        before: First reading of ``read``; threads that began later count from their beginning.
        after: Second reading of ``read``.
    """
    none = Usage()
    return [
        Usage(*(now - then for now, then in zip(used, before.get(name, none), strict=True)))
        for name, used in after.items()
        if used.turns
    ]


def waited_around(used: Sequence[Usage]) -> float | None:
    """Return the time that waits for a CPU may have added around the timed calls of a sample, in seconds.

    Waits within the timed calls are in their time. Around them a thread that works alone waits at ``TURNS`` turns. A
    team waits for its slowest thread at every barrier of a call, and longest in the first call after a pause, so all
    waits of a team count.

    Args:
        used: Growth of each thread's usage from the request to the reply; None is returned if it is empty.
    """
    if not used:
        return None
    most = max(used, key=lambda thread: thread.ran)
    if most.ran >= ALONE_SHARE * sum(thread.ran for thread in used):
        return TURNS * most.waited / 1e9 / max(most.turns, 1)
    return sum(thread.waited for thread in used) / 1e9


def busy(before: Mapping[str, Usage], after: Mapping[str, Usage], seconds: float) -> Busy | None:
    """Return how busy the threads were between two readings of ``read``; None if unknown.

    Frameworks size their pools by many rules and do not always obey settings, so the threads that ran are counted. A
    thread that ran for less than a tenth of the time is not.

    Args:
        before: First reading of ``read``.
        after: Second reading of ``read``.
        seconds: Time between the readings, in seconds.
    """
    if not after or not seconds > 0:
        return None
    spent = gained(before, after)
    return Busy(
        threads=sum(used.ran >= 1e8 * seconds for used in spent),
        runnable=sum(used.ran + used.waited for used in spent) / 1e9 / seconds,
    )


def overload(busy: Busy | None, threads: int) -> str | None:
    """Return a flag if more than ``threads + OVERLOAD`` threads were runnable on average; None otherwise."""
    if busy is None or busy.runnable <= threads + OVERLOAD:
        return None
    return Flag.OVERSUBSCRIBED.detailed(f"{busy.runnable:.1f}")

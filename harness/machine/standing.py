"""What a process and its descendants are granted and took: CPUs, priority, scheduling class, CPU time."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

#: Fields of /proc/PID/stat after the name in brackets, from 0 (proc(5)): CPU time of the process and of its ended
#: children, in user and in system mode; nice value; scheduling policy.
_CPU_TIMES: Final = slice(11, 15)
_NICE: Final = 16
_POLICY: Final = 38
#: Policies that run before all others: SCHED_FIFO, SCHED_RR and SCHED_DEADLINE (sched(7)).
REAL_TIME: Final = (1, 2, 6)


@dataclasses.dataclass(frozen=True, slots=True)
class Standing:
    """What several threads are granted, and what they took.

    Attributes:
        cpus: Numbers of the CPUs that any thread may run on.
        nice: Lowest nice value of any thread: a lower one has a higher priority.
        real_time: True if a thread has a real-time scheduling class.
        cpu_seconds: CPU time of the processes and of their ended children, in seconds.
    """

    cpus: frozenset[int]
    nice: int
    real_time: bool
    cpu_seconds: float


def read(processes: Iterable[int], root: Path = Path("/proc")) -> Standing | None:
    """Return what all threads of some processes are granted; None where the system has no such files.

    Args:
        processes: Numbers of the processes.
        root: Folder with a folder for each process.
    """
    cpus: set[int] = set()
    nices: list[int] = []
    policies: set[int] = set()
    ticks = 0
    for process in processes:
        for thread in (root / str(process) / "task").glob("*"):
            with contextlib.suppress(OSError, ValueError, IndexError):  # it may end before its files are read
                fields = _fields(thread / "stat")
                cpus |= _cpus((thread / "status").read_text())
                nices.append(fields[_NICE])
                policies.add(fields[_POLICY])
        with contextlib.suppress(OSError, ValueError):
            ticks += sum(_fields(root / str(process) / "stat")[_CPU_TIMES])
    if not nices:
        return None
    return Standing(frozenset(cpus), min(nices), not policies.isdisjoint(REAL_TIME), ticks / os.sysconf("SC_CLK_TCK"))


def _fields(path: Path) -> list[int]:
    """Return the fields after the name, which may hold any character; the state, a letter, is 0."""
    return [int(field) if field.lstrip("-").isdigit() else 0 for field in path.read_text().rpartition(")")[2].split()]


def _cpus(status: str) -> set[int]:
    """Return the CPUs of ``Cpus_allowed_list``, as in ``0-3,8``."""
    listed = next(line for line in status.splitlines() if line.startswith("Cpus_allowed_list:")).split()[1]
    cpus: set[int] = set()
    for part in listed.split(","):
        first, _, last = part.partition("-")
        cpus |= set(range(int(first), int(last or first) + 1))
    return cpus

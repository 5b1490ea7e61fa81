"""The thread budget: its size, the settings that hold a worker to it, and the check that they had an effect.

The variables are set before a worker imports anything, because the pools read them once. XLA reads none of them. It
sizes its pool by the affinity mask, so the mask has one CPU for each thread of the budget.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from harness.record import Flag

#: Environment variables that size a thread pool, one for each runtime that a backend may load.
POOL_VARIABLES: Final = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMBA_NUM_THREADS",
)
#: Largest mean number of runnable threads above the budget. A main thread that hands over to its pool, and other
#: processes of the machine, stay below it.
OVERLOAD: Final = 0.5


@dataclasses.dataclass(frozen=True, slots=True)
class Pool:
    """One thread pool, as threadpoolctl reports it; a value that the library does not provide is None."""

    user_api: str | None
    internal_api: str | None
    version: str | None
    architecture: str | None
    num_threads: int | None


@dataclasses.dataclass(frozen=True, slots=True)
class ThreadReport:
    """The thread counts that the pools of a process report.

    Attributes:
        affinity: Numbers of the CPUs that the process may use; None where the system has no affinity.
        pools: Pools of BLAS and OpenMP libraries.
        torch_threads: Number of PyTorch's threads; None if it is not loaded.
        numba_threads: Number of Numba's threads; None if it is not loaded.
        numba_threading_layer: Threading layer of Numba; None before a parallel kernel has run.
    """

    affinity: tuple[int, ...] | None
    pools: tuple[Pool, ...] = ()
    torch_threads: int | None = None
    numba_threads: int | None = None
    numba_threading_layer: str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Busy:
    """The threads of a process in a period.

    Attributes:
        threads: Number of threads that ran for a tenth of the period or more.
        runnable: Mean number of threads that ran or waited for a CPU.
    """

    threads: int
    runnable: float


class BudgetError(ValueError):
    """A thread budget that this machine does not have; the message has the possible ones."""


def available_threads() -> int:
    """Return the number of CPUs that this process may use: its affinity mask, cut to the cgroup's quota; at least 1."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cgroup_quota()
    return max(1, allowed if quota is None else min(allowed, math.floor(quota)))


def cgroup_quota(root: Path = Path("/sys/fs/cgroup")) -> float | None:
    """Return the CPUs that the cgroup (version 2) grants, as quota / period of ``cpu.max``; None without a limit.

    Args:
        root: Folder of the cgroup.
    """
    try:
        quota, period = (root / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return None


def budget(requested: int | None) -> int:
    """Return the thread budget: the requested number, or by default all available threads.

    Args:
        requested: Number of threads, from 1 to ``available_threads()``; None for all.

    Raises:
        BudgetError: The number is outside that range.
    """
    most = available_threads()
    if requested is None:
        return most
    if not 1 <= requested <= most:
        raise BudgetError(
            f"--threads is {requested}, expected 1 to {most} (what affinity and cgroup leave this process)"
        )
    return requested


def pool_environment(threads: int) -> dict[str, str]:
    """Return the environment variables that hold every known pool to ``threads``."""
    return dict.fromkeys(POOL_VARIABLES, str(threads))


def cpus(threads: int) -> list[int] | None:
    """Return the first ``threads`` CPUs of the affinity mask; None where the system has no affinity."""
    allowed = affinity()
    return None if allowed is None else allowed[:threads]


def affinity() -> list[int] | None:
    """Return the CPUs that this process may use now; None where the system has no affinity."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


def bind(chosen: Sequence[int] | None) -> None:
    """Hold this process to the chosen CPUs; None changes nothing."""
    if chosen is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, chosen)


def read_back() -> ThreadReport:
    """Return the thread counts that this process's pools report now; libraries that are not loaded have none."""
    import threadpoolctl

    keys = [field.name for field in dataclasses.fields(Pool)]
    allowed = affinity()
    layer: str | None = None
    if numba := sys.modules.get("numba"):
        with contextlib.suppress(ValueError):  # known only once a parallel kernel has run
            layer = numba.threading_layer()
    torch = sys.modules.get("torch")
    return ThreadReport(
        affinity=None if allowed is None else tuple(allowed),
        pools=tuple(Pool(**{key: pool.get(key) for key in keys}) for pool in threadpoolctl.threadpool_info()),
        torch_threads=torch.get_num_threads() if torch else None,
        numba_threads=numba.get_num_threads() if numba else None,
        numba_threading_layer=layer,
    )


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


def usage(tasks: Path = Path("/proc/self/task")) -> dict[str, Usage]:
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
        before: First reading of ``usage``; threads that began later count from their beginning.
        after: Second reading of ``usage``.
    """
    none = Usage()
    return [
        Usage(*(now - then for now, then in zip(used, before.get(name, none), strict=True)))
        for name, used in after.items()
        if used.turns
    ]


def busy(before: Mapping[str, Usage], after: Mapping[str, Usage], seconds: float) -> Busy | None:
    """Return how busy the threads were between two readings of ``usage``; None if unknown.

    Frameworks size their pools by many rules and do not always obey settings, so the threads that ran are counted. A
    thread that ran for less than a tenth of the time is not.

    Args:
        before: First reading of ``usage``.
        after: Second reading of ``usage``.
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


def fault(report: ThreadReport, threads: int) -> str | None:
    """Return a flag with the counts of a report that differ from the budget; None if all agree."""
    if report.affinity is None:
        return Flag.THREADS_UNVERIFIED
    counts = [
        ("affinity", len(report.affinity)),
        ("torch", report.torch_threads),
        ("numba", report.numba_threads),
        *((pool.internal_api, pool.num_threads or None) for pool in report.pools),
    ]
    wrong = [f"{name}={count}" for name, count in counts if count not in (None, threads)]
    return Flag.THREADS_DIFFER.detailed(",".join(wrong)) if wrong else None

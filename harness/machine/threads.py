"""The thread budget: how many threads this process may use, how a worker is held to it, and what it then says.

Variables are set before a worker imports anything, because the pools read them once. XLA reads none of them: it sizes
its pool by the affinity mask, so the mask is set to exactly as many CPUs as the budget has threads.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from harness.record import Flag

#: Environment variables that size a thread pool, one for each runtime that backends bring along.
POOL_VARIABLES: Final = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMBA_NUM_THREADS",
)
#: So many threads more than the budget, on average, are too many. Below lie a main thread that hands over to its pool,
#: and what else the machine does.
OVERLOAD: Final = 0.5


@dataclasses.dataclass(frozen=True, slots=True)
class Pool:
    """One thread pool, as threadpoolctl sees it; None where the library does not say."""

    user_api: str | None
    internal_api: str | None
    version: str | None
    architecture: str | None
    num_threads: int | None


@dataclasses.dataclass(frozen=True, slots=True)
class ThreadReport:
    """What a process's pools say of themselves.

    Attributes:
        affinity: CPUs that the process may use; None where the system has no affinity.
        pools: Pools of BLAS and OpenMP libraries.
        torch_threads: Threads of PyTorch; None if it is not loaded.
        numba_threads: Threads of Numba; None if it is not loaded.
        numba_threading_layer: Threading layer of Numba; None before a parallel kernel has run.
    """

    affinity: tuple[int, ...] | None
    pools: tuple[Pool, ...] = ()
    torch_threads: int | None = None
    numba_threads: int | None = None
    numba_threading_layer: str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Busy:
    """Threads of a process in a period.

    Attributes:
        threads: Number of threads that ran for a tenth of the period or more.
        runnable: Threads that ran or waited for a CPU, on average.
    """

    threads: int
    runnable: float


class BudgetError(ValueError):
    """A thread budget that this machine does not have. The message says what it has."""


def available_threads() -> int:
    """CPUs that this process may run on: its affinity mask, cut to the cgroup's quota; at least 1."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cgroup_quota()
    return max(1, allowed if quota is None else min(allowed, math.floor(quota)))


def cgroup_quota(root: Path = Path("/sys/fs/cgroup")) -> float | None:
    """CPUs that the cgroup (version 2) grants this process, None without a limit: quota and period from ``cpu.max``."""
    try:
        quota, period = (root / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return None


def budget(asked: int | None) -> int:
    """Return the thread budget: what was asked for, or all that there is.

    Raises:
        BudgetError: Less than one thread, or more than this process may use.
    """
    most = available_threads()
    if asked is None:
        return most
    if not 1 <= asked <= most:
        raise BudgetError(f"--threads is {asked}, expected 1 to {most} (what affinity and cgroup leave this process)")
    return asked


def pool_environment(threads: int) -> dict[str, str]:
    """Environment variables that hold every known pool to ``threads``."""
    return dict.fromkeys(POOL_VARIABLES, str(threads))


def cpus(threads: int) -> list[int] | None:
    """The first ``threads`` CPUs of the affinity mask; None where the system has no affinity."""
    found = affinity()
    return None if found is None else found[:threads]


def affinity() -> list[int] | None:
    """The CPUs that this process may use now; None where the system has no affinity."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


def bind(chosen: Sequence[int] | None) -> None:
    """Hold this process to the given CPUs; None leaves it alone."""
    if chosen is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, chosen)


def read_back() -> ThreadReport:
    """Return what this process's pools say of themselves now, asking only libraries that are already loaded."""
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


def usage(tasks: Path = Path("/proc/self/task")) -> dict[str, tuple[int, int]]:
    """For each thread of this process, nanoseconds that it has run and that it has waited for a CPU; {} if unknown.

    Source: the first two numbers of schedstat (Documentation/scheduler/sched-stats.rst of Linux).
    """
    found = {}
    for path in tasks.glob("*/schedstat"):
        with contextlib.suppress(OSError, ValueError):  # it may end while we look
            ran, waited = path.read_text().split()[:2]
            found[path.parent.name] = int(ran), int(waited)
    return found


def busy(before: Mapping[str, tuple[int, int]], after: Mapping[str, tuple[int, int]], seconds: float) -> Busy | None:
    """Return how busy the threads were between two readings of ``usage``; None where the system does not tell.

    Frameworks size their pools by many rules, and settings are not always obeyed: what has run is what counts. A thread
    that ran for less than a tenth of the time does not.
    """
    if not after or not seconds > 0:
        return None
    spent = [
        (ran - before.get(name, (0, 0))[0], ran + waited - sum(before.get(name, (0, 0))))
        for name, (ran, waited) in after.items()
    ]
    return Busy(
        threads=sum(ran >= 1e8 * seconds for ran, _ in spent),
        runnable=sum(wanted for _, wanted in spent) / 1e9 / seconds,
    )


def overload(busy: Busy | None, threads: int) -> str | None:
    """Return a flag if more threads wanted to run at a time than the budget has; None if they did not."""
    if busy is None or busy.runnable <= threads + OVERLOAD:
        return None
    return Flag.OVERSUBSCRIBED.detailed(f"{busy.runnable:.1f}")


def fault(report: ThreadReport, threads: int) -> str | None:
    """Return a flag that says how a report differs from the budget; None when all agree."""
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

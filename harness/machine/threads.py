"""The thread budget: how many threads this process may use, how a worker is held to it, and what it then says.

Variables are set before a worker imports anything, because the pools read them once. XLA reads none of them: it sizes
its pool by the affinity mask, so the mask is set to exactly as many CPUs as the budget has threads.
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

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


def bind(chosen: list[int] | None) -> None:
    """Hold this process to the given CPUs; None leaves it alone."""
    if chosen is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, chosen)


def read_back() -> dict[str, Any]:
    """What this process's pools say of themselves now, by asking only libraries that are already loaded."""
    import threadpoolctl

    said: dict[str, Any] = {
        "affinity": affinity(),
        "pools": [
            {key: pool.get(key) for key in ("user_api", "internal_api", "version", "architecture", "num_threads")}
            for pool in threadpoolctl.threadpool_info()
        ],
    }
    if torch := sys.modules.get("torch"):
        said["torch_threads"] = torch.get_num_threads()
    if numba := sys.modules.get("numba"):
        said["numba_threads"] = numba.get_num_threads()
        try:
            said["numba_threading_layer"] = numba.threading_layer()
        except ValueError:
            said["numba_threading_layer"] = None  # known only once a parallel kernel has run
    return said


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


def busy(
    before: Mapping[str, tuple[int, int]], after: Mapping[str, tuple[int, int]], seconds: float
) -> dict[str, float] | None:
    """How many threads ran between two readings of ``usage``, and how many wanted to at a time, on average.

    Frameworks size their pools by many rules, and settings are not always obeyed: what has run is what counts. One that
    ran for less than a tenth of the time does not.
    """
    if not after or not seconds > 0:
        return None
    spent = [
        (ran - before.get(name, (0, 0))[0], ran + waited - sum(before.get(name, (0, 0))))
        for name, (ran, waited) in after.items()
    ]
    return {
        "threads": sum(ran >= 1e8 * seconds for ran, _ in spent),
        "runnable": sum(wanted for _, wanted in spent) / 1e9 / seconds,
    }


def overload(said: Mapping[str, float] | None, threads: int) -> str | None:
    """Say that more threads wanted to run at a time than the budget has, as a flag; None if they did not."""
    if said is None or said["runnable"] <= threads + OVERLOAD:
        return None
    return Flag.OVERSUBSCRIBED.detailed(f"{said['runnable']:.1f}")


def fault(said: dict[str, Any], threads: int) -> str | None:
    """Say how what was read back differs from the budget, as a flag for the row; None when all agree."""
    if said.get("affinity") is None:
        return Flag.THREADS_UNVERIFIED
    counts = [
        ("affinity", len(said["affinity"])),
        ("torch", said.get("torch_threads", threads)),
        ("numba", said.get("numba_threads", threads)),
        *((pool["internal_api"], pool["num_threads"]) for pool in said["pools"] if pool["num_threads"]),
    ]
    wrong = [f"{name}={count}" for name, count in counts if count != threads]
    return Flag.THREADS_DIFFER.detailed(",".join(wrong)) if wrong else None

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
from collections.abc import Sequence
from typing import Final

from harness.machine import cgroup
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


class BudgetError(ValueError):
    """A thread budget that this machine does not have; the message has the possible ones."""


def available_threads() -> int:
    """Return the number of CPUs that this process may use: its affinity mask, cut to the cgroups' quota; at least 1."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cgroup.cpus()
    return max(1, allowed if quota is None else min(allowed, math.floor(quota)))


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

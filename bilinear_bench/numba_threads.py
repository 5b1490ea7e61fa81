"""How many threads a call of the kernels may take, beside everything else that runs in the process.

* PyTorch's number, at most Numba's. Both numbers stay as they were.
* One, if Numba shares loops out by its layer "workqueue": two users of it at a time end the process.
* One, in a child that was forked: GNU OpenMP, which may run Numba's threads, ends a child that uses it again.
"""

from __future__ import annotations

import functools
import os
from typing import Any, Protocol

import numba
import torch


@functools.cache
def _most_threads() -> int:
    """Return the most threads that Numba may take; its first call starts them.

    Where Numba and PyTorch share one OpenMP library, the start would change PyTorch's number of threads.
    """
    before = torch.get_num_threads()
    numba.get_num_threads()  # starts the threads
    if torch.get_num_threads() != before:
        torch.set_num_threads(before)
    return 1 if numba.threading_layer() == "workqueue" else numba.config.NUMBA_NUM_THREADS


class _Process:
    """Whether this process is a forked child."""

    forked = False


def _after_fork() -> None:
    _Process.forked = True


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork)


def thread_count() -> int:
    """Return the number of threads of a call."""
    wanted: int = 1 if _Process.forked else torch.get_num_threads()
    return wanted if wanted == 1 else min(wanted, _most_threads())


class Plan(Protocol):
    """A plan of a kernel, as far as threads are concerned."""

    @property
    def workers(self) -> int:
        """Return the number of threads."""

    def run(self, *given: Any) -> Any:
        """Run the kernel; return its results."""


def run(plan: Plan, threads: int, *given: Any) -> Any:
    """Run a plan that was made for a number of threads, and leave Numba's number as it was."""
    if plan.workers == 1:  # it has no parallel loop
        return plan.run(*given)
    before = numba.get_num_threads()
    if threads == before:
        return plan.run(*given)
    numba.set_num_threads(threads)
    try:
        return plan.run(*given)
    finally:
        numba.set_num_threads(before)

"""Start the command line in tests: from the checkout, with the faulty backends on its path."""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
FAULTY = Path(__file__).parent / "faulty"
#: Options that leave out the slowest parts of a run, which have tests of their own: the peaks and fresh processes.
BRIEF = ("--no-roofline", "--processes", "1")


def command(*arguments: str) -> list[str]:
    """Return the command line, as a list for subprocess."""
    return [sys.executable, "-P", "-m", "harness", *arguments]


def environment(**variables: str) -> dict[str, str]:
    """Return this process's environment with checkout and faulty backends on the path."""
    return os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{FAULTY}"} | variables


@contextlib.contextmanager
def cpus_for(arguments: Iterable[str]) -> Iterator[None]:
    """Bind a process started with these arguments to one CPU, if it uses one; each test process has its own CPU.

    It does nothing on a system without CPU affinity.
    """
    if ("--threads", "1") not in itertools.pairwise(arguments) or not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    os.sched_setaffinity(0, {sorted(before)[number % len(before)]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)

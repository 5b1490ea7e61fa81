"""How tests start the command line, and other programs: from the checkout, with the faulty backends on the path."""

from __future__ import annotations

import contextlib
import csv
import itertools
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
#: Folders that the faulty backends need on the path: their own, and that of ``oracle.py``.
FAULTY = os.pathsep.join(map(str, (Path(__file__).parent / "faulty", Path(__file__).parent)))
#: Options that leave out the slowest parts of a run, which have tests of their own: the roofline, fresh processes.
BRIEF = ("--no-roofline", "--processes", "1")


def command(*arguments: str) -> list[str]:
    """Return the command line, as a list for subprocess."""
    return [sys.executable, "-P", "-m", "harness", *arguments]


def environment(**variables: str) -> dict[str, str]:
    """Return this process's environment with checkout and faulty backends on the path, and no width of its own."""
    inherited = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    return inherited | {"PYTHONPATH": f"{ROOT}{os.pathsep}{FAULTY}"} | variables


def python(program: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a Python program in a process of its own, with the checkout's modules."""
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=ROOT,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=False,
    )


@contextlib.contextmanager
def cpus_for(arguments: Iterable[str]) -> Iterator[None]:
    """Bind this process and those that it starts to one CPU, if the arguments are for one thread.

    Each process of pytest-xdist takes another CPU. Where the system has no affinity, nothing is bound.
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


def mutant_rows(
    options: tuple[str, ...], backends: Iterable[str], out: Path, timeout_seconds: float
) -> dict[tuple[str, str], dict[str, str]]:
    """Run the command line on wrong backends, in both modes; return their rows by backend and mode.

    Args:
        options: Options of the run.
        backends: Names of the backends, whose modules are in ``tests/mutants``.
        out: Folder of the run, in a folder that exists.
        timeout_seconds: Time after which the run is killed, in seconds.
    """
    tests = Path(__file__).parent
    chosen = [option for name in backends for option in ("--backend", name)]
    with cpus_for(options):
        ended = subprocess.run(
            command("run", *BRIEF, *options, "--seed", "11", "--time-limit", "60", "--out", str(out), *chosen),
            cwd=out.parent,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (ROOT, tests / "mutants", tests)))},
            capture_output=True,
            text=True,
            timeout=timeout_seconds,
            check=False,
        )
    assert (out / "records.csv").is_file(), ended.stdout + ended.stderr
    with (out / "records.csv").open() as file:
        return {(row["backend"], row["mode"]): row for row in csv.DictReader(file)}

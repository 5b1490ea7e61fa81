"""A table of runs: start one run of the command line, take its row, continue a table that exists."""

from __future__ import annotations

import collections
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

#: The folder with the backends of ``study_backends.py`` and their entry points.
KNOWN_SPEED = Path(__file__).parent / "known_speed"


def run(backend: str, *options: str, cases: tuple[str, str] = ("--suite", "seed"), **variables: str) -> dict[str, str]:
    """Return the row of one backend, compared with nn.Bilinear in mode forward on the CPU.

    Args:
        backend: Name of the backend.
        options: More options of ``bilinear-bench run``.
        cases: The option that chooses the case.
        variables: Environment variables on top of this process's own.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "run"
        command = [sys.executable, "-m", "harness", "run", *cases, "--mode", "forward", "--no-roofline"]
        path = os.pathsep.join(filter(None, (str(KNOWN_SPEED), os.environ.get("PYTHONPATH"))))
        start = time.monotonic()
        ended = subprocess.run(
            [*command, "--device", "cpu", "--backend", backend, "--out", str(folder), *options],
            env=os.environ | {"PYTHONPATH": path} | variables,
            capture_output=True,
            text=True,
            check=False,
        )
        if ended.returncode:
            sys.exit(f"{' '.join(ended.args)} exited with {ended.returncode}:\n{ended.stdout}{ended.stderr}")
        wall_seconds = time.monotonic() - start
        row = next(row for row in rows(folder / "records.csv") if row["backend"] == backend)
        environment = json.loads((folder / "environment.json").read_text())
    more = {
        "wall_seconds": f"{wall_seconds:.1f}",
        "overhead_seconds": str(environment["workers"][f"{backend} on cpu"]["overhead_seconds"]),
        "cpu": environment["cpu_model"],
    }
    return row | more


def rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def fill(
    path: Path,
    columns: tuple[str, ...],
    count: int,
    seconds: float,
    make: Callable[[int], Mapping[str, str]],
    at_once: int = 1,
) -> None:
    """Add rows to a table until it has ``count`` rows or the time is over; write each row to disk at once.

    Args:
        path: The table. Rows that it already has stay, so a study can be interrupted and continued.
        columns: Columns of the table.
        count: Number of rows of the complete table.
        seconds: Time after which no further row is started.
        make: Function that makes the row of a number.
        at_once: Number of rows that are made at the same time.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    header = ",".join(columns)
    if not path.exists():
        path.write_text(header + "\n")
    if path.read_text().partition("\n")[0] != header:
        sys.exit(f"{path} has other columns than this study writes: begin a new table")
    done = len(rows(path))
    end = time.monotonic() + seconds
    begun: collections.deque[Future[Mapping[str, str]]] = collections.deque()
    with path.open("a", newline="") as file, ThreadPoolExecutor(at_once) as pool:
        writer = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
        while True:
            while len(begun) < at_once and done < count and time.monotonic() < end:
                begun.append(pool.submit(make, done))
                done += 1
            if not begun:
                break
            writer.writerow(begun.popleft().result())
            file.flush()
            os.fsync(file.fileno())

"""What the studies share: a run of the command line that ends up as a row of a table, which can be gone on with."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

PLANTED = Path(__file__).parent / "planted"


def run(backend: str, *options: str, cases: tuple[str, str] = ("--suite", "seed"), **variables: str) -> dict[str, str]:
    """Run a case, forward, with one backend beside nn.Bilinear; return its row and the wall time in seconds."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "run"
        command = [sys.executable, "-m", "harness", "run", *cases, "--mode", "forward", "--no-limit"]
        path = os.pathsep.join(filter(None, (str(PLANTED), os.environ.get("PYTHONPATH"))))
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
        with (folder / "records.csv").open() as file:
            row = next(row for row in csv.DictReader(file) if row["backend"] == backend)
        environment = json.loads((folder / "environment.json").read_text())
    more = {
        "wall_seconds": f"{wall_seconds:.1f}",
        "overhead_seconds": str(environment["workers"][f"{backend} on cpu"]["overhead_seconds"]),
        "cpu": environment["cpu_model"],
    }
    return row | more


def fill(
    path: Path, columns: tuple[str, ...], rows: int, seconds: float, make: Callable[[int], Mapping[str, str]]
) -> int:
    """Add rows to a table until it has so many or the time is over, each forced to disk; return how many it has.

    Args:
        path: The table; what it has already stays, so a study can be made in several sittings.
        columns: Of the table.
        rows: How many it shall have.
        seconds: When this time has passed no further row is begun.
        make: Makes the row of a number.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        path.write_text(",".join(columns) + "\n")
    with path.open(newline="") as file:
        done = sum(1 for _ in csv.DictReader(file))
    end = time.monotonic() + seconds
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
        while done < rows and time.monotonic() < end:
            writer.writerow(make(done))
            file.flush()
            os.fsync(file.fileno())
            done += 1
    return done

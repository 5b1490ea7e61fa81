"""Count honest backends that are rejected or fail because the machine is busy, run by run.

    python studies/busy_machine.py results/reference/MACHINE/busy_machine.csv [RUNS] [BUSY] [SECONDS] [AT_ONCE]

While BUSY (6) processes compute without a pause, each run is `bilinear-bench run --case 128x20x30x40 --budget 5`: every
backend that is installed, forward and training step. AT_ONCE (1) runs go side by side, and each loads the others.
The study does RUNS (20) runs, continues a table that exists, and starts no run after SECONDS. Every backend here is
honest, so a row that is not timed is the machine's doing.
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from run_table import fill, rows

from harness.record import Flag, Status

#: Statuses of backends that are not there.
ABSENT = (Status.UNAVAILABLE, Status.UNSUPPORTED)
COLUMNS = (
    *(
        "run",
        "busy",
        "at_once",
        "cpus",
        "others_running",
        "rows",
        *(status.value for status in Status if status not in ABSENT),
    ),
    *("mostly_disturbed", "implausible", "reasons", "wall_seconds", "cpu"),
)


@contextlib.contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """Keep processes computing.

    Args:
        count: Number of processes.
    """
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def one_run(number: int, busy: int, at_once: int) -> dict[str, str]:
    """Return the row of one run.

    Args:
        number: Number of the run, which is its seed.
        busy: Number of busy processes.
        at_once: Number of runs that go side by side.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder, start = Path(scratch) / "run", time.monotonic()
        command = [sys.executable, "-m", "harness", "run", "--case", "128x20x30x40", "--budget", "5"]
        ended = subprocess.run(
            [*command, "--seed", str(number), "--device", "cpu", "--no-lock", "--out", str(folder)],
            capture_output=True,
            text=True,
            check=False,
        )
        wall_seconds = time.monotonic() - start
        if not (folder / "records.csv").is_file():
            sys.exit(f"{' '.join(ended.args)} exited with {ended.returncode}:\n{ended.stdout}{ended.stderr}")
        found = [row for row in rows(folder / "records.csv") if row["status"] not in ABSENT]
        running = [int(row["others_running"]) for row in rows(folder / "samples.csv") if row["others_running"]]
        environment = json.loads((folder / "environment.json").read_text())
    flags = [row["flags"].split(";") for row in found]
    reasons = [f"{row['backend']} {row['mode']}: {row['reason']}" for row in found if row["status"] != Status.TIMED]
    return {
        "run": str(number),
        "busy": str(busy),
        "at_once": str(at_once),
        "cpus": str(len(os.sched_getaffinity(0))),
        "others_running": f"{statistics.median(running):g}",
        "rows": str(len(found)),
        **{status.value: str(sum(row["status"] == status for row in found)) for status in Status},
        "mostly_disturbed": str(sum(Flag.MOSTLY_DISTURBED in of_row for of_row in flags)),
        "implausible": str(sum(Flag.IMPLAUSIBLE in of_row for of_row in flags)),
        "reasons": " | ".join(reasons),
        "wall_seconds": f"{wall_seconds:.0f}",
        "cpu": environment["cpu_model"],
    }


def summary(path: Path) -> str:
    """Return how many rows were not timed, in sentences.

    Args:
        path: The table.
    """
    with path.open(newline="") as file:
        table = list(csv.DictReader(file))

    def total(column: str) -> int:
        return sum(int(row[column]) for row in table)

    wrong = ", ".join(f"{total(status)} {status}" for status in ("rejected", "failed", "timeout", "out_of_memory"))
    running = sorted(float(row["others_running"]) for row in table)
    load = f"{running[0]:g} to {running[-1]:g} running threads of others (the median of each run)"
    where = f"{len(table)} runs on {table[0]['cpus']} CPUs beside {load}"
    marks = f"{total('mostly_disturbed')} are flagged `mostly_disturbed` and {total('implausible')} `implausible`"
    return f"{where} have {total('rows')} rows of honest backends: {wrong}. Of {total('timed')} timed rows {marks}."


def main() -> None:
    """Fill the table, then print its summary."""
    path = Path(sys.argv[1])
    usual = ("20", "6", "inf", "1")
    count, busy, seconds, at_once = (*sys.argv[2:], *usual[len(sys.argv) - 2 :])
    with busy_processes(int(busy)):
        fill(
            *(path, COLUMNS, int(count), float(seconds)),
            lambda number: one_run(number, int(busy), int(at_once)),
            int(at_once),
        )
    print(summary(path))


if __name__ == "__main__":
    main()

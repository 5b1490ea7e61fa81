"""Measure how unfair idle workers are that keep running: the same backend twice, with and without SIGSTOP.

    python studies/fairness.py results/reference/MACHINE/fairness.csv [RUNS]

Each run is `bilinear-bench run` on the seed case, forward, with `torch-bilinear` and `torch-bilinear#2`. Some runs have
the two alone, others have neighbours with thread pools of their own. The ratio of the two is 1 if the comparison is
fair. Runs with and without stopping idle workers alternate, so both see the same machine.
"""

from __future__ import annotations

import csv
import subprocess
import sys
import tempfile
from pathlib import Path

PAIR = ("torch-bilinear", "torch-bilinear#2")
NEIGHBOURS = {"none": (), "numpy and numba": ("numpy-loop", "numba-loop")}


def measure(folder: Path, backends: tuple[str, ...], *options: str) -> tuple[float, float, int]:
    """Run once; return the ratio of the pair, the second backend's median in seconds, and the number of blocks."""
    command = [sys.executable, "-m", "harness", "run", "--suite", "seed", "--mode", "forward", "--out", str(folder)]
    chosen = [word for name in backends for word in ("--backend", name)]
    subprocess.run([*command, *chosen, *options], check=True, capture_output=True)
    with (folder / "records.csv").open() as file:
        row = next(row for row in csv.DictReader(file) if row["backend"] == PAIR[1])
    return float(row["speedup"]), float(row["median_seconds"]), int(row["blocks"])


def main() -> None:
    """Alternate runs with and without stopping idle workers; write one row for each run."""
    path = Path(sys.argv[1])
    runs = int(sys.argv[2]) if len(sys.argv) > 2 else 10
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch, path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("neighbours", "run", "frozen", "ratio", "median_seconds", "blocks"))
        for name, neighbours in NEIGHBOURS.items():
            for number in range(runs):
                for option in ("--freeze", "--no-freeze"):
                    folder = Path(scratch) / f"{name}{number}{option}"
                    measured = measure(folder, (*PAIR, *neighbours), option, "--seed", str(number))
                    writer.writerow((name, number, option == "--freeze", *measured))
                    file.flush()


if __name__ == "__main__":
    main()

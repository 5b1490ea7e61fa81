"""How unfair is it to leave idle workers running? The same backend twice, frozen and not, run by run.

    python studies/fairness.py results/reference/MACHINE/fairness.csv [RUNS]

Each run is `bilinear-bench run` on the seed case with `torch-bilinear` and `torch-bilinear#2`, forward; the ratio of
the two, which ought to be 1, is the median over its blocks. Frozen and unfrozen runs alternate, so that both see the
same machine.
"""

from __future__ import annotations

import csv
import subprocess
import sys
import tempfile
from pathlib import Path

BACKENDS = ("--backend", "torch-bilinear", "--backend", "torch-bilinear#2")


def ratio(folder: Path, *options: str) -> tuple[float, float, int]:
    """Run once; return the ratio, the median time of a call in seconds, and the number of blocks."""
    command = [sys.executable, "-m", "harness", "run", "--suite", "seed", "--mode", "forward", *BACKENDS, *options]
    subprocess.run([*command, "--out", str(folder)], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    with (folder / "records.csv").open() as file:
        row = next(row for row in csv.DictReader(file) if row["backend"] == "torch-bilinear#2")
    return float(row["speedup"]), float(row["median_seconds"]), int(row["blocks"])


def main() -> None:
    """Alternate frozen and unfrozen runs; write one row each."""
    path = Path(sys.argv[1])
    runs = int(sys.argv[2]) if len(sys.argv) > 2 else 10
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch, path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("run", "frozen", "ratio", "median_seconds", "blocks"))
        for number in range(runs):
            for frozen in (True, False):
                option = "--freeze" if frozen else "--no-freeze"
                writer.writerow(
                    (number, frozen, *ratio(Path(scratch) / f"{number}{option}", option, "--seed", str(number)))
                )
                file.flush()


if __name__ == "__main__":
    main()

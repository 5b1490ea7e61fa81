"""Everything that this project claims of a GPU, measured on one, in sittings of a few minutes.

    python studies/gpu.py results/reference/gpu [SECONDS]

Runs, each into a folder of its own below the given one: the suite `gpu` in float32, tf32 and bfloat16, forward and
forward + backward, with every backend that is there; then the cold-cache run of `published`. No run is on for longer
than SECONDS (480) in all: what is then not done is completed by calling this again, until it says that all is done.
At the end it prints what the rows say: speed-ups in geometric mean, shares of the GEMM rate, launch overhead.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd

RUNS = {
    "float32": ("--suite", "gpu"),
    "tf32": ("--suite", "gpu", "--precision", "tf32"),
    "bfloat16": ("--suite", "gpu", "--dtype", "bfloat16"),
    "cold": ("--suite", "published", "--cache", "cold"),
}
OURS, BASELINE = "triton-fused", "torch-bilinear"
INTERRUPTED = 130


def main() -> None:
    """Measure what is missing, then say what is there."""
    folder = Path(sys.argv[1])
    end = time.monotonic() + (float(sys.argv[2]) if len(sys.argv) > 2 else 480.0)
    for name, options in RUNS.items():
        there = folder / name
        if there.exists() and not left(there):
            continue
        if time.monotonic() > end:
            break
        plan = ("--resume", str(there)) if there.exists() else (*options, "--device", "cuda", "--out", str(there))
        measure(plan, end)
    for name in RUNS:
        if (folder / name / "records.csv").exists():
            tell(name, pd.read_csv(folder / name / "records.csv"))
    missing = [name for name in RUNS if not (folder / name).exists() or left(folder / name)]
    print(f"to do: {', '.join(missing)}; call this again" if missing else "all is done")


def measure(options: tuple[str, ...], end: float) -> None:
    """Run until it is done or the time is over; then it stops as by Ctrl-C, with a row for all that is left."""
    running = subprocess.Popen([sys.executable, "-m", "harness", "run", *options])
    try:
        code = running.wait(max(1.0, end - time.monotonic()))
    except subprocess.TimeoutExpired:
        running.send_signal(signal.SIGINT)
        code = running.wait()
    if code not in (0, 1, INTERRUPTED):
        sys.exit(f"a run exited with {code}")


def left(folder: Path) -> bool:
    """Whether rows of a run were interrupted, or it has none."""
    records = pd.read_csv(folder / "records.csv")
    return records.empty or bool((records["status"] == "interrupted").any())


def tell(name: str, records: pd.DataFrame) -> None:
    """Print what the rows of a run say."""
    timed = records[records["status"] == "timed"]
    print(f"\n{name}: {len(timed)} of {len(records)} rows timed")
    for mode, rows in timed.groupby("mode"):
        times = rows.pivot_table(index="case", columns="backend", values="median_seconds")
        if OURS not in times or BASELINE not in times:
            continue
        peers = times.drop(columns=[OURS]).min(axis=1)
        print(f"  {mode}: {OURS} over {BASELINE} {geometric(times[BASELINE] / times[OURS]):.1f}x, ", end="")
        print(f"over the best of all others {geometric(peers / times[OURS]):.2f}x (geometric means)")
        large = rows[(rows["backend"] == OURS) & (rows["gflop"] >= 10)]
        if large["limit_fraction"].notna().any():
            print(f"    of the GEMM rate, 10 GFLOP and more: {large['limit_fraction'].min():.0%} at least")
        baseline = rows[(rows["backend"] == BASELINE) & rows["device_seconds"].notna()]
        if len(baseline):
            share = 1 - (baseline["device_seconds"] / baseline["median_seconds"])
            print(f"    launching takes {share.median():.0%} of {BASELINE}'s time, in the median of the cases")


def geometric(ratios: pd.Series) -> float:
    """The geometric mean of what is there."""
    return float(np.exp(np.log(ratios.dropna()).mean()))


if __name__ == "__main__":
    main()

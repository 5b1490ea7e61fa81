"""Everything that this project claims of a GPU, measured on one, in sittings of a few minutes.

    python studies/gpu.py results/reference/gpu [SECONDS]

Runs, each into a folder of its own below the given one: the suite `gpu` in float32, tf32 and bfloat16, forward and
forward + backward, with every backend for GPUs that is there; and `published` with cold caches. A sitting takes SECONDS
(480) in all, in turns, each for the run that has the fewest rows: whenever it ends, something of each is there. What is
not done is completed by calling this again, until it says that all is done. At the end it prints what the rows say:
speed-ups in geometric mean, shares of the GEMM rate, launching, memory.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd

ROOT = Path(__file__).parent.parent
OURS, BASELINE = "triton-fused", "torch-bilinear"
BACKENDS = (
    *(BASELINE, "torch-einsum", "torch-compile", "torch-contract", "jax-jit", "jax-contract"),
    *(OURS, "cupy-einsum", "flaggems"),
)
BRIEF = ("--target", "5%", "--band", "5%", "--processes", "1", "--budget", "5")
RUNS = {
    "float32": ("--suite", "gpu"),
    "tf32": ("--suite", "gpu", "--precision", "tf32"),
    "bfloat16": ("--suite", "gpu", "--dtype", "bfloat16"),
    "cold": ("--suite", "published", "--cache", "cold", *BRIEF),
}
#: The turn of a run, in seconds; what remains of a sitting is not begun if it is shorter than the second number.
TURN_SECONDS, LEAST_SECONDS = 160.0, 90.0
#: A run that was told to stop has so long to write its rows.
STOP_SECONDS = 30.0


def main() -> None:
    """Measure what is missing, then say what is there."""
    folder = Path(sys.argv[1]).resolve()
    end = time.monotonic() + (float(sys.argv[2]) if len(sys.argv) > 2 else 480.0) - STOP_SECONDS
    stuck: list[str] = []
    while (left := end - time.monotonic()) > LEAST_SECONDS:
        todo = [name for name in RUNS if missing(folder / name) and name not in stuck]
        if not todo:
            break
        name = min(todo, key=lambda name: len(done(folder / name)))
        before = len(done(folder / name))
        # The last turn of a sitting is as long as it can be.
        measure(folder / name, RUNS[name], TURN_SECONDS if left > TURN_SECONDS + LEAST_SECONDS else left)
        if len(done(folder / name)) == before:
            stuck.append(name)
    for name in RUNS:
        if len(rows := done(folder / name)):
            tell(name, rows, environment(folder / name))
    if stuck:
        print(f"not a group was completed of {', '.join(stuck)}: if that goes on, give more SECONDS")
    left_over = [name for name in RUNS if missing(folder / name)]
    print(f"to do: {', '.join(left_over)}; call this again" if left_over else "all is done")


def measure(there: Path, options: tuple[str, ...], seconds: float) -> None:
    """Begin a run or go on with it, for so long; then it stops as by Ctrl-C, with a row for all that is left."""
    chosen = [word for name in BACKENDS for word in ("--backend", name)]
    fresh = not (there / "records.csv").exists()
    plan = (*options, *chosen, "--device", "cuda", "--out", str(there)) if fresh else ("--resume", str(there))
    running = subprocess.Popen([sys.executable, "-m", "harness", "run", *plan], cwd=ROOT)
    try:
        code = running.wait(seconds)
    except subprocess.TimeoutExpired:
        running.send_signal(signal.SIGTERM)
        try:
            code = running.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            running.kill()
            code = running.wait()
    if code == 2 or not (there / "records.csv").exists():
        sys.exit(f"a run exited with {code}, and has no rows")


def done(there: Path) -> pd.DataFrame:
    """The rows of a run, without those that say that it was interrupted."""
    if not (there / "records.csv").exists():
        return pd.DataFrame()
    rows = pd.read_csv(there / "records.csv")
    return rows[rows["status"] != "interrupted"]


def missing(there: Path) -> bool:
    """Whether planned rows of a run are not there; those of one that broke off without a word are not, either."""
    if not (there / "records.csv").exists():
        return True
    plan = environment(there)["plan"]
    return len(done(there)) < len(plan["cases"]) * len(plan["backends"]) * len(plan["devices"])


def environment(there: Path) -> dict[str, object]:
    """What a run says of its machine and its plan."""
    return json.loads((there / "environment.json").read_text())


def tell(name: str, records: pd.DataFrame, said: dict[str, object]) -> None:
    """Print what the rows of a run say."""
    timed = records[records["status"] == "timed"]
    print(f"\n{name}: {len(timed)} of {len(records)} rows timed")
    gemm = said.get("peaks", {}).get("cuda", {}).get("arithmetic", {})
    for mode, rows in timed.groupby("mode"):
        table = {
            column: rows.pivot_table(index="case", columns="backend", values=column)
            for column in ("median_seconds", "graph_seconds", "device_seconds", "peak_memory_bytes", "gflop")
            if rows[column].notna().any()
        }
        times = table["median_seconds"]
        if OURS not in times or BASELINE not in times:
            continue
        peers = times.drop(columns=[OURS]).min(axis=1)
        print(f"  {mode}: {OURS} over {BASELINE} {geometric(times[BASELINE] / times[OURS]):.1f}x, ", end="")
        print(f"over the best of all others {geometric(peers / times[OURS]):.2f}x (geometric means)")
        if (rate := gemm.get(name if name in gemm else "float32")) is not None:
            share = table["gflop"][OURS] * 1e9 / times[OURS] / rate["flop_per_second"]
            large = share[table["gflop"][OURS] >= 10]
            if len(large):
                print(f"    of the GEMM rate, in {len(large)} cases of 10 GFLOP and more: ", end="")
                print(f"{large.min():.0%} at least ({large.idxmin()}), {large.median():.0%} in the median")
        # By the graph and not by the events: a queue holds a thousand launches, and nn.Bilinear may have more.
        for column in ("graph_seconds", "device_seconds"):
            if column in table and BASELINE in table[column]:
                share = 1 - table[column][BASELINE] / times[BASELINE]
                print(f"    {BASELINE}: all but {column} is {share.median():.0%} of its time (median of cases)")
        if "peak_memory_bytes" in table and {OURS, BASELINE} <= set(table["peak_memory_bytes"]):
            memory = table["peak_memory_bytes"] / 2**20
            print(f"    peak memory, MiB, largest case: {OURS} {memory[OURS].max():,.0f}, ", end="")
            print(f"{BASELINE} {memory[BASELINE].max():,.0f}")


def geometric(ratios: pd.Series) -> float:
    """The geometric mean of what is there."""
    return float(np.exp(np.log(ratios.dropna()).mean()))


if __name__ == "__main__":
    main()

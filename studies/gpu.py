"""Measure everything that this project claims of a GPU, in pieces of a few minutes.

    python studies/gpu.py results/reference/MACHINE [SECONDS]

There are three runs, each in its own folder below that one. ``warm`` has the cases in float32, tf32 and bfloat16,
forward and training step, and the backends that compile little. ``compilers`` has the backends that compile for each
shape, which takes minutes. ``flushed`` empties the L2 before each call.

One call of this program takes SECONDS (480) and stops the run that it has reached. The next call continues, until
"all is done" is printed. At the end it prints speed-ups in geometric mean, shares of the GEMM rate, the share of
launching, and memory.
"""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

ROOT = Path(__file__).parent.parent
OURS, BASELINE = "triton-fused", "torch-bilinear"
LIBRARIES = (BASELINE, "torch-einsum", "torch-contract", "cupy-einsum", OURS)
COMPILERS = (BASELINE, "torch-compile", "jax-jit", "jax-contract", "flaggems", OURS)
BRIEF = ("--target", "5%", "--band", "5%", "--processes", "1", "--budget", "3", "--time-limit", "60")
#: The five cases of FlagGems, and those of the suite ``gpu`` that differ most. The most different cases come first.
PUBLISHED = ("512x128x128x256", "2048x32x32x64", "256x64x64x128", "128x256x256x128", "1024x64x48x96")
MODELS = ("2708x512x512x1", "16000x148x148x97", "128x200x200x200:nobias", "1024x128x128x45", "120000x8x128x128:nobias")
CASES = (*PUBLISHED[:2], *MODELS[:2], *PUBLISHED[2:], *MODELS[2:])
#: Suffix of a case, and the number of float32 cases that come before the first case of that arithmetic: a run that is
#: too short for all cases has some of each.
ARITHMETIC = {"": 0, ":bfloat16": 2, ":tf32": 3}
IN_TURN = sorted(itertools.product(CASES, ARITHMETIC), key=lambda pair: CASES.index(pair[0]) + ARITHMETIC[pair[1]])
#: Backends and options of each run.
RUNS = {
    "warm": (LIBRARIES, [f"--case={case}{arithmetic}" for case, arithmetic in IN_TURN]),
    "compilers": (COMPILERS, ["--suite=published"]),
    "flushed": (LIBRARIES, ["--suite=published", "--flush-l2"]),
}
#: No run starts with less time left than this, in seconds.
LEAST_SECONDS = 90.0
#: Least work of a case that is compared with the GEMM's rate, in 1e9 floating-point operations.
LARGE_GFLOP = 4
#: Time that an interrupted run has to write its rows, in seconds.
STOP_SECONDS = 30.0


def main() -> None:
    """Measure the missing rows, then print the summaries."""
    folder = Path(sys.argv[1]).resolve()
    end = time.monotonic() + (float(sys.argv[2]) if len(sys.argv) > 2 else 480.0) - STOP_SECONDS
    for name, (backends, options) in RUNS.items():
        if missing(folder / name) and (left := end - time.monotonic()) > LEAST_SECONDS:
            measure(folder / name, backends, options, left)
    for name in RUNS:
        if len(rows := done(folder / name)):
            summarize(name, rows, environment(folder / name))
    unfinished = [name for name in RUNS if missing(folder / name)]
    print(f"to do: {', '.join(unfinished)}; call this again" if unfinished else "all is done")


def measure(folder: Path, backends: Sequence[str], options: Sequence[str], seconds: float) -> None:
    """Start or resume a run; interrupt it after ``seconds``, so that it writes a row for each cell that is left."""
    chosen = [f"--backend={name}" for name in backends]
    fresh = not (folder / "records.csv").exists()
    plan = (*options, *BRIEF, *chosen, "--device", "cuda", "--out", str(folder)) if fresh else ("--resume", str(folder))
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
    if code == 2 or not (folder / "records.csv").exists():
        sys.exit(f"a run exited with {code}, and has no rows")


def done(folder: Path) -> pd.DataFrame:
    """Return the rows of a run without the interrupted ones."""
    if not (folder / "records.csv").exists():
        return pd.DataFrame()
    rows = pd.read_csv(folder / "records.csv")
    return rows[rows["status"] != "interrupted"]


def missing(folder: Path) -> bool:
    """True if planned rows of a run are missing; a run that was killed lacks the rows it did not reach."""
    if not (folder / "records.csv").exists():
        return True
    plan = environment(folder)["plan"]
    return len(done(folder)) < len(plan["cases"]) * len(plan["backends"]) * len(plan["devices"])


def environment(folder: Path) -> dict[str, object]:
    """Return the machine and the plan of a run."""
    return json.loads((folder / "environment.json").read_text())


def summarize(name: str, records: pd.DataFrame, run: dict[str, object]) -> None:
    """Print the summary of a run."""
    timed = records[records["status"] == "timed"]
    print(f"\n{name}: {len(timed)} of {len(records)} rows timed")
    gemm = run.get("peaks", {}).get("cuda", {}).get("arithmetic", {})
    for (dtype, precision, mode), rows in timed.groupby(["dtype", "precision", "mode"]):
        arithmetic = dtype if precision == "ieee" else precision
        table = {
            column: rows.pivot_table(index="case", columns="backend", values=column)
            for column in ("median_seconds", "graph_seconds", "device_seconds", "peak_memory_bytes", "gflop")
            if rows[column].notna().any()
        }
        times = table["median_seconds"]
        if OURS not in times or BASELINE not in times:
            continue
        peers = times.drop(columns=[OURS]).min(axis=1)
        both = (times[OURS] * times[BASELINE]).notna().sum()
        print(f"  {arithmetic}, {mode}, {both} cases: {OURS} over {BASELINE} ", end="")
        print(f"{geometric(times[BASELINE] / times[OURS]):.1f}x, ", end="")
        print(f"over the best of all others {geometric(peers / times[OURS]):.2f}x (geometric means)")
        if (rate := gemm.get(arithmetic)) is not None:
            share = table["gflop"][OURS] * 1e9 / times[OURS] / rate["flop_per_second"]
            large = share[table["gflop"][OURS] >= LARGE_GFLOP]
            if len(large):
                print(f"    of the GEMM rate, in {len(large)} cases of {LARGE_GFLOP} GFLOP and more: ", end="")
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
    """Return the geometric mean of the ratios that are not missing."""
    return float(np.exp(np.log(ratios.dropna()).mean()))


if __name__ == "__main__":
    main()

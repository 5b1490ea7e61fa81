"""Everything that this project claims of a GPU, measured on one, in sittings of a few minutes.

    python studies/gpu.py results/reference/gpu [SECONDS]

Three runs, each in a folder of its own below the given one: ``warm`` has the cases in float32, tf32 and bfloat16,
forward and forward + backward, and the backends that compile little; ``compilers`` those that compile anew for each
shape, which takes minutes; ``cold`` empties the caches before each call. A context takes SECONDS (480) in all and stops
the run that it is at; what is not done is completed by calling this again, until it says that all is done. At the end
it prints what the rows say: speed-ups in geometric mean, shares of the GEMM rate, launching, memory.
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
#: FlagGems' five, and of the suite ``gpu`` those that differ most; what says most comes first.
PUBLISHED = ("512x128x128x256", "2048x32x32x64", "256x64x64x128", "128x256x256x128", "1024x64x48x96")
MODELS = ("2708x512x512x1", "16000x148x148x97", "128x200x200x200:nobias", "1024x128x128x45", "120000x8x128x128:nobias")
CASES = (*PUBLISHED[:2], *MODELS[:2], *PUBLISHED[2:], *MODELS[2:])
#: How they are multiplied, and how many cases in float32 come before the first one so: a context that is too short for
#: all of them has some of each.
ARITHMETIC = {"": 0, ":bfloat16": 2, ":tf32": 3}
IN_TURN = sorted(itertools.product(CASES, ARITHMETIC), key=lambda pair: CASES.index(pair[0]) + ARITHMETIC[pair[1]])
#: For each run its backends and options.
RUNS = {
    "warm": (LIBRARIES, [f"--case={case}{how}" for case, how in IN_TURN]),
    "compilers": (COMPILERS, ["--suite=published"]),
    "cold": (LIBRARIES, ["--suite=published", "--flush-l2"]),
}
#: A context does not begin anything for which less is left, in seconds.
LEAST_SECONDS = 90.0
#: Cases of so many and more are held against the GEMM's rate.
LARGE_GFLOP = 4
#: A run that was told to stop has so long to write its rows.
STOP_SECONDS = 30.0


def main() -> None:
    """Measure what is missing, then say what is there."""
    folder = Path(sys.argv[1]).resolve()
    end = time.monotonic() + (float(sys.argv[2]) if len(sys.argv) > 2 else 480.0) - STOP_SECONDS
    for name, (backends, options) in RUNS.items():
        if missing(folder / name) and (left := end - time.monotonic()) > LEAST_SECONDS:
            measure(folder / name, backends, options, left)
    for name in RUNS:
        if len(rows := done(folder / name)):
            tell(name, rows, environment(folder / name))
    left_over = [name for name in RUNS if missing(folder / name)]
    print(f"to do: {', '.join(left_over)}; call this again" if left_over else "all is done")


def measure(there: Path, backends: Sequence[str], options: Sequence[str], seconds: float) -> None:
    """Begin a run or go on with it, for so long; then it stops as by Ctrl-C, with a row for all that is left."""
    chosen = [f"--backend={name}" for name in backends]
    fresh = not (there / "records.csv").exists()
    plan = (*options, *BRIEF, *chosen, "--device", "cuda", "--out", str(there)) if fresh else ("--resume", str(there))
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
    """The geometric mean of what is there."""
    return float(np.exp(np.log(ratios.dropna()).mean()))


if __name__ == "__main__":
    main()

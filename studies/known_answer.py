"""Hold the clock against known answers: calls of known duration, and twice the number of calls.

    python studies/known_answer.py results/reference/MACHINE/known_answer.csv

First `bilinear-bench run` times a backend whose call ends after a given time and not before. The median is that time
plus `overhead_seconds`, the cost of the timing loop around a call that does nothing. Then real backends take samples of
n and of 2 n calls in turn, in the worker that a run uses. The ratio is 2.
"""

from __future__ import annotations

import csv
import random
import statistics
import sys
from pathlib import Path

from run_table import run

from harness.case import Case
from harness.catalog.registry import select
from harness.machine.threads import budget
from harness.process.folders import default_cache
from harness.process.protocol import Load, Prepare, TakeSample, WarmUp
from harness.process.supervisor import Supervisor
from harness.timing.clock import SETTLE_SECONDS, calls_per_sample

DURATIONS = (20e-6, 200e-6, 2e-3, 20e-3, 100e-3)
BACKENDS = ("torch-bilinear", "torch-einsum", "numpy-loop", "numpy-einsum", "numba-loop", "jax-jit")
CASE = Case(128, 20, 30, 40)
PAIRS = 60
#: Time limit of each request to the worker, in seconds.
LIMIT_SECONDS = 120.0
COLUMNS = ("what", "backend", "given", "measured", "low", "high", "overhead_seconds", "off")


def duration(seconds: float) -> dict[str, object]:
    """Measure a call of known duration; ``off`` is the relative error of the median without the overhead."""
    cases = ("--case", "4x3x2x2") if seconds < 1e-3 else ("--suite", "seed")
    row = run("numpy-lasting", "--seed", "0", cases=cases, BILINEAR_BENCH_LASTING=repr(seconds))
    median, overhead = float(row["median_seconds"]), float(row["overhead_seconds"])
    return {
        "what": "duration",
        "backend": "numpy-lasting",
        "given": seconds,
        "measured": median,
        "low": row["median_low_seconds"],
        "high": row["median_high_seconds"],
        "overhead_seconds": overhead,
        "off": (median - overhead) / seconds - 1,
    }


def doubling(name: str, workers: Supervisor) -> dict[str, object]:
    """Time n and 2 n calls in turn; return the ratio and its quartiles over the pairs."""
    worker, _ = workers.worker(name, "cpu")
    worker.request(Load(name, select([name])[name].target, "cpu"), LIMIT_SECONDS)
    worker.request(Prepare(CASE, 2, worker.directory), LIMIT_SECONDS)
    last = worker.request(WarmUp(0.5, 1), LIMIT_SECONDS).stretches[-1]
    count = calls_per_sample(last.seconds / last.calls, 1e-7)
    ratios = []
    for number in range(PAIRS):
        taken = {}
        for times in random.sample((1, 2), 2):
            sample = worker.request(TakeSample(times * count, number, SETTLE_SECONDS, False), LIMIT_SECONDS)
            taken[times] = sample.seconds
        ratios.append(taken[2] / taken[1])
    workers.discard(name, "cpu")
    low, ratio, high = statistics.quantiles(ratios, n=4)
    return {
        "what": "doubling",
        "backend": name,
        "given": 2,
        "measured": ratio,
        "low": low,
        "high": high,
        "overhead_seconds": "",
        "off": ratio / 2 - 1,
    }


def main() -> None:
    """Write one row for each duration and each backend."""
    path = Path(sys.argv[1])
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file, Supervisor(budget(None), default_cache()) as workers:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        rows = [lambda seconds=seconds: duration(seconds) for seconds in DURATIONS]
        rows += [lambda name=name: doubling(name, workers) for name in BACKENDS]
        for make in rows:
            row = make()
            writer.writerow(row)
            file.flush()
            print(
                f"{row['what']} {row['backend']}: {row['given']} measured as {row['measured']:.6g} ({row['off']:+.2%})"
            )


if __name__ == "__main__":
    main()

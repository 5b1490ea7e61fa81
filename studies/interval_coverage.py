"""Count how often the 99 % interval covers the true ratio: synthetic traces whose ratio is known, six kinds of noise.

    python studies/interval_coverage.py results/reference/coverage.csv [TRACES]

Each trace is two backends whose true ratio is drawn, under one kind of noise, with one of three numbers of processes.
The whole comparison of `harness.timing.estimates` runs on it, the choice of the unit included. Nothing is timed, so the
table is the same on every machine.
"""

from __future__ import annotations

import csv
import math
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from harness.record import Relation
from harness.timing import estimates

Random = np.random.Generator
Logs = npt.NDArray[np.float64]

#: Processes, and blocks in each: one process, the pilot of three, and a full measurement.
PLANS = ((1, 30), (3, 10), (12, 10))


def lognormal(random: Random, *shape: int) -> Logs:
    """Return independent noise of 5 %."""
    return random.normal(0, 0.05, shape)


def bimodal(random: Random, *shape: int) -> Logs:
    """Return two speeds, 30 % apart, drawn for each block, with noise of 1 %."""
    return random.normal(0, 0.01, shape) + 0.3 * (random.random(shape) < 0.4)


def shared(random: Random, backends: int, processes: int, blocks: int) -> Logs:
    """Return a machine whose speed wanders (AR(1), rho 0.9, 10 %), shared by a block's samples, with noise of 2 %."""
    wander = np.empty(processes * blocks)
    state = random.normal(0, 0.10)
    for index in range(len(wander)):
        state = 0.9 * state + random.normal(0, 0.10 * math.sqrt(1 - 0.9**2))
        wander[index] = state
    return random.normal(0, 0.02, (backends, processes, blocks)) + wander.reshape(processes, blocks)


def drift(random: Random, backends: int, processes: int, blocks: int) -> Logs:
    """Return a drift of 20 % in 30 blocks, within a block by position, with noise of 2 %."""
    count = processes * blocks
    order = random.random((backends, count)).argsort(axis=0)
    position = (np.arange(count) + order / backends).reshape(backends, processes, blocks)
    return random.normal(0, 0.02, (backends, processes, blocks)) + 0.2 * position / 30


def spikes(random: Random, *shape: int) -> Logs:
    """Return noise of 2 %; one sample in twenty takes ten times as long."""
    return random.normal(0, 0.02, shape) + math.log(10) * (random.random(shape) < 0.05)


def heavy(random: Random, *shape: int) -> Logs:
    """Return noise of 2 % with heavy tails: Student's with three degrees of freedom."""
    return 0.02 * random.standard_t(3, shape)


def hierarchical(random: Random, backends: int, processes: int, blocks: int) -> Logs:
    """Return a speed for each process (3 %), with noise of 0.5 % among its blocks."""
    return random.normal(0, 0.005, (backends, processes, blocks)) + random.normal(0, 0.03, (backends, processes, 1))


KINDS: dict[str, Callable[[Random, int, int, int], Logs]] = {
    kind.__name__: kind for kind in (lognormal, bimodal, shared, drift, spikes, heavy, hierarchical)
}


def trace(kind: str, processes: int, blocks: int, seed: int) -> tuple[float, estimates.Comparison]:
    """Return the true ratio of one trace and its comparison."""
    random = np.random.default_rng([seed, *kind.encode(), processes])
    true = math.exp(random.uniform(-0.1, 0.1))
    other, this = KINDS[kind](random, 2, processes, blocks).reshape(2, -1)
    comparison = estimates.compare(
        dict(enumerate(np.exp(this) / true)),
        dict(enumerate(np.exp(other))),
        {block: block // blocks for block in range(processes * blocks)},
    )
    assert comparison is not None  # noqa: S101  # all blocks are shared
    return true, comparison


def coverage(kind: str, processes: int, blocks: int, traces: int) -> dict[str, float]:
    """Return shares of the traces (covered, wrong sign, decided) and the median half-width of the intervals."""
    covered, wrong, decided, as_processes, widths = 0, 0, 0, 0, []
    for seed in range(traces):
        true, comparison = trace(kind, processes, blocks, seed)
        low, high = comparison.ratio.low, comparison.ratio.high
        # Without an interval nothing is claimed, so nothing is missed.
        covered += low is None or high is None or low <= true <= high
        wrong += comparison.relation is (Relation.SLOWER if true > 1 else Relation.FASTER)
        decided += comparison.relation is not Relation.AMBIGUOUS
        as_processes += comparison.unit == "process"
        widths.append(comparison.half_width if comparison.half_width is not None else math.inf)
    return {
        "covered": covered / traces,
        "wrong_sign": wrong / traces,
        "decided": decided / traces,
        "unit_process": as_processes / traces,
        "median_half_width": float(np.median(widths)),
    }


def main() -> None:
    """Write one row for each kind and plan."""
    path = Path(sys.argv[1])
    traces = int(sys.argv[2]) if len(sys.argv) > 2 else 10_000
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        for kind in KINDS:
            for processes, blocks in PLANS:
                if kind == "hierarchical" and processes == 1:
                    continue  # the blocks of one process cannot show how far that process is off
                row = {"kind": kind, "processes": processes, "blocks": blocks, "traces": traces}
                row |= coverage(kind, processes, blocks, traces)
                if file.tell() == 0:
                    writer.writerow(row)
                writer.writerow(row.values())
                file.flush()
                print(", ".join(f"{name} {value}" for name, value in row.items()))


if __name__ == "__main__":
    main()

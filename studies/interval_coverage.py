"""Count how often the 99 % interval covers the true ratio when the rule of the harness decides how much is measured.

    python studies/interval_coverage.py results/reference/coverage.csv [TRACES]

Each trace is five backends whose true ratios are drawn, under one kind of noise: three are within 10 % of the baseline,
one is three times as slow. The rule decides who leaves and when measuring stops, with the options of two suites. Then
every ratio to the baseline is judged as a record's is. Nothing is timed, so the table is the same on every machine.
"""

from __future__ import annotations

import csv
import math
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from simulated_run import BASELINE, Conditions, Logs, measure

from harness.record import Relation
from harness.timing import estimates
from harness.timing.selection import group_prior

Random = np.random.Generator

#: Options of `quick`, with one process, and of the suites with several, by the name in the table.
PLANS = {
    "quick": Conditions(target=0.05, band=0.05, budget_seconds=5, most_processes=1),
    "models": Conditions(target=0.02, band=0.02, budget_seconds=900, most_processes=40),
}
#: Number of backends, the baseline included.
BACKENDS = 5
#: Most blocks of a process that are drawn, by the plan.
BLOCKS = {"quick": 200, "models": 60}
#: True log-ratio of the far slower backend.
FAR = math.log(3)


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


def hierarchical_heavy(random: Random, backends: int, processes: int, blocks: int) -> Logs:
    """Return the same with heavy tails: the speeds are 2 % times Student's t with three degrees of freedom."""
    own = 0.02 * random.standard_t(3, (backends, processes, 1))
    return random.normal(0, 0.005, (backends, processes, blocks)) + own


def hierarchical_laplace(random: Random, backends: int, processes: int, blocks: int) -> Logs:
    """Return the same with speeds of Laplace's distribution (3 %)."""
    own = random.laplace(0, 0.03 / math.sqrt(2), (backends, processes, 1))
    return random.normal(0, 0.005, (backends, processes, blocks)) + own


#: Kinds whose processes differ, which one process cannot show.
BETWEEN_PROCESSES = (hierarchical, hierarchical_heavy, hierarchical_laplace)
KINDS: dict[str, Callable[[Random, int, int, int], Logs]] = {
    kind.__name__: kind for kind in (lognormal, bimodal, shared, drift, spikes, heavy, *BETWEEN_PROCESSES)
}


def cells() -> Iterator[tuple[str, str]]:
    """Yield the kind and the plan of every row."""
    for kind, noise in KINDS.items():
        for plan, conditions in PLANS.items():
            if conditions.most_processes > 1 or noise not in BETWEEN_PROCESSES:
                yield kind, plan


def trace(kind: str, plan: str, seed: int) -> list[dict[str, Any]]:
    """Return what one trace says of each ratio to the baseline, and what is true."""
    conditions, random = PLANS[plan], np.random.default_rng([seed, *kind.encode(), *plan.encode()])
    noise = KINDS[kind](random, BACKENDS, conditions.most_processes, BLOCKS[plan])
    shifts = np.array([*random.uniform(-0.1, 0.1, BACKENDS - 2), FAR, 0.0])
    outcome = measure(noise + shifts[:, None, None], [0.001] * BACKENDS, conditions)
    baseline = outcome.seconds.pop(BASELINE)
    prior = group_prior(outcome.seconds, baseline, outcome.processes)
    found = []
    for (name, times), shift in zip(outcome.seconds.items(), shifts[:-1], strict=True):
        comparison = estimates.compare(times, baseline, outcome.processes, conditions.band, prior)
        if comparison is None:
            raise ValueError(f"{name} shares no block with the baseline")
        low, high, true = comparison.ratio.low, comparison.ratio.high, math.exp(-shift)
        found.append(
            {
                # Without an interval nothing is claimed, so nothing is missed.
                "covered": low is None or high is None or low <= true <= high,
                "by_target": name in outcome.precise,
                "wrong_sign": comparison.relation is (Relation.SLOWER if true > 1 else Relation.FASTER),
                "decided": comparison.relation is not Relation.AMBIGUOUS,
                "half_width": math.inf if comparison.half_width is None else comparison.half_width,
                "processes": len({outcome.processes[block] for block in times}),
                "blocks": len(times),
            }
        )
    return found


def coverage(kind: str, plan: str, traces: int) -> dict[str, Any]:
    """Return a row: shares of the ratios, and means and medians over them."""
    ratios = [ratio for seed in range(traces) for ratio in trace(kind, plan, seed)]
    by_target = [ratio for ratio in ratios if ratio["by_target"]]

    def share(key: str, among: list[dict[str, Any]]) -> float | None:
        return sum(ratio[key] for ratio in among) / len(among) if among else None

    return {
        "kind": kind,
        "plan": plan,
        "traces": traces,
        "ratios": len(ratios),
        "covered": share("covered", ratios),
        "by_target": len(by_target) / len(ratios),
        "covered_by_target": share("covered", by_target),
        "wrong_sign": share("wrong_sign", ratios),
        "decided": share("decided", ratios),
        "processes": share("processes", ratios),
        "blocks": share("blocks", ratios),
        "median_half_width": float(np.median([ratio["half_width"] for ratio in ratios])),
    }


def main() -> None:
    """Write one row for each kind and plan."""
    path = Path(sys.argv[1])
    traces = int(sys.argv[2]) if len(sys.argv) > 2 else 10_000
    path.parent.mkdir(parents=True, exist_ok=True)
    kinds, plans = zip(*cells(), strict=True)
    with path.open("w", newline="") as file, ProcessPoolExecutor() as pool:
        writer = csv.writer(file, lineterminator="\n")
        for row in pool.map(coverage, kinds, plans, [traces] * len(kinds)):
            if file.tell() == 0:
                writer.writerow(row)
            writer.writerow(row.values())
            file.flush()
            print(", ".join(f"{name} {value}" for name, value in row.items()), flush=True)


if __name__ == "__main__":
    main()

"""Race simulated backends by the rule of the harness: is the best one in the first group, are slow ones out of it?

    python studies/selection.py results/reference/selection.csv [RUNS]

Each run has up to eight backends, as many as the core set, under one noise: a kind of ``interval_coverage.py``, or the
blocks of a committed run, drawn whole and with replacement, each backend's centre taken out. Their true ratios are
drawn: two rivals within some 10 % of the best, and others that are 5 to 1,000 % slower, the baseline among them. The
options are those of the suite `quick`. The rule of the harness decides; its ranks judge. Nothing is timed, so the table
is the same on every machine. Equal shares is the same rule without leaving, on a budget ten times as large.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import math
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from committed_ranks import REFERENCE, groups
from interval_coverage import BETWEEN_PROCESSES, KINDS, Logs, Random
from simulated_run import BASELINE, Conditions, Outcome, measure

from harness.catalog.suites import suite
from harness.output import store
from harness.timing.deciding import Measured, Rule
from harness.timing.intervals import hodges_lehmann
from harness.timing.selection import FIRST_LOOK, next_look, ranks

#: Number of backends of a run; a committed run may have fewer.
BACKENDS = 8
#: Most blocks of a run.
BLOCKS = 1500
#: Fewest blocks and backends of a committed group that blocks are drawn from.
LEAST_BLOCKS, LEAST_BACKENDS = 8, 5
#: Factor of the budget with which equal shares get the time that they need.
MORE = 10
_SUITE = suite("quick")
QUICK = Conditions(_SUITE.target, _SUITE.band, _SUITE.budget_seconds, _SUITE.processes)
#: A backend with a larger true log-ratio to the best one is far slower.
FAR = 2 * math.log1p(QUICK.band)

#: Returns noise, (backends, 1, ``BLOCKS``), as logarithms.
Noise = Callable[[Random], Logs]


class EqualShares(Rule):
    """The rule without leaving."""

    def _leaving(self, measured: Measured, processes: int) -> dict[str, str]:
        return {}


def synthetic(kind: str, random: Random) -> Logs:
    """Return noise of one kind."""
    return KINDS[kind](random, BACKENDS, 1, BLOCKS)


def replay(parts: list[Logs], random: Random) -> Logs:
    """Return blocks of one committed group, drawn with replacement.

    Args:
        parts: Logarithms of the times of each group without their centres, (backends, blocks).
        random: Random source.
    """
    part = parts[random.integers(len(parts))]
    backends = random.permutation(len(part))[:BACKENDS]
    return part[backends][:, None, random.integers(part.shape[1], size=BLOCKS)]


def committed(folder: Path) -> list[Logs]:
    """Return the noise of the groups of a committed run that have enough blocks and backends."""
    parts = []
    for _, seconds, _, _ in groups(folder):
        long = [times for times in seconds.values() if len(times) >= LEAST_BLOCKS]
        blocks = sorted(set.intersection(*map(set, long))) if long else []
        if len(long) >= LEAST_BACKENDS and len(blocks) >= LEAST_BLOCKS:
            logs = np.log([[times[block] for block in blocks] for times in long])
            # The differences within a block are what the rule reads: each backend's difference to the block's median.
            own = logs - np.median(logs, axis=0)
            centres = np.array([hodges_lehmann(list(values)).estimate for values in own])
            parts.append(logs - centres[:, None])
    return parts


def noises() -> dict[str, Noise]:
    """Return every noise by its name: the kinds, then the committed runs."""
    found: dict[str, Noise] = {
        kind: functools.partial(synthetic, kind) for kind, noise in KINDS.items() if noise not in BETWEEN_PROCESSES
    }
    for folder in sorted(path.parent for path in REFERENCE.rglob(store.SAMPLES)):
        parts = committed(folder)
        if parts:
            found[str(folder.relative_to(REFERENCE))] = functools.partial(replay, parts)
    return found


def _seconds_until_near(
    logs: Logs, calls: list[float], far: set[str], rule: type[Rule], conditions: Conditions
) -> tuple[Outcome, float]:
    """Measure, and return the time after which no far slower backend is in the first group; infinity without one."""
    since, look_at = math.inf, FIRST_LOOK

    def look(outcome: Outcome) -> bool:
        nonlocal since, look_at
        if len(outcome.processes) == look_at:
            look_at = next_look(look_at)
            if far.isdisjoint(first_group(outcome)):
                since = min(since, outcome.spent_seconds)
        return rule is EqualShares and since < math.inf

    return measure(logs, calls, conditions, rule, look), since


def first_group(outcome: Outcome) -> set[str]:
    """Return the backends of rank 1."""
    rank_of = ranks(outcome.seconds, outcome.processes, QUICK.band, outcome.left)
    return {name for name, rank in rank_of.items() if rank == 1}


def race(noise: Noise, seed: int) -> dict[str, float]:
    """Race once by the rule and once with equal shares; return what counts of both."""
    random = np.random.default_rng([seed])
    logs = noise(random)
    shifts = np.concatenate([[0.0], abs(random.normal(0, 0.08, 2)), random.uniform(0.05, math.log(11), len(logs) - 3)])
    calls = list(10 ** random.uniform(-5, -2) * np.exp(shifts))
    logs = logs + shifts[:, None, None]
    names = [*(f"backend-{number}" for number in range(len(logs) - 1)), BASELINE]
    far = {name for name, shift in zip(names, shifts, strict=True) if shift > FAR}
    outcome, since = _seconds_until_near(logs, calls, far, Rule, QUICK)
    more = dataclasses.replace(QUICK, budget_seconds=MORE * QUICK.budget_seconds)
    equal, equal_since = _seconds_until_near(logs, calls, far, EqualShares, more)
    first = first_group(outcome)
    return {
        "missed": float(names[0] not in first),
        "far": len(far),
        "far_in": len(far & first),
        "seconds": min(since, outcome.spent_seconds),
        "equal_seconds": min(equal_since, equal.spent_seconds),
        "undecided": float(since == math.inf),
        "blocks": float(len(outcome.processes)),
    }


def row(name: str, noise: Noise, runs: int) -> dict[str, str | float]:
    """Return the row of a noise."""
    found = [race(noise, seed) for seed in range(runs)]
    total = {key: sum(one[key] for one in found) for key in found[0]}
    return {
        "noise": name,
        "runs": runs,
        "best_missed": total["missed"] / runs,
        "far_slower_in_first_group": total["far_in"] / total["far"],
        "seconds_until_near": total["seconds"] / runs,
        "equal_shares_seconds": total["equal_seconds"] / runs,
        "undecided": total["undecided"] / runs,
        "blocks": total["blocks"] / runs,
    }


def main() -> None:
    """Write a row for each noise."""
    path, runs = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 10_000
    path.parent.mkdir(parents=True, exist_ok=True)
    known = noises()
    with path.open("w", newline="") as file, ProcessPoolExecutor() as pool:
        for found in pool.map(row, known, known.values(), [runs] * len(known)):
            if file.tell() == 0:
                csv.writer(file, lineterminator="\n").writerow(found)
            csv.writer(file, lineterminator="\n").writerow(found.values())
            file.flush()
            print(", ".join(f"{key} {value}" for key, value in found.items()), flush=True)


if __name__ == "__main__":
    main()

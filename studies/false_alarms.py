"""Count differences that the harness reports where there is none: the same backend under two names, run by run.

    python studies/false_alarms.py results/reference/false_alarms.csv [RUNS] [SECONDS]

Each run is `bilinear-bench run --suite seed --mode forward --backend torch-bilinear#2`, with the default target and
budget. It includes the gate, the fresh processes and the stopping rule; only the roofline is left out, on which no
verdict depends. `faster` and `slower` are false alarms. RUNS (299) rows without one show, with 95 % confidence, that at
most 1 % of such runs raise one; so do 473 rows with one. The study continues a table that exists, on any machine, and
starts no run after SECONDS.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from run_table import fill, rows, run
from scipy import stats

COLUMNS = (
    *("seed", "comparison", "comparison_undisturbed", "speedup", "speedup_low", "speedup_high", "unit", "processes"),
    *("blocks", "block_spread", "process_spread", "median_seconds", "disturbed_blocks", "steady_state", "stopped_by"),
    *("seconds_to_target", "wall_seconds", "threads", "cpu"),
)


def summary(comparisons: Sequence[str]) -> str:
    """Return the rate of false alarms, in a sentence, with its upper limit at 95 % confidence."""
    alarms = sum(word in ("faster", "slower") for word in comparisons)
    most = stats.beta.ppf(0.95, alarms + 1, len(comparisons) - alarms)
    words = ", ".join(f"{comparisons.count(word)} `{word}`" for word in sorted(set(comparisons)))
    return (
        f"{alarms} false alarms in {len(comparisons)} runs ({words}): at most {most * 100:.2f} % with 95 % confidence."
    )


def main() -> None:
    """Fill the table, then print its summary."""
    path = Path(sys.argv[1])
    runs = int(sys.argv[2]) if len(sys.argv) > 2 else 299
    seconds = float(sys.argv[3]) if len(sys.argv) > 3 else float("inf")
    fill(path, COLUMNS, runs, seconds, lambda number: run("torch-bilinear#2", "--seed", str(number)))
    print(summary([row["comparison"] for row in rows(path)]))


if __name__ == "__main__":
    main()

"""How often does the harness see a difference where there is none? The same backend under two names, run by run.

    python studies/false_alarms.py results/reference/false_alarms.csv [RUNS] [SECONDS]

Each run is `bilinear-bench run --suite seed --mode forward --backend torch-bilinear#2`: gate, fresh processes, adaptive
stopping, the default target and budget (only the machine's limit is left out, which no verdict depends on). `faster`
and `slower` are false alarms. With RUNS (299) rows and none, at most 1 % of such runs raise one, with 95 %
confidence; with 473 rows one is allowed. Goes on with a table that is there, on whatever
machine; no run is begun after SECONDS.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

from scipy import stats
from sittings import fill, run

COLUMNS = (
    *("seed", "comparison", "comparison_undisturbed", "speedup", "speedup_low", "speedup_high", "unit", "processes"),
    *("blocks", "block_spread", "process_spread", "median_seconds", "disturbed_blocks", "steady_state", "stopped_by"),
    *("seconds_to_target", "wall_seconds", "threads", "cpu"),
)


def main() -> None:
    """Fill the table, then say what it says."""
    path = Path(sys.argv[1])
    runs = int(sys.argv[2]) if len(sys.argv) > 2 else 299
    seconds = float(sys.argv[3]) if len(sys.argv) > 3 else float("inf")
    fill(path, COLUMNS, runs, seconds, lambda number: run("torch-bilinear#2", "--seed", str(number)))
    with path.open() as file:
        found = [row["comparison"] for row in csv.DictReader(file)]
    alarms = sum(word in ("faster", "slower") for word in found)
    most = stats.beta.ppf(0.95, alarms + 1, len(found) - alarms)
    words = ", ".join(f"{found.count(word)} {word}" for word in sorted(set(found)))
    print(f"{alarms} false alarms in {len(found)} runs ({words}): at most {most:.1%} with 95 % confidence")


if __name__ == "__main__":
    main()

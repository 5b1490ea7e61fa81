"""Does the harness see a difference that is there? A backend that is 3 % slower than nn.Bilinear, run by run.

    python studies/power.py results/reference/power.csv [RUNS] [SECONDS]

The backend is nn.Bilinear with a delay inside its timed call. Each run is `bilinear-bench run --case 1024x128x128x45
--mode forward --threads 1 --backend torch-delayed --target 0.8% --budget 600`; all but `slower` is a miss. With RUNS
(59) rows and no miss, at least 95 % of such differences are seen, with 95 % confidence; with 93 rows one is allowed.
Goes on with a table that is there; no run is begun after SECONDS.

One thread, and a call of some 25 ms: that was known to 0.8 % after 94 to 490 s where the CPUs are shared with others;
nn.Bilinear's own example on two threads was at 4 % after 103 s.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

from false_alarms import COLUMNS
from scipy import stats
from sittings import fill, run

DELAY = 0.03
CASES = ("--case", "1024x128x128x45")
OPTIONS = ("--threads", "1", "--target", "0.8%", "--budget", "600", "--processes", "400")


def main() -> None:
    """Fill the table, then say what it says."""
    path = Path(sys.argv[1])
    runs = int(sys.argv[2]) if len(sys.argv) > 2 else 59
    seconds = float(sys.argv[3]) if len(sys.argv) > 3 else float("inf")

    def measure(number: int) -> dict[str, str]:
        return run("torch-delayed", "--seed", str(number), *OPTIONS, cases=CASES, BILINEAR_BENCH_DELAY=str(DELAY))

    fill(path, COLUMNS, runs, seconds, measure)
    with path.open() as file:
        found = [row["comparison"] for row in csv.DictReader(file)]
    missed = len(found) - found.count("slower")
    least = stats.beta.ppf(0.05, len(found) - missed, missed + 1)
    print(f"{missed} of {len(found)} differences of 3 % missed: at least {least:.1%} are seen with 95 % confidence")


if __name__ == "__main__":
    main()

"""Count differences that the harness misses: a backend that is 3 % slower than nn.Bilinear, run by run.

    python studies/power.py results/reference/power.csv [RUNS] [SECONDS]

The backend is nn.Bilinear with a delay inside its timed call. Each run is `bilinear-bench run --case 1024x128x128x45
--mode forward --threads 1 --backend torch-delayed --target 0.8% --budget 600`. Any verdict but `slower` is a miss. RUNS
(59) rows without a miss show, with 95 % confidence, that at least 95 % of such differences are seen; so do 93 rows with
one. The study continues a table that exists, and starts no run after SECONDS.

One thread and a call of some 25 ms reach 0.8 % within minutes on CPUs that are shared with others. nn.Bilinear's own
example on two threads does not.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from false_alarms import COLUMNS
from run_table import fill, rows, run
from scipy import stats

#: Share of its own time by which the backend is slower.
DELAY = 0.03
CASES = ("--case", "1024x128x128x45")
OPTIONS = ("--threads", "1", "--target", "0.8%", "--budget", "600", "--processes", "400")


def summary(comparisons: Sequence[str]) -> str:
    """Return the rate of differences seen, in a sentence, with its lower limit at 95 % confidence."""
    missed = len(comparisons) - comparisons.count("slower")
    least = stats.beta.ppf(0.05, len(comparisons) - missed, missed + 1)
    return (
        f"{missed} of {len(comparisons)} differences of {DELAY * 100:.0f} % missed: "
        f"at least {least * 100:.1f} % are seen with 95 % confidence."
    )


def main() -> None:
    """Fill the table, then print its summary."""
    path = Path(sys.argv[1])
    runs = int(sys.argv[2]) if len(sys.argv) > 2 else 59
    seconds = float(sys.argv[3]) if len(sys.argv) > 3 else float("inf")

    def measure(number: int) -> dict[str, str]:
        return run("torch-delayed", "--seed", str(number), *OPTIONS, cases=CASES, BILINEAR_BENCH_DELAY=str(DELAY))

    fill(path, COLUMNS, runs, seconds, measure)
    print(summary([row["comparison"] for row in rows(path)]))


if __name__ == "__main__":
    main()

"""Measure the gap between honest rounding and wrong arithmetic, in units of the gate's bound.

    python studies/gap.py results/reference/MACHINE/gap.csv [SEEDS]

Each honest backend and each arithmetic mutant of the tests goes through the gate at three sizes, in both modes, with
SEEDS (5) seeds. The mutants use an arithmetic that is too coarse, or leave out one term. A row of the table is a
backend, mode and size: the range of `max_error_over_bound` over the seeds, and the verdicts. The gate rejects above 1.
Honest backends should stay below 1 and mutants above. A term left out of one element can be smaller than any rounding;
the probes with tolerance zero catch it.
"""

from __future__ import annotations

import csv
import os
import sys
from pathlib import Path

MUTANTS = Path(__file__).parent.parent / "tests" / "mutants"
ARITHMETIC = (
    *("mutant-tf32", "mutant-float16-scaled", "mutant-bfloat16", "mutant-float16-sums"),
    *("mutant-drops-term", "mutant-last-element", "mutant-grad-input1-tf32", "mutant-grad-weight-bfloat16"),
)
SIZES = ((16, 32, 32, 8), (16, 128, 128, 8), (16, 512, 512, 4))
COLUMNS = ("backend", "mode", "shape", "seeds", "least", "largest", "verdicts")


def main() -> None:
    """Check all of them; write the table."""
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(MUTANTS), os.environ.get("PYTHONPATH"))))
    sys.path.insert(0, str(MUTANTS))
    from harness.case import MODES, Case
    from harness.catalog.registry import entries, select
    from harness.machine.threads import budget
    from harness.run.context import NoProgress
    from harness.run.plan import Plan
    from harness.run.session import check

    target, seeds = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 5
    target.parent.mkdir(parents=True, exist_ok=True)
    honest = [name for name, entry in entries().items() if entry.distribution.startswith("bilinear")]
    figures_by_row: dict[tuple[str, str, str], list[tuple[float, str]]] = {}
    for seed in range(seeds):
        plan = Plan(
            run_id="gap",
            suite="command-line",
            cases=tuple(Case(*sizes, mode=mode, seed=seed) for sizes in SIZES for mode in MODES),
            backends=select([*honest, *ARITHMETIC]),
            devices=("cpu",),
            threads=budget(None),
            seed=seed,
            timing=False,
        )
        for record in check(plan, NoProgress())[0]:
            print(record.backend, record.mode, record.case, record.max_error_over_bound, record.status, flush=True)
            # A mutant of a gradient is right in mode forward; a mutant of the output is known from mode forward.
            wanted = "forward_backward" if "-grad-" in record.backend else "forward"
            if record.backend in honest or record.mode == wanted:
                figure = record.max_error_over_bound
                figures_by_row.setdefault((record.backend, record.mode, record.case), []).append(
                    (float("nan") if figure is None else figure, record.status.value)
                )
    with target.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for (backend, mode, shape), answers in sorted(
            figures_by_row.items(), key=lambda item: (item[0][0] in ARITHMETIC, item[0])
        ):
            figures, verdicts = zip(*answers, strict=True)
            words = ", ".join(sorted(set(verdicts)))
            writer.writerow((backend, mode, shape, len(figures), f"{min(figures):.3g}", f"{max(figures):.3g}", words))


if __name__ == "__main__":
    main()

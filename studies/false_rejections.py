"""Count answers of honest backends that the gate rejects: 1,000 seeds, both modes, float32 and float64.

    python studies/false_rejections.py results/reference/MACHINE/false_rejections.csv [SEEDS [FIRST_SEED [DTYPE ...]]]

For each seed, shape, dtype and mode the reference is computed once, and every available backend answers the questions
of ``ASKED``. Small integers are judged with tolerance zero, zero-mean random numbers by bound and precision, rows that
tell as at a case's own size. The honest backends of unusual techniques, which are among the tests, answer them, too.

A row of the table is a backend, mode, dtype and shape: the number of seeds, the number rejected, the first reason, and
the largest figures. These are in units of the case's roundoff u: the error over S (peak), the typical error over Q.

Everything runs in this process, since nothing is timed.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np

import bilinear_bench  # noqa: F401  # before the tests' folder of that name is on the path
from harness.backend import Backend, backend_class
from harness.case import MODES, Case
from harness.catalog.registry import entries
from harness.correctness import bound, gate, own_size, precision, reference, telling_rows
from harness.correctness.inputs import make_inputs
from harness.correctness.questions import ANOTHER_KERNEL, FIRST, NONFINITE, TELLING_ROWS
from harness.correctness.verdict import Expected
from harness.worker.arrays import to_host
from harness.worker.calls import call

#: Folders of the tests that hold the backends of unusual techniques.
TESTS = [str(Path(__file__).parent.parent / "tests" / folder) for folder in ("", "mutants")]
#: Kinds of the inputs, by name of the question: those that the backends get.
ASKED = {
    "integers": "integers",
    ANOTHER_KERNEL.name: ANOTHER_KERNEL.kind,
    FIRST.name: FIRST.kind,
    TELLING_ROWS.name: TELLING_ROWS.kind,
    NONFINITE.name: telling_rows.NONFINITE,
}
SHAPES = ((7, 5, 3, 11), (16, 20, 30, 8), (64, 32, 32, 2), (4, 128, 100, 3), (1, 32, 32, 16))
#: Default dtypes.
DTYPES = ("float32", "float64")
COLUMNS = ("backend", "mode", "dtype", "shape", "seeds", "refused", "error_over_bound", "peak_u", "typical_u", "first")


class Subject:
    """Hold a backend, the step that all seeds of a case share, and its figures."""

    def __init__(self, backend: Backend, case: Case) -> None:
        self.backend = backend
        self.case = case
        self.step = backend.prepare_forward_backward(case) if case.mode == "forward_backward" else None
        self.seeds = self.refused = 0
        self.worst = self.peak = self.typical = 0.0
        self.first = ""

    def answer(self, case: Case, kind: str) -> dict:
        """Return the results by name, for inputs of a kind."""
        native = {n: self.backend.to_device(a, case.dtype) for n, a in make_inputs(case, 0, kind).items()}
        kernel = self.step or self.backend.prepare_forward(case, native["weight"], native.get("bias"))
        results = call(case, kernel, native, native)
        self.backend.synchronize(tuple(results.values()))
        return {name: to_host(result, self.backend) for name, result in results.items()}

    def judge(self, case: Case, expected: dict[str, Expected]) -> None:
        """Judge the answers to all questions of one seed."""
        with np.errstate(all="ignore"):  # NaN, infinity and subnormal numbers are given on purpose
            answers = {question: self.answer(case, kind) for question, kind in ASKED.items()}
        verdict = gate.judge(case, expected[FIRST.name], answers[FIRST.name])
        verdicts = [verdict, gate.judge_precision(case, [verdict])[1]]
        verdicts += [
            gate.judge_exactly(case, expected[name], answers[name]) for name in ("integers", ANOTHER_KERNEL.name)
        ]
        verdicts += [
            own_size.JUDGES[question.judge](case, expected[question.name], answers[question.name])
            for question in (TELLING_ROWS, NONFINITE)
        ]
        unit = bound.UNIT_ROUNDOFF[precision.asked_class(case)]
        self.seeds += 1
        self.worst = max(self.worst, verdict.error_over_bound or 0.0)
        self.peak = max(self.peak, *(figures.peak / unit for figures in verdict.errors.values()))
        self.typical = max(self.typical, *(figures.typical / unit for figures in verdict.errors.values()))
        refusals = [answer.reason for answer in verdicts if not answer.ok]
        if refusals:
            self.refused += 1
            self.first = self.first or refusals[0]

    def row(self) -> dict:
        """Return the row of the table."""
        case = self.case
        return {
            "backend": self.backend.name,
            "mode": case.mode,
            "dtype": case.dtype,
            "shape": f"{case.batch}x{case.in1_features}x{case.in2_features}x{case.out_features}",
            "seeds": self.seeds,
            "refused": self.refused,
            "error_over_bound": f"{self.worst:.3g}",
            "peak_u": f"{self.peak:.3g}",
            "typical_u": f"{self.typical:.3g}",
            "first": self.first,
        }


def ask_reference(case: Case) -> dict[str, Expected]:
    """Return the right answers to all questions; those to NaN and infinity follow from the first question's."""

    def arrays(tensors: dict) -> dict:
        return {name: tensor.numpy() for name, tensor in tensors.items()}

    found = {}
    for question, kind in ASKED.items():
        inputs = make_inputs(case, 0, FIRST.kind if question == NONFINITE.name else kind)
        rounded = question not in ("integers", ANOTHER_KERNEL.name)
        found[question] = Expected(
            arrays(reference.expected(case, inputs)),
            arrays(reference.scales(case, inputs)) if rounded else {},
            reference.quadratics(case, inputs) if rounded else {},
            reference.wide_samples(case, inputs) if question == FIRST.name and case.dtype == "float64" else {},
        )
    return found


def main() -> None:
    """Judge every backend on all shapes, modes, dtypes and seeds; write the table as it grows."""
    target, seeds = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1000
    first = int(sys.argv[3]) if len(sys.argv) > 3 else 0
    dtypes = tuple(sys.argv[4:]) or DTYPES
    sys.path += TESTS
    installed = {name: entry for name, entry in entries().items() if entry.installed().ok}
    honest = [
        kind("cpu")
        for name, entry in installed.items()
        if (entry.distribution.startswith("bilinear") or name.startswith("unusual-"))
        and "cpu" in (kind := backend_class(name, entry.target)).devices
        and kind.available("cpu").ok
    ]
    rows: list[dict] = []
    target.parent.mkdir(parents=True, exist_ok=True)
    for shape in SHAPES:
        for mode in MODES:
            for dtype in dtypes:
                batch, in1, in2, out = shape
                case = Case(batch, in1, in2, out, dtype=dtype, mode=mode)
                subjects = [Subject(backend, case) for backend in honest if backend.supports(case).ok]
                for seed in range(first, first + seeds):
                    seeded = Case(batch, in1, in2, out, dtype=dtype, mode=mode, seed=seed)
                    answers = ask_reference(seeded)
                    for subject in subjects:
                        subject.judge(seeded, answers)
                rows += [subject.row() for subject in subjects]
                with target.open("w", newline="") as file:
                    writer = csv.DictWriter(file, COLUMNS)
                    writer.writeheader()
                    writer.writerows(rows)
                print(
                    *(f"{row['backend']} {row['refused']}/{row['seeds']}" for row in rows[-len(subjects) :]), flush=True
                )
    refused = sum(row["refused"] for row in rows)
    print(f"{refused} of {sum(row['seeds'] for row in rows)} answers were rejected.")
    sys.exit(1 if refused else 0)


if __name__ == "__main__":
    main()

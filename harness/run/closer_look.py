"""A closer look at a cell that the gate has refused: what its wrong results fit, and where its kernel is written."""

from __future__ import annotations

import contextlib
import dataclasses

from harness.case import Case
from harness.correctness import diagnosis
from harness.correctness.diagnosis import Other
from harness.correctness.inputs import make_inputs
from harness.correctness.questions import FIRST, Question
from harness.correctness.verdict import Expected, Verdict
from harness.process.handle import WorkerError
from harness.process.protocol import Locate
from harness.run.cell import Cell
from harness.run.reference_cache import Arrays


def explained(
    case: Case,
    cell: Cell,
    verdict: Verdict,
    question: Question,
    expected: Expected,
    actual: Arrays,
    first: Arrays | None,
) -> Verdict:
    """Return a refusal with what its wrong results fit, unless an earlier refusal has been explained.

    Args:
        case: The case.
        cell: The cell.
        verdict: The verdict; nothing is done for a yes.
        question: The question.
        expected: Right results.
        actual: The backend's results.
        first: The first results, if they are right and the question is another.
    """
    if verdict.elements is None or cell.gate.explained:
        return verdict
    inputs = make_inputs(case, question.variation or 0, question.kind)
    others = [Other(make_inputs(case, FIRST.variation or 0, FIRST.kind), first)] if first is not None else []
    hypothesis = diagnosis.explain(case, inputs, expected.values, actual, others)
    return dataclasses.replace(verdict, hypothesis=hypothesis)


def locate(cell: Cell, limit_seconds: float) -> None:
    """Ask where the cell's kernel is written, and keep what its worker has printed.

    A worker that does not reply ends neither the cell nor itself: the cell has its refusal already.
    """
    if cell.worker is None or not cell.worker.alive:
        return
    cell.evidence.output = cell.evidence.output or cell.worker.output
    with contextlib.suppress(WorkerError):
        cell.evidence.located = cell.worker.request(Locate(), limit_seconds)

"""From a wrong or failed cell to its diagnosis."""

from __future__ import annotations

import shlex

from harness.case import Case
from harness.checked import Diagnosis, Location
from harness.correctness import promises
from harness.correctness.edge_cases import all_edge_cases
from harness.correctness.verdict import Verdict
from harness.machine.threads import budget
from harness.process import frames
from harness.record import Status
from harness.run.cell import Cell
from harness.run.plan import Plan


def diagnose(plan: Plan, case: Case, device: str, cell: Cell) -> Diagnosis:
    """Return what is known of a cell that is wrong or failed.

    Args:
        plan: The plan.
        case: Case of the cell.
        device: Device of the cell.
        cell: The cell, with its outcome.
    """
    if cell.status is None:
        raise ValueError(f"{cell.name} has no outcome yet")
    refusal = cell.gate.most_telling_refusal() if cell.status is Status.REJECTED else None
    asked = case if refusal is None else _asked(case, refusal.promise)
    trace = _traceback(cell, refusal)
    location = _location(cell, refusal, trace, plan.backends[cell.name].target)
    return Diagnosis(
        backend=cell.name,
        device=device,
        mode=case.mode,
        planned=case.name,
        case=asked.name,
        status=str(cell.status),
        phase=cell.phase,
        summary=_failed(cell, location) if refusal is None else _summary(refusal),
        promises=promises.promises(case, cell.gate.kept) if cell.gate.kept else (),
        elements=None if refusal is None else refusal.elements,
        hypothesis="" if refusal is None else refusal.hypothesis,
        location=location,
        again=_again(plan, asked, device, cell),
        traceback=trace,
        output=cell.evidence.output,
    )


def _asked(case: Case, promise: str) -> Case:
    """Return the case of a question: an edge case has its own, which the command line takes unless it is empty."""
    own = next((edge_case.case for edge_case in all_edge_cases(case) if edge_case.name == promise), case)
    return case if own.empty else own


def _failed(cell: Cell, location: Location | None) -> str:
    """Return why a cell failed, without the place that the diagnosis has in a field of its own."""
    return cell.reason.replace(f" ({location})", "").replace(f" in {location}", "") if location else cell.reason


def _summary(refusal: Verdict) -> str:
    return refusal.reason.removeprefix("not so: ") if refusal.elements is None else str(refusal.elements)


def _traceback(cell: Cell, refusal: Verdict | None) -> str:
    if refusal is not None:
        return refusal.traceback
    return "" if cell.evidence.error is None else cell.evidence.error.traceback


def _location(cell: Cell, refusal: Verdict | None, trace: str, target: str) -> Location | None:
    """Return the deepest frame in the backend's own files, or the function that made the wrong result."""
    if (own := frames.own_frame(trace, target)) is not None:
        return own
    error, located = cell.evidence.error, cell.evidence.located
    if refusal is None or located is None:
        return None if error is None else error.location
    result = "grad_input1" if refusal.promise == promises.GRADCHECK else refusal.wrong_result
    return located.places.get(result or "output")


def _again(plan: Plan, case: Case, device: str, cell: Cell) -> str:
    """Return the command that repeats the check of one cell."""
    words = ["bilinear-bench", "check", "--backend", cell.base_name, "--case", case.name, "--seed", str(case.seed)]
    words += ["--mode", case.mode] if case.mode != "forward" else []
    words += ["--device", device] if device != "cpu" else []
    words += ["--threads", str(plan.threads)] if plan.threads != budget(None) else []
    return shlex.join(words)

"""From a group's cells to their records."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from harness.case import Case
from harness.catalog.suites import labels
from harness.record import Record, Status
from harness.run.cell import Cell
from harness.run.group import Group
from harness.run.plan import Plan
from harness.run.rooflines import Rooflines
from harness.run.timed_columns import Columns, flag_timed, group_facts, is_timed, timed_columns
from harness.timing import roofline


def records(plan: Plan, group: Group, rooflines: Rooflines) -> Iterator[Record]:
    """Yield the record of every cell.

    Args:
        plan: The run's plan.
        group: A group whose cells have their outcome.
        rooflines: The rooflines of the run's devices.
    """
    rooflines.add_spot_peaks(group.case, group.cells)
    facts = group_facts(group, plan.band, rooflines)
    for cell in group.cells:
        columns = _columns(cell, group.case) | {"roofline_seconds": facts.roofline_seconds}
        status, reason = cell.status, cell.reason or None
        if is_timed(cell):
            status = Status.TIMED
            columns |= timed_columns(cell, facts, rooflines)
            flag_timed(cell, columns, facts)
        elif status is None:
            why = cell.untimeable or "only the gate was asked for"
            why = "there is nothing to compute" if group.case.empty else why
            status, reason = Status.CHECKED, f"passed the gate; not timed, because {why}"
        columns["flags"] = ";".join(cell.flags) or None
        yield make_record(plan, group.case, group.device, cell.name, status, reason, **columns)


def _columns(cell: Cell, case: Case) -> Columns:
    """Return the columns that any row may have."""
    loaded, prepared, log = cell.replies.loaded, cell.replies.prepared, cell.gate
    columns: Columns = {
        "phase": cell.phase,
        "probes": log.probes() or None,
        "precision_class": log.precision_class,
        "max_error_over_bound": log.largest("error_over_bound"),
        "max_absolute_error": log.largest("absolute_error"),
        "mean_absolute_error": log.mean_absolute_error,
        "gate_seconds": log.seconds or None,
        "compile_cache": cell.compile_cache,
        "peak_memory_bytes": cell.timings.peak_memory_bytes,
        "gflop": roofline.flop(case) / 1e9,
    }
    if loaded is not None:
        columns |= {"backend_version": loaded.version, "import_seconds": loaded.import_seconds}
    if prepared is not None:
        columns |= {
            "prepare_seconds": prepared.prepare_seconds,
            "first_call_seconds": prepared.first_call_seconds,
            "tuning": prepared.tuning or None,
        }
    return columns


def make_record(
    plan: Plan, case: Case, device: str, backend: str, status: Status, reason: str | None, **columns: Any
) -> Record:
    """Build the row of a cell."""
    fields = {field.name: getattr(case, field.name) for field in dataclasses.fields(case)}
    return Record(
        run_id=plan.run_id,
        suite=plan.suite,
        case=case.name,
        label=labels(plan.suite).get(case.name),
        **fields,
        backend=backend,
        device=device,
        threads=plan.threads,
        flush_l2=plan.flush_l2,
        status=status,
        reason=reason,
        **columns,
    )


def interrupted(plan: Plan, done: frozenset[tuple[str, str, str, str]]) -> Iterator[Record]:
    """Yield a row for every planned cell that is not among ``done``."""
    for case, device in plan.groups():
        for cell in plan.cells(case, device):
            if cell not in done:
                reason = "the run was stopped before this cell was done; --resume does it"
                yield make_record(plan, case, device, cell[2], Status.INTERRUPTED, reason, phase="plan")

"""Judge what the system grants a worker and its descendants: CPUs, priority, scheduling class."""

from __future__ import annotations

import os

from harness.correctness import budget
from harness.machine.standing import REAL_TIME, Standing
from harness.run.cell import Cell


def judge_granted(cell: Cell, *seen: Standing) -> None:
    """Refuse, once, a cell whose worker is granted more than it was started with.

    Args:
        cell: A prepared cell.
        seen: What the system granted its worker and descendants at several moments.
    """
    prepared = cell.replies.prepared
    if prepared is None or prepared.affinity.before is None:
        return
    nice, real_time = os.getpriority(os.PRIO_PROCESS, 0), os.sched_getscheduler(0) in REAL_TIME
    for each in seen:
        verdict = budget.judge_granted(
            each.cpus, prepared.affinity.before, each.nice, nice, each.real_time and not real_time
        )
        if not verdict.ok:
            if verdict not in cell.gate.verdicts:
                cell.note(verdict)
            return

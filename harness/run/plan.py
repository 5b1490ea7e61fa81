"""The plan: what is to be measured, which rows that will make, and how such a row is built."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, Final

from harness.case import Case
from harness.catalog.registry import Entry
from harness.record import Record, Status

#: The speed denominator, planned in every group.
BASELINE: Final = "torch-bilinear"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be measured, and how.

    Attributes:
        run_id: Identifies the run in every row.
        suite: Name of the suite.
        cases: The cases, mode included, in order.
        backends: Entries by the name used in the rows; the baseline is added if missing.
        devices: In order; one group never mixes two.
        threads: CPUs of every worker.
        seed: Of the order of measuring (the cases carry the seed of their inputs).
        budget_seconds: Measuring time of a group, fresh processes included.
        target: Half-width of the intervals at which measuring stops, as a share of the ratio.
        band: Equivalence band: ratios within it are no difference.
        processes: Most fresh processes of a backend in a group.
        time_limit_seconds: Limit of any one request: a preparation with its first call, say.
        timing: False for the gate alone.
        flush_l2: True if twice the GPU's L2 is written before each timed call.
    """

    run_id: str
    suite: str
    cases: tuple[Case, ...]
    backends: Mapping[str, Entry]
    devices: tuple[str, ...]
    threads: int
    seed: int = 0
    budget_seconds: float = 30.0
    target: float = 0.02
    band: float = 0.02
    processes: int = 40
    time_limit_seconds: float = 120.0
    timing: bool = True
    flush_l2: bool = False

    def groups(self) -> list[tuple[Case, str]]:
        """Return (case, device) in the order of measuring."""
        return [(case, device) for device in self.devices for case in self.cases]

    def cells(self, case: Case, device: str) -> list[tuple[str, str, str, str]]:
        """Identify the planned rows of a group, as ``Record.cell`` does; the baseline first."""
        names = [BASELINE, *(name for name in self.backends if name != BASELINE)]
        return [(case.name, case.mode, name, device) for name in names]


def make_record(
    plan: Plan, case: Case, device: str, backend: str, status: Status, reason: str | None, **columns: Any
) -> Record:
    """Build the row of a cell."""
    fields = {field.name: getattr(case, field.name) for field in dataclasses.fields(case)}
    return Record(
        run_id=plan.run_id,
        suite=plan.suite,
        case=case.name,
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

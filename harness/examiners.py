"""The examiners: workers that are never timed, and what the structure probe found out through them.

What a backend answers there holds for its dtype, precision and mode, so it is asked once in a run, before the first
case that needs it; then its examiner is let go.
"""

from __future__ import annotations

from harness.case import Case
from harness.entrant import Entrant
from harness.examination import Expectations, Structure, examine
from harness.process.supervisor import WorkerError
from harness.sitting import Sitting


class Examiners:
    """Asks each backend once.

    Args:
        sitting: Plan, workers and clock.
        expectations: The reference's answers.
    """

    def __init__(self, sitting: Sitting, expectations: Expectations) -> None:
        self._sitting = sitting
        self._expectations = expectations
        self._known: dict[tuple[str, str, Case], Structure | WorkerError] = {}
        #: Seconds that each took, loading included, by backend and device.
        self.seconds: dict[str, float] = {}

    def answer(self, entrant: Entrant, case: Case, device: str) -> None:
        """Take down what the structure probe says of a backend; what went wrong ends the cell."""
        key = (entrant.base_name, device, _kind(case))
        if key not in self._known:
            self._ask_all(entrant, device, case)
        known = self._known[key]
        if isinstance(known, WorkerError):
            entrant.end(known.status, f"in the structure probe: {known.reason}")
            return
        entrant.wide_range = known.wide_range
        entrant.note(*known.verdicts.values())

    def _ask_all(self, entrant: Entrant, device: str, first: Case) -> None:
        """Ask all that the plan's cases will need, through one worker that is replaced if it dies."""
        start, name = self._sitting.now(), entrant.base_name
        target = self._sitting.plan.backends[entrant.name].target
        limit = self._sitting.plan.time_limit_seconds
        try:
            for kind in dict.fromkeys(_kind(case) for case in (first, *self._sitting.plan.cases)):
                try:
                    remote = self._sitting.workers.examiner(name, device)
                    remote.request("load", limit, name=name, target=target, device=device)
                    found = examine(kind, name, device, remote, self._expectations, limit)
                    self._known[name, device, kind] = found
                except WorkerError as error:
                    self._known[name, device, kind] = error
        finally:
            self._sitting.workers.discard_examiner(name, device)
        self.seconds[f"{name} on {device}"] = self._sitting.now() - start


def _kind(case: Case) -> Case:
    """The same dtype, precision, mode and seed, on sizes that stand for all."""
    return Case(1, 1, 1, 1, dtype=case.dtype, precision=case.precision, mode=case.mode, seed=case.seed)

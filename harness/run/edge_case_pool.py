"""The examiners: workers that are never timed, and what the structure probe found out through them.

What a backend answers there holds for its dtype, precision and mode, so it is asked once in a run, before the first
case that needs it; then its examiner is let go. Several examiners are at work at a time, one for each CPU: nothing of
this is a time, and most of it is importing and compiling, which one CPU does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from harness.case import Case
from harness.entrant import Entrant
from harness.examination import Expectations, Structure, examine
from harness.process.supervisor import WorkerError
from harness.sitting import Remote, Sitting

#: Examiners at work at a time, at most.
SIDE_BY_SIDE: Final = 8


def side_by_side(threads: int) -> int:
    """How many examiners are at work at a time, with so many CPUs."""
    return min(SIDE_BY_SIDE, threads)


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
        self._stopped = False
        #: Seconds that each took, loading included, by backend and device.
        self.seconds: dict[str, float] = {}

    def answer(self, entrants: Sequence[Entrant], case: Case, device: str) -> None:
        """Take down what the structure probe says of each backend; what went wrong ends the cell."""
        unknown = {
            entrant.base_name: self._sitting.plan.backends[entrant.name].target
            for entrant in entrants
            if (entrant.base_name, device, _kind(case)) not in self._known
        }
        if unknown:
            self._ask(unknown, case, device)
        for entrant in entrants:
            known = self._known[entrant.base_name, device, _kind(case)]
            if isinstance(known, WorkerError):
                entrant.end(known.status, f"in the structure probe: {known.reason}")
                continue
            entrant.wide_range = known.wide_range
            entrant.note(*known.verdicts.values())

    def _ask(self, targets: Mapping[str, str], first: Case, device: str) -> None:
        """Ask backends, by name, all that the plan's cases will need."""
        kinds = tuple(dict.fromkeys(_kind(case) for case in (first, *self._sitting.plan.cases)))
        self._expectations.start()
        with ThreadPoolExecutor(side_by_side(self._sitting.plan.threads)) as pool:
            try:
                list(pool.map(lambda name: self._ask_all(name, targets[name], device, kinds), targets))
            except BaseException:  # Ctrl-C among them: no request is waited for
                self._stopped = True
                for name in targets:
                    self._sitting.workers.discard_examiner(name, device)
                raise

    def _ask_all(self, name: str, target: str, device: str, kinds: Iterable[Case]) -> None:
        """Ask one backend, through one worker that is replaced if it dies.

        A worker dies with the thread that has started it (PR_SET_PDEATHSIG): it is started and let go in here.
        """
        start = self._sitting.now()
        limit = self._sitting.plan.time_limit_seconds
        loaded: Remote | None = None
        try:
            for kind in kinds:
                if self._stopped:
                    return
                try:
                    remote = self._sitting.workers.examiner(name, device)
                    if remote is not loaded:
                        remote.request("load", limit, name=name, target=target, device=device)
                        loaded = remote
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

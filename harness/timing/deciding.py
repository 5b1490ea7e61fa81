"""The rule of a cohort: after each block, who leaves, who is precise enough, and what is measured next. Pure.

The harness and the studies run the same rule. It reads times and a state, and keeps only what it has looked at before.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Mapping
from typing import Final

from harness.timing import estimates, selection, stopping, variance
from harness.timing.estimates import Times
from harness.timing.stopping import Look, Next, State

#: Looks in a row at which an interval has to be narrow enough. One would stop on intervals that are narrow by chance.
NARROW_LOOKS: Final = 2
#: What follows from a block where nothing else does.
ANOTHER_BLOCK: Final = Next("block")


@dataclasses.dataclass(frozen=True, slots=True)
class Measured:
    """What has been measured until now.

    Attributes:
        seconds: Time of a call in seconds, by backend and block, of the backends that are still measured and compared.
        baseline: Times of the baseline by block, in seconds; None if it is no longer measured, or is the only backend.
        rival: Name of the baseline where it may be the fastest, too; None where it may not.
        classes: Precision class of each backend; only backends of one class are compared with each other.
        processes: Number of the fresh process by block.
        taken: Number of blocks of the present process.
    """

    seconds: Mapping[str, Times]
    baseline: Times | None
    rival: str | None
    classes: Mapping[str, Hashable]
    processes: Mapping[int, int]
    taken: int


@dataclasses.dataclass(frozen=True, slots=True)
class Decision:
    """What follows from a block.

    Attributes:
        left: Backends that leave, each with the name of the one that it is slower than.
        precise: Backends whose interval is narrow enough; None without a look at the intervals.
        next: What is measured next.
    """

    left: Mapping[str, str] = dataclasses.field(default_factory=dict)
    precise: frozenset[str] | None = None
    next: Next = ANOTHER_BLOCK


class Rule:
    """Decides for one cohort.

    Args:
        target: Half-width of the intervals at which measuring stops, as a share of the ratio.
        band: Half-width of the equivalence band, as a share of the ratio.
        most_processes: Largest number of processes.
    """

    def __init__(self, target: float, band: float, most_processes: int) -> None:
        self._target, self._band, self._most = target, band, most_processes
        #: Blocks of each process before the next one.
        self._share = variance.FEWEST_BLOCKS
        #: Blocks of the present process at the next look at the intervals.
        self._look_at = self._share
        #: Number of values at the next look for backends that leave: blocks of the first process, then processes.
        self._leave_at = selection.FIRST_LOOK
        self._looks = 0
        #: Backends whose ratio was known well enough at the look before.
        self._known = frozenset[str]()
        #: Number of processes at the next look that may find an interval narrow.
        self._narrow_at = estimates.LEAST_VALUES
        self._narrow: dict[tuple[str, bool], int] = {}

    def after_block(self, measured: Measured, state: State) -> Decision:
        """Decide what comes after a block.

        Args:
            measured: The times until now.
            state: Progress of the measurement.
        """
        left = self._leaving(measured, state.processes)
        staying = {name: times for name, times in measured.seconds.items() if name not in left}
        if not staying:
            return Decision(left, next=Next("stop", "target"))
        if measured.taken < self._look_at:
            return Decision(left)
        self._look_at = selection.next_look(measured.taken)
        looks = self._look(staying, measured)
        precise = self._precise(looks, state.processes)
        due = stopping.after_look([seen for name, seen in looks.items() if name not in precise], state)
        if due.action == "process":
            self._share = self._look_at = due.share or self._share
        return Decision(left, precise, due)

    def _leaving(self, measured: Measured, processes: int) -> dict[str, str]:
        """Look for backends that leave, if it is time to.

        Where there are several processes a process is one value. One process alone shows little, so a backend leaves in
        it only if no other can be paid for, and only if it is far slower.
        """
        if self._most == 1:
            values, margin = measured.taken, self._band
        elif processes == 1 and measured.taken > self._share:
            values, margin = measured.taken, estimates.UNPROVEN - 1
        elif processes >= variance.PILOT and measured.taken == self._share:
            values, margin = processes, self._band
        else:
            return {}
        if processes == variance.PILOT and self._most > 1:
            self._leave_at = processes
        if values < self._leave_at:
            return {}
        self._leave_at = selection.next_look(values)
        rivals = dict(measured.seconds)
        if measured.rival is not None and measured.baseline is not None:
            rivals[measured.rival] = measured.baseline
        slower: dict[str, str] = {}
        for alike in {measured.classes.get(name) for name in rivals}:
            seconds = {name: times for name, times in rivals.items() if measured.classes.get(name) == alike}
            slower |= selection.shown_slower(seconds, measured.processes, margin, selection.leaving_error(self._looks))
        self._looks += 1
        looks, before = self._look(measured.seconds, measured), self._known
        known = self._known = frozenset(name for name, seen in looks.items() if stopping.known(seen))
        return {name: best for name, best in slower.items() if name in known and name in before}

    def _look(self, seconds: Mapping[str, Times], measured: Measured) -> dict[str, Look]:
        """Look at the intervals of the ratios to the baseline."""
        baseline, processes = measured.baseline, measured.processes
        prior = None if baseline is None else selection.group_prior(seconds, baseline, processes)
        return {name: stopping.look(times, baseline, processes, self._band, prior) for name, times in seconds.items()}

    def _precise(self, looks: Mapping[str, Look], processes: int) -> frozenset[str]:
        """Return the backends whose interval was narrow enough at ``NARROW_LOOKS`` looks in a row."""
        last = processes == self._most
        if 1 < processes < self._narrow_at and not last:
            return frozenset()
        if processes >= self._narrow_at:
            self._narrow_at = selection.next_look(processes)
        precise = set()
        for name, seen in looks.items():
            # Blocks that agree say nothing of processes, so each unit has its own looks in a row.
            key = name, seen.counts_processes
            reached = stopping.reached(seen, self._target, self._most)
            self._narrow[key] = self._narrow.get(key, 0) + 1 if reached else 0
            # No further process can widen an interval of all processes that there may be.
            needed = 1 if last and seen.counts_processes else NARROW_LOOKS
            precise |= {name} if self._narrow[key] >= needed else set()
        return frozenset(precise)

"""Estimate how long the rest of a run takes, from what its finished groups took.

A group takes a fixed time, for starting, compiling, the gate's questions and the budget, and a time that grows with the
work of its case. Both depend on the mode and the device. They are fitted to the finished groups of each mode and
device; where these are few, the fit to all groups counts, and before that a guess.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import numpy.typing as npt

    from harness.case import Case

#: Time of a backend in a group, in seconds: the first guess, without the measuring time.
BACKEND_SECONDS: Final = 1.0
#: Time that a backend takes once in a run to start, to prepare and for its edge cases, in seconds: the first guess.
ONCE_SECONDS: Final = 15.0
#: Time for a GFLOP of a case, in seconds: of nn.Bilinear, which is slow in large cases, and of each backend; the first
#: guess, from two runs of the suite ``quick`` on two busy CPUs.
BASELINE_WORK_SECONDS: Final = 1.5
WORK_SECONDS: Final = 0.3
#: A training step's time as a multiple of a forward's of the same work: the first guess.
STEP_TIMES: Final = 1.5
#: Least time of a group that counts, as a share of the first guess.
LEAST_SHARE: Final = 0.1
#: Usual error of a group's predicted time, as the logarithm of a ratio; of a larger one the excess counts once only.
USUAL_ERROR: Final = 0.5
#: Finished groups that a guess counts for.
GUESS_WEIGHT: Final = 1.0


@dataclasses.dataclass(frozen=True, slots=True)
class Planned:
    """A group of a plan: what its time depends on.

    Attributes:
        mode: Mode of the case.
        device: Device.
        work: Least work of the case in GFLOP, as in the column ``gflop``.
    """

    mode: str
    device: str
    work: float

    @classmethod
    def of(cls, case: Case, device: str) -> Planned:
        """Return what the time of a case on a device depends on."""
        products = case.batch * case.in1_features * case.in2_features * case.out_features
        return cls(case.mode, device, (2 if case.mode == "forward" else 6) * products / 1e9)

    @property
    def kind(self) -> tuple[str, str]:
        """Return what groups have in common that are fitted together: the mode and the device."""
        return self.mode, self.device

    @property
    def times(self) -> float:
        """Multiple of the time of a forward of the same work, as first guessed."""
        return 1.0 if self.mode == "forward" else STEP_TIMES


@dataclasses.dataclass(frozen=True, slots=True)
class Line:
    """Time of a group by its work.

    Attributes:
        fixed: Time of any group, in seconds.
        slope: Time for a GFLOP, in seconds.
    """

    fixed: float
    slope: float

    def seconds(self, work: float) -> float:
        """Return the time of a group with that work, in seconds."""
        return self.fixed + self.slope * work

    def times(self, factor: float) -> Line:
        """Return the line of groups that take a multiple of the time."""
        return Line(self.fixed * factor, self.slope * factor)

    def fitted(self, groups: Sequence[tuple[float, float]]) -> Line:
        """Return the line that fits finished groups best, where this one counts as a guess.

        Errors are ratios, and one group that took far longer than the others decides little.

        Args:
            groups: Work and time in seconds of finished groups.
        """
        import numpy as np  # not at the top, as SciPy: the check of one case does without them
        from scipy.optimize import least_squares

        work, seconds = np.array(groups, dtype=float).reshape(-1, 2).T

        def errors(logs: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
            line = self.fixed * np.exp(logs[0]) + self.slope * np.exp(logs[1]) * work
            return np.concatenate((np.log(line / seconds), logs * math.sqrt(GUESS_WEIGHT)))

        fixed, slope = np.exp(least_squares(errors, (0.0, 0.0), loss="soft_l1", f_scale=USUAL_ERROR).x)
        return Line(self.fixed * float(fixed), self.slope * float(slope))


class TimeLeft:
    """Estimates the time that is left.

    Args:
        groups: The groups that are to be measured, by their number.
        backends: Number of backends of a group.
        budget_seconds: Measuring time of a group, in seconds.
    """

    def __init__(self, groups: Mapping[int, Planned], backends: int, budget_seconds: float) -> None:
        self._groups = groups
        self._guess = Line(budget_seconds + BACKEND_SECONDS * backends, BASELINE_WORK_SECONDS + WORK_SECONDS * backends)
        #: Time of what is done once for a device, in seconds.
        self._once = ONCE_SECONDS * backends
        self._to_begin = {group.device for group in groups.values()}
        self._taken: list[tuple[Planned, float]] = []
        self._number, self._begun = 0, 0.0
        self._lines = {group.kind: self._guess.times(group.times) for group in groups.values()}

    def begin(self, now: float, number: int) -> None:
        """Note that the group of that number begins."""
        self._number, self._begun = number, now

    def end(self, now: float, once_seconds: float) -> None:
        """Note that the group has ended.

        Args:
            now: The time, in seconds.
            once_seconds: Time of what is done once for a device, in seconds; it counts in its first group.
        """
        group, seconds = self._groups[self._number], now - self._begun
        if group.device in self._to_begin:
            self._to_begin.remove(group.device)
            self._once, seconds = once_seconds, seconds - once_seconds
        # A group whose backends are all absent takes next to nothing, and says nothing about the others.
        self._taken.append((group, max(seconds, LEAST_SHARE * self._guess.fixed)))
        self._number, self._begun = self._number + 1, now
        if self._number <= max(self._groups):
            self._lines = self._fit()

    def seconds(self, now: float) -> float:
        """Return the time that is left, in seconds, of the present group or the next one, and of all after it."""
        predicted = {
            number: self._lines[group.kind].seconds(group.work)
            for number, group in self._groups.items()
            if number >= self._number
        }
        for device in self._to_begin:
            first = min(number for number, group in self._groups.items() if group.device == device)
            predicted[first] += self._once
        present = predicted.pop(self._number, 0.0)
        return sum(predicted.values()) + max(0.0, present - (now - self._begun))

    def _fit(self) -> dict[tuple[str, str], Line]:
        """Return the line of each mode and device that is planned: fitted to all groups first, then to its own."""
        every = self._guess.fitted([(group.work, seconds / group.times) for group, seconds in self._taken])
        lines = {}
        for group in self._groups.values():
            if group.kind not in lines:
                alike = [(each.work, seconds) for each, seconds in self._taken if each.kind == group.kind]
                lines[group.kind] = every.times(group.times).fitted(alike)
        return lines

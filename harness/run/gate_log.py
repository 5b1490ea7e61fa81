"""The gate's verdicts on one cell, and what follows from them."""

from __future__ import annotations

import dataclasses
from typing import Final, Literal

from harness.correctness.verdict import PROBES, Verdict

#: Probes by what their refusal says of the fault, most first: the most telling one becomes the row's reason. An
#: arithmetic that can be named says more than the element that it spoilt most; one that cannot says less.
_TELLING: Final = ("edge_cases", "exact", "named precision", "bound", "conduct", "precision")


@dataclasses.dataclass
class GateLog:
    """The gate's verdicts on one cell.

    Attributes:
        verdicts: Every verdict, in the order of asking.
        wide_range: True if numbers beyond float16's range came out right; None before the edge cases.
        precision_class: Arithmetic that the errors show; None if worse than all classes.
        seconds: Time of asking and judging, without the reference.
        mean_absolute_error: Mean absolute difference of the first output from the baseline's.
    """

    verdicts: list[Verdict] = dataclasses.field(default_factory=list)
    wide_range: bool | None = None
    precision_class: str | None = None
    seconds: float = 0.0
    mean_absolute_error: float | None = None

    @property
    def refused(self) -> bool:
        """True if any verdict is a refusal."""
        return any(not verdict.ok for verdict in self.verdicts)

    @property
    def misbehaved(self) -> bool:
        """True if the gate refused the backend's conduct, and not only its results."""
        return any(not verdict.ok and verdict.probe == "conduct" for verdict in self.verdicts)

    def most_telling_refusal(self) -> Verdict | None:
        """Return the refusal that becomes the row's reason; None without a refusal."""

        def place(verdict: Verdict) -> int:
            named = verdict.probe == "precision" and self.precision_class is not None
            return _TELLING.index("named precision" if named else verdict.probe)

        return min((verdict for verdict in self.verdicts if not verdict.ok), key=place, default=None)

    def probes(self) -> str:
        """Return each probe's answer, as in ``edge_cases=ok;exact=no``, without probes that were not put."""
        answers = {probe: [verdict.ok for verdict in self.verdicts if verdict.probe == probe] for probe in PROBES}
        return ";".join(f"{probe}={'ok' if all(oks) else 'no'}" for probe, oks in answers.items() if oks)

    def largest(self, attribute: Literal["error_over_bound", "absolute_error"]) -> float | None:
        """Return the largest figure of all verdicts; None if no verdict has it."""
        figures = [figure for verdict in self.verdicts if (figure := getattr(verdict, attribute)) is not None]
        return max(figures, default=None)

"""The gate's verdicts on one cell, and what follows from them."""

from __future__ import annotations

import dataclasses
from typing import Final, Literal

from harness.correctness import promises
from harness.correctness.questions import SCENARIOS
from harness.correctness.verdict import PROBES, Verdict

#: Probes by what their refusal says of the fault, most first. An arithmetic that can be named says more than the
#: element that it spoilt most; one that cannot says less.
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
        edge_cases_kept: True if an earlier run has found the edge cases right.
    """

    verdicts: list[Verdict] = dataclasses.field(default_factory=list)
    wide_range: bool | None = None
    precision_class: str | None = None
    seconds: float = 0.0
    mean_absolute_error: float | None = None
    edge_cases_kept: bool = False

    @property
    def refused(self) -> bool:
        """True if any verdict is a refusal."""
        return any(not verdict.ok for verdict in self.verdicts)

    @property
    def misbehaved(self) -> bool:
        """True if the gate refused the backend's conduct, and not only its results."""
        return any(not verdict.ok and verdict.probe == "conduct" for verdict in self.verdicts)

    @property
    def explained(self) -> bool:
        """True if wrong results fit a hypothesis already."""
        return any(verdict.hypothesis for verdict in self.verdicts)

    @property
    def kept(self) -> dict[str, bool]:
        """Whether each promise that was asked for was kept, by name."""
        kept: dict[str, bool] = {}
        for verdict in self.verdicts:
            if verdict.promise:
                kept[verdict.promise] = kept.get(verdict.promise, True) and verdict.ok
        return kept

    def most_telling_refusal(self) -> Verdict | None:
        """Return the refusal that becomes the row's reason; None without a refusal.

        What a backend did other than computing comes first: changed inputs explain wrong results, not the other way
        round. Then come values that fit a hypothesis. Where none do, the pattern of the promises may say something.
        """
        few_are_wrong = any(verdict.few_are_wrong for verdict in self.verdicts)

        def place(verdict: Verdict) -> tuple[int, int, int]:
            named = verdict.probe == "precision" and self.precision_class is not None
            probe = _TELLING.index("named precision" if named else verdict.probe)
            if verdict.probe == "precision" and few_are_wrong:  # the arithmetic of a whole result spoils more elements
                return 3, 0, 0
            done = verdict.probe == "conduct" and verdict.elements is None
            fits = bool(verdict.hypothesis) and verdict.probe != "precision"
            return (0 if done else 1 if fits else 2), probe, promises.telling(verdict.promise)

        refusal = min((verdict for verdict in self.verdicts if not verdict.ok), key=place, default=None)
        if refusal is None or refusal.hypothesis or (refusal.elements is None and refusal.probe != "edge_cases"):
            return refusal
        kept = self.kept
        if promises.FOREMOST not in kept:  # without the edge cases there is no pattern
            return refusal
        failed = frozenset(name for name, ok in kept.items() if not ok)
        return dataclasses.replace(refusal, hypothesis=promises.hint(failed))

    def probes(self) -> str:
        """Return each probe's answer, as in ``edge_cases=ok;exact=no``, without probes that were not put.

        Edge cases that an earlier run has found right are ``kept``.

        The conduct probe is put whole: until its last scenario was asked, it says no or nothing.
        """
        answers = {probe: [verdict.ok for verdict in self.verdicts if verdict.probe == probe] for probe in PROBES}
        if all(answers["conduct"]) and self.refused and SCENARIOS[-1].name not in self.kept:
            answers["conduct"] = []
        words = {probe: "ok" if all(oks) else "no" for probe, oks in answers.items() if oks}
        if self.edge_cases_kept and words.get("edge_cases") == "ok":
            words["edge_cases"] = "kept"
        return ";".join(f"{probe}={word}" for probe, word in words.items())

    def largest(self, attribute: Literal["error_over_bound", "absolute_error"]) -> float | None:
        """Return the largest figure of all verdicts; None if no verdict has it."""
        figures = [figure for verdict in self.verdicts if (figure := getattr(verdict, attribute)) is not None]
        return max(figures, default=None)

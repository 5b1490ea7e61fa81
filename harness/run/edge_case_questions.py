"""The edge cases of one backend: ask all, have the reference compute, judge all, and explain what is wrong."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from harness.case import Case
from harness.correctness import conduct, diagnosis, edge_cases, gate, promises
from harness.correctness.diagnosis import Other
from harness.correctness.edge_cases import EdgeCase
from harness.correctness.inputs import make_inputs
from harness.correctness.questions import AGAIN
from harness.correctness.verdict import Verdict, passed, refused
from harness.process.handle import WorkerHandle
from harness.process.protocol import (
    AskSupport,
    CheckGradients,
    Prepare,
    Release,
    Results,
    RunEdgeCase,
    RunScenario,
)
from harness.record import Flag
from harness.run.cell import fresh_folder
from harness.run.plan import BASELINE
from harness.run.reference_cache import Arrays, ReferenceCache, arrays

#: Sizes of the case that gradients are held against finite differences on: that takes two calls for each input element.
GRADCHECK_SIZES: Final = (3, 2, 4, 2)
#: Sizes of the case of which many results are held.
HELD_SIZES: Final = (7, 5, 3, 11)
#: Likely cause where the same inputs gave two answers.
UNSTEADY: Final = (
    "The same inputs gave two answers: is there a race, a random number, or memory that was never written?"
)
#: Reason where the edge case that another is compared with was refused.
NOT_COMPARED: Final = "nothing to compare with"


@dataclasses.dataclass(frozen=True, slots=True)
class EdgeCaseFindings:
    """What the edge cases show of a backend.

    Attributes:
        verdicts: By the edge case's name; further ``operators``, ``gradcheck``, ``held`` and ``skipped``.
        wide_range: True if numbers beyond float16's range came out right.
        output: End of what the backend printed; empty if it is right.
        kept: True if they were found in an earlier run.
    """

    verdicts: Mapping[str, Verdict]
    wide_range: bool
    output: str = ""
    kept: bool = False


class EdgeCaseQuestions:
    """Puts the edge cases of one dtype, precision and mode to a loaded worker.

    Args:
        asked: Dtype, precision, mode and seed; its sizes do not matter.
        name: The backend's own name.
        device: Device of the backend.
        worker: A worker that is never timed.
        reference_cache: The right results.
        limit_seconds: Time limit of a request, in seconds.
    """

    def __init__(
        self,
        asked: Case,
        name: str,
        device: str,
        worker: WorkerHandle,
        reference_cache: ReferenceCache,
        limit_seconds: float,
    ) -> None:
        self._asked = asked
        self._baseline = name == BASELINE
        self._device = device
        self._worker = worker
        self._reference_cache = reference_cache
        self._limit_seconds = limit_seconds
        self._verdicts: dict[str, Verdict] = {}
        self._actual: dict[str, Arrays] = {}
        self._operators: list[str] = []
        #: Names of inputs that a call changed.
        self._changed: list[str] = []
        self._native_type = ""

    def findings(self) -> EdgeCaseFindings:
        """Ask all, have the reference compute, judge all.

        Raises:
            WorkerError: The worker did not reply.
            ReferenceUnavailable: The reference did not.
        """
        planned = edge_cases.all_edge_cases(self._asked)
        able = {case: self._supports(case) for case in dict.fromkeys(edge_case.case for edge_case in planned)}
        possible = [edge_case for edge_case in planned if able[edge_case.case]]
        folder = fresh_folder(self._worker.directory / "edge_cases")
        for edge_case in possible:
            self._run(edge_case, tuple(other for other in possible if other.case == edge_case.case), folder)
        for edge_case in possible:
            if edge_case.name in self._actual:
                self._judge(edge_case)
        self._explain(possible)
        ordered = {edge_case.name: self._verdicts[edge_case.name] for edge_case in possible}
        further = {
            promises.OPERATORS: conduct.judge_operators(self._operators, self._baseline, self._native_type),
            promises.UNTOUCHED: conduct.judge_unchanged(tuple(dict.fromkeys(self._changed))),
            "skipped": passed(edge_cases.PROBE, "" if len(possible) == len(planned) else Flag.EDGE_CASES_PARTIAL),
        }
        if self._asked.mode == "forward_backward":
            further[promises.GRADCHECK] = self._gradcheck()
        if all(verdict.ok for verdict in ordered.values()):
            further["held"] = self._held(folder)
        shutil.rmtree(folder, ignore_errors=True)
        wide_range = all(verdict.ok for name, verdict in ordered.items() if name.startswith("large"))
        verdicts = {name: _promised(name, verdict) for name, verdict in (ordered | further).items()}
        right = all(verdict.ok for verdict in verdicts.values())
        return EdgeCaseFindings(verdicts, wide_range, "" if right else self._worker.output)

    def _supports(self, case: Case) -> bool:
        return self._worker.request(AskSupport(case), self._limit_seconds).supported

    def _run(self, edge_case: EdgeCase, alike: tuple[EdgeCase, ...], folder: Path) -> None:
        """Run one edge case in a request of its own, so that a time limit is one of preparing and a single call."""
        reply = self._worker.request(RunEdgeCase(alike, edge_case.name, folder), self._limit_seconds)
        self._operators += reply.operators
        if reply.results is None:
            failed = reply.failure
            error, trace = ("nothing came back", "") if failed is None else (f"raised {failed.error}", failed.traceback)
            self._refuse(edge_case, error, trace)
            return
        self._native_type = reply.results.native_type
        self._changed += reply.results.changed
        form = self._form(edge_case, reply.results)
        reason = form.reason
        if not reason:
            try:
                self._actual[edge_case.name] = arrays(folder / edge_case.name, edge_case.case)
            except (OSError, ValueError, EOFError) as error:
                reason = f"it could not be checked: {error}"
        if reason:
            self._refuse(edge_case, reason, hypothesis=form.hypothesis)

    def _form(self, edge_case: EdgeCase, results: Results) -> Verdict:
        """Judge results before their values count."""
        form = gate.judge_facts(edge_case.case, self._device, results.native_type, results.facts, edge_cases.PROBE)
        return conduct.judge_storage(results.storages.results, results.storages.inputs, {}) if form.ok else form

    def _judge(self, edge_case: EdgeCase) -> None:
        expected = self._reference_cache.of(edge_case.case, edge_case.kind, 0)
        try:
            self._verdicts[edge_case.name] = edge_cases.judge_edge_case(edge_case, expected, self._actual)
        except KeyError:  # it is compared with another edge case, which was refused
            self._refuse(edge_case, NOT_COMPARED)

    def _refuse(self, edge_case: EdgeCase, reason: str, trace: str = "", hypothesis: str = "") -> None:
        refusal = refused(edge_cases.PROBE, f"not so: {edge_case.sentence}: {reason}", hypothesis=hypothesis)
        self._verdicts[edge_case.name] = dataclasses.replace(refusal, traceback=trace)

    def _explain(self, asked: Sequence[EdgeCase]) -> None:
        """Find what wrong results fit, from the most telling edge case on, until one fits something."""
        for edge_case in sorted(asked, key=lambda edge_case: promises.telling(edge_case.name)):
            verdict = self._verdicts[edge_case.name]
            if verdict.elements is None:
                continue
            case, actual = edge_case.case, self._actual[edge_case.name]
            expected = self._reference_cache.of(case, edge_case.kind, 0).values
            others = self._right_ones(edge_case, asked)
            hypothesis = diagnosis.explain(case, _inputs(edge_case), expected, actual, others)
            hypothesis = hypothesis or self._unsteady(edge_case)
            self._verdicts[edge_case.name] = dataclasses.replace(verdict, hypothesis=hypothesis)
            if hypothesis:
                return

    def _unsteady(self, edge_case: EdgeCase) -> str:
        """Return that the same inputs gave another answer later; empty if they did not, or were not asked again."""
        one, other = (self._actual.get(name) for name in ("primes", "primes-again"))
        if edge_case.name != "primes" or one is None or other is None:
            return ""
        same = all(np.array_equal(result, other[name], equal_nan=True) for name, result in one.items())
        return "" if same else UNSTEADY

    def _right_ones(self, edge_case: EdgeCase, asked: Sequence[EdgeCase]) -> list[Other]:
        """Return the other calls on the same case that were answered rightly."""
        place = asked.index(edge_case)
        return [
            Other(_inputs(other), self._actual[other.name], before=number < place)
            for number, other in enumerate(asked)
            if other.case == edge_case.case and self._verdicts[other.name].ok
        ]

    def _gradcheck(self) -> Verdict:
        """Have PyTorch's gradcheck run where the arrays are PyTorch's; in float64, as finite differences need it."""
        batch, in1, in2, out = GRADCHECK_SIZES
        case = Case(batch, in1, in2, out, dtype="float64", mode="forward_backward", seed=self._asked.seed)
        if not self._supports(case):
            return passed(edge_cases.PROBE)
        reply = self._worker.request(CheckGradients(case), self._limit_seconds)
        if reply.reason:
            return refused(edge_cases.PROBE, f"not so: the gradients are those of the output: {reply.reason}")
        return passed(edge_cases.PROBE)

    def _held(self, folder: Path) -> Verdict:
        """Have many results of a small case held: buffers that take turns come round again within a second."""
        batch, in1, in2, out = HELD_SIZES
        case = dataclasses.replace(self._asked, batch=batch, in1_features=in1, in2_features=in2, out_features=out)
        if not self._supports(case):
            return passed(conduct.PROBE)
        self._worker.request(Prepare(case, 1, fresh_folder(folder / "first")), self._limit_seconds)
        asked = RunScenario(AGAIN.name, fresh_folder(folder / AGAIN.name))
        places = self._worker.request(asked, self._limit_seconds).results.storages
        self._worker.request(Release(), self._limit_seconds)
        return conduct.judge_storage(places.results, places.inputs, places.earlier)


def _promised(name: str, verdict: Verdict) -> Verdict:
    """Return a verdict on the promise of its edge case; one that could not be compared is on none."""
    promise = name if name in promises.SHORT and not verdict.reason.endswith(NOT_COMPARED) else ""
    return dataclasses.replace(verdict, promise=promise)


def _inputs(edge_case: EdgeCase) -> Arrays:
    return make_inputs(edge_case.case, 0, edge_case.kind)

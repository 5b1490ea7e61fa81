"""The checker: puts the gate's questions to a worker and has the replies judged.

The questions and their order are the same in a run and in the tests of a third party (``conformance.py``).
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Sequence
from typing import Final

from harness.case import Case
from harness.correctness import conduct, gate
from harness.correctness.questions import ANOTHER_KERNEL, FIRST, IN_FORWARD, IN_SAMPLE, Question, unseen
from harness.correctness.verdict import Expected, Verdict, passed
from harness.process.protocol import (
    Affinity,
    CheckFresh,
    CheckIntegrity,
    KeptResults,
    Prepare,
    Prepared,
    Results,
    RunScenario,
)
from harness.record import Status
from harness.run.cell import Cell
from harness.run.plan import BASELINE
from harness.run.reference_cache import Arrays, ReferenceCache, arrays
from harness.timing import roofline

#: Folder of the first results, which stay until the end of the scenarios.
_FIRST: Final = "first"


class Checker:
    """The questions about one case on one device.

    Args:
        case: The case.
        device: Device of the backends.
        reference_cache: The right results.
        limit_seconds: Time limit of a request, in seconds.
        stage: Callback before the reference computes.
    """

    def __init__(
        self,
        case: Case,
        device: str,
        reference_cache: ReferenceCache,
        limit_seconds: float,
        stage: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._case = case
        self._device = device
        self._reference_cache = reference_cache
        self._limit_seconds = limit_seconds
        self._stage = stage
        #: The question after timing.
        self.unseen: Final = unseen(case.mode)

    def expect(self, question: Question, variation: int | None = None) -> Expected:
        """Return the right results for a question; what takes time is the first call.

        Args:
            question: The question.
            variation: Number of the inputs, where the question leaves it open.
        """
        self._stage("compute the right results")
        return self._expected(question, variation)

    def prepare(self, cell: Cell, input_sets: int = roofline.INPUT_SETS) -> Prepared | None:
        """Have the case prepared and called once; judge all but the values, which have no reference yet."""
        reply = cell.request(Prepare(self._case, input_sets, cell.results_folder(_FIRST)), self._limit_seconds)
        if reply is not None:
            cell.note(conduct.judge_type(reply.results.native_type, reply.native_bases, reply.home_made))
            cell.note(_judge_affinity(reply.affinity))
            inputs = gate.judge_given(self._case, self._device, reply.inputs)
            cell.note(inputs)
            if inputs.ok:
                self._judge_form(cell, reply.results, FIRST)
        return reply

    def judge_first(self, cell: Cell) -> Arrays | None:
        """Judge the values of the first results; return them, or None if they cannot be read."""
        actual = self._read(cell, _FIRST)
        if actual is not None:
            cell.note(gate.judge(self._case, self._expected(FIRST), actual))
            self._place(cell)
        return actual

    def ask(self, cell: Cell, scenario: Question) -> bool:
        """Have one scenario run; judge all but the values; return True if there are values to judge."""
        folder = cell.results_folder("scenario")
        reply = cell.request(RunScenario(scenario.name, folder), self._limit_seconds)
        if reply is None or not self._judge_form(cell, reply.results, scenario):
            return False
        if scenario == ANOTHER_KERNEL and reply.kernel_seconds is not None:
            cell.schedule.kernel_seconds = reply.kernel_seconds
        baseline = cell.base_name == BASELINE
        cell.note(
            conduct.judge_operators(reply.operators, baseline, reply.results.native_type),
            conduct.judge_conversion(reply.convert_seconds, reply.call_seconds, self._case.result_bytes),
        )
        return True

    def judge(self, cell: Cell, scenario: Question) -> None:
        """Judge the values that a scenario left."""
        actual = self._read(cell, "scenario")
        if actual is None:
            return
        if scenario.judge == "exactly":
            cell.note(gate.judge_exactly(self._case, self._expected(scenario), actual))
            return
        if scenario.judge == "repeated":
            first = self._read(cell, _FIRST)
            if first is None:
                return
            repeated = conduct.judge_repeated(first, actual)
            cell.note(repeated)
            if not repeated.remark:
                return  # bit for bit the first results, which are judged already
        verdict = gate.judge(self._case, self._expected(scenario), actual, "conduct")
        cell.note(_named(verdict, scenario))
        self._place(cell)

    def finish_scenarios(self, cell: Cell) -> None:
        """See that inputs, functions and first results are as they were."""
        reply = cell.request(CheckIntegrity(cell.results_folder("scenario")), self._limit_seconds)
        if reply is None:
            return
        cell.note(conduct.judge_unchanged(reply.changed), conduct.judge_tampering(reply.replaced))
        first, now = self._read(cell, _FIRST), self._read(cell, "scenario")
        if first is not None and now is not None:
            cell.note(conduct.judge_intact(first, now))
        shutil.rmtree(cell.folder(_FIRST), ignore_errors=True)

    def judge_kept(self, cell: Cell, variation: int) -> None:
        """Judge results from inside a timed sample.

        Args:
            cell: The cell.
            variation: Number of the input set of the kept calls.
        """
        expected = self._expected(IN_SAMPLE, variation)
        questions = [(self._case, IN_SAMPLE)]
        if self._case.mode == "forward_backward":
            questions.append((self._case.with_mode("forward"), IN_FORWARD))
        for case, question in questions:
            request = KeptResults(question is IN_FORWARD, cell.results_folder("kept"))
            results = cell.request(request, self._limit_seconds)
            if results is None or not self._judge_form(cell, results, question, case):
                return
            actual = self._read(cell, "kept", case)
            if actual is not None:
                cell.note(_named(gate.judge(case, expected, actual), question))
        self._place(cell)

    def check_again(self, cell: Cell, variations: Sequence[int], settle: bool = True) -> Verdict | None:
        """See that inputs are as they were, then have the backend called on inputs that it has not seen.

        Args:
            cell: The cell.
            variations: Numbers of the inputs; calls on all but the last are timed.
            settle: True if a call that is not timed comes before each pair of timed calls.

        Returns:
            The verdict on memoising. It is not noted yet: a busy machine may make one attempt a refusal.
        """
        integrity = cell.request(CheckIntegrity(cell.results_folder("changed")), self._limit_seconds)
        if integrity is None:
            return None
        cell.note(conduct.judge_unchanged(integrity.changed), conduct.judge_tampering(integrity.replaced))
        request = CheckFresh(tuple(variations), self.unseen.kind, cell.results_folder("check"), settle)
        reply = cell.request(request, self._limit_seconds)
        if reply is None:
            return None
        self._judge_form(cell, reply.results, self.unseen)
        cell.note(_judge_affinity(reply.affinity))
        return conduct.judge_memory_of_answers(reply.fresh_seconds, reply.seen_seconds)

    def judge_check(self, cell: Cell, variation: int) -> None:
        """Judge the values that ``check_again`` left, for the last of its variations."""
        actual = self._read(cell, "check")
        if actual is not None:
            cell.note(gate.judge(self._case, self._expected(self.unseen, variation), actual))
            self._place(cell)

    def _expected(self, question: Question, variation: int | None = None) -> Expected:
        number = question.variation if variation is None else variation
        if number is None:
            raise ValueError(f"{question.name} needs the number of its inputs")
        return self._reference_cache.of(self._case, question.kind, number)

    def _place(self, cell: Cell) -> None:
        """Place the cell in a precision class by all errors seen until now."""
        log = cell.gate
        judged = [verdict for verdict in log.verdicts if verdict.errors and (verdict.ok or verdict.probe == "bound")]
        if not judged:
            cell.note(passed("precision"))
            log.precision_class = None
            return
        log.precision_class, verdict = gate.judge_precision(self._case, judged, log.wide_range is not False)
        cell.note(verdict)

    def _judge_form(self, cell: Cell, results: Results, question: Question, case: Case | None = None) -> bool:
        """Judge what results say of themselves and where they are stored; True if their values can be judged."""
        asked = case or self._case
        form = gate.judge_facts(asked, self._device, results.native_type, results.facts, question.form)
        cell.note(form)
        if form.ok:
            places = results.storages
            cell.note(conduct.judge_storage(places.results, places.inputs, places.earlier))
        return form.ok

    def _read(self, cell: Cell, folder: str, case: Case | None = None) -> Arrays | None:
        """Read results; unreadable ones end the cell. None also if they were refused before they were written."""
        place, asked = cell.folder(folder), case or self._case
        try:
            if cell.gate.refused and not any(place.iterdir()):
                return None
            read = arrays(place, asked)
            if set(read) != set(asked.result_shapes()):
                raise ValueError(f"it left {', '.join(read) or 'nothing'}")
        except (OSError, ValueError, EOFError) as error:
            cell.end(Status.FAILED, f"it could not be checked: {error}")
            return None
        return read


def _judge_affinity(affinity: Affinity) -> Verdict:
    before, now = (None if cpus is None else list(cpus) for cpus in (affinity.before, affinity.now))
    return conduct.judge_affinity(before, now)


def _named(verdict: Verdict, question: Question) -> Verdict:
    """Return a verdict whose reason begins with the question's name."""
    return dataclasses.replace(verdict, reason=verdict.reason and f"{question.name}: {verdict.reason}")

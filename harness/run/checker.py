"""The checker: puts the gate's questions to a worker and has the replies judged.

The questions and their order are the same in a run and in the tests of a third party (``conformance.py``).

Length: every question of a case, in the order of asking.
"""

from __future__ import annotations

import contextlib
import dataclasses
import random
import shutil
from collections.abc import Callable, Sequence
from typing import Final

from harness.case import Case
from harness.correctness import conduct, drawn, gate, own_size, promises, telling_rows
from harness.correctness.drawn import Drawn
from harness.correctness.inputs import make_inputs
from harness.correctness.questions import (
    AGAIN,
    ANOTHER_KERNEL,
    FIRST,
    IN_FORWARD,
    IN_SAMPLE,
    Question,
    unseen,
)
from harness.correctness.verdict import Expected, Verdict
from harness.process.handle import WorkerError
from harness.process.protocol import (
    Affinity,
    CheckFresh,
    CheckIntegrity,
    Integrity,
    KeptResults,
    Prepare,
    Prepared,
    Results,
    RunScenario,
    ScenarioRun,
)
from harness.record import Status
from harness.run import closer_look, variants
from harness.run.cell import Cell
from harness.run.granted import judge_granted
from harness.run.plan import BASELINE
from harness.run.reference_cache import Arrays, ReferenceCache, arrays
from harness.run.sample import Judged
from harness.run.time_spent import Stage, TimeSpent
from harness.timing import roofline

#: Time of a call, in seconds, from which a scenario makes as few as it can do with, and measures their memory.
LONG_CALL_SECONDS: Final = 0.020
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
        secret: Random source that no backend can foresee; it draws which part of a large case's results is judged.
        spent: Stopwatch of the run.
    """

    def __init__(
        self,
        case: Case,
        device: str,
        reference_cache: ReferenceCache,
        limit_seconds: float,
        stage: Callable[[str], None] = lambda text: None,
        secret: random.Random | None = None,
        spent: TimeSpent | None = None,
    ) -> None:
        self._case = case
        self._device = device
        self._reference_cache = reference_cache
        self._limit_seconds = limit_seconds
        self._stage = stage
        self._secret = secret or random.SystemRandom()
        self._spent = spent or TimeSpent()
        #: The part that is judged, by the kind and number of the inputs; drawn for each question.
        self._drawn: dict[tuple[str, int], Drawn | None] = {}
        #: The question after timing.
        self.unseen: Final = unseen(case.mode)

    def expect(self, question: Question, variation: int | None = None) -> Expected:
        """Return the right results for a question; what takes time is the first call.

        All backends have answered it, so now the part of a large case is drawn that is judged.

        Args:
            question: The question.
            variation: Number of the inputs, where the question leaves it open.
        """
        self._stage("compute the right results")
        self._drawn.pop((question.kind, _number(question, variation)), None)
        return self._expected(question, variation)

    def prepare(self, cell: Cell, input_sets: int = roofline.INPUT_SETS) -> Prepared | None:
        """Have the case prepared and called once; judge all but the values, which have no reference yet."""
        with self._spent(Stage.PREPARE):
            reply = cell.request(Prepare(self._case, input_sets, cell.results_folder(_FIRST)), self._limit_seconds)
        if reply is not None:
            inputs = gate.judge_given(self._case, self._device, reply.inputs)
            cell.note(
                conduct.judge_type(reply.results.native_type, reply.native_bases, reply.home_made),
                _judge_affinity(reply.affinity),
                inputs,
                promise=FIRST.name,
            )
            if inputs.ok:
                self._judge_form(cell, reply.results, FIRST)
        return reply

    def judge_first(self, cell: Cell) -> Arrays | None:
        """Judge the values of the first results; return them, or None if they cannot be read."""
        actual = self._read(cell, _FIRST)
        if actual is not None:
            expected = self._expected(FIRST)
            verdict = gate.judge(self._case, expected, actual)
            cell.note(self._explained(cell, verdict, FIRST, expected, actual), promise=FIRST.name)
            self._place(cell)
        return actual

    def ask(self, cell: Cell, scenario: Question) -> bool:
        """Have one scenario run; judge all but the values; return True if there are values to judge."""
        folder = cell.results_folder("scenario")
        request = RunScenario(scenario.name, folder, cell.schedule.call_seconds > LONG_CALL_SECONDS)
        reply = self._watched(cell, request, scenario)
        if reply is not None and scenario == AGAIN:
            cell.schedule.call_seconds = reply.call_seconds
        if reply is None or not self._judge_form(cell, reply.results, scenario):
            return False
        if scenario == ANOTHER_KERNEL and reply.kernel_seconds is not None:
            cell.schedule.kernel_seconds = reply.kernel_seconds
        cell.timings.keep_memory(reply.peak_bytes, self._case.result_bytes)
        baseline = cell.base_name == BASELINE
        cell.note(
            conduct.judge_operators(reply.operators, baseline, reply.results.native_type),
            conduct.judge_conversion(reply.convert_seconds, reply.call_seconds, self._case.result_bytes),
            promise=scenario.name,
        )
        return True

    def _watched(self, cell: Cell, request: RunScenario, scenario: Question) -> ScenarioRun | None:
        """Have a scenario run; in the one of many calls, look at the threads that come and go within a call."""
        if scenario != AGAIN or self._device != "cpu" or cell.worker is None:
            return cell.request(request, self._limit_seconds)
        with cell.worker.looking() as looks:
            reply = cell.request(request, self._limit_seconds)
        judge_granted(cell, *looks)
        return reply

    def judge(self, cell: Cell, scenario: Question) -> None:
        """Judge the values that a scenario left."""
        actual = self._read(cell, "scenario")
        if actual is None:
            return
        expected = self._expected(scenario)
        if scenario.judge == "exactly":
            verdict = gate.judge_exactly(self._case, expected, actual)
            cell.note(self._explained(cell, verdict, scenario, expected, actual), promise=scenario.name)
            changed = variants.judge(self._case, expected, cell.folder("scenario"))
            cell.note(*changed, promise=scenario.name)
            return
        if scenario.judge in own_size.JUDGES:
            verdict = own_size.JUDGES[scenario.judge](self._case, expected, actual)
            part = expected.drawn
            if part is not None and not (verdict.ok and part.of_all(self._case, actual)):
                verdict = own_size.JUDGES[scenario.judge](self._case, self._whole(scenario), actual)
            cell.note(_named(verdict, scenario), promise=scenario.name)
            return
        if scenario.judge == "repeated":
            first = self._read(cell, _FIRST)
            if first is None:
                return
            repeated = conduct.judge_repeated(first, actual)
            cell.note(repeated, promise=scenario.name)
            if not repeated.remark:
                return  # bit for bit the first results, which are judged already
        verdict, expected = self._judged(self._case, scenario, expected, actual, "conduct")
        verdict = self._explained(cell, _named(verdict, scenario), scenario, expected, actual)
        cell.note(verdict, promise=scenario.name)
        self._place(cell)

    def finish_scenarios(self, cell: Cell) -> None:
        """See that inputs, functions and first results are as they were."""
        reply = cell.request(CheckIntegrity(cell.results_folder("scenario")), self._limit_seconds)
        if reply is not None:
            self._judge_untouched(cell, reply)
            shutil.rmtree(cell.folder(_FIRST), ignore_errors=True)

    def conclude(self, cell: Cell) -> None:
        """End a cell that was refused; look closer first."""
        if cell.going and cell.gate.refused:
            self._look_closer(cell)
        cell.conclude()

    def _look_closer(self, cell: Cell) -> None:
        """See what a refused cell has changed and where its kernel is written: it says more than a wrong element."""
        # After the scenarios the first results are gone, and inputs have been compared.
        if cell.worker is not None and cell.worker.alive and cell.folder(_FIRST).is_dir():
            request = CheckIntegrity(cell.results_folder("scenario"))
            with contextlib.suppress(WorkerError):  # the cell has its refusal already
                self._judge_untouched(cell, cell.worker.request(request, self._limit_seconds))
        closer_look.locate(cell, self._limit_seconds)

    def judge_kept(self, cell: Cell, judged: Judged) -> None:
        """Judge a result from inside a timed sample.

        Args:
            cell: The cell.
            judged: Results to choose from, and the values that they were computed from.
        """
        questions = [(self._case, IN_SAMPLE)]
        if self._case.mode == "forward_backward":
            questions.append((self._case.with_mode("forward"), IN_FORWARD))
        for case, question in questions:
            request = KeptResults(question is IN_FORWARD, judged.calls, cell.results_folder("kept"))
            kept = cell.request(request, self._limit_seconds)
            if kept is None or not self._judge_form(cell, kept.results, question, case):
                return
            actual = self._read(cell, "kept", case)
            if actual is not None:
                number, originals = self._original(judged, kept.call, question, actual)
                expected = self._expected(IN_SAMPLE, number)
                verdict, _ = self._judged(case, question, expected, originals, variation=number)
                cell.note(_named(verdict, question))
        self._place(cell)

    def _original(self, judged: Judged, call: int, question: Question, actual: Arrays) -> tuple[int, Arrays]:
        """Return the number of the values in rotation, and what the results of a call in a sample say about them."""
        values = judged.values
        number = (values.first + call) % values.input_sets
        given = make_inputs(self._case, number, only=("bias", "grad_output"))
        before = (judged.passes - (question is IN_SAMPLE)) * values.calls
        return number, values.originals(number, before + call, actual, given, judged.changing)

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
        unchanged, honest = conduct.judge_unchanged(integrity.changed), conduct.judge_tampering(integrity.replaced)
        cell.note(unchanged, honest, promise=promises.UNTOUCHED)
        request = CheckFresh(tuple(variations), self.unseen.kind, cell.results_folder("check"), settle)
        reply = cell.request(request, self._limit_seconds)
        if reply is None:
            return None
        self._judge_form(cell, reply.results, self.unseen)
        cell.note(_judge_affinity(reply.affinity), promise=promises.UNSEEN)
        return conduct.judge_memory_of_answers(reply.fresh_seconds, reply.seen_seconds)

    def judge_check(self, cell: Cell, variation: int) -> None:
        """Judge the values that ``check_again`` left, for the last of its variations."""
        actual = self._read(cell, "check")
        if actual is not None:
            expected = self._expected(self.unseen, variation)
            verdict, expected = self._judged(self._case, self.unseen, expected, actual, variation=variation)
            if not verdict.ok:
                asked = dataclasses.replace(self.unseen, variation=variation)
                first = self._expected(FIRST).values  # which the backend has given once
                verdict = closer_look.explained(self._case, cell, verdict, asked, expected, actual, first)
            cell.note(verdict, promise=promises.UNSEEN)
            self._place(cell)

    def _expected(self, question: Question, variation: int | None = None) -> Expected:
        """Return the right results, or a part of a large case's, which is drawn here."""
        number = _number(question, variation)
        inputs = question.kind, number
        if question.in_part and inputs not in self._drawn:
            always = telling_rows.ends(telling_rows.roles(self._case)) if question.kind == telling_rows.ROWS else ()
            self._drawn[inputs] = drawn.draw(self._case, self._secret, [int(row) for rows in always for row in rows])
        with self._spent(Stage.RIGHT_RESULTS):
            return self._reference_cache.of(self._case, *inputs, self._drawn.get(inputs) if question.in_part else None)

    def _judged(
        self,
        case: Case,
        question: Question,
        expected: Expected,
        actual: Arrays,
        probe: str = "bound",
        variation: int | None = None,
    ) -> tuple[Verdict, Expected]:
        """Judge values within the bound; return the verdict and what they were compared with.

        A part that is refused, or too coarse, is not the verdict: all results are then judged.
        """
        if expected.drawn is None:
            return gate.judge(case, expected, actual, probe), expected
        if (part := expected.drawn.of_all(case, actual)) is not None:
            verdict = gate.judge(case, expected, part, probe)
            if verdict.ok and (verdict.error_over_bound or 0) <= 1:
                return verdict, expected
        whole = self._whole(question, variation)
        return gate.judge(case, whole, actual, probe), whole

    def _whole(self, question: Question, variation: int | None = None) -> Expected:
        """Return all right results, where a part of them was not enough."""
        self._stage("compute the right results")
        with self._spent(Stage.RIGHT_RESULTS):
            return self._reference_cache.of(self._case, question.kind, _number(question, variation))

    def _judge_untouched(self, cell: Cell, reply: Integrity) -> None:
        """Judge whether inputs, functions and first results are as they were."""
        cell.note(
            conduct.judge_unchanged(reply.changed), conduct.judge_tampering(reply.replaced), promise=promises.UNTOUCHED
        )
        first = self._read(cell, _FIRST)
        now = None if first is None else self._read(cell, "scenario")
        if first is not None and now is not None:
            cell.note(conduct.judge_intact(first, now), promise=promises.UNTOUCHED)

    def _explained(
        self, cell: Cell, verdict: Verdict, question: Question, expected: Expected, actual: Arrays
    ) -> Verdict:
        """Return a refusal with what its wrong results fit."""
        if verdict.ok:
            return verdict
        right = question is not FIRST and cell.gate.kept.get(FIRST.name, False)
        first = self._read(cell, _FIRST) if right else None
        return closer_look.explained(self._case, cell, verdict, question, expected, actual, first)

    def _place(self, cell: Cell) -> None:
        """Place the cell in a precision class by all errors seen until now."""
        log = cell.gate
        judged = [verdict for verdict in log.verdicts if verdict.errors and (verdict.ok or verdict.probe == "bound")]
        if not judged:
            log.precision_class = None
            return
        log.precision_class, verdict = gate.judge_precision(self._case, judged, log.wide_range is not False)
        cell.note(verdict, promise=promises.ROUNDING)

    def _judge_form(self, cell: Cell, results: Results, question: Question, case: Case | None = None) -> bool:
        """Judge what results say of themselves and where they are stored; True if their values can be judged."""
        asked = case or self._case
        form = gate.judge_facts(asked, self._device, results.native_type, results.facts, question.form)
        promise = question.name if question.name in promises.SHORT else ""
        cell.note(form, promise=promise)
        if form.ok:
            places = results.storages
            cell.note(
                conduct.judge_storage(places.results, places.inputs, places.earlier),
                conduct.judge_unchanged(results.changed),
                promise=promise,
            )
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


def _number(question: Question, variation: int | None) -> int:
    """Return the number of a question's inputs."""
    number = question.variation if variation is None else variation
    if number is None:
        raise ValueError(f"{question.name} needs the number of its inputs")
    return number


def _judge_affinity(affinity: Affinity) -> Verdict:
    before, now = (None if cpus is None else list(cpus) for cpus in (affinity.before, affinity.now))
    return conduct.judge_affinity(before, now)


def _named(verdict: Verdict, question: Question) -> Verdict:
    """Return a verdict whose reason begins with the question's name."""
    return dataclasses.replace(verdict, reason=verdict.reason and f"{question.name}: {verdict.reason}")

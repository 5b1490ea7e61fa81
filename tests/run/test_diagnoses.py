"""From a refused or failed cell to its diagnosis: the telling reason, the place, the command."""

from __future__ import annotations

import dataclasses

import pytest
from fake_worker import FakeWorker
from fakes import CASE, STEP
from faults import Faults

from harness.checked import Location
from harness.correctness.questions import SCENARIOS
from harness.correctness.verdict import passed, refused
from harness.process.handle import WorkerError
from harness.process.protocol import Locate, Prepare
from harness.record import Status
from harness.run.gate_log import GateLog


def diagnosis(run, backend="other"):
    (found,) = (one for one in run.runner.diagnoses if one.backend == backend)
    return found


def log(*verdicts):
    return GateLog([dataclasses.replace(verdict, promise=promise) for promise, verdict in verdicts])


def test_what_a_backend_did_is_told_before_what_it_computed():
    wrong = dataclasses.replace(refused("edge_cases", "wrong"), hypothesis="It is twice the right answer")
    changed = refused("conduct", "changed its input: input1")
    assert log(("primes", wrong), ("untouched", changed)).most_telling_refusal().reason == changed.reason


def test_what_fits_a_hypothesis_is_told_before_what_does_not():
    first, second = refused("edge_cases", "one"), refused("exact", "two", hypothesis="It is zero everywhere")
    found = log(("primes", first), ("another kernel", second)).most_telling_refusal()
    assert (found.reason, found.full_reason) == ("two", "two. It is zero everywhere")


def test_the_arithmetic_is_named_only_where_no_sum_is_wrong():
    wrong, coarse = refused("edge_cases", "wrong"), refused("precision", "coarse", hypothesis="Its errors are those of")
    found = GateLog([wrong, coarse], precision_class="tf32")
    assert found.most_telling_refusal().reason == "wrong"


def test_the_arithmetic_is_told_last_where_few_elements_are_wrong():
    bound, coarse = refused("bound", "wrong"), refused("precision", "coarse")
    assert GateLog([bound, coarse], precision_class="tf32").most_telling_refusal().reason == "coarse"
    few = dataclasses.replace(bound, few_are_wrong=True)
    assert GateLog([few, coarse], precision_class="tf32").most_telling_refusal().reason == "wrong"


def test_the_pattern_speaks_where_nothing_else_does():
    found = log(("primes", passed("edge_cases")), ("tall", refused("edge_cases", "wrong"))).most_telling_refusal()
    assert found.hypothesis == "Only larger sizes are wrong: is the remainder of a tile left out?"


def test_conduct_that_was_not_asked_whole_is_not_ok():
    early = log(("first", passed("conduct")), ("primes", refused("edge_cases", "wrong")))
    assert early.probes() == "edge_cases=no"
    whole = log((SCENARIOS[-1].name, passed("conduct")), ("unseen", refused("bound", "wrong")))
    assert whole.probes() == "bound=no;conduct=ok"


def test_precision_that_was_never_measured_is_not_ok(measure):
    class Doubles(FakeWorker):
        def prepare(self, request: Prepare):
            reply = super().prepare(request)
            facts = {"output": dataclasses.replace(reply.results.facts["output"], dtype="float64")}
            return dataclasses.replace(reply, results=dataclasses.replace(reply.results, facts=facts))

    assert measure(faults={"other": Faults(kind=Doubles)}).row("other").probes == "bound=no"


def test_a_changed_input_is_told_though_a_scenario_was_refused_first(measure):
    run = measure(faults={"other": Faults(answers={"again": 1}, changed=("input1",))})
    assert run.row("other").reason == "conduct: changed its input: input1. Does it compute in place?"
    assert diagnosis(run).summary == "changed its input: input1"


def test_a_refused_cell_has_promises_elements_place_and_command(measure):
    found = diagnosis(measure(faults={"other": Faults(answers={"another kernel": 1})}))
    assert (found.status, found.case, found.mode) == ("rejected", CASE.name, "forward")
    assert found.elements.result == "output"
    assert found.summary == str(found.elements)
    assert {promise.name for promise in found.promises if promise.answer == "failed"} == {"another kernel"}
    assert [promise.name for promise in found.promises if promise.answer == "not asked"] == [
        "new values in the same buffers",
        "the same values in new buffers",
        "telling rows",
        "NaN and infinity",
        "unseen",
    ]
    assert found.location == Location("fake.py", 1, "kernel")
    assert found.again.startswith(f"bilinear-bench check --backend other --case {CASE.name} --seed 0")


def test_a_refused_edge_case_is_repeated_at_its_own_sizes(measure):
    found = diagnosis(measure(faults={"edge cases of other": Faults(edge_case_errors={"square": "ValueError: no"})}))
    assert found.case == "7x5x5x2"
    assert "--case 7x5x5x2 " in found.again
    assert found.summary == "in1_features and in2_features may be equal: raised ValueError: no"


def test_an_empty_edge_case_is_repeated_by_the_case_of_the_row(measure):
    found = diagnosis(measure(faults={"edge cases of other": Faults(edge_case_errors={"empty": "ValueError: no"})}))
    assert f"--case {CASE.name} " in found.again


def test_a_training_step_is_repeated_as_one(measure):
    found = diagnosis(measure(STEP, faults={"other": Faults(changed=("weight",))}))
    assert "--mode forward_backward" in found.again


def test_a_failed_cell_has_its_error_place_and_output(measure):
    place = Location("/home/me/kernel.py", 3, "forward")
    error = WorkerError(Status.FAILED, f"ValueError: no ({place})", place, "Traceback ...", "at work")
    found = diagnosis(measure(faults={"other": Faults(instead={Prepare: error})}))
    assert (found.status, found.summary, found.location) == ("failed", "ValueError: no", place)
    assert (found.traceback, found.output, found.promises) == ("Traceback ...", "at work", ())


def test_a_worker_that_cannot_say_where_costs_nothing(measure):
    silent = Faults(changed=("weight",), instead={Locate: WorkerError(Status.TIMEOUT, "injected")})
    run = measure(faults={"other": silent})
    assert run.row("other").status is Status.REJECTED
    assert diagnosis(run).location is None


@pytest.mark.parametrize("case", [CASE, STEP])
def test_a_right_cell_is_asked_nothing_more(measure, case):
    run = measure(case)
    assert run.runner.diagnoses == []
    assert Locate not in run.workers.asked("other")

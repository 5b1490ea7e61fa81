"""The table of the gate's questions names what the protocol, the worker and the inputs have."""

from __future__ import annotations

import pytest

from harness.case import MODES, Case
from harness.correctness.inputs import make_inputs
from harness.correctness.questions import FIRST, IN_FORWARD, IN_SAMPLE, SCENARIOS, unseen
from harness.correctness.verdict import PROBES
from harness.process.protocol import request_types
from harness.worker import scenarios

QUESTIONS = (FIRST, *SCENARIOS, IN_SAMPLE, IN_FORWARD, *(unseen(mode) for mode in MODES))


def test_scenarios_are_those_of_the_worker_in_any_order():
    assert {question.name for question in SCENARIOS} == set(scenarios.SCENARIOS)
    assert {question.request for question in SCENARIOS} == {"RunScenario"}


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: f"{question.name}, {question.kind}")
def test_question_names_a_request_a_probe_and_inputs_that_exist(question):
    assert question.request in request_types()
    assert question.form in PROBES
    case = Case(3, 2, 2, 2, mode="forward_backward")
    assert set(make_inputs(case, question.variation or 0, question.kind)) == set(case.shapes())


def test_step_meets_new_weights_after_timing_and_inference_does_not():
    assert {mode: unseen(mode).kind for mode in MODES} == {"forward": "normal", "forward_backward": "new weight"}


def test_each_question_has_a_sentence_of_its_own():
    sentences = [question.sentence for question in (FIRST, *SCENARIOS, IN_SAMPLE, unseen("forward"))]
    assert len(set(sentences)) == len(sentences)

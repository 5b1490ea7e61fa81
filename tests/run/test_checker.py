"""The checker: it puts every question of the gate, and a wrong result is refused with its reason."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from fakes import CASE, STEP, FakeWorker, Faults

from harness.case import Case
from harness.correctness import drawn, telling, telling_rows
from harness.correctness.questions import ANOTHER_KERNEL, AS_IN_SAMPLES, FIRST, IN_SAMPLE, SCENARIOS, unseen
from harness.process.handle import WorkerError
from harness.process.protocol import (
    AskSupport,
    CheckFresh,
    Expect,
    KeptResults,
    MeasureMemory,
    Prepare,
    Prepared,
    RunEdgeCase,
    RunScenario,
    SampleTaken,
    Supported,
    TakeSample,
)
from harness.record import Status
from harness.run.cohort import FRESH_ATTEMPTS
from harness.run.plan import BASELINE


@pytest.mark.parametrize(
    ("fault", "phase", "reason"),
    [
        ({"answers": {"another kernel": 1}}, "gate", "exact: output["),
        ({"answers": {"again": 1}}, "gate", "conduct: again: output["),
        (
            {"answers": {"new values in the same buffers": 0}},
            "gate",
            "conduct: new values in the same buffers: output[",
        ),
        (
            {"answers": {"the same values in new buffers": 1}},
            "gate",
            "conduct: the same values in new buffers: output[",
        ),
        ({"first_becomes": 1}, "gate", "conduct: output changed after it had been returned"),
        ({"changed": ("weight",)}, "gate", "conduct: changed its input: weight"),
        ({"replaced": ("time.perf_counter",)}, "gate", "conduct: replaced time.perf_counter"),
        ({"noise": 2.0**-9}, "gate", "precision: output was computed in bfloat16, expected float32"),
        ({"kept": 5}, "timing", "bound: in a timed sample: output["),
        ({"unseen_seconds": 0.2}, "timing", "conduct: its samples say"),
        ({"input_dtype": "float64"}, "gate", "conduct: to_device made input1 a numpy.ndarray of float64, 3x2"),
        ({"home_made": True}, "gate", "conduct: its arrays are numpy.ndarray, a type of its own"),
        ({"convert_seconds": 0.1}, "gate", "conduct: puts off its work"),
        ({"fresh_seconds": (0.2,)}, "recheck", "conduct: remembers answers: new inputs take 0.2 s"),
        ({"affinity_later": (0, 1)}, "recheck", "conduct: runs on the CPUs [0, 1], was held to [0]"),
        ({"wrong_later": 1}, "recheck", "bound: output["),
    ],
    ids=lambda value: "-".join(map(str, next(iter(value.items())))) if isinstance(value, dict) else None,
)
def test_fault_is_caught_where_it_shows_and_costs_no_other_cell(measure, fault, phase, reason):
    run = measure(faults={"other": Faults(**fault), "third": Faults()})
    row = run.row("other")
    assert (row.status, row.phase, row.median_seconds) == (Status.REJECTED, phase, None), row
    assert row.reason.startswith(reason)
    assert run.row("third").status is Status.TIMED


def test_forward_that_is_wrong_when_timed_alone_is_caught_there(measure):
    row = measure(STEP, faults={"other": Faults(kept_forward=5)}).row("other", STEP)
    assert (row.status, row.phase) == (Status.REJECTED, "timing")
    assert row.reason.startswith("bound: in a timed forward: output[")


def test_wrong_dtype_is_rejected_before_timing(measure):
    class Doubles(FakeWorker):
        def prepare(self, request: Prepare) -> Prepared:
            reply = super().prepare(request)
            facts = {"output": dataclasses.replace(reply.results.facts["output"], dtype="float64")}
            return dataclasses.replace(reply, results=dataclasses.replace(reply.results, facts=facts))

    run = measure(faults={"other": Faults(kind=Doubles)})
    row = run.row("other")
    assert row.reason.startswith("bound: output has dtype float64, expected float32. NumPy makes float64 by default")
    assert (row.status, row.phase) == (Status.REJECTED, "gate")
    assert TakeSample not in run.workers.asked("other")


def test_memoising_is_believed_only_after_every_attempt(measure):
    run = measure(faults={"other": Faults(fresh_seconds=(0.2, 0.2, 0.01)), "third": Faults(fresh_seconds=(0.2,))})
    assert run.row("other").status is Status.TIMED
    assert run.row("third").status is Status.REJECTED
    attempts = [run.workers.asked(name).count(CheckFresh) for name in ("other", "third", BASELINE)]
    assert attempts == [3, FRESH_ATTEMPTS, 1]


def test_longer_calls_get_fewer_pairs_on_unseen_inputs(measure):
    workers = measure(faults={"other": Faults(call_seconds=0.1), "third": Faults(call_seconds=0.3)}).workers
    pairs = {name: request for name, request in workers.log if isinstance(request, CheckFresh)}
    found = {name: (len(request.variations) - 1, request.settle) for name, request in pairs.items()}
    assert found == {BASELINE: (4, True), "other": (1, False), "third": (0, False)}


def test_backend_that_is_slow_in_its_samples_alone_gets_pairs_all_the_same(measure):
    class SlowWhenTimed(FakeWorker):
        def sample(self, request: TakeSample) -> SampleTaken:
            fast, self.faults = self.faults, dataclasses.replace(self.faults, call_seconds=0.3)
            taken = super().sample(request)
            self.faults = fast
            return taken

    workers = measure(faults={"other": Faults(kind=SlowWhenTimed)}).workers
    (request,) = (one for one in workers.requests("other") if isinstance(one, CheckFresh))
    assert len(request.variations) > 1


def test_baseline_over_the_budget_is_judged_by_first_results_and_samples(measure):
    workers = measure(budget_seconds=2.0, faults={BASELINE: Faults(call_seconds=3.0)}).workers
    assert not [each for each in workers.requests(BASELINE) if isinstance(each, RunScenario)]
    assert KeptResults in workers.asked(BASELINE)


@pytest.mark.parametrize(("call_seconds", "timing", "asked"), [(0.3, True, 0), (0.3, False, 2), (0.2, True, 2)])
def test_samples_of_slow_calls_stand_for_two_scenarios(measure, call_seconds, timing, asked):
    workers = measure(faults={"other": Faults(call_seconds=call_seconds)}, timing=timing).workers
    scenarios = [each.scenario for each in workers.requests("other") if isinstance(each, RunScenario)]
    assert len(scenarios) == len(SCENARIOS) - 2 + asked
    assert asked == len([name for name in scenarios if name in {question.name for question in AS_IN_SAMPLES}])


def test_slow_baseline_is_judged_by_first_results_and_samples_alone(measure):
    run = measure(faults={BASELINE: Faults(call_seconds=0.3), "other": Faults(call_seconds=0.3)})
    scenarios = {
        name: [each.scenario for each in run.workers.requests(name) if isinstance(each, RunScenario)]
        for name in (BASELINE, "other")
    }
    assert scenarios[BASELINE] == []
    assert len(scenarios["other"]) == len(SCENARIOS) - len(AS_IN_SAMPLES)
    assert KeptResults in run.workers.asked(BASELINE)
    assert CheckFresh not in run.workers.asked(BASELINE)
    row = run.row(BASELINE)
    assert (row.status, row.peak_memory_bytes is None) == (Status.TIMED, False)


@pytest.mark.parametrize(("call_seconds", "few"), [(0.01, False), (0.1, True)])
def test_few_calls_are_asked_for_where_a_call_takes_over_20_ms(measure, call_seconds, few):
    run = measure(faults={"other": Faults(call_seconds=call_seconds)})
    scenarios = [each for each in run.workers.requests("other") if isinstance(each, RunScenario)]
    # The first scenario tells how long a call takes.
    assert {each.few_calls for each in scenarios[1:]} == {few}
    assert (MeasureMemory in run.workers.asked("other")) is not few


def test_baseline_whose_first_call_alone_is_slow_is_asked_everything(measure):
    workers = measure(faults={BASELINE: Faults(compile_seconds=0.5)}).workers
    asked = [each.scenario for each in workers.requests(BASELINE) if isinstance(each, RunScenario)]
    assert asked == [question.name for question in SCENARIOS]


def test_memory_of_a_slow_call_is_measured_beside_a_question(measure):
    run = measure(faults={"other": Faults(call_seconds=0.3)})
    assert run.row("other").peak_memory_bytes == run.row(BASELINE).peak_memory_bytes is not None
    assert MeasureMemory not in run.workers.asked("other")
    assert MeasureMemory in run.workers.asked(BASELINE)


def test_bits_that_differ_within_the_bound_are_flagged_and_not_refused(measure):
    class Jittery(FakeWorker):
        def scenario(self, request):
            reply = super().scenario(request)
            if request.scenario == "again":
                path = request.directory / "output.npy"
                np.save(path, np.nextafter(np.load(path), np.float32(9)))
            return reply

    run = measure(faults={"other": Faults(kind=Jittery)})
    assert run.row(BASELINE).flags is None
    assert (run.row("other").status, run.row("other").flags) == (Status.TIMED, "nondeterministic")


def test_backends_run_before_the_right_result_exists(measure):
    workers = measure().workers
    asked = list(enumerate(workers.log))
    prepared = [n for n, (_, request) in asked if isinstance(request, Prepare) and request.case == CASE]
    ran = [n for n, (_, r) in asked if isinstance(r, RunScenario) and r.scenario == ANOTHER_KERNEL.name]
    first, integers = (
        next(n for n, (_, r) in asked if isinstance(r, Expect) and (r.case, r.kind, r.variation) == (CASE, kind, 0))
        for kind in ("normal", telling.KIND)
    )
    assert len(prepared) == len(ran) == 2
    assert first > max(prepared)
    assert integers > max(ran)


def test_every_question_is_put_with_the_request_that_the_table_names(measure):
    asked = {kind.__name__ for kind in measure(STEP).workers.asked("other")}
    assert {question.request for question in (FIRST, *SCENARIOS, IN_SAMPLE, unseen(STEP.mode))} <= asked


def test_no_right_result_stays_in_a_folder(measure):
    assert not list(measure().workers.kept["reference"].directory.iterdir())


def test_first_results_are_deleted_once_they_are_found_unchanged(measure):
    assert not (measure().workers.kept["other"].directory / "first").exists()


def test_reference_computes_on_the_device_of_the_rows(measure, measure_on_gpu):
    for run, device in ((measure(), "cpu"), (measure_on_gpu(), "cuda")):
        assert {request.device for request in run.workers.requests("reference")} == {device}


def test_edge_cases_run_once_for_all_cases_in_a_worker_of_their_own(measure):
    workers = measure(CASE, Case(4, 3, 2, 5), STEP).workers
    asked = workers.requests("edge cases of other")
    names = [request.name for request in asked if isinstance(request, RunEdgeCase)]
    assert len(names) == 2 * len(set(names)) - 2, "once in each mode; two edge cases are for steps alone"
    assert {type(request).__name__ for request in asked} == {
        "Load",
        "AskSupport",
        "RunEdgeCase",
        "CheckGradients",
        "Prepare",
        "RunScenario",
        "Release",
    }
    (held, _) = [request for request in asked if isinstance(request, RunScenario)]
    assert held.scenario == "again"
    assert workers.asked("edge cases of other").count(type(asked[0])) == 1, "loaded once"
    assert workers.discarded.count("edge cases of other") == 1


def test_dead_edge_case_worker_costs_the_cells_of_its_mode(measure):
    dead = Faults(instead={RunEdgeCase: WorkerError(Status.FAILED, "injected")})
    run = measure(faults={"edge cases of other": dead})
    row = run.row("other")
    assert (row.status, row.phase, row.reason) == (Status.FAILED, "gate", "in the edge cases: injected")
    assert not run.of("other")


def test_refused_edge_case_rejects_with_its_sentence(measure):
    wrong = Faults(edge_case_errors={"empty": "ZeroDivisionError: injected"})
    row = measure(faults={"edge cases of other": wrong}).row("other")
    assert (row.status, row.phase) == (Status.REJECTED, "gate")
    sentence = "edge_cases: not so: a batch of zero rows gives zero rows: raised ZeroDivisionError: injected. "
    assert row.reason == f"{sentence}Only a batch of no rows is wrong: is it divided or indexed by the batch?"
    assert row.probes.startswith("edge_cases=no;exact=ok")


def test_backend_that_supports_few_edge_cases_is_flagged(measure):
    unable = Faults(instead={AskSupport: Supported(supported=False, reason="injected")})
    assert measure(faults={"edge cases of other": unable}).row("other").flags == "edge_cases_partial"


def test_gradient_that_finite_differences_refute_rejects_the_step(measure):
    run = measure(CASE, STEP, faults={"edge cases of other": Faults(gradcheck="injected: not the same")})
    assert run.row("other").status is Status.TIMED
    assert "injected: not the same" in run.row("other", STEP).reason


@pytest.fixture
def drawn_parts(monkeypatch):
    """Have each later answer judged on two rows and two pages."""
    for name, value in (("LARGE_FLOP", 0), ("ROWS", 2), ("PAGES", 2)):
        monkeypatch.setattr(drawn, name, value)


def test_later_answers_to_a_large_case_are_judged_on_parts(measure, drawn_parts):
    case = Case(6, 2, 3, 5, mode="forward_backward")
    run = measure(case)
    assert run.row("other", case).status is Status.TIMED
    asked = [request for request in run.workers.requests("reference") if request.case == case]
    whole = [(request.kind, request.variation) for request in asked if request.drawn is None]
    assert whole == [("normal", 0), (telling.KIND, 0)], "the first answers"
    parts = [(request.kind, request.drawn) for request in asked if request.drawn is not None]
    assert {kind for kind, _ in parts} == {"normal", telling_rows.ROWS, unseen(case.mode).kind}
    ends = {int(row) for rows in telling_rows.ends(telling_rows.roles(case)) for row in rows}
    for kind, part in parts:
        always = ends | {0, 5} if kind == telling_rows.ROWS else {0, 5}
        assert set(part.rows) == always, "the first and the last row, and those at the ends of the range"
        assert len(part.pages) == 2


def test_nan_outside_the_drawn_telling_rows_is_refused(measure, drawn_parts):
    case = Case(16, 2, 3, 5)
    ends = {int(row) for rows in telling_rows.ends(telling_rows.roles(case)) for row in rows}
    undrawn = next(row for row in range(1, 15) if row not in ends)

    class Hides(FakeWorker):
        def scenario(self, request):
            reply = super().scenario(request)
            if request.scenario == "telling rows":
                path = request.directory / "output.npy"
                output = np.load(path)
                output[undrawn, 0] = np.nan
                np.save(path, output)
            return reply

    row = measure(case, faults={"other": Faults(kind=Hides)}).row("other", case)
    assert (row.status, row.phase) == (Status.REJECTED, "gate")
    assert f"output[{undrawn}, 0] is nan" in row.reason


@pytest.mark.parametrize(
    "fault",
    [{"kept": 5}, {"wrong_later": 1}, {"answers": {"new values in the same buffers": 0}}],
    ids=lambda fault: next(iter(fault)),
)
def test_refused_part_gives_the_reason_that_the_whole_gives(measure, monkeypatch, fault):
    case = Case(6, 2, 3, 5, seed=3)
    faults = {"other": Faults(**fault)}
    of_whole = measure(case, faults=faults).row("other", case)
    for name, value in (("LARGE_FLOP", 0), ("ROWS", 2)):
        monkeypatch.setattr(drawn, name, value)
    of_part = measure(case, faults=faults).row("other", case)
    assert (of_part.status, of_part.phase) == (of_whole.status, of_whole.phase) != (Status.TIMED, of_whole.phase)
    assert all("30 of 30 elements are wrong (seed 3)" in row.reason for row in (of_part, of_whole))
    if "answers" in fault:  # the inputs of the other two are drawn
        assert of_part.reason == of_whole.reason

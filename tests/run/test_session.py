"""The runner's protocol, with fake workers and a fake clock: nothing here is started, timed or waited for."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import os
import tempfile
import types
from pathlib import Path

import numpy as np
import pytest

from harness.case import Case
from harness.catalog.registry import Entry
from harness.correctness.inputs import PRECISE_KINDS, make_inputs
from harness.machine.activity import State
from harness.machine.threads import ThreadReport
from harness.process.handle import WorkerError
from harness.record import Status
from harness.run.checker import SCENARIOS, Checker
from harness.run.context import RunContext
from harness.run.group import FRESH_ATTEMPTS
from harness.run.plan import BASELINE, Plan, interrupted
from harness.run.sampling import LEAST_BLOCKS, SLOW_BLOCKS
from harness.run.session import Runner
from harness.timing import roofline
from harness.timing.estimates import LEAST_VALUES
from harness.timing.variance import FEWEST_BLOCKS
from harness.worker.reference_worker import ROUNDED_KINDS

CASE = Case(3, 2, 2, 2)
QUIET = State(0.0, 0, 3000.0, 0)
CLOCK = {"tick_seconds": 1e-7, "overhead_seconds": 1e-8}
GIB = 2**30


class FakeWorker:
    """Answers like a worker. `call_seconds` is what a call takes; the clock of the run moves on by as much."""

    def __init__(self, name, folder, log, clock, number, call_seconds=0.01, **spoilt):
        self.name, self.directory, self.log, self.clock, self.number = name, folder, log, clock, number
        self.call_seconds, self.spoilt = call_seconds, spoilt
        self.alive, self.elapsed_seconds, self.checks, self.blocks = True, 0.0, 0, 0
        folder.mkdir(parents=True)

    def request(self, do, time_limit_seconds, **fields):
        self.log.append((self.name, do, fields))
        if do in self.spoilt:
            spoilt = self.spoilt[do]
            if isinstance(spoilt, WorkerError):
                raise spoilt
            return spoilt
        before = self.clock.now
        answer = getattr(self, do)(**fields)
        self.elapsed_seconds = self.clock.now - before + self.spoilt.get("unseen_seconds", 0.0)
        return answer

    def kill(self):
        self.alive = False

    def load(self, **_):
        return {"available": True, "version": "fake 1", "import_seconds": 0.1, **CLOCK} | self.spoilt.get("loads", {})

    def support(self, **_):
        return {"supported": True, "workspace_bytes": self.spoilt.get("workspace_bytes", 0)}

    def edge_case(self, all_edge_cases, name, directory):
        (edge_case,) = [edge_case for edge_case in all_edge_cases if edge_case["name"] == name]
        folder = Path(directory) / name
        folder.mkdir()
        right = self.results(Case(**edge_case["case"]), 0, folder, edge_case["kind"])
        return {"answer": self.spoilt.get("answers", {}).get(name, right), "operators": []}

    def gradcheck(self, case):
        return {"reason": self.spoilt.get("wrong_gradient", "")}

    def prepare(self, case, directory, **_):
        self.case = Case(**case)
        threads = dataclasses.asdict(ThreadReport((0,)))
        given = {"type": "numpy.ndarray", "dtype": "float32", "device": "cpu"} | self.spoilt.get("given", {})
        return {
            "prepare_seconds": 0.1,
            "first_call_seconds": 0.2 + self.spoilt.get("compile_seconds", 0.0),
            "threads": threads,
            "affinity": [[0], [0]],
            "home_made": self.spoilt.get("home_made", False),
            "tuning": self.spoilt.get("chooses", ""),
            "native_bases": ["builtins.object"],
            "inputs": {name: {**given, "shape": list(shape)} for name, shape in self.case.shapes().items()},
            **self.results(self.case, 0, directory),
        }

    def scenario(self, what, directory):
        kind, variation = Checker(self.case, "cpu", None, 0.0).question(what)
        answer = self.results(self.case, self.spoilt.get(what, variation), directory, kind)
        convert_seconds = self.spoilt.get("convert_seconds", 0.0) if what == "again" else 0.0
        times = {"call_seconds": 1e-6, "convert_seconds": convert_seconds, "kernel_seconds": 1e-6}
        return {"operators": [], **times, **answer}

    def changed(self, directory):
        self.results(self.case, self.spoilt.get("first_becomes", 0), directory)
        return {"changed": self.spoilt.get("changes", []), "replaced": self.spoilt.get("replaces", [])}

    def kept(self, forward, directory):
        spoilt = self.spoilt.get("keeps_forward" if forward else "keeps", self.kept_set)
        return self.results(self.case.with_mode("forward") if forward else self.case, spoilt, directory)

    def check(self, variations, kind, directory, settle):
        fresh = self.spoilt.get("fresh_seconds", [self.call_seconds])
        times = {
            "fresh_seconds": [fresh[min(self.checks, len(fresh) - 1)]] * (len(variations) - 1),
            "seen_seconds": [self.call_seconds] * (len(variations) - 1),
        }
        self.checks += 1
        answer = self.results(self.case, variations[-1] + self.spoilt.get("wrong_later", 0), directory, kind)
        return {**times, "affinity": [[0], self.spoilt.get("affinity_later", [0])], **answer}

    def results(self, case, variation, directory, kind="normal"):
        noise = self.spoilt.get("noise", 0.0) if kind in PRECISE_KINDS else 0.0
        for name, value in answer(case, variation, kind).items():
            spoilt = value + noise * answer(case, variation, kind, np.abs)[name] if noise else value
            with np.errstate(over="ignore"):
                np.save(Path(directory) / f"{name}.npy", spoilt.astype(np.float32))
        shapes = case.result_shapes()
        fact = {"type": "numpy.ndarray", "dtype": "float32", "device": self.spoilt.get("returned_on", "cpu")}
        return {
            "native_type": "numpy.ndarray",
            "facts": {name: {**fact, "shape": list(shape)} for name, shape in shapes.items()},
            "storages": {"results": {}, "inputs": {}, "earlier": {}},
        }

    def warm_up(self, **_):
        busy = {"threads": 1, "runnable": self.spoilt.get("runnable", 1.0)}
        return {"stretches": [[1, self.call_seconds]], "busy": busy}

    def place(self, kernel):
        return {}

    def device_times(self, calls, call_seconds, repeats):
        times = {"queued_seconds": 0.9, "device_seconds": 0.25, "graph_seconds": 0.3} | self.spoilt.get("device", {})
        each = {name: 1 if name == "device_seconds" else calls for name in times}
        told = {name: [share * self.call_seconds * each[name]] * repeats for name, share in times.items() if share}
        return (
            {name: [] for name in times}
            | told
            | {"absent": self.spoilt.get("absent", {}), "broken": "absent" in self.spoilt}
        )

    def memory(self, calls):
        return {"peak_bytes": self.spoilt.get("peak_bytes", 2**20)}

    def steady(self):
        self.clock.now += 0.5
        return {}

    def sample(self, calls, first, forward, keep, settle_seconds, flush_l2):
        sets = {(first + index) % roofline.INPUT_SETS for index in keep}
        assert len(sets) <= 1, "what is kept is compared, so it is of one input set"
        self.kept_set = next(iter(sets), None)
        if settle_seconds:
            self.clock.now += settle_seconds + self.call_seconds  # it ends with a whole call
        self.clock.now += calls * self.call_seconds * (1.5 if forward else 1)
        alone = calls * self.call_seconds / 2 if forward else None
        return {
            "seconds": calls * self.call_seconds * self.noise(),
            "forward_seconds": alone,
            "involuntary_switches": 0,
        }

    def gpu_state(self):
        self.clock.now += self.spoilt.get("nvml_seconds", 1.0)
        return {"state": next(self.spoilt["gpu"]) if "gpu" in self.spoilt else None}

    def noise(self):
        """A factor on the times of a sample: of the process, and of each of its blocks."""
        self.blocks += 1
        of_process, of_block = self.spoilt.get("spread", (0.0, 0.0))
        place = np.random.default_rng([self.number, 0]).normal(0, of_process)
        return float(np.exp(place + np.random.default_rng([self.number, self.blocks]).normal(0, of_block)))

    def release(self):
        return {"trimmed": self.spoilt.get("trims", True)}

    def expect(self, case, kind, variation, directory, device):
        assert device == self.plan.devices[0], "the reference computes where the rows are"
        asked = Case(**case)
        for name, value in answer(asked, variation, kind).items():
            np.save(Path(directory) / f"{name}.npy", value)
            if kind in ROUNDED_KINDS:
                np.save(Path(directory) / f"{name}.scale.npy", answer(asked, variation, kind, np.abs)[name])
        squares = answer(asked, variation, kind, np.square) if kind in PRECISE_KINDS else {}
        return {"quadratics": {name: float(np.sqrt(value.mean())) for name, value in squares.items() if value.size}}


@functools.cache
def answer(case, variation, kind="normal", form=np.positive):
    """The right results, in float64; of the inputs' absolute values or squares, if that is asked."""
    given = {name: form(array.astype(np.float64)) for name, array in make_inputs(case, variation, kind).items()}
    one, two, weight = given["input1"], given["input2"], given["weight"]
    results = {"output": np.einsum("bi,oij,bj->bo", one, weight, two) + given.get("bias", 0.0)}
    if case.mode == "forward_backward":
        grad = given["grad_output"]
        results |= {
            "grad_input1": np.einsum("bo,oij,bj->bi", grad, weight, two),
            "grad_input2": np.einsum("bo,oij,bi->bj", grad, weight, one),
            "grad_weight": np.einsum("bo,bi,bj->oij", grad, one, two),
        }
        if case.bias:
            results["grad_bias"] = grad.sum(0)
    return results


class FakeWorkers:
    """A supervisor of fake workers, each with its own faults."""

    def __init__(self, folder, spoilt):
        self.folder, self.spoilt = folder, spoilt
        self.log, self.clock, self.empty_caches = [], types.SimpleNamespace(now=0.0), False
        self.kept, self.discarded, self.started = {}, [], 0

    def worker(self, name, device):
        if name not in self.kept or not self.kept[name].alive:
            self.started += 1
            kind = self.spoilt.get(name, {}).get("kind", FakeWorker)
            self.kept[name] = kind(
                name,
                self.folder / f"{name}{self.started}",
                self.log,
                self.clock,
                self.started,
                **self.spoilt.get(name, {}),
            )
        return self.kept[name], self.empty_caches

    def edge_case_worker(self, name, device):
        return self.worker(f"edge cases of {name}", device)[0]

    def reference(self, device):
        made = self.worker("reference", device)[0]
        made.plan = self.plan
        return made

    def discard_edge_case_worker(self, name, device):
        self.discard(f"edge cases of {name}", device)

    def discard(self, name, device):
        self.discarded.append(name)
        if name in self.kept:
            self.kept.pop(name).alive = False


@pytest.fixture
def measure(tmp_path):
    """Run a plan with the given faults; return records by (case, mode, backend), the workers and the samples."""

    def run(
        *cases,
        free_bytes=64 * GIB,
        timing=True,
        budget=1000.0,
        processes=1,
        target=0.02,
        peaks=(),
        backends=None,
        flush_l2=False,
        device="cpu",
        device_bytes=None,
        spot_peak=lambda dtype, seconds: None,
        **spoilt,
    ):
        states = spoilt.pop("states", itertools.repeat(QUIET))
        spoilt = {name.replace("_", "-"): faults for name, faults in spoilt.items()}
        names = [BASELINE, "other", *(name for name in spoilt if name.isalpha() and name not in ("other", "reference"))]
        names = names if backends is None else backends
        workers = FakeWorkers(Path(tempfile.mkdtemp(dir=tmp_path)), spoilt)
        plan = Plan(
            run_id="run",
            suite="suite",
            cases=cases or (CASE,),
            backends={name: Entry(name, "m:C", (), "test 1") for name in names},
            devices=(device,),
            threads=1,
            budget_seconds=budget,
            processes=processes,
            target=target,
            timing=timing,
            flush_l2=flush_l2,
        )
        samples = []
        workers.plan = plan
        look = iter(states)
        context = RunContext(
            plan,
            workers,
            keep_sample=samples.append,
            now=lambda: workers.clock.now,
            look=lambda: next(look),
            spot_peak=spot_peak,
        )
        surveys = iter(peaks)
        known = dict.fromkeys([device] if peaks else [], next(surveys, None))
        runner = Runner(context, lambda: free_bytes, known, lambda _: next(surveys), lambda _: device_bytes)
        workers.runner = runner
        records = list(runner.run())
        planned = [cell for case, device in plan.groups() for cell in plan.cells(case, device)]
        assert [record.cell for record in records] == planned, "one row for every planned cell, whatever happens"
        return {(record.case, record.mode, record.backend): record for record in records}, workers, samples

    return run


def test_a_right_backend_is_timed_and_compared_with_the_baseline(measure):
    records, _, samples = measure(other={"call_seconds": 0.005})
    row = records[CASE.name, "forward", "other"]
    assert row.status is Status.TIMED
    assert row.median_seconds == pytest.approx(0.005)
    assert row.speedup == pytest.approx(2.0)
    assert (row.blocks, row.rank, row.stopped_by) == (FEWEST_BLOCKS, 1, "target")
    assert records[CASE.name, "forward", BASELINE].rank == 2
    assert {sample.kind for sample in samples} == {"warmup", "call"}


def test_the_gate_comes_before_the_clock_in_it_and_again_after_it(measure):
    _, workers, _ = measure()
    did = [do for name, do, _ in workers.log if name == "other"]
    before = ["load", "support", "prepare", *["scenario"] * len(SCENARIOS), "changed", "warm_up"]
    assert did[: len(before)] == before
    after = ["memory", "changed", "check", "release"]
    assert did[-len(after) :] == after
    within = did[len(before) : -len(after)]
    assert set(within) == {"place", "sample", "kept"}
    # Two of the first three blocks, one of the seven after them.
    assert (within.count("sample"), within.count("kept")) == (FEWEST_BLOCKS, 3)
    assert all(within[number - 1] == "place" for number, do in enumerate(within) if do == "sample")


def test_the_structure_probe_is_asked_in_a_worker_that_is_never_timed_once_for_all_cases(measure):
    _, workers, _ = measure(CASE, Case(4, 3, 2, 5), CASE.with_mode("forward_backward"))
    did = [do for name, do, _ in workers.log if name == "edge cases of other"]
    asked = [fields["name"] for name, do, fields in workers.log if name == "edge cases of other" and do == "edge_case"]
    assert len(asked) == 2 * len(set(asked)) - 2, "once in each mode; two all_edge_cases are for steps alone"
    assert list(dict.fromkeys(do for do in did if do not in ("support", "edge_case"))) == ["load", "gradcheck"]
    assert workers.discarded.count("edge cases of other") == 1


def test_a_dead_examiner_costs_the_cells_of_its_mode_and_says_where_it_died(measure):
    dead = {"edge cases of other": {"edge_case": WorkerError(Status.FAILED, "planted")}}
    records, _, samples = measure(**dead)
    row = records[CASE.name, "forward", "other"]
    assert (row.status, row.phase) == (Status.FAILED, "gate")
    assert row.reason == "in the structure probe: planted"
    assert not [sample for sample in samples if sample.backend == "other"]


@pytest.mark.parametrize(
    ("fault", "phase", "reason"),
    [
        ({"another kernel": 1}, "gate", "exact: output["),
        ({"again": 1}, "gate", "conduct: again: output["),
        ({"new values in the same buffers": 0}, "gate", "conduct: new values in the same buffers: output["),
        ({"the same values in new buffers": 1}, "gate", "conduct: the same values in new buffers: output["),
        ({"first_becomes": 1}, "gate", "conduct: output changed after it had been returned"),
        ({"changes": ["weight"]}, "gate", "conduct: changed its input: weight"),
        ({"replaces": ["time.perf_counter"]}, "gate", "conduct: replaced time.perf_counter"),
        ({"noise": 2.0**-9}, "gate", "precision: output was computed in bfloat16, expected float32"),
        ({"keeps": 5}, "timing", "bound: in a timed sample: output["),
        ({"unseen_seconds": 0.2}, "timing", "conduct: its samples say"),
        ({"given": {"dtype": "float64"}}, "gate", "conduct: to_device made input1 a numpy.ndarray of float64, 3x2"),
        ({"home_made": True}, "gate", "conduct: its arrays are numpy.ndarray, a type of its own"),
        ({"convert_seconds": 0.1}, "gate", "conduct: puts off its work"),
        ({"fresh_seconds": [0.2]}, "recheck", "conduct: remembers answers: new inputs take 0.2 s"),
        ({"affinity_later": [0, 1]}, "recheck", "conduct: runs on the CPUs [0, 1], was held to [0]"),
        ({"wrong_later": 1}, "recheck", "bound: output["),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_a_fault_is_caught_where_it_shows_and_costs_no_other_cell(measure, fault, phase, reason):
    records, _, _ = measure(other=fault, third={})
    row = records[CASE.name, "forward", "other"]
    assert (row.status, row.phase, row.median_seconds) == (Status.REJECTED, phase, None), row
    assert row.reason.startswith(reason)
    assert records[CASE.name, "forward", "third"].status is Status.TIMED


def test_a_forward_that_is_wrong_when_it_is_timed_alone_is_caught_there(measure):
    case = CASE.with_mode("forward_backward")
    records, _, _ = measure(case, other={"keeps_forward": 5})
    row = records[CASE.name, "forward_backward", "other"]
    assert (row.status, row.phase) == (Status.REJECTED, "timing")
    assert row.reason.startswith("bound: in a timed forward: output[")


def test_who_seems_to_remember_answers_is_asked_again_and_cleared_if_it_was_the_machine(measure):
    records, workers, _ = measure(other={"fresh_seconds": [0.2, 0.2, 0.01]}, third={"fresh_seconds": [0.2]})
    assert records[CASE.name, "forward", "other"].status is Status.TIMED
    assert records[CASE.name, "forward", "third"].status is Status.REJECTED
    checks = [name for name, do, _ in workers.log if do == "check"]
    assert (checks.count("other"), checks.count("third"), checks.count(BASELINE)) == (3, FRESH_ATTEMPTS, 1)


def test_of_a_long_call_two_pairs_with_nothing_before_them_say_whether_answers_are_remembered(measure):
    _, workers, _ = measure(other={"call_seconds": 0.1}, third={"call_seconds": 0.3})
    asked = {name: fields for name, do, fields in workers.log if do == "check"}
    found = {name: (len(fields["variations"]) - 1, fields["settle"]) for name, fields in asked.items()}
    assert found[BASELINE] == (4, True)
    assert found["other"] == (2, False)
    assert found["third"][0] == 0  # too slow to be asked


def on_gpu(**spoilt):
    """Faults of workers whose arrays are on a GPU."""
    given = {"given": {"device": "cuda"}, "returned_on": "cuda"}
    names = [*(BASELINE, "other"), *(f"edge cases of {name}" for name in (BASELINE, "other"))]
    return {name: given | spoilt.get(name, {}) for name in names} | {"device": "cuda"}


def test_on_a_gpu_a_row_has_the_time_of_the_device_beside_that_of_the_host_and_says_where_launching_takes_it(measure):
    records, _, samples = measure(**on_gpu(other={"device": {"graph_seconds": None}}))
    row = records[CASE.name, "forward", BASELINE]
    assert row.status is Status.TIMED
    assert (row.queued_seconds, row.device_seconds, row.graph_seconds) == pytest.approx((0.009, 0.0025, 0.003))
    assert row.flags == "launch_bound"
    assert records[CASE.name, "forward", "other"].graph_seconds is None
    phases = [sample.kind for sample in samples if sample.backend == "other" and sample.kind not in ("call", "warmup")]
    assert phases == ["queued"] * 10 + ["device"] * 10


@pytest.mark.parametrize(
    ("spoilt", "flag"),
    [
        ({"device": {"device_seconds": 1.2}}, "device_over_host"),
        ({"device": {"queued_seconds": 1.2, "device_seconds": 0.8}}, "queued_over_host"),
        ({"device": {"device_seconds": 1.05}}, None),
        ({"device_times": WorkerError(Status.FAILED, "signal 11")}, "no_device_times(failed)"),
    ],
)
def test_a_device_clock_that_cannot_be_right_is_a_flag_and_costs_no_time(measure, spoilt, flag):
    records, _, _ = measure(**on_gpu(other=spoilt))
    row = records[CASE.name, "forward", "other"]
    assert (row.status, row.flags) == (Status.TIMED, flag)


def test_a_call_that_cannot_be_captured_keeps_its_times_and_its_process_goes(measure):
    reason = {"graph_seconds": "RuntimeError: operation not permitted when stream is capturing"}
    records, workers, _ = measure(**on_gpu(other={"absent": reason, "device": {"graph_seconds": None}}))
    row = records[CASE.name, "forward", "other"]
    assert (row.status, row.graph_seconds) == (Status.TIMED, None)
    assert row.device_seconds is not None
    assert "other" in workers.discarded
    assert BASELINE not in workers.discarded
    assert workers.runner.workers_said["other on cuda"]["absent_times"] == reason


def test_on_a_gpu_the_limit_is_that_of_the_device(measure):
    records, _, _ = measure(**on_gpu(), peaks=[PEAKS])
    on_cpu, _, _ = measure(peaks=[PEAKS])
    row = records[CASE.name, "forward", BASELINE]
    assert row.roofline_seconds == on_cpu[CASE.name, "forward", BASELINE].roofline_seconds is not None
    assert row.roofline_fraction == pytest.approx(row.roofline_seconds / 0.01)


@pytest.mark.parametrize("column", ["device_seconds", "graph_seconds"])
def test_a_device_that_seems_to_take_less_than_it_could_is_a_flag(measure, column):
    records, _, _ = measure(**on_gpu(other={"device": {column: 1e-6}}), peaks=[PEAKS])
    assert "device_under_roofline" in records[CASE.name, "forward", "other"].flags
    assert "device_under_roofline" not in records[CASE.name, "forward", BASELINE].flags


def test_flushing_the_l2_before_each_call_is_no_lie_of_the_clock(measure):
    records, workers, _ = measure(**on_gpu(other={"unseen_seconds": 0.2}), flush_l2=True)
    row = records[CASE.name, "forward", "other"]
    assert (row.status, row.flush_l2, row.device_seconds) == (Status.TIMED, True, None)
    assert {fields["flush_l2"] for _, do, fields in workers.log if do == "sample"} == {True}


def test_whoever_runs_out_of_memory_is_ended_before_the_next_one_is_prepared(measure):
    class Alone(FakeWorker):
        """There is room for it only where the other one is gone."""

        def prepare(self, **fields):
            assert not full[0].alive
            return super().prepare(**fields)

    class Full(FakeWorker):
        def prepare(self, **fields):
            full.append(self)
            raise WorkerError(Status.OUT_OF_MEMORY, "OutOfMemoryError: CUDA out of memory")

    full = []
    records, _, _ = measure(other={"kind": Alone}, **{BASELINE: {"kind": Full}})
    assert records[CASE.name, "forward", BASELINE].status is Status.OUT_OF_MEMORY
    assert records[CASE.name, "forward", "other"].status is Status.TIMED


@pytest.mark.parametrize(
    ("trims", "workspace_bytes", "ended"), [(True, 2 * GIB, 0), (False, 2 * GIB, 1), (False, 2**20, 0)]
)
def test_whoever_cannot_give_a_gpu_s_memory_back_is_ended_after_a_large_case(measure, trims, workspace_bytes, ended):
    _, workers, _ = measure(**on_gpu(other={"trims": trims, "workspace_bytes": workspace_bytes}))
    assert workers.discarded.count("other") == ended


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (Status.FAILED, "AcceleratorError: CUDA error: an illegal memory access was encountered"),
        (Status.OUT_OF_MEMORY, "OutOfMemoryError: CUDA out of memory"),
    ],
)
def test_a_context_in_pieces_or_without_memory_costs_one_cell_and_the_next_case_has_a_new_process(
    measure, status, reason
):
    class Poisoned(FakeWorker):
        """Fails in the first case; from then on whatever is asked of the same process fails."""

        poisoned = False

        def prepare(self, case, **fields):
            self.poisoned = self.poisoned or Case(**case).batch == CASE.batch
            if self.poisoned:
                raise WorkerError(status, reason)
            return super().prepare(case, **fields)

    second = dataclasses.replace(CASE, batch=4)
    faults = on_gpu()
    records, _, _ = measure(CASE, second, **faults | {"other": faults["other"] | {"kind": Poisoned}})
    row = records[CASE.name, "forward", "other"]
    assert (row.status, row.phase, row.reason) == (status, "prepare", reason)
    assert records[second.name, "forward", "other"].status is Status.TIMED
    assert {records[name, "forward", BASELINE].status for name in (CASE.name, second.name)} == {Status.TIMED}


def test_a_gpu_that_is_held_back_or_lowers_its_clock_disturbs_a_block(measure):
    quiet = {"clock_mhz": 1980.0, "temperature_celsius": 40.0, "held_back": ""}
    states = itertools.chain(
        [quiet, quiet | {"clock_mhz": 1700.0}, quiet | {"held_back": "hardware slowdown"}], itertools.repeat(quiet)
    )
    records, _, samples = measure(**on_gpu(other={"gpu": states}))
    taken = [sample for sample in samples if sample.backend == "other" and sample.kind == "call"]
    assert [sample.disturbance for sample in taken[:4]] == [None, "gpu_clock", "gpu_held_back", None]
    assert (taken[1].gpu_clock_mhz, taken[1].gpu_temperature_celsius) == (1700.0, 40.0)
    assert (taken[2].gpu_held_back, taken[0].gpu_held_back) == ("hardware slowdown", None)
    assert records[CASE.name, "forward", "other"].disturbed_blocks == 2


def test_on_a_cpu_nobody_asks_for_the_time_of_a_device(measure):
    records, workers, _ = measure()
    assert records[CASE.name, "forward", BASELINE].device_seconds is None
    assert "device_times" not in {do for _, do, _ in workers.log}


def test_a_backend_whose_times_say_nothing_is_checked_twice_and_never_timed(measure):
    records, workers, _ = measure(other={"loads": {"untimeable": "it is simulated"}})
    row = records[CASE.name, "forward", "other"]
    assert (row.status, row.phase, row.median_seconds) == (Status.CHECKED, "recheck", None)
    assert row.reason == "passed the gate; not timed, because it is simulated"
    asked = {do for name, do, _ in workers.log if name == "other"}
    assert "check" in asked
    assert not asked & {"warm_up", "sample", "memory"}
    assert records[CASE.name, "forward", BASELINE].status is Status.TIMED


def test_a_backend_whose_times_say_nothing_is_refused_what_is_wrong_with_it_all_the_same(measure):
    records, _, _ = measure(other={"loads": {"untimeable": "it is simulated"}, "wrong_later": 1})
    assert records[CASE.name, "forward", "other"].status is Status.REJECTED


def test_what_a_backend_has_chosen_is_in_its_row(measure):
    records, _, _ = measure(other={"chooses": "tiles of 4 x 2"})
    assert records[CASE.name, "forward", "other"].tuning == "tiles of 4 x 2"
    assert records[CASE.name, "forward", BASELINE].tuning is None


def test_a_machine_that_slows_down_after_warming_up_makes_no_liar(measure):
    records, _, _ = measure(other={"warm_up": {"stretches": [[1, 0.08]], "busy": None}, "call_seconds": 0.24})
    assert records[CASE.name, "forward", "other"].status is Status.TIMED


def test_a_backend_that_cannot_do_some_trials_is_flagged(measure):
    unable = {"edge cases of other": {"support": {"supported": False, "reason": "planted", "workspace_bytes": 0}}}
    records, _, _ = measure(**unable)
    assert records[CASE.name, "forward", "other"].flags == "edge_cases_partial"


def test_who_misbehaves_gets_a_new_process_for_the_next_case_and_who_is_only_wrong_does_not(measure):
    cases = CASE, dataclasses.replace(CASE, batch=4)
    _, workers, _ = measure(*cases, other={"replaces": ["time.perf_counter"]}, third={"wrong_later": 1})
    assert workers.discarded.count("other") == 2
    assert "third" not in workers.discarded
    assert [do for name, do, _ in workers.log if name == "other"].count("load") == 2


def test_one_that_was_slow_only_while_it_was_run_in_gets_as_many_blocks_as_others(measure):
    records, _, _ = measure(other={"warm_up": {"stretches": [[1, 0.5]], "busy": None}})
    assert records[CASE.name, "forward", "other"].blocks == FEWEST_BLOCKS


def test_results_are_judged_from_inside_the_timed_samples_even_if_the_budget_ends_them_early(measure):
    _, workers, _ = measure(budget=0.05)
    did = [do for name, do, _ in workers.log if name == "other"]
    assert did.count("sample") == LEAST_BLOCKS
    assert did.count("kept") == 2


def test_a_refused_trial_of_the_structure_probe_rejects_with_its_sentence(measure):
    wrong = {"edge cases of other": {"answers": {"empty": {"error": "raised ZeroDivisionError: planted"}}}}
    records, _, _ = measure(**wrong)
    row = records[CASE.name, "forward", "other"]
    assert (row.status, row.phase) == (Status.REJECTED, "gate")
    assert row.reason == "edge_cases: not so: a batch of zero rows gives zero rows: raised ZeroDivisionError: planted"
    assert row.probes.startswith("edge_cases=no;exact=ok")


def test_a_gradient_that_finite_differences_refute_rejects_the_step(measure):
    wrong = {"edge cases of other": {"wrong_gradient": "planted: not the same"}}
    records, _, _ = measure(CASE, CASE.with_mode("forward_backward"), **wrong)
    assert records[CASE.name, "forward", "other"].status is Status.TIMED
    assert "planted: not the same" in records[CASE.name, "forward_backward", "other"].reason


def test_bits_that_differ_within_the_bound_are_flagged_and_not_refused(measure):
    # Kept and fresh results are not compared bit for bit; the scenario "again" is.
    records, workers, _ = measure()
    worker = workers.kept["other"]
    assert records[CASE.name, "forward", "other"].flags is None

    class Jittery(FakeWorker):
        def scenario(self, what, directory):
            said = super().scenario(what, directory)
            if what == "again":
                path = Path(directory) / "output.npy"
                np.save(path, np.nextafter(np.load(path), np.float32(9)))
            return said

    workers.kept["other"].__class__ = Jittery
    plan = dataclasses.replace(workers.plan, cases=(CASE,))
    context = RunContext(plan, workers, now=lambda: workers.clock.now, look=lambda: QUIET)
    (row,) = [row for row in Runner(context, lambda: 64 * GIB).run() if row.backend == "other"]
    assert worker is workers.kept["other"]
    assert (row.status, row.flags) == (Status.TIMED, "nondeterministic")


def test_rows_of_different_precision_classes_are_never_ranked_together(measure):
    case = dataclasses.replace(CASE, precision="tf32")
    records, _, _ = measure(case, other={"noise": 2.0**-12, "call_seconds": 0.001}, third={"call_seconds": 0.002})
    other, third = (records[case.name, "forward", name] for name in ("other", "third"))
    assert (other.precision_class, other.rank) == ("tf32", 1)
    assert (third.precision_class, third.rank) == ("float32", 1)
    assert records[case.name, "forward", BASELINE].rank == 2
    assert "class_differs" in other.flags
    assert third.flags is None


def test_every_contestant_runs_before_the_right_answer_exists_and_no_answer_stays_in_a_folder(measure):
    _, workers, _ = measure()
    did = [(name, do, fields.get("case", {}).get("batch")) for name, do, fields in workers.log]
    first = did.index(("reference", "expect", CASE.batch))
    assert first > max(did.index((name, "prepare", CASE.batch)) for name in (BASELINE, "other"))
    asked = {(fields.get("kind"), fields.get("variation")): n for n, (_, _, fields) in enumerate(workers.log)}
    done = [n for n, (_, do, fields) in enumerate(workers.log) if fields.get("what") == SCENARIOS[0]]
    assert asked["integers", 0] > max(done)
    assert not list(workers.kept["reference"].directory.iterdir())


def test_a_step_has_a_forward_time_of_its_own_and_the_rest_is_backward(measure):
    records, _, samples = measure(CASE.with_mode("forward_backward"))
    row = records[CASE.name, "forward_backward", "other"]
    assert row.forward_seconds == pytest.approx(row.median_seconds / 2)
    assert row.backward_seconds == pytest.approx(row.median_seconds / 2)
    assert {sample.kind for sample in samples} == {"warmup", "call", "forward"}


def test_a_block_holds_each_backend_once_in_an_order_that_changes(measure):
    _, _, samples = measure(third={})
    blocks = {}
    for sample in samples:
        if sample.kind == "call":
            blocks.setdefault(sample.block, []).append(sample.backend)
    assert all(sorted(block) == sorted([BASELINE, "other", "third"]) for block in blocks.values())
    assert len({tuple(block) for block in blocks.values()}) > 1


def test_the_number_of_calls_varies_and_is_never_below_what_a_sample_needs(measure):
    _, _, samples = measure(other={"call_seconds": 0.001})
    calls = {sample.calls for sample in samples if sample.backend == "other" and sample.kind == "call"}
    assert len(calls) > 1
    assert min(calls) >= 20


def test_input_sets_take_turns_from_block_to_block(measure):
    _, workers, _ = measure()
    first = [fields["first"] for name, do, fields in workers.log if name == "other" and do == "sample"]
    assert first == list(range(FEWEST_BLOCKS))


def test_a_slow_backend_joins_the_first_blocks_only_and_the_others_go_on(measure):
    records, _, _ = measure(other={"call_seconds": 0.3})
    assert records[CASE.name, "forward", "other"].blocks == SLOW_BLOCKS
    assert "few_blocks" in records[CASE.name, "forward", "other"].flags
    assert records[CASE.name, "forward", BASELINE].blocks == FEWEST_BLOCKS


def test_measuring_stops_when_the_budget_is_used_up(measure):
    records, _, _ = measure(budget=5.0, other={"spread": (0.0, 0.5)})
    row = records[CASE.name, "forward", "other"]
    assert (row.stopped_by, row.seconds_to_target) == ("budget", None)
    assert row.blocks > FEWEST_BLOCKS
    records, _, _ = measure(budget=0.05)
    row = records[CASE.name, "forward", "other"]
    assert (row.stopped_by, row.blocks) == ("budget", LEAST_BLOCKS)
    assert "few_blocks" in row.flags


def test_a_larger_budget_gives_a_slow_baseline_more_blocks_but_no_other_slow_one(measure):
    slow = {"call_seconds": 0.5}
    records, _, _ = measure(target=0.0001, budget=40.0, torch_bilinear=slow, other={"spread": (0.0, 0.05)}, third=slow)
    assert records[CASE.name, "forward", BASELINE].blocks == 20  # of a quarter of the budget
    assert records[CASE.name, "forward", "third"].blocks == SLOW_BLOCKS


def test_a_slow_baseline_gets_its_few_blocks_and_does_not_eat_up_those_of_the_others(measure):
    records, _, _ = measure(budget=8.0, torch_bilinear={"call_seconds": 2.4})
    baseline, row = (records[CASE.name, "forward", name] for name in (BASELINE, "other"))
    assert (baseline.blocks, baseline.stopped_by) == (SLOW_BLOCKS, "blocks")
    assert row.blocks == FEWEST_BLOCKS
    assert (row.comparison, row.speedup) == ("faster", pytest.approx(240))


def test_measuring_goes_on_until_the_interval_is_narrow_enough_and_no_longer(measure):
    wide, narrow = (measure(target=target, other={"spread": (0.0, 0.05)})[0] for target in (0.05, 0.01))
    wide, narrow = (records[CASE.name, "forward", "other"] for records in (wide, narrow))
    assert (wide.stopped_by, narrow.stopped_by) == ("target", "target")
    assert wide.blocks < narrow.blocks / 4
    half = math.log(narrow.speedup_high / narrow.speedup_low) / 2
    assert 0.005 < half <= 0.01
    assert 0 < wide.seconds_to_target < narrow.seconds_to_target


def test_who_is_known_precisely_enough_leaves_and_the_baseline_stays(measure):
    records, _, _ = measure(target=0.02, other={"spread": (0.0, 0.001)}, third={"spread": (0.0, 0.06)})
    quiet, noisy, baseline = (records[CASE.name, "forward", name] for name in ("other", "third", BASELINE))
    assert quiet.blocks == FEWEST_BLOCKS
    assert noisy.blocks > 3 * FEWEST_BLOCKS
    assert baseline.blocks == noisy.blocks
    assert quiet.seconds_to_target < noisy.seconds_to_target


def test_what_the_interval_says_does_not_stop_measuring(measure):
    # Twice as fast is beyond doubt after ten blocks, and not yet known to 1 %.
    records, _, _ = measure(target=0.01, other={"call_seconds": 0.005, "spread": (0.0, 0.05)})
    assert records[CASE.name, "forward", "other"].blocks > 10 * FEWEST_BLOCKS


def test_there_are_ten_processes_at_least_since_a_few_can_agree_by_chance(measure):
    records, workers, samples = measure(processes=40, other={"spread": (0.0, 0.001)})
    row = records[CASE.name, "forward", "other"]
    assert (row.processes, row.unit, row.stopped_by) == (LEAST_VALUES, "process", "target")
    assert [do for name, do, _ in workers.log if name == "other"].count("load") == LEAST_VALUES
    assert sorted({sample.process for sample in samples}) == list(range(LEAST_VALUES))


def test_where_there_can_be_no_more_processes_a_few_have_to_do(measure):
    records, _, _ = measure(processes=4, other={"spread": (0.0, 0.001)})
    row = records[CASE.name, "forward", "other"]
    assert (row.processes, row.stopped_by, row.comparison) == (4, "target", "equivalent")


def test_the_more_processes_differ_the_more_of_them_there_are(measure):
    records, _, _ = measure(processes=40, other={"spread": (0.03, 0.002), "call_seconds": 0.012})
    row = records[CASE.name, "forward", "other"]
    assert row.unit == "process"
    assert row.processes > LEAST_VALUES
    assert row.process_spread == pytest.approx(0.03, rel=0.7)
    assert row.comparison == "slower"
    pooled = measure(processes=1, other={"spread": (0.03, 0.002)})[0][CASE.name, "forward", "other"]
    assert (pooled.processes, pooled.unit) == (1, "block")


def test_where_processes_are_what_counts_more_blocks_of_the_last_one_are_not_taken(measure):
    records, _, _ = measure(processes=4, other={"spread": (0.1, 0.002)})
    row = records[CASE.name, "forward", "other"]
    assert (row.processes, row.blocks, row.stopped_by) == (4, 4 * FEWEST_BLOCKS, "processes")
    assert row.comparison == "ambiguous"


def test_a_worker_is_warm_after_its_first_case_however_often_it_was_renewed_meanwhile(measure):
    cases = CASE, dataclasses.replace(CASE, batch=4)
    for processes in (1, 40):
        records, _, _ = measure(*cases, processes=processes, other={"spread": (0.0, 0.001)})
        assert [records[case.name, "forward", "other"].compile_cache for case in cases] == ["filled", "warm_worker"]


def test_the_baseline_does_not_go_on_alone(measure):
    records, _, _ = measure(target=0.0001, other={"call_seconds": 0.3}, torch_bilinear={"spread": (0.0, 0.05)})
    assert records[CASE.name, "forward", BASELINE].blocks <= FEWEST_BLOCKS
    alone, _, _ = measure(target=0.01, torch_bilinear={"spread": (0.0, 0.05)}, backends=(BASELINE,))
    assert alone[CASE.name, "forward", BASELINE].blocks > FEWEST_BLOCKS, "but where it is all there is, it does"


def test_fresh_processes_that_the_budget_cannot_pay_for_are_not_started(measure):
    slow_start = {"load": {"available": True, "version": "fake 1", "import_seconds": 20.0, **CLOCK}}
    records, _, _ = measure(processes=40, budget=10.0, other=slow_start)
    assert records[CASE.name, "forward", "other"].processes == 1
    assert records[CASE.name, "forward", "other"].stopped_by == "target"


def test_what_a_fresh_process_returns_is_judged_before_its_times_count(measure):
    class Changeling(FakeWorker):
        def prepare(self, case, directory, **_):
            said = super().prepare(case, directory)
            if self.number > 6:
                self.results(self.case, 5, directory)
            return said

    records, _, samples = measure(processes=40, other={"kind": Changeling}, third={})
    row = records[CASE.name, "forward", "other"]
    assert (row.status, row.phase) == (Status.REJECTED, "timing")
    assert records[CASE.name, "forward", "third"].status is Status.TIMED
    assert {sample.process for sample in samples if sample.backend == "other"} == {0}


def test_a_fresh_process_that_does_not_start_costs_its_own_cell(measure):
    class Once(FakeWorker):
        def load(self, **fields):
            if self.number > 6:
                raise WorkerError(Status.FAILED, "planted")
            return super().load(**fields)

    records, _, _ = measure(processes=40, other={"kind": Once}, third={})
    row = records[CASE.name, "forward", "other"]
    assert (row.status, row.reason) == (Status.FAILED, "in a fresh process: planted")
    assert records[CASE.name, "forward", "third"].processes == LEAST_VALUES


def test_a_call_that_makes_threads_wait_for_each_other_is_flagged(measure):
    records, _, _ = measure(other={"runnable": 2.3})
    assert records[CASE.name, "forward", "other"].flags == "oversubscribed(2.3)"
    assert records[CASE.name, "forward", BASELINE].flags is None


def test_memory_is_what_a_call_takes_beyond_its_results(measure):
    records, _, _ = measure(other={"peak_bytes": 5000})
    assert records[CASE.name, "forward", "other"].peak_memory_bytes == 5000 - CASE.result_bytes
    assert records[CASE.name, "forward", BASELINE].peak_memory_bytes == 2**20 - CASE.result_bytes
    records, _, _ = measure(other={"peak_bytes": None})
    assert records[CASE.name, "forward", "other"].peak_memory_bytes is None


def test_calls_pay_off_once_what_they_gain_is_more_than_what_preparing_cost(measure):
    # 0.5 s more of preparing and compiling, 5 ms gained at each of the calls that follow the first: after 101 calls.
    records, _, _ = measure(other={"call_seconds": 0.005, "compile_seconds": 0.5})
    assert records[CASE.name, "forward", "other"].break_even_calls == 101
    records, _, _ = measure(other={"call_seconds": 0.005})
    assert records[CASE.name, "forward", "other"].break_even_calls == 1
    records, _, _ = measure(other={"call_seconds": 0.02, "compile_seconds": -0.1})
    assert records[CASE.name, "forward", "other"].break_even_calls is None, "it is slower: that never pays off"


def test_threads_of_one_backend_that_take_the_cpus_from_each_other_are_no_disturbance(measure):
    class Switching(FakeWorker):
        def sample(self, **fields):
            said = super().sample(**fields)
            usual = int(2000 * said["seconds"])
            return said | {"involuntary_switches": usual + (500 if self.blocks == 7 else 0)}

    records, _, samples = measure(other={"kind": Switching})
    assert records[CASE.name, "forward", "other"].disturbed_blocks == 1
    assert [sample.disturbance for sample in samples if sample.disturbance] == ["switches"]


def test_disturbed_blocks_are_flagged_and_kept_and_the_verdict_is_there_without_them(measure):
    stolen = [QUIET, dataclasses.replace(QUIET, steal_seconds=1.0), dataclasses.replace(QUIET, steal_seconds=1.0)]
    records, _, samples = measure(states=itertools.chain(stolen, itertools.repeat(stolen[-1])))
    hit = [sample for sample in samples if sample.disturbance]
    assert [(sample.block, sample.disturbance, sample.steal_seconds) for sample in hit] == [(0, "steal", 1.0)]
    rows = [records[CASE.name, "forward", name] for name in (BASELINE, "other")]
    assert sorted(row.disturbed_blocks for row in rows) == [0, 1]
    assert all(row.blocks == FEWEST_BLOCKS for row in rows)
    # Nine blocks are too few for the interval that ten have.
    assert records[CASE.name, "forward", "other"].comparison == "equivalent"
    assert records[CASE.name, "forward", "other"].comparison_undisturbed == "equivalent"


def test_however_long_a_driver_takes_to_answer_it_is_in_no_sample(measure):
    stolen = itertools.chain([QUIET], itertools.repeat(dataclasses.replace(QUIET, steal_seconds=1.0)))
    slow = {"nvml_seconds": 100.0}
    _, _, samples = measure(**on_gpu(other=slow, **{BASELINE: slow}), states=stolen, budget=1e6)
    assert [sample.disturbance for sample in samples if sample.kind == "call"][:2] == ["steal", None]


def test_a_verdict_that_hangs_on_disturbed_blocks_is_flagged(measure):
    busy = [QUIET, dataclasses.replace(QUIET, steal_seconds=1.0)]
    states = itertools.chain.from_iterable(busy for _ in itertools.count())
    records, _, _ = measure(states=states, other={"call_seconds": 0.005})
    row = records[CASE.name, "forward", "other"]
    assert (row.comparison, row.comparison_undisturbed, row.disturbed_blocks) == ("faster", "ambiguous", row.blocks)
    assert row.flags == "mostly_disturbed"


def test_a_verdict_that_only_disturbed_blocks_support_is_flagged_with_what_the_others_say(measure):
    class Jumps(FakeWorker):
        def sample(self, **fields):
            said = super().sample(**fields)
            return said | {"seconds": said["seconds"] * (0.5 if self.blocks <= 14 else 1.0)}

    # Two readings a sample, two samples a block: something is stolen in the first twelve blocks.
    stolen = (dataclasses.replace(QUIET, steal_seconds=float(min(number, 47))) for number in itertools.count())
    records, _, _ = measure(states=stolen, target=0.001, budget=2.7, other={"kind": Jumps, "spread": (0.0, 0.01)})
    row = records[CASE.name, "forward", "other"]
    assert row.disturbed_blocks == 12
    assert row.blocks >= 22
    assert row.comparison_undisturbed != row.comparison
    assert f"undisturbed({row.comparison_undisturbed})" in row.flags


PEAKS = roofline.Peaks({"float32": roofline.Rate(1e9, "planted")}, (), ())


def test_each_time_stands_beside_what_the_machine_could_do(measure):
    records, _, _ = measure(peaks=[PEAKS])
    row = records[CASE.name, "forward", "other"]
    assert row.roofline_seconds == pytest.approx(roofline.flop(CASE) / 1e9)
    assert row.roofline_fraction == pytest.approx(row.roofline_seconds / row.median_seconds)
    records, _, _ = measure()
    row = records[CASE.name, "forward", "other"]
    assert (row.roofline_seconds, row.roofline_fraction) == (None, None)


class Machine:
    """One that runs at half its speed in every third sample; and workers on it."""

    def __init__(self):
        self.asked = []
        self.workers = {name: {"kind": self.worker} for name in ("other", "torch_bilinear")}

    @property
    def speed(self):
        return 0.5 if len(self.asked) % 3 == 0 else 1.0

    def spot_peak(self, dtype, seconds):
        self.asked.append(dtype)
        return 1e9 * self.speed

    def worker(self, *arguments, **spoilt):
        machine = self

        class Worker(FakeWorker):
            def sample(self, **fields):
                said = super().sample(**fields)
                return said | {"seconds": said["seconds"] / machine.speed}

        return Worker(*arguments, **spoilt)


BY_CHAINS = roofline.Peaks({"float32": roofline.Rate(1e9, "planted", chains=1e9)}, (), ())


def test_a_time_stands_beside_the_pace_right_before_it_too(measure):
    machine = Machine()
    records, _, samples = measure(peaks=[BY_CHAINS], spot_peak=machine.spot_peak, **machine.workers)
    row = records[CASE.name, "forward", "other"]
    share = roofline.flop(CASE) / 1e9 / 0.01
    assert row.roofline_fraction == pytest.approx(share), "most samples are at full speed"
    found = (row.spot_roofline_fraction, row.spot_roofline_fraction_low, row.spot_roofline_fraction_high)
    assert found == pytest.approx((share, share, share)), "the machine's own slowness cancels"
    taken = [sample.spot_peak_flop_per_second for sample in samples if sample.kind == "call"]
    assert len(taken) == len(machine.asked) - 1, "once before each sample, and before all"
    assert taken[:3] == [1e9, 0.5e9, 1e9]
    assert set(machine.asked) == {"float32"}
    assert {sample.spot_peak_flop_per_second for sample in samples if sample.kind == "warmup"} == {None}


@pytest.mark.parametrize(("call_seconds", "longest"), [(0.2, 0.05), (3.0, 0.2)])
def test_a_pace_lasts_a_quarter_of_the_sample_that_follows_within_bounds(measure, call_seconds, longest):
    asked = []
    measure(spot_peak=lambda dtype, seconds: asked.append(seconds) or 1e9, other={"call_seconds": call_seconds})
    assert (min(asked), max(asked)) == pytest.approx((0.004, longest)), "nn.Bilinear's samples are short"


def by_a_product(flop_per_second, chains):
    return roofline.Peaks({"float32": roofline.Rate(flop_per_second, "best GEMM", chains=chains)}, (), ())


@pytest.mark.parametrize("peaks", [by_a_product(1.4e9, 1e9), by_a_product(1.4e9, 0.5e9), by_a_product(1e9, None)])
def test_a_product_that_was_measured_in_a_better_moment_than_the_chains_does_not_hide_the_pace(measure, peaks):
    records, _, _ = measure(peaks=[peaks], spot_peak=lambda dtype, seconds: 1e9)
    share = roofline.flop(CASE) / 1e9 / 0.01
    assert records[CASE.name, "forward", "other"].spot_roofline_fraction == pytest.approx(share)


def test_chains_that_were_as_fast_in_another_case_reach_the_peak_in_this_one_too(measure):
    spot_peaks = itertools.chain([1e9] * (2 * FEWEST_BLOCKS + 1), itertools.repeat(0.5e9))
    cases = CASE, dataclasses.replace(CASE, batch=4)
    records, _, _ = measure(
        *cases, peaks=[by_a_product(1.2e9, 0.5e9)], spot_peak=lambda dtype, seconds: next(spot_peaks)
    )
    shares = [records[case.name, "forward", "other"].spot_roofline_fraction for case in cases]
    assert shares == pytest.approx(
        [roofline.flop(case) / spot_peak / 0.01 for case, spot_peak in zip(cases, (1e9, 0.5e9), strict=True)]
    )


def test_without_a_pace_or_a_peak_that_it_is_part_of_a_row_has_no_share_of_it(measure):
    other_units, unknown, steady = by_a_product(2e9, 1e9), lambda dtype, seconds: None, lambda dtype, seconds: 1e9
    for peaks, spot_peak in ((BY_CHAINS, unknown), (other_units, steady), (None, steady)):
        records, _, _ = measure(peaks=[peaks] if peaks else (), spot_peak=spot_peak)
        row = records[CASE.name, "forward", "other"]
        assert row.status is Status.TIMED
        assert (row.spot_roofline_fraction, row.spot_roofline_fraction_low) == (None, None)


def test_a_pace_that_cannot_be_measured_any_more_takes_nothing_from_the_samples_before(measure):
    spot_peaks = itertools.chain([1e9] * 11, itertools.repeat(None))
    records, _, samples = measure(peaks=[BY_CHAINS], spot_peak=lambda dtype, seconds: next(spot_peaks))
    row = records[CASE.name, "forward", "other"]
    assert row.spot_roofline_fraction == pytest.approx(row.roofline_fraction)
    assert len([sample for sample in samples if sample.spot_peak_flop_per_second]) == 10 < 2 * row.blocks


def test_the_pace_of_the_cpus_is_not_asked_for_rows_of_a_gpu(measure):
    asked = []
    records, _, _ = measure(**on_gpu(other={}, **{BASELINE: {}}), spot_peak=lambda dtype, seconds: asked.append(dtype))
    assert records[CASE.name, "forward", "other"].status is Status.TIMED
    assert asked == []


def test_who_is_faster_than_the_machine_is_implausible_and_not_ranked(measure):
    slow = roofline.Peaks({"float32": roofline.Rate(roofline.flop(CASE) / 0.009, "planted")}, (), ())
    records, _, _ = measure(peaks=[slow, slow], other={"call_seconds": 0.008})
    row, baseline = (records[CASE.name, "forward", name] for name in ("other", BASELINE))
    assert (row.status, row.rank, row.flags) == (Status.TIMED, None, "implausible")
    assert row.roofline_fraction == pytest.approx(9 / 8)
    assert (baseline.rank, baseline.flags) == (1, None)


def test_the_machines_limit_is_measured_again_before_a_row_is_called_implausible(measure):
    disturbed, fast = (
        roofline.Peaks({"float32": roofline.Rate(roofline.flop(CASE) / seconds, "planted")}, (), ())
        for seconds in (0.009, 0.005)
    )
    records, _, _ = measure(peaks=[disturbed, fast], other={"call_seconds": 0.008})
    row = records[CASE.name, "forward", "other"]
    assert (row.rank, row.flags, row.roofline_fraction) == (1, None, pytest.approx(5 / 8))


def test_a_backend_whose_call_is_over_the_budget_is_too_slow_and_never_sampled(measure):
    records, _, samples = measure(other={"call_seconds": 3.0}, budget=2.0)
    row = records[CASE.name, "forward", "other"]
    assert row.status is Status.TOO_SLOW
    assert "3 s" in row.reason
    assert not [sample for sample in samples if sample.backend == "other" and sample.kind == "call"]


def test_the_baseline_is_never_too_slow(measure):
    records, _, _ = measure(budget=2.0, torch_bilinear={"call_seconds": 3.0})
    assert records[CASE.name, "forward", BASELINE].status is Status.TIMED
    assert records[CASE.name, "forward", "other"].speedup == pytest.approx(300)


@pytest.mark.parametrize("phase", ["load", "support", "prepare", "warm_up", "sample", "check"])
@pytest.mark.parametrize("status", [Status.FAILED, Status.TIMEOUT, Status.OUT_OF_MEMORY])
def test_a_failure_anywhere_costs_its_own_cell_and_no_other(measure, phase, status):
    records, _, _ = measure(other={phase: WorkerError(status, "planted")}, third={})
    row = records[CASE.name, "forward", "other"]
    assert (row.status, row.reason) == (status, "planted")
    assert row.median_seconds is None
    assert row.phase == {"warm_up": "timing", "sample": "timing", "check": "recheck"}.get(phase, phase)
    assert records[CASE.name, "forward", "third"].status is Status.TIMED


def test_a_wrong_backend_is_rejected_before_it_could_be_timed(measure):
    facts = {"output": {"type": "ndarray", "dtype": "float64", "shape": [3, 2], "device": "cpu"}}
    said = {
        "prepare_seconds": 0.1,
        "tuning": "",
        "first_call_seconds": 0.1,
        "threads": dataclasses.asdict(ThreadReport((0,))),
    }
    given = {name: {**facts["output"], "dtype": "float32", "shape": shape} for name, shape in CASE.shapes().items()}
    said |= {
        "affinity": [None, None],
        "native_type": "ndarray",
        "home_made": False,
        "native_bases": [],
        "storages": {},
        "inputs": given,
    }
    records, workers, _ = measure(other={"prepare": {**said, "facts": facts}})
    row = records[CASE.name, "forward", "other"]
    assert row.reason == "bound: output has dtype float64, expected float32"
    assert (row.status, row.phase) == (Status.REJECTED, "gate")
    assert "sample" not in [do for name, do, _ in workers.log if name == "other"]


def test_without_a_reference_nothing_is_timed(measure):
    records, _, samples = measure(reference={"expect": WorkerError(Status.FAILED, "planted")})
    assert {row.status for row in records.values()} == {Status.FAILED}
    assert all("no reference to check against: planted" in row.reason for row in records.values())
    assert not samples


def test_the_gate_alone_leaves_checked_rows_and_no_samples(measure):
    records, workers, samples = measure(timing=False)
    assert {row.status for row in records.values()} == {Status.CHECKED}
    assert not samples
    assert sum(do == "check" for _, do, _ in workers.log) == 2


def test_work_of_size_zero_is_checked_and_never_timed(measure):
    empty = dataclasses.replace(CASE, batch=0)
    records, _, samples = measure(empty)
    assert {row.status for row in records.values()} == {Status.CHECKED}
    assert not samples


def test_an_unavailable_backend_is_asked_once_and_not_kept(measure):
    gone = {"load": {"available": False, "reason": "no such package", "offered": True}}
    records, workers, _ = measure(CASE, dataclasses.replace(CASE, batch=4), other=gone)
    assert {row.status for key, row in records.items() if key[2] == "other"} == {Status.UNAVAILABLE}
    assert [do for name, do, _ in workers.log if name == "other"] == ["load"]
    assert "other" in workers.discarded


def test_a_device_that_a_backend_does_not_offer_is_unsupported(measure):
    records, _, _ = measure(other={"load": {"available": False, "reason": "runs on cpu", "offered": False}})
    assert records[CASE.name, "forward", "other"].status is Status.UNSUPPORTED


def test_what_would_not_fit_alone_is_out_of_memory_and_not_attempted(measure):
    records, workers, _ = measure(other={"workspace_bytes": 100 * GIB})
    row = records[CASE.name, "forward", "other"]
    assert row.status is Status.OUT_OF_MEMORY
    assert "100.6 GiB" in row.reason
    assert "prepare" not in [do for name, do, _ in workers.log if name == "other"]


@pytest.mark.parametrize("room", [{"free_bytes": 32 * GIB}, {"free_bytes": 1000 * GIB, "device_bytes": 32 * GIB}])
def test_what_does_not_fit_together_is_split_and_each_part_has_the_baseline(measure, room):
    hungry = {"workspace_bytes": 20 * GIB}
    records, workers, samples = measure(**room, other=hungry, third=hungry)
    assert {row.status for row in records.values()} == {Status.TIMED}
    assert all(row.speedup is not None for row in records.values())
    prepared = [name for name, do, _ in workers.log if do == "prepare"]
    assert prepared == [BASELINE, "other", BASELINE, "third"]
    together = [{s.backend for s in samples if s.block == block and s.kind == "call"} for block in (0, FEWEST_BLOCKS)]
    assert together == [{BASELINE, "other"}, {BASELINE, "third"}]


def test_time_that_a_busy_machine_takes_from_all_alike_is_no_lie_of_one(measure):
    lost = {"unseen_seconds": 0.2}
    records, _, _ = measure(other=lost, **{BASELINE: lost})
    assert {row.status for row in records.values()} == {Status.TIMED}


@pytest.mark.parametrize(("unseen_seconds", "status"), [(0.2, Status.TIMED), (0.3, Status.REJECTED)])
def test_time_that_the_hypervisor_took_is_no_lie_and_hides_no_larger_one(measure, unseen_seconds, status):
    stolen = 0.2 * os.cpu_count()  # of one CPU, whose share it is
    states = (dataclasses.replace(QUIET, steal_seconds=stolen * look) for look in itertools.count())
    records, _, _ = measure(states=states, other={"unseen_seconds": unseen_seconds})
    assert records[CASE.name, "forward", "other"].status is status


def test_a_clock_that_stood_still_is_a_failure_and_never_a_time_of_zero(measure):
    records, workers, _ = measure(other={"sample": {"seconds": 0.0, "forward_seconds": None}})
    assert records[CASE.name, "forward", "other"].status is Status.FAILED
    assert "other" in workers.discarded, "the next case gets a new process"


def test_interrupted_rows_fill_what_is_missing_and_nothing_else():
    plan = Plan(run_id="run", suite="s", cases=(CASE,), backends={"other": None}, devices=("cpu",), threads=1)
    done = frozenset({(CASE.name, "forward", BASELINE, "cpu")})
    rows = list(interrupted(plan, done))
    assert [(row.backend, row.status) for row in rows] == [("other", Status.INTERRUPTED)]

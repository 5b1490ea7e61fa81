"""Inputs of a sample: filled last, changed before each call, and restored after it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from small_backends import Plain, ask, prepared

from harness.case import Case
from harness.correctness.conduct import judge_storage
from harness.correctness.sample_values import SampleValues
from harness.process.protocol import DrawValues, KeptResults, TakeSample
from harness.worker.arrays import framework
from harness.worker.sample_inputs import memory_of

CASE = Case(30, 4, 3, 2)
CALLS = 40


class Remembers(Plain):
    """Remembers every answer by all bytes of its inputs, and counts what it did not know."""

    name = "remembers"

    def prepare_forward(self, case, weight, bias):
        kernel, answers = super().prepare_forward(case, weight, bias), {}

        def remembering(input1, input2):
            self.calls = getattr(self, "calls", 0) + 1
            key = input1.tobytes() + input2.tobytes()
            self.known = getattr(self, "known", 0) + (key in answers)
            return answers.setdefault(key, kernel(input1, input2)).copy()

        return remembering


class WorksAhead(Plain):
    """Computes once for each array, as long as it is the same object."""

    name = "works-ahead"

    def prepare_forward(self, case, weight, bias):
        kernel, answers = super().prepare_forward(case, weight, bias), {}
        return lambda input1, input2: answers.setdefault(id(input1), kernel(input1, input2)).copy()


class ChangesInputs(Plain):
    """Writes into its input while the garbage collector is off, as it is in a sample."""

    name = "changes-inputs"

    def prepare_forward(self, case, weight, bias):
        import gc

        kernel = super().prepare_forward(case, weight, bias)

        def changing(input1, input2):
            right = kernel(input1, input2)
            if not gc.isenabled():
                input1[3] = 5
            return right

        return changing


def sampled(kind, folder, passes=1, settle_seconds=0.002):
    """Return a worker after a sample of a backend, the sample's values and its reply."""
    worker = prepared(kind("cpu"), folder, case=CASE)
    ask(worker, DrawValues(77, CALLS, 0))
    reply = ask(worker, TakeSample(CALLS, 0, settle_seconds, forward=False, passes=passes))
    return worker, SampleValues(CASE, 77, CALLS, 0, 2), reply


def judged(worker, values, calls, folder, passes=1):
    """Return the largest difference of a kept result from the right one, for the values in rotation."""
    folder.mkdir()
    kept = ask(worker, KeptResults(False, calls, folder))
    arrays = worker.held.prepared.arrays
    number = kept.call % 2
    given = dict(arrays.values(("input1", "input2"), number)) | dict(arrays.values(("weight", "bias")))
    wide = {name: array.astype(np.float64) for name, array in given.items()}
    right = np.einsum("bi,oij,bj->bo", wide["input1"], wide["weight"], wide["input2"]) + wide["bias"]
    results = {"output": np.load(folder / "output.npy").astype(np.float64)}
    last = (passes - 1) * CALLS + kept.call
    return abs(values.originals(number, last, results, given)["output"] - right).max()


@pytest.mark.parametrize("passes", [1, 3])
@pytest.mark.parametrize("calls", [(CALLS - 1,), (-1,), (CALLS - 1, CALLS - 2, CALLS - 3, -1)])
def test_kept_result_of_an_honest_backend_is_that_of_its_call(tmp_path, calls, passes):
    worker, values, reply = sampled(Plain, tmp_path, passes)
    assert reply.changing
    assert {CALLS - 1, -1} <= set(reply.held)
    assert judged(worker, values, calls, tmp_path / "kept", passes) < 1e-5


def test_no_answer_of_a_sample_can_be_remembered(tmp_path):
    worker, _, _ = sampled(Remembers, tmp_path, settle_seconds=0.0)
    assert (worker.held.backend.calls, worker.held.backend.known) == (CALLS + 1, 0)


def test_what_is_computed_ahead_while_settling_is_wrong(tmp_path):
    worker, values, _ = sampled(WorksAhead, tmp_path)
    assert judged(worker, values, (CALLS - 1,), tmp_path / "kept") > 0.1


def test_inputs_have_their_own_values_after_a_sample(tmp_path):
    worker, _, _ = sampled(Plain, tmp_path)
    worker.held.prepared.restore()
    arrays = worker.held.prepared.arrays
    for number, inputs in enumerate(worker.held.prepared.sets):
        expected = arrays.values(("input1", "input2"), number)
        assert all(np.array_equal(array, expected[name]) for name, array in inputs.items())
    assert worker.held.prepared.changed == []


def test_backend_that_changes_an_input_in_a_sample_is_seen(tmp_path):
    worker, _, _ = sampled(ChangesInputs, tmp_path)
    worker.held.prepared.restore()
    assert "input1 of input set 0 in a timed sample" in worker.held.prepared.changed


def test_result_that_differs_from_another_call_is_handed_over(tmp_path):
    worker, values, _ = sampled(Plain, tmp_path)
    worker.held.prepared.kept.results[CALLS - 4][2, 1] += 1
    calls = tuple(range(CALLS - 8, CALLS))
    assert judged(worker, values, calls, tmp_path / "kept") == pytest.approx(1, abs=1e-4)


def test_copy_that_is_the_last_result_itself_is_no_earlier_result(tmp_path):
    worker, _, _ = sampled(Plain, tmp_path)
    kept = worker.held.prepared.kept
    worker.held.prepared.kept = dataclasses.replace(kept, last=kept.results[CALLS - 1])
    (tmp_path / "kept").mkdir()
    places = ask(worker, KeptResults(False, (-1,), tmp_path / "kept")).results.storages
    assert judge_storage(places.results, places.inputs, places.earlier).ok
    assert not judge_storage(places.results, places.inputs, {"one": places.results["output"]}).ok


@pytest.mark.parametrize("name", ["numpy", "torch", "jax"])
def test_memory_of_arrays_on_the_cpu_can_be_written(name):
    if name == "numpy":
        array = np.arange(6, dtype=np.float32).reshape(2, 3)
    elif name == "torch":
        array = pytest.importorskip("torch").arange(6.0).reshape(2, 3)
    else:
        array = pytest.importorskip("jax.numpy").arange(6, dtype="float32").reshape(2, 3)
    assert framework(array) == name
    memory_of(array)[4:8] = memoryview(np.float32([7]).tobytes())
    assert np.asarray(array).ravel().tolist() == [0, 7, 2, 3, 4, 5]


def test_memory_of_an_unknown_framework_is_not_written():
    class Array:
        device, dtype, shape = "cpu", np.dtype("float32"), (2, 3)

    assert memory_of(Array()) is None

"""Scenarios, run in this process."""

from __future__ import annotations

import numpy as np
import pytest
from small_backends import CASE, Plain, ask, prepared

from harness.correctness.inputs import make_inputs
from harness.process.protocol import RunScenario


@pytest.mark.parametrize("name", ["again", "new values in the same buffers"])
def test_scenario_hands_over_one_result_and_an_earlier_one(tmp_path, name):
    worker = prepared(Plain("cpu"), tmp_path)
    reply = ask(worker, RunScenario(name, tmp_path))
    assert reply.results.storages.results.keys() == reply.results.storages.earlier.keys()


@pytest.mark.parametrize(
    ("scenario", "kind", "variation"),
    [
        ("again", "normal", 0),
        ("new values in the same buffers", "normal", 1),
        ("the same values in new buffers", "normal", 0),
        ("another kernel", "telling integers", 0),
    ],
)
def test_each_scenario_hands_over_the_results_of_its_inputs(tmp_path, scenario, kind, variation):
    worker = prepared(Plain("cpu"), tmp_path)
    reply = ask(worker, RunScenario(scenario, tmp_path))
    made = make_inputs(CASE, variation, kind)
    right = np.einsum("bi,oij,bj->bo", made["input1"], made["weight"], made["input2"]) + made["bias"]
    assert np.allclose(np.load(tmp_path / "output.npy"), right, atol=1e-4)
    assert reply.results.facts["output"].shape == (CASE.batch, CASE.out_features)
    assert (reply.kernel_seconds is not None) == (scenario == "another kernel")


def test_new_values_leave_the_first_input_set_as_it_was(tmp_path):
    worker = prepared(Plain("cpu"), tmp_path)
    inputs = worker.held.prepared.sets[0]
    before = {name: (array.ctypes.data, array.copy()) for name, array in inputs.items()}
    ask(worker, RunScenario("new values in the same buffers", tmp_path))
    for name, (address, values) in before.items():
        assert inputs[name].ctypes.data == address
        assert np.array_equal(inputs[name], values)

"""Scenarios, run in this process."""

from __future__ import annotations

import types

import numpy as np
import pytest
from small_backends import CASE, Plain, ask, prepared

from harness.correctness.inputs import make_inputs
from harness.process.protocol import RunScenario
from harness.worker import scenarios


@pytest.mark.parametrize(("call_seconds", "calls"), [(1.0, 1), (0.11, 2), (0.001, 32)])
def test_again_calls_until_its_time_or_its_calls_are_spent(tmp_path, monkeypatch, call_seconds, calls):
    worker, made = prepared(Plain("cpu"), tmp_path), []
    now = types.SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(scenarios, "time", types.SimpleNamespace(perf_counter=lambda: now.seconds))
    # With PyTorch in the process, which other tests import, one more call would show which of its operators run.
    monkeypatch.setattr(scenarios, "_borrows_torch", lambda _: False)
    kernel = worker.held.prepared.kernel

    def slow(*inputs):
        now.seconds += call_seconds
        made.append(kernel(*inputs))
        return made[-1]

    worker.held.prepared.kernel = slow
    reply = ask(worker, RunScenario("again", tmp_path))
    assert len(made) == calls
    assert reply.call_seconds == pytest.approx(call_seconds)
    assert len(reply.results.storages.earlier) == calls, "all results but the one that is handed over"


@pytest.mark.parametrize(
    ("scenario", "kind", "variation"),
    [
        ("again", "normal", 0),
        ("new values in the same buffers", "normal", 1),
        ("the same values in new buffers", "normal", 0),
        ("another kernel", "integers", 0),
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

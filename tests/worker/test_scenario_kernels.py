"""Scenario ``another kernel``, run in this process."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import oracle
import pytest
from small_backends import Plain, ask, prepared

from harness.case import MODES, Case
from harness.correctness import telling
from harness.correctness.telling_changes import Variant
from harness.correctness.verdict import Expected
from harness.process.protocol import RunScenario
from harness.run import variants
from harness.worker import scenario_kernels

CASE = Case(16, 6, 5, 4, seed=2)


class Honest(oracle.HonestBackend):
    name = "numpy-honest"


def asked(backend, folder, mode="forward", slow=False):
    """Return the reply, and the verdicts on the variants."""
    case = CASE.with_mode(mode)
    (folder / "first").mkdir()
    worker = prepared(backend, folder / "first", case=case)
    (folder / "scenario").mkdir()
    reply = ask(worker, RunScenario("another kernel", folder / "scenario", slow=slow))
    base = oracle.results(case, {name: array.astype(float) for name, array in telling.integers(case).items()})
    return reply, list(variants.judge(case, Expected(base), folder / "scenario")), base


@pytest.mark.parametrize("mode", MODES)
def test_honest_backend_is_right_after_every_change(tmp_path, mode):
    reply, verdicts, base = asked(Honest("cpu"), tmp_path, mode)
    assert all(verdict.ok for verdict in verdicts)
    assert reply.results.changed == ()
    assert reply.kernel_seconds > 0
    for name, values in base.items():
        assert np.array_equal(np.load(tmp_path / "scenario" / f"{name}.npy"), values)
    seen = {Variant.of(place.name) for place in (tmp_path / "scenario").iterdir() if place.is_dir()}
    weights = {Variant(change, telling.KIND, "another kernel") for change in range(1, telling.WEIGHT_CHANGES + 1)}
    forward = Variant(0, telling.EXCHANGED, "in place")
    step = Variant(1, telling.KIND, "two on one weight")
    changes = {Variant(0, telling.CHANGED, "in place"), Variant(1, telling.EXCHANGED, "in place")}
    assert seen == weights | changes | {forward if mode == "forward" else step}


def test_kernel_that_takes_long_to_prepare_is_prepared_three_times(tmp_path, monkeypatch):
    monkeypatch.setattr(scenario_kernels, "KERNELS_SECONDS", 0.0)
    prepared_kernels = []

    class Slow(Honest):
        def prepare_forward(self, case, weight, bias):
            prepared_kernels.append(weight)
            return super().prepare_forward(case, weight, bias)

    _, verdicts, _ = asked(Slow("cpu"), tmp_path)
    assert len(prepared_kernels) == 4, "the prepared case, a first kernel, another one, a changed weight"
    assert len(verdicts) == 4


@pytest.mark.parametrize("mode", MODES)
def test_slow_calls_have_all_changes_at_once_and_steps_overlap(tmp_path, mode):
    calls = []

    class Counts(Honest):
        def output(self, *given):
            calls.append("output")
            return super().output(*given)

    _, verdicts, _ = asked(Counts("cpu"), tmp_path, mode, slow=True)
    seen = {Variant.of(place.name) for place in (tmp_path / "scenario").iterdir() if place.is_dir()}
    step = {Variant(1, telling.KIND, "another kernel")} if mode == "forward_backward" else set()
    assert seen == {Variant(1, telling.EXCHANGED, "in place")} | step
    assert len(calls) == 3 + len(step), "the first call, one without a change, one with all changes"
    assert all(verdict.ok for verdict in verdicts)


@pytest.mark.parametrize("fault", ["weight", "input1"])
def test_slow_calls_show_what_is_known_by_its_place_in_memory(tmp_path, fault):
    class Remembers(Honest):
        known: ClassVar[dict[int, np.ndarray]] = {}

        def output(self, input1, input2, weight, bias):
            given = {"weight": weight, "input1": input1}
            place = given[fault].ctypes.data
            given[fault] = self.known.setdefault(place, given[fault].copy())
            return super().output(given["input1"], input2, given["weight"], bias)

    _, verdicts, _ = asked(Remembers("cpu"), tmp_path, slow=True)
    assert not all(verdict.ok for verdict in verdicts)


def test_kernels_that_share_a_result_hand_that_over(tmp_path):
    class Shares(Plain):
        buffer = np.empty((CASE.batch, CASE.out_features), np.float32)

        def prepare_forward(self, case, weight, bias):
            kernel = super().prepare_forward(case, weight, bias)

            def shares(input1, input2):
                self.buffer[...] = kernel(input1, input2)
                return self.buffer

            return shares

    reply, verdicts, _ = asked(Shares("cpu"), tmp_path)
    assert reply.results.storages.results == reply.results.storages.earlier
    assert not verdicts


def test_changed_inputs_and_weights_are_told(tmp_path):
    class Scribbles(Honest):
        def output(self, input1, input2, weight, bias):
            right = super().output(input1, input2, weight, bias)
            input2[0, 0] += 1
            return right

    reply, _, _ = asked(Scribbles("cpu"), tmp_path)
    assert reply.results.changed == ("input2",)

"""Scenario ``another kernel``, run in this process."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import oracle
import pytest
from small_backends import Plain, ask, prepared

from harness.case import MODES, Case
from harness.correctness import telling
from harness.correctness.inputs import make_inputs
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
    reply = ask(worker, RunScenario("another kernel", folder / "scenario", few_calls=slow))
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
def test_slow_backend_is_called_twice_and_a_slow_step_three_times(tmp_path, mode):
    calls = []

    class Counts(Honest):
        def output(self, *given):
            calls.append("output")
            return super().output(*given)

    reply, verdicts, _ = asked(Counts("cpu"), tmp_path, mode, slow=True)
    seen = {Variant.of(place.name) for place in (tmp_path / "scenario").iterdir() if place.is_dir()}
    if mode == "forward":
        assert seen == {Variant(0, telling.EXCHANGED_ALONE, "in place")}
    else:
        two = Variant(0, telling.CHANGED, "two on one weight")
        assert seen == {two, Variant(1, telling.EXCHANGED_ALONE, "in place")}
    assert len(calls) == 2 + len(seen), "the prepared case's call, and one without a change"
    assert len(verdicts) == len(seen)
    assert all(verdict.ok for verdict in verdicts)
    assert reply.kernel_seconds is None


def wrong(backend, folder, mode):
    """True if the scenario shows a slow backend to be wrong."""
    _, verdicts, base = asked(backend, folder, mode, slow=True)
    right = all(np.array_equal(np.load(folder / "scenario" / f"{name}.npy"), base[name]) for name in base)
    return not right or not all(verdict.ok for verdict in verdicts)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("fault", ["weight", "input1"])
def test_slow_calls_show_what_is_known_by_its_place_and_sum(tmp_path, fault, mode):
    class Remembers(Honest):
        known: ClassVar[dict[tuple[int, float], np.ndarray]] = {}

        def output(self, input1, input2, weight, bias):
            given = {"weight": weight, "input1": input1}
            looked_at = given[fault].ctypes.data, float(given[fault].sum(dtype=float))
            given[fault] = self.known.setdefault(looked_at, given[fault].copy())
            return super().output(given["input1"], input2, given["weight"], bias)

        def prepare_forward(self, case, weight, bias):
            looked_at = weight.ctypes.data, float(weight.sum(dtype=float))
            packed = self.known.setdefault(looked_at, weight.copy()) if fault == "weight" else weight
            return super().prepare_forward(case, packed, bias)

    assert wrong(Remembers("cpu"), tmp_path, mode)


@pytest.mark.parametrize("slots", [1, 2, 3, 4, 5])
def test_packed_weights_in_turn_spoil_the_slow_case_that_is_prepared(tmp_path, slots):
    class TakesTurns(Honest):
        packed: ClassVar[dict[int, np.ndarray]] = {}
        number = 0

        def prepare_forward(self, case, weight, bias):
            slot = self.number % slots
            self.number += 1
            self.packed[slot] = weight.copy()
            return lambda input1, input2: self.output(input1, input2, self.packed[slot], bias)

    backend = TakesTurns("cpu")
    asked(backend, tmp_path, slow=True)
    assert not np.array_equal(backend.packed[0], make_inputs(CASE)["weight"]), "which the telling rows show"


def test_slow_steps_show_a_state_kept_by_the_weights_place(tmp_path):
    class Shares(Honest):
        def prepare_forward_backward(self, case):
            step, states = super().prepare_forward_backward(case), self.states

            class Step:
                def forward(self, input1, input2, weight, bias):
                    self.place = weight.ctypes.data
                    states[self.place] = input1, input2, weight, bias
                    return step.forward(input1, input2, weight, bias)

                def backward(self, grad_output):
                    step.forward(*states[self.place])
                    return step.backward(grad_output)

            return Step()

        states: ClassVar[dict[int, tuple]] = {}

    assert wrong(Shares("cpu"), tmp_path, "forward_backward")


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

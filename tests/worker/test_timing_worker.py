"""The timing requests, run in this process, where tests see the arrays."""

from __future__ import annotations

import sys
import weakref

import numpy as np
import pytest
from small_backends import MIB, Hungry, Interrupted, Plain, ask, prepared

from harness.correctness.conduct import judge_memory_of_answers
from harness.machine import memory
from harness.process.protocol import CheckFresh, MeasureMemory, MoveArrays, TakeSample, WarmUp
from harness.timing.clock import Clock
from harness.worker import results


@pytest.fixture
def backend(tmp_path):
    return prepared(Plain("cpu"), tmp_path)


def addresses(worker):
    sets = [array.ctypes.data for inputs in worker.held.prepared.sets for array in inputs.values()]
    return sets, worker.held.prepared.kernel.weight.ctypes.data


def test_moving_changes_every_address_and_no_value(backend):
    before = [{name: array.copy() for name, array in inputs.items()} for inputs in backend.held.prepared.sets]
    kept = backend.held.prepared.sets  # kept alive, so that no address is used again by chance
    sets, weight = addresses(backend)
    ask(backend, MoveArrays(new_kernel=True))
    moved_sets, moved_weight = addresses(backend)
    assert not set(sets) & set(moved_sets)
    assert moved_weight != weight
    for earlier, inputs in zip(before, backend.held.prepared.sets, strict=True):
        assert all(np.array_equal(earlier[name], array) for name, array in inputs.items())
    assert kept is not backend.held.prepared.sets


def test_moving_without_a_new_kernel_calls_the_old_one_on_new_arrays(backend):
    kernel, first = backend.held.prepared.kernel, backend.held.prepared.calls[0]()
    ask(backend, MoveArrays(new_kernel=False))
    assert backend.held.prepared.kernel is kernel
    assert np.array_equal(backend.held.prepared.calls[0](), first)
    assert backend.held.prepared.calls[0].args[0] is backend.held.prepared.sets[0]["input1"]


def test_moving_draws_new_addresses_each_time(backend):
    offsets = set()
    for _ in range(32):
        ask(backend, MoveArrays(new_kernel=True))
        offsets.add(backend.held.prepared.sets[0]["input1"].ctypes.data % 4096)
    assert len(offsets) > 2


def test_a_sample_reports_involuntary_switches(backend):
    taken = ask(backend, TakeSample(calls=3, first=0, settle_seconds=0.0, forward=False))
    assert taken.seconds > 0
    assert taken.involuntary_switches >= 0


def test_a_disturbed_second_call_does_not_look_like_memoising(tmp_path):
    backend = Interrupted("cpu")
    worker = prepared(backend, tmp_path, Clock(lambda: backend.seconds))
    (tmp_path / "results").mkdir()
    reply = ask(worker, CheckFresh((5, 6, 7, 8, 9), "normal", tmp_path / "results"))
    for seconds in (reply.fresh_seconds, reply.seen_seconds):
        assert sorted(seconds) == pytest.approx([0.001] * 2 + [0.005] * 2)
    assert judge_memory_of_answers(reply.fresh_seconds, reply.seen_seconds).ok


def test_warming_up_reports_busy_threads(backend):
    busy = ask(backend, WarmUp(seconds=0.05, at_least=1)).busy
    if busy is None:
        pytest.skip("this system has no /proc/self/task/*/schedstat")
    assert busy.runnable > 0.1, "on a busy machine no thread may have run for a tenth of the time"


def test_the_memory_of_a_call_is_its_peak(tmp_path):
    needed = {}
    for kind in (Plain, Hungry):
        needed[kind] = ask(prepared(kind("cpu"), tmp_path), MeasureMemory()).peak_bytes
    if None in needed.values():
        pytest.skip("this system does not reset the high-water mark of a process")
    # Linux counts pages for each thread, and adds the counts up only at times.
    assert needed[Plain] < 8 * MIB
    assert 62 * MIB <= needed[Hungry] < 72 * MIB


def test_an_earlier_larger_call_does_not_count(tmp_path):
    peaks = [memory.peak_bytes(lambda size=size: np.ones(size, np.uint8), "cpu") for size in (64 * MIB, 4 * MIB)]
    if None in peaks:
        pytest.skip("this system does not reset the high-water mark of a process")
    assert peaks[0] >= 62 * MIB
    assert peaks[1] < 12 * MIB


def test_call_is_made_where_its_memory_cannot_be_known(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setitem(sys.modules, "torch", None)
    assert memory.peak_bytes(lambda: calls.append("cuda"), "cuda") is None
    assert memory.peak_bytes(lambda: calls.append("cpu"), "cpu", tmp_path / "no proc") is None
    assert calls == ["cuda", "cpu"]
    assert memory.peak_bytes(lambda: None, "cpu", tmp_path / "no proc") is None
    (tmp_path / "status").write_text("Name: x\n")
    assert memory.peak_bytes(lambda: None, "cpu", tmp_path) is None


@pytest.mark.parametrize("error", [KeyError, OSError])
def test_error_of_a_call_whose_memory_is_measured_is_raised(tmp_path, error):
    def call():
        raise error("injected")

    with pytest.raises(error, match="injected"):
        memory.peak_bytes(call, "cpu")
    with pytest.raises(error, match="injected"):
        memory.peak_bytes(call, "cpu", tmp_path / "no proc")


def test_settling_adds_one_call_before_each_pair(tmp_path):
    calls = {}
    for settle in (True, False):
        (folder := tmp_path / str(settle)).mkdir()
        worker = prepared(Interrupted("cpu"), folder)
        before = worker.held.backend.calls
        ask(worker, CheckFresh((5, 6, 7), "normal", folder, settle=settle))
        calls[settle] = worker.held.backend.calls - before
    assert calls == {True: 2 * 3 + 1, False: 2 * 2 + 1}


class Pool:
    """The memory of a device: it hands out first the block that was freed last, with its old values."""

    def __init__(self):
        self.freed = {}

    def empty(self, shape):
        count = int(np.prod(shape))
        freed = self.freed.setdefault(count, [])
        block = freed.pop() if freed else np.zeros(count, np.float32)
        array = block.reshape(shape)
        weakref.finalize(array, freed.append, block)
        return array

    def filled(self, values):
        array = self.empty(values.shape)
        array[...] = values
        return array


class LeavesOut(Plain):
    """Writes all but the last element, into memory of the pool."""

    name, pool = "numpy-leaves-out", None

    def prepare_forward(self, case, weight, bias):
        whole = super().prepare_forward(case, weight, bias)

        def kernel(input1, input2):
            output = self.pool.empty((case.batch, case.out_features))
            output.reshape(-1)[:-1] = whole(input1, input2).reshape(-1)[:-1]
            return output

        return kernel


@pytest.mark.parametrize(("device", "spoilt"), [("cpu", False), ("cuda", True)])
def test_unwritten_memory_of_a_device_holds_no_earlier_result(tmp_path, monkeypatch, device, spoilt):
    monkeypatch.setattr(LeavesOut, "pool", Pool())
    worker = prepared(LeavesOut("cpu"), tmp_path)
    monkeypatch.setattr(worker.held.prepared.arrays, "place", LeavesOut.pool.filled)
    monkeypatch.setattr(results, "well_formed", lambda *_: True)
    monkeypatch.setattr(worker.held.backend, "device", device)
    ask(worker, CheckFresh((5,), "normal", tmp_path))
    assert np.isnan(np.load(tmp_path / "output.npy")[-1, -1]) == spoilt

"""What a backend's worker does around the calls; here in this process, so that its arrays can be looked at."""

from __future__ import annotations

import gc
import sys
import types
import weakref

import numpy as np
import pytest

from harness import Backend
from harness.case import Case
from harness.correctness.conduct import judge_memory_of_answers
from harness.machine import memory
from harness.process.protocol import (
    CheckFresh,
    KeptResults,
    Load,
    MeasureMemory,
    MoveArrays,
    Prepare,
    Release,
    Released,
    RunScenario,
    TakeSample,
    WarmUp,
)
from harness.timing.clock import Clock
from harness.worker.backend_worker import BackendWorker

CASE = Case(128, 20, 30, 40)
MIB = 2**20


class Plain(Backend):
    """The operator by one einsum, with a workspace of so many bytes that is touched and freed."""

    name = "numpy-plain"
    workspace_bytes_touched = 0

    def prepare_forward(self, case, weight, bias):
        def kernel(input1, input2):
            np.ones(self.workspace_bytes_touched, np.uint8)
            return np.einsum("bi,oij,bj->bo", input1, weight, input2, dtype=np.float32) + bias

        kernel.weight = weight
        return kernel


class Hungry(Plain):
    """Touches 64 MiB besides."""

    workspace_bytes_touched = 64 * MIB


class Interrupted(Plain):
    """Of three calls in a row the last takes five times as long; by a clock of its own."""

    def __init__(self, device):
        super().__init__(device)
        self.calls, self.seconds = 0, 0.0

    def prepare_forward(self, case, weight, bias):
        kernel = super().prepare_forward(case, weight, bias)

        def interrupted(input1, input2):
            self.calls += 1
            self.seconds += 0.005 if self.calls % 3 == 1 else 0.001  # the first one is that of preparing
            return kernel(input1, input2)

        return interrupted


@pytest.fixture
def backend(tmp_path):
    return prepared(Plain, tmp_path)


def prepared(kind, folder):
    worker = BackendWorker()
    worker.hold(kind("cpu"))
    worker.prepare(Prepare(CASE, 2, folder))
    return worker


def addresses(worker):
    sets = [array.ctypes.data for inputs in worker.prepared.sets for array in inputs.values()]
    return sets, worker.prepared.kernel.weight.ctypes.data


def test_placing_moves_every_array_and_changes_no_value(backend):
    before = [{name: array.copy() for name, array in inputs.items()} for inputs in backend.prepared.sets]
    kept = backend.prepared.sets  # alive, so that an address cannot be used again by chance
    sets, weight = addresses(backend)
    backend.place(MoveArrays(new_kernel=True))
    moved_sets, moved_weight = addresses(backend)
    assert not set(sets) & set(moved_sets)
    assert moved_weight != weight
    for earlier, inputs in zip(before, backend.prepared.sets, strict=True):
        assert all(np.array_equal(earlier[name], array) for name, array in inputs.items())
    assert kept is not backend.prepared.sets


def test_placing_leaves_a_kernel_that_is_dear_alone_and_calls_it_with_the_new_arrays(backend):
    kernel, first = backend.prepared.kernel, backend.prepared.calls[0]()
    backend.place(MoveArrays(new_kernel=False))
    assert backend.prepared.kernel is kernel
    assert np.array_equal(backend.prepared.calls[0](), first)
    assert backend.prepared.calls[0].args[0] is backend.prepared.sets[0]["input1"]


def test_placing_draws_new_places_each_time(backend):
    offsets = set()
    for _ in range(8):
        backend.place(MoveArrays(new_kernel=True))
        offsets.add(backend.prepared.sets[0]["input1"].ctypes.data % 4096)
    assert len(offsets) > 2


def test_a_sample_tells_how_often_the_cpu_was_taken_away(backend):
    taken = backend.sample(TakeSample(calls=3, first=0, settle_seconds=0.0, forward=False))
    assert taken.seconds > 0
    assert taken.involuntary_switches >= 0


@pytest.mark.parametrize(("call_seconds", "calls"), [(1.0, 1), (0.11, 2), (0.001, 32)])
def test_the_first_inputs_again_are_called_on_as_often_as_they_take_no_time(tmp_path, monkeypatch, call_seconds, calls):
    worker, made = prepared(Plain, tmp_path), []
    now = types.SimpleNamespace(seconds=0.0)
    monkeypatch.setattr("harness.worker.backend_worker.time", types.SimpleNamespace(perf_counter=lambda: now.seconds))
    # With PyTorch in the process, as other tests leave it, there is one more call, to see which of its operators run.
    monkeypatch.setattr(worker, "_borrows_torch", lambda _: False)
    kernel = worker.prepared.kernel

    def slow(*inputs):
        now.seconds += call_seconds
        made.append(kernel(*inputs))
        return made[-1]

    worker.prepared.kernel = slow
    reply = worker.scenario(RunScenario("again", tmp_path))
    assert len(made) == calls
    assert reply.call_seconds == pytest.approx(call_seconds)
    assert len(reply.results.storages.earlier) == calls, (
        "the first result, and all again but the one that is handed over"
    )


@pytest.mark.parametrize(("offset", "many"), [(1e-3, 3), (np.nan, 2), (np.nan, 3), (np.inf, 2), (np.inf, 3)])
@pytest.mark.parametrize("odd", [0, 1])
def test_of_kept_results_the_one_that_differs_is_handed_over(backend, tmp_path, offset, many, odd):
    right = np.linspace(1, 2, CASE.batch * CASE.out_features, dtype=np.float32).reshape(CASE.batch, CASE.out_features)
    wrong = right + np.float32([[offset]] + [[0]] * (CASE.batch - 1))
    backend.prepared.kept = [wrong if number == odd else right.copy() for number in range(many)]
    backend.kept(KeptResults(False, tmp_path))
    assert np.array_equal(np.load(tmp_path / "output.npy"), wrong, equal_nan=True)


def test_kept_results_of_the_same_bits_are_as_good_as_each_other(backend, tmp_path, monkeypatch):
    right = np.ones((CASE.batch, CASE.out_features), np.float32)
    backend.prepared.kept = [right.copy() for _ in range(4)]
    monkeypatch.setattr(np, "median", lambda *_, **__: pytest.fail("that takes long, and there is nothing to choose"))
    backend.kept(KeptResults(False, tmp_path))
    assert np.array_equal(np.load(tmp_path / "output.npy"), right)


def test_a_machine_that_disturbs_the_second_of_two_calls_does_not_make_a_backend_remember_answers(tmp_path):
    worker = prepared(Interrupted, tmp_path)
    worker._clock = Clock(lambda: worker.backend.seconds)
    (tmp_path / "results").mkdir()
    reply = worker.check(CheckFresh((5, 6, 7, 8, 9), "normal", tmp_path / "results"))
    for seconds in (reply.fresh_seconds, reply.seen_seconds):
        assert sorted(seconds) == pytest.approx([0.001] * 2 + [0.005] * 2)
    assert judge_memory_of_answers(reply.fresh_seconds, reply.seen_seconds).ok


def test_warming_up_tells_how_many_threads_it_kept_busy(backend):
    busy = backend.warm_up(WarmUp(seconds=0.05, at_least=1)).busy
    if busy is None:
        pytest.skip("this system has no /proc/self/task/*/schedstat")
    assert busy.threads >= 1
    assert busy.runnable > 0.1


def test_the_memory_of_a_call_is_what_it_touches_at_its_peak(tmp_path):
    needed = {}
    for kind in (Plain, Hungry):
        needed[kind] = prepared(kind, tmp_path).memory(MeasureMemory(3)).peak_bytes
    if None in needed.values():
        pytest.skip("this system does not reset the high-water mark of a process")
    # The kernel counts pages for each thread by itself, and adds them up now and then.
    assert needed[Plain] < 8 * MIB
    assert 62 * MIB <= needed[Hungry] < 72 * MIB


def test_a_larger_call_before_does_not_count(tmp_path):
    peaks = [memory.peak_bytes(lambda size=size: np.ones(size, np.uint8), "cpu") for size in (64 * MIB, 4 * MIB)]
    if None in peaks:
        pytest.skip("this system does not reset the high-water mark of a process")
    assert peaks[0] >= 62 * MIB
    assert peaks[1] < 12 * MIB


def test_memory_is_unknown_where_the_system_does_not_tell(tmp_path):
    assert memory.peak_bytes(lambda: None, "cpu", tmp_path / "no proc") is None
    (tmp_path / "status").write_text("Name: x\n")
    assert memory.peak_bytes(lambda: None, "cpu", tmp_path) is None


def test_a_case_that_is_released_gives_the_gpu_s_memory_back(tmp_path, monkeypatch):
    worker, given_back = prepared(Plain, tmp_path), []

    def give_back(name):
        assert worker._prepared is None  # before that there would be nothing to give
        given_back.append(name)

    cuda = types.SimpleNamespace(is_initialized=lambda: True, empty_cache=lambda: give_back("torch"))
    pool = types.SimpleNamespace(free_all_blocks=lambda: give_back("cupy"))
    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(cuda=cuda))
    monkeypatch.setitem(sys.modules, "cupy", types.SimpleNamespace(get_default_memory_pool=lambda: pool))
    assert worker.release(Release()) == Released(trimmed=True)
    assert given_back == ["torch", "cupy"]


def test_what_an_import_leaves_behind_is_not_searched_for_garbage_again(monkeypatch):
    frozen = []
    monkeypatch.setattr(gc, "freeze", lambda: frozen.append("backends.numpy_loop" in sys.modules))
    assert BackendWorker().load(Load("numpy-loop", "backends.numpy_loop:NumpyLoop", "cpu")).available
    assert frozen == [True]


def test_a_call_before_each_pair_brings_back_what_making_inputs_has_displaced_unless_it_is_not_asked_for(tmp_path):
    calls = {}
    for settle in (True, False):
        (folder := tmp_path / str(settle)).mkdir()
        worker = prepared(Interrupted, folder)
        before = worker.backend.calls
        worker.check(CheckFresh((5, 6, 7), "normal", folder, settle=settle))
        calls[settle] = worker.backend.calls - before
    assert calls == {True: 2 * 3 + 1, False: 2 * 2 + 1}


@pytest.mark.parametrize(("device", "trimmed"), [("cpu", True), ("cuda", False)])
def test_jax_says_that_it_keeps_what_it_had_of_a_gpu(tmp_path, monkeypatch, device, trimmed):
    worker = prepared(Plain, tmp_path)
    monkeypatch.setitem(sys.modules, "jax", types.ModuleType("jax"))
    monkeypatch.setattr(worker.backend, "device", device)
    assert worker.release(Release()) == Released(trimmed)


class Pool:
    """A device's memory: what was freed last is handed out first, as it is."""

    def __init__(self):
        self.freed = {}

    def empty(self, shape):
        count = int(np.prod(shape))
        freed = self.freed.setdefault(count, [])
        block = freed.pop() if freed else np.zeros(count, np.float32)
        array = block.reshape(shape)
        weakref.finalize(array, freed.append, block)
        return array

    def filled(self, values, case):
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
def test_what_is_not_written_on_a_device_is_no_earlier_answer(tmp_path, monkeypatch, device, spoilt):
    monkeypatch.setattr(LeavesOut, "pool", Pool())
    worker = prepared(LeavesOut, tmp_path)
    monkeypatch.setattr(worker, "_to_device", LeavesOut.pool.filled)
    monkeypatch.setattr(worker, "_formed", lambda *_: True)
    monkeypatch.setattr(worker.backend, "device", device)
    worker.check(CheckFresh((5,), "normal", tmp_path))
    assert np.isnan(np.load(tmp_path / "output.npy")[-1, -1]) == spoilt

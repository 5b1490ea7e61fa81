"""Loading, preparing and releasing, and that every request of a backend's worker has a handler."""

from __future__ import annotations

import gc
import sys
import types
import weakref

import numpy as np
import pytest
from small_backends import CASE, Plain, ask, prepared

from harness.process.protocol import AskSupport, CheckIntegrity, Load, MoveArrays, Prepare, Release, Released
from harness.worker import arrays
from harness.worker.backend_worker import BackendWorker


class CountsInputs(Plain):
    """Counts the inputs that exist while its kernel is made, of those that the test has noted."""

    name = "numpy-counts-inputs"

    def __init__(self, noted):
        super().__init__("cpu")
        self.noted, self.counts = noted, []

    def prepare_forward(self, case, weight, bias):
        shapes = [shape for name, shape in case.shapes().items() if name not in arrays.PARAMETERS]
        alive = [array for reference in self.noted if (array := reference()) is not None]
        self.counts.append(sum(array.shape in shapes for array in alive))
        return super().prepare_forward(case, weight, bias)


def test_no_input_exists_while_a_kernel_is_made(tmp_path, monkeypatch):
    noted = []

    def noting(make):
        def made(*arguments, **named):
            result = make(*arguments, **named)
            noted.extend(map(weakref.ref, result.values() if isinstance(result, dict) else [result]))
            return result

        return made

    monkeypatch.setattr(arrays, "make_inputs", noting(arrays.make_inputs))
    monkeypatch.setattr(arrays, "place", noting(arrays.place))
    backend = CountsInputs(noted)
    worker = prepared(backend, tmp_path)
    assert len(noted) == 12, "two parameters and two sets of two inputs, on the host and on the device"
    ask(worker, Prepare(CASE, 2, tmp_path))
    ask(worker, MoveArrays(new_kernel=True))
    assert backend.counts == [0, 0, 0]


def test_what_an_import_leaves_is_frozen_for_the_collector(monkeypatch):
    frozen = []
    monkeypatch.setattr(gc, "freeze", lambda: frozen.append("backends.numpy_loop" in sys.modules))
    assert ask(BackendWorker(), Load("numpy-loop", "backends.numpy_loop:NumpyLoop", "cpu")).available
    assert frozen == [True]


def test_a_backend_that_lacks_a_package_of_others_is_unavailable(tmp_path, monkeypatch):
    (tmp_path / "peer_of_others.py").write_text("import no_such_package\n")
    monkeypatch.syspath_prepend(tmp_path)
    reply = ask(BackendWorker(), Load("numpy-none", "peer_of_others:Nothing", "cpu"))
    assert (reply.available, reply.offered) == (False, True)
    assert reply.reason == "ModuleNotFoundError at import: No module named 'no_such_package'"


def test_an_entry_point_that_leads_nowhere_raises():
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        ask(BackendWorker(), Load("numpy-none", "no_such_module:Nothing", "cpu"))


def test_a_device_that_a_backend_does_not_run_on_is_not_offered():
    reply = ask(BackendWorker(), Load("numpy-loop", "backends.numpy_loop:NumpyLoop", "cuda"))
    assert (reply.available, reply.offered, reply.reason) == (False, False, "numpy-loop runs on cpu")


def test_a_request_before_loading_raises():
    with pytest.raises(RuntimeError, match="no backend is loaded"):
        ask(BackendWorker(), AskSupport(CASE))


def test_a_changed_input_and_a_replaced_function_are_named(tmp_path, monkeypatch):
    worker = prepared(Plain("cpu"), tmp_path)
    before = ask(worker, CheckIntegrity(tmp_path))
    assert (before.changed, before.replaced) == ((), ())
    worker.held.prepared.sets[0]["input1"][0, 0] += 1
    worker.held.prepared.sets[1]["input2"][0, 0] += 1
    monkeypatch.setattr("harness.worker.integrity.same_bits", np.array_equal)
    after = ask(worker, CheckIntegrity(tmp_path))
    assert after.changed == ("input1", "input2 of input set 1")
    assert after.replaced == ("harness.worker.integrity.same_bits",)


def test_a_released_case_gives_the_gpu_s_memory_back(tmp_path, monkeypatch):
    worker, given_back = prepared(Plain("cpu"), tmp_path), []

    def give_back(name):
        with pytest.raises(RuntimeError, match="no case is prepared"):
            _ = worker.held.prepared  # a prepared case would still hold its memory
        given_back.append(name)

    cuda = types.SimpleNamespace(is_initialized=lambda: True, empty_cache=lambda: give_back("torch"))
    pool = types.SimpleNamespace(free_all_blocks=lambda: give_back("cupy"))
    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(cuda=cuda))
    monkeypatch.setitem(sys.modules, "cupy", types.SimpleNamespace(get_default_memory_pool=lambda: pool))
    assert ask(worker, Release()) == Released(trimmed=True)
    assert given_back == ["torch", "cupy"]


@pytest.mark.parametrize(("device", "trimmed"), [("cpu", True), ("cuda", False)])
def test_jax_says_that_it_keeps_the_gpu_s_memory(tmp_path, monkeypatch, device, trimmed):
    worker = prepared(Plain("cpu"), tmp_path)
    monkeypatch.setitem(sys.modules, "jax", types.ModuleType("jax"))
    monkeypatch.setattr(worker.held.backend, "device", device)
    assert ask(worker, Release()) == Released(trimmed)

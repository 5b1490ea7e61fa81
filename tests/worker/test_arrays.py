"""Arrays in each framework's words; a fake CuPy has arrays of NumPy that call themselves a GPU's."""

from __future__ import annotations

import contextlib
import sys
import types

import numpy as np
import pytest
from command_line import python

from backends.numpy_loop import NumpyLoop
from harness import Backend
from harness.case import Case
from harness.correctness.inputs import make_inputs
from harness.worker import arrays, gpu_clock, integrity


class Foreign(Backend):
    """A backend whose methods must not be called, because the worker knows CuPy's arrays."""

    name = "numpy-foreign"

    def prepare_forward(self, case, weight, bias):
        raise AssertionError

    to_device = synchronize = to_numpy = prepare_forward


@pytest.fixture
def cupy(monkeypatch):
    made = types.ModuleType("cupy")
    waited = []

    class Device(contextlib.nullcontext):
        def synchronize(self):
            waited.append(self)

        def __str__(self):
            return "<CUDA Device 0>"

    Device.__module__ = "cupy.cuda.device"

    class ndarray:  # noqa: N801  # CuPy's name
        device = Device()

        def __init__(self, values):
            self.host = values
            self.dtype, self.shape, self.nbytes = values.dtype, values.shape, values.nbytes
            self.__cuda_array_interface__ = {"data": (values.ctypes.data, False)}

        def get(self):
            return self.host.copy()

        def set(self, values):
            self.host[...] = values

    ndarray.__module__ = "cupy"
    made.RawKernel = lambda text, name: None
    made.ndarray, made.array, made.waited = ndarray, lambda values: ndarray(values.copy()), waited
    monkeypatch.setitem(sys.modules, "cupy", made)
    return made


def test_cupy_s_own_means_handle_its_arrays(cupy):
    backend = Foreign("cuda")
    like = cupy.array(np.zeros((1, 1), np.float16))
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    placed = arrays.place(values, like)
    assert arrays.framework(placed) == "cupy"
    assert integrity.describe(placed).dtype == "float16"
    assert integrity.describe(placed).device == "cuda"
    assert integrity.storage(placed).size == 12
    assert np.array_equal(arrays.to_host(placed, backend), values)
    assert arrays.to_host(placed, backend).dtype == np.float32
    assert arrays.refill(placed, values + 1, backend, "float16") is placed
    assert np.array_equal(arrays.to_host(placed, backend), values + 1)
    arrays.waiter(backend, like)(placed)
    assert cupy.waited == [like.device]


def test_arrays_of_cupy_are_timed_by_events_of_cupy(cupy):
    assert isinstance(gpu_clock.clock_of(cupy.array(np.zeros(1))), gpu_clock.CupyClock)
    with pytest.raises(NotImplementedError, match="no events"):
        gpu_clock.clock_of(np.zeros(1))


def test_an_unknown_framework_gets_a_copy_of_the_values():
    class Unknown:
        """An array that cannot be written to, so the worker makes a new one."""

    class Clinging(Backend):
        """A backend that wraps its input array without a copy, and writes into it."""

        name = "unknown-clinging"

        def prepare_forward(self, case, weight, bias):
            raise AssertionError

        def to_device(self, array, dtype):
            array[...] = 7
            made = Unknown()
            made.host = array
            return made

    values = np.ones((2, 3), np.float32)
    new = arrays.refill(Unknown(), values, Clinging("cpu"), "float32")
    assert np.array_equal(new.host, np.full((2, 3), 7))
    assert np.array_equal(values, np.ones((2, 3)))


#: A program for a process of its own: PyTorch warns only once in a process.
READ_ONLY = """
import warnings
import numpy as np
import torch
from harness.worker import arrays

warnings.simplefilter("error")
values = np.ones((2, 3), np.float32)
values.setflags(write=False)
target = torch.zeros(2, 3)
assert arrays.refill(target, values, None, "float32") is target
assert target.tolist() == values.tolist()
"""


def test_pytorch_does_not_warn_of_values_that_are_only_read():
    pytest.importorskip("torch", reason="PyTorch is not installed")
    ended = python(READ_ONLY)
    assert ended.returncode == 0, ended.stderr


STEP = Case(5, 3, 4, 2, mode="forward_backward")


@pytest.fixture
def made():
    return arrays.DeviceArrays(NumpyLoop("cpu"), STEP)


def test_values_in_rotation_are_drawn_once_and_cannot_be_written(made, monkeypatch):
    drawn = []
    monkeypatch.setattr(arrays, "make_inputs", lambda *given, **named: drawn.append(1) or make_inputs(*given, **named))
    first, again = (made.values(made.inputs, variation=1) for _ in range(2))
    assert len(drawn) == 1
    assert all(first[name] is again[name] and not first[name].flags.writeable for name in made.inputs)
    made.forget()
    assert made.values(made.inputs, variation=1)["input1"] is not first["input1"]


def test_the_latest_other_values_are_drawn_once_and_cannot_be_written(made, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        arrays, "make_inputs", lambda *given, **named: drawn.append(given) or make_inputs(*given, **named)
    )
    names = (*made.inputs, *made.parameters)
    first, again = (made.values(names, 7, "new weight") for _ in range(2))
    assert len(drawn) == 1
    assert all(first[name] is again[name] and not first[name].flags.writeable for name in names)
    other = made.values(names, 8, "new weight")
    assert len(drawn) == 2
    assert not np.array_equal(other["weight"], first["weight"])
    assert made.values(names, 7, "new weight")["weight"] is not first["weight"], "one set of other values is kept"


def test_parameters_are_the_same_in_every_input_set(made):
    assert made.values(made.parameters, 0)["weight"] is made.values(made.parameters, 1)["weight"]


@pytest.mark.parametrize(("variation", "kind"), [(0, "normal"), (1, "normal"), (7, "normal"), (0, "integers")])
def test_values_do_not_depend_on_which_arrays_are_wanted(made, variation, kind):
    whole = make_inputs(STEP, variation, kind)
    for name, values in whole.items():
        assert np.array_equal(made.values([name], variation, kind)[name], values)


def test_refilling_keeps_the_memory_and_changes_the_values(made):
    targets = made.make(made.inputs)
    filled = made.refill(targets, 7, "new weight")
    for name, right in make_inputs(STEP, 7, "new weight", made.inputs).items():
        assert filled[name] is targets[name]
        assert np.array_equal(made.host(filled)[name], right)

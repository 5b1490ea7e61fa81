"""Where results are made: the innermost function of the backend's own files that returned them."""

from __future__ import annotations

import functools

import numpy as np
from oracle import HonestBackend

from harness.worker.source import definition_of, location_of, makers


class Mine(HonestBackend):
    name = "numpy-mine"

    def prepare_forward(self, case, weight, bias):
        def kernel(input1, input2):
            return inner(input1)

        return kernel


class Inherits(HonestBackend):
    """Has no line of its own that makes a result."""

    name = "numpy-inherits"


def inner(input1):
    shape = input1.shape
    return np.zeros(shape)


KERNEL = Mine("cpu").prepare_forward(None, None, None)


def test_the_line_is_that_of_the_innermost_return():
    made = makers(lambda: {"output": KERNEL(np.ones(2), None)}, Mine("cpu"))
    assert str(made["output"]) == f"test_source.py:{inner.__code__.co_firstlineno + 2} inner"


def test_results_in_a_tuple_are_found():
    def backward():
        return inner(np.ones(2)), np.ones(3)

    def call():
        first, second = backward()
        return {"grad_input1": first, "grad_input2": second}

    made = makers(call, Mine("cpu"))
    assert {name: place.function for name, place in made.items()} == {
        "grad_input1": "inner",
        "grad_input2": "backward",
    }


def test_a_result_of_other_files_is_left_out():
    assert makers(lambda: {"output": np.zeros(2)} | {}, Mine("cpu")) == {}


def test_a_function_is_found_through_wrappers():
    class Called:
        def __call__(self, input1):
            return inner(input1)

    @functools.wraps(inner)
    def wrapped(*arguments):
        return inner(*arguments)

    line = inner.__code__.co_firstlineno
    assert definition_of(functools.partial(inner, 1)).line == line
    assert definition_of(wrapped).line == line
    assert definition_of(Called()).function == "__call__"
    assert definition_of(Mine("cpu").prepare_forward).function == "prepare_forward"
    assert definition_of(len) is None


def test_a_backend_without_lines_of_its_own_is_placed_at_its_class():
    place = location_of(lambda: None, Inherits("cpu"))
    assert place.function == "lambda"
    place = location_of(np.zeros, Inherits("cpu"))
    assert (place.function, place.file.endswith("test_source.py")) == ("Inherits", True)

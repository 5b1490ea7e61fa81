"""PyTorch's memory as arrays, and results in PyTorch's own memory."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("numba", reason="numba is not installed")

import bilinear_bench.cpu  # noqa: E402  # after the skips
from bilinear_bench import memory  # noqa: E402


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_an_array_is_the_tensors_own_memory(dtype):
    tensor = torch.arange(6.0, dtype=dtype).view(2, 3)
    array = memory.array_of(tensor)
    assert array.ctypes.data == tensor.data_ptr()
    np.testing.assert_array_equal(array, [[0, 1, 2], [3, 4, 5]])
    array[1, 2] = 7
    assert tensor[1, 2] == 7


def test_an_array_of_nothing_has_its_shape():
    assert memory.array_of(torch.empty(0, 3)).shape == (0, 3)


def test_a_tensor_stays_resizable_after_it_was_an_array():
    tensor = torch.ones(3)
    memory.array_of(tensor)
    tensor.untyped_storage().resize_(0)
    assert tensor.untyped_storage().nbytes() == 0


def test_large_results_ask_for_huge_pages_within_their_memory(monkeypatch):
    asked = []
    monkeypatch.setattr(memory, "_madvise", lambda: lambda *given: asked.append(given))
    like = torch.empty(1)
    memory.new_tensor((1000,), like)
    assert not asked
    tensor = memory.new_tensor((1024, 1025), like)
    ((address, size, advice),) = asked
    assert address.value % memory.PAGE_BYTES == 0
    assert tensor.data_ptr() <= address.value
    assert address.value + size.value == tensor.data_ptr() + 4 * 1024 * 1025
    assert advice == memory.MADV_HUGEPAGE


#: Calls that take memory, as they are written in the kernels.
TAKES = {"aligned", "rooms", "empty", "zeros", "ones", "full", "empty_like", "zeros_like", "arange", "shared_counter"}


def functions():
    """Return the functions of the kernels by name, with the names of the functions that they call."""
    found = {}
    for path in Path(bilinear_bench.cpu.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                found.setdefault((path.stem, node.name), node)
    return found


def called(nodes):
    """Return the names of the functions that are called, with NumPy's as they are after the dot."""
    calls = [call.func for node in nodes for call in ast.walk(node) if isinstance(call, ast.Call)]
    numpys = {f.attr for f in calls if isinstance(f, ast.Attribute) and getattr(f.value, "id", "") == "np"}
    return {f.id for f in calls if isinstance(f, ast.Name)} | numpys


def test_no_parallel_loop_takes_memory():
    # What fails there is lost: the loop would return what its memory held before.
    every = functions()
    by_name = {}
    for (_, name), node in every.items():
        by_name.setdefault(name, []).append(node)
    loops = [
        (place, loop)
        for place, node in every.items()
        for loop in ast.walk(node)
        if isinstance(loop, ast.For) and isinstance(loop.iter, ast.Call) and "prange" in ast.unparse(loop.iter.func)
    ]
    assert len(loops) > 10
    for place, loop in loops:
        reached, fresh = set(), called(loop.body)
        while fresh:
            reached |= fresh
            fresh = called(node for name in fresh for node in by_name.get(name, ())) - reached
        assert not reached & TAKES, f"{place}: {reached & TAKES}"

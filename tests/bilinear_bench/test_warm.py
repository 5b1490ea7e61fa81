"""After ``warm()`` no call compiles: its few calls reach every loop and every tile."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil

import numpy as np
import pytest
from command_line import python

numba = pytest.importorskip("numba", reason="numba is not installed")
from numba.core.dispatcher import Dispatcher  # noqa: E402  # after the skip

from bilinear_bench.cpu import (  # noqa: E402
    few_outputs,
    forward,
    grad_inputs,
    grad_weight,
    half,
    half_pieces,
    page_groups,
    plans,
    small_batch,
    tiles,
    warming,
)
from bilinear_bench.cpu.cpu import HOST  # noqa: E402
from bilinear_bench.memory import stored_as  # noqa: E402

HALF_TYPES = ("float16", "bfloat16")
PLANS = (few_outputs, forward, grad_inputs, grad_weight, half_pieces, page_groups, small_batch)
#: AVX-512, AVX2, SSE and NEON, by bytes of a vector and number of registers.
KINDS = [
    dataclasses.replace(HOST, vector_bytes=size, registers=registers, multiplies_bfloat16=False)
    for size, registers in [(64, 32), (32, 16), (16, 16), (16, 32)]
]
CPUS = [HOST, dataclasses.replace(KINDS[0], multiplies_bfloat16=True), *KINDS]


def loops(module):
    """Return what the plans of a module call, by name: a parallel loop, or a serial one and a parallel one."""
    found = {}
    for name, value in vars(module).items():
        if isinstance(value, Dispatcher) and value.targetoptions.get("parallel"):
            found[name] = (value,)
        elif isinstance(value, tuple) and value and all(isinstance(one, Dispatcher) for one in value):
            found[name] = value
    return found


EVERY_LOOP = {
    (module.__name__, name, n) for module in PLANS for name, found in loops(module).items() for n in range(len(found))
}


def every_tile():
    """Return the names of the tiles, which are the public functions with the one argument ``given``."""
    names = [f"{tiles.__name__}.{found.name}" for found in pkgutil.iter_modules(tiles.__path__)]
    functions = {
        one for name in names for one in vars(importlib.import_module(name)).values() if inspect.isfunction(one)
    }
    takers = {one.__name__ for one in functions if list(inspect.signature(one).parameters) == ["given"]}
    return {name for name in takers if not name.startswith("_")}


def tiles_of(dtype, cpu):
    """Return the names of the tiles that the calls of a dtype need."""
    of_half_types = {one for one in every_tile() if one.endswith(("float16", "_pairs", "interleave"))}
    if dtype not in HALF_TYPES:
        return every_tile() - of_half_types
    pairs = {"both_gradients_pairs", "contract_pairs", "interleave"}
    small = {"row_sums", "row_gradients"}
    own = {f"{one}_{dtype}" for one in (*small, "widen", "round")}
    if dtype == "bfloat16" and cpu.multiplies_bfloat16:
        return every_tile() - of_half_types - small - {"both_gradients"} | own | pairs
    return every_tile() - of_half_types - small | own


def loops_of(dtype, cpu):
    """Return the loops that the calls of a dtype need."""
    needless = set()
    if dtype not in HALF_TYPES:
        needless = {"_convert", "_pair_pages"}
    elif not (dtype == "bfloat16" and cpu.multiplies_bfloat16):
        needless = {"_pair_pages"}
    return {one for one in EVERY_LOOP if one[1] not in needless}


def forget_plans():
    """Forget the plans that half types keep."""
    for name in ("_forward_plan", "_grad_inputs_plan", "_grad_weight_plan", "_pairs_plan", "_gradient_pairs_plan"):
        getattr(half, name).cache_clear()


@pytest.fixture
def reached(monkeypatch):
    """Put functions that compute nothing in place of loops and tiles; return two sets, of those that are used."""
    used, addressed = set(), set()
    for module in PLANS:
        monkeypatch.setattr(module, "address", lambda tile, dtype: addressed.add(tile.__name__) or 0)
        for name, found in loops(module).items():
            noting = [lambda *_, key=(module.__name__, name, n): used.add(key) for n in range(len(found))]
            monkeypatch.setattr(module, name, tuple(noting) if len(found) > 1 else noting[0])
    forget_plans()
    yield used, addressed
    forget_plans()


@pytest.mark.parametrize("dtype", ["float32", "float64", *HALF_TYPES])
@pytest.mark.parametrize("cpu", CPUS, ids=lambda cpu: f"{8 * cpu.vector_bytes} bits, {cpu.registers} registers")
def test_few_calls_reach_every_loop_and_every_tile(cpu, dtype, reached, monkeypatch):
    monkeypatch.setattr(warming.config, "NUMBA_NUM_THREADS", 2)
    for sizes, threads in warming.warm_calls(dtype, cpu):
        batch, in1, in2, out, _ = sizes
        shapes = (batch, in1), (batch, in2), (out, in1, in2), (out,), (batch, out)
        input1, input2, weight, bias, gradient = (np.ones(shape, stored_as(dtype)) for shape in shapes)
        no_tiles = np.empty(0, stored_as(dtype))
        plans.forward_plan(sizes, threads, cpu).run(input1, input2, weight, bias)
        plans.grad_inputs_plan(sizes, threads, cpu).run(input1, input2, weight, gradient, no_tiles)
        plans.grad_weight_plan(sizes, threads, cpu).run(input1, input2, gradient)
    used, addressed = reached
    assert used == loops_of(dtype, cpu)
    assert addressed == tiles_of(dtype, cpu)
    assert len(EVERY_LOOP) > 15, "loops are found"


def test_on_one_cpu_no_parallel_loop_is_compiled(monkeypatch):
    monkeypatch.setattr(warming.config, "NUMBA_NUM_THREADS", 1)
    assert {threads for _, threads in warming.warm_calls("float32")} == {1}


#: A program for a process of its own: it counts compiled signatures and tiles after ``warm()``, and after other calls.
WARMED = """
import itertools
import sys
import bilinear_bench
import torch
DTYPES = {"float32": torch.float32, "float64": torch.float64, "float16": torch.float16, "bfloat16": torch.bfloat16}
bilinear_bench.warm(DTYPES)

import numba
from numba.core.dispatcher import Dispatcher
from bilinear_bench.cpu.tiles import abi

def compiled():
    modules = [module for name, module in sys.modules.items() if name.startswith("bilinear_bench.cpu.")]
    values = [value for module in modules for value in vars(module).values()]
    values += [one for value in values if isinstance(value, tuple) for one in value]
    counts = {one: len(one.signatures) for one in values if isinstance(one, Dispatcher)}
    return counts | {"tiles": abi.address.cache_info().currsize}

before = compiled()
assert len(before) > 10, before
papers = [(128, 20, 30, 40), (1024, 128, 128, 45), (2708, 512, 512, 1), (128, 200, 200, 200), (3, 50, 50, 2)]
others = [(1, 1, 1, 1), (0, 3, 4, 5), (4, 300, 7, 2), (33, 1, 257, 3), (200, 64, 64, 20), (3000, 20, 20, 9),
          (64, 300, 10, 30), (17, 5, 1024, 1), (700, 3, 2, 700), (9, 40, 40, 7)]
for dtype, threads in itertools.product(DTYPES.values(), (1, numba.config.NUMBA_NUM_THREADS)):
    torch.set_num_threads(threads)
    for batch, in1, in2, out in papers + others:
        layer = bilinear_bench.Bilinear(in1, in2, out, dtype=dtype)
        inputs = [torch.ones(batch, features, dtype=dtype, requires_grad=True) for features in (in1, in2)]
        layer(*inputs).sum().backward()
        with torch.no_grad():
            layer(*inputs)
more = {str(one) for one, count in compiled().items() if count != before.get(one)}
assert not more, more
"""


@pytest.mark.slow
def test_warmed_kernels_compile_nothing_for_any_sizes():
    pytest.importorskip("torch", reason="torch is not installed")
    ended = python(WARMED)
    assert ended.returncode == 0, ended.stderr

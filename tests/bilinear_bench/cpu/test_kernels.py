"""The kernels compute the right numbers on any sizes, however divided."""

from __future__ import annotations

import dataclasses
import functools
import os
import subprocess
import sys

import numpy as np
import pytest
from command_line import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.case import Case
from harness.correctness import reference
from harness.correctness.inputs import make_inputs

numba = pytest.importorskip("numba", reason="numba is not installed")
from bilinear_bench.cpu import few_outputs, forward, grad_inputs, grad_weight, packing  # noqa: E402
from bilinear_bench.cpu.cpu import HOST, KIB  # noqa: E402
from bilinear_bench.cpu.sizes import Sizes  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

#: From far below a vector to several tiles and strips, odd sizes among them.
SIZES = st.integers(1, 75)
ULPS = 60
#: Outputs so many that on any CPU a tile of both input gradients has one row of a page.
MANY_PAGES = 210
#: A CPU with little room: several packed parts and blocks. Plans read these numbers; the loops have those of HOST.
SMALL = dataclasses.replace(
    HOST,
    parallel_flop=0,
    l2_bytes=4 * 2**14 // 3 + 2,  # blocks of 16 KiB
    shared_bytes=64 * KIB,
    packed_bytes=32 * KIB,
)


def sizes_of(case):
    return Sizes(*case.sizes, case.dtype)


def step(case, made, threads, cpu=HOST):
    """Return output and gradients, divided among threads."""
    sizes = sizes_of(case)
    inputs = grad_inputs.plan(sizes, threads, cpu)
    given = made["input1"], made["input2"], made["weight"]
    tiles = packing.aligned(inputs.forward_tiles, made["weight"])
    output = forward.plan(sizes, threads, cpu).run(*given, made["bias"], tiles)
    both = inputs.run(*given, made["grad_output"], tiles)
    of_weight = grad_weight.plan(sizes, threads, cpu).run(*given[:2], made["grad_output"])
    return output, *both, of_weight, packing.column_sums(made["grad_output"])


@functools.lru_cache(64)
def question(case):
    """Return inputs, and the values and scales of the reference; every number of threads needs the same."""
    made = make_inputs(case)
    return made, reference.expected(case, made), reference.scales(case, made)


def assert_right(case, threads, cpu=HOST):
    made, expected, scales = question(case)
    for name, result in zip(case.result_shapes(), step(case, made, threads, cpu), strict=True):
        right, scale = expected[name].numpy(), scales[name].numpy()
        assert result.shape == right.shape
        assert result.dtype == case.dtype
        assert (np.abs(result - right) <= ULPS * np.finfo(case.dtype).eps * scale + np.finfo(case.dtype).tiny).all()


@settings(max_examples=15, deadline=None, derandomize=True)
@given(SIZES, SIZES, SIZES, st.integers(1, 20) | st.just(MANY_PAGES), st.sampled_from(["float32", "float64"]))
def test_any_sizes_are_right(batch, in1, in2, out, dtype):
    assert_right(Case(batch, in1, in2, out, dtype=dtype, mode="forward_backward"), threads=1)


@pytest.mark.parametrize("out", [3, 9])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("vectors", [1, 2, 3, 4])
@pytest.mark.parametrize("more", [0, 1])
def test_the_last_strip_is_right_with_one_vector_or_two(out, dtype, vectors, more):
    lanes = HOST.lanes(np.dtype(dtype).itemsize)
    assert_right(Case(vectors * lanes + more, 13, 11, out, dtype=dtype, mode="forward_backward"), threads=1)


DIVIDED = [
    *((3, 90, 80, 70), (40, 60, 50, 30), (700, 33, 21, 3), (650, 20, 45, 11), (64, 7, 130, 64)),
    # Rows and pages of the weight at distances of a power of two: it is copied before it is contracted.
    *((170, 64, 128, 1), (70, 64, 64, 20)),
    # A small batch is in the rows of the forward's tiles, so no tiles are stored for the backward.
    (6, 40, 60, 2),
    # A weight too large for a cache: threads share its rows, and its lines are prefetched.
    *((40, 200, 90, 1), (60, 90, 200, 2), (40, 100, 90, 40)),
    # A weight too large for a cache, of which a tile prefetches few lines: several tiles pass between two prefetches.
    (40, 800, 90, 4),
    # Outputs with which a tile of both input gradients has one row of a page.
    (70, 33, 40, MANY_PAGES),
    # Groups of pages of a small batch.
    *((20, 30, 33, 9), (5, 30, 70, 13)),
    # Wide inputs: grad_weight packs fewer rows at a time than a panel has.
    (600, 3, 2100, 1),
    # A single page, whose columns are scaled as they are packed; several, whose columns are scaled before their tiles.
    *((300, 70, 40, 1), (300, 70, 40, 5)),
    # Outputs whose results of a block are stored in several passes.
    (300, 3, 2, 700),
]


def divided(sizes, dtype, *others):
    """Return parameters with each number of threads; the parallel loops of float64 take long to compile."""
    slow = [pytest.mark.slow] if dtype == "float64" else []
    return [pytest.param(n, sizes, dtype, *others, marks=slow if n > 1 else []) for n in (1, 2, 3)]


@pytest.mark.parametrize(
    ("threads", "sizes", "dtype", "stores"),
    [
        *(one for sizes in DIVIDED for one in divided(sizes, "float32", True)),
        *(one for sizes in DIVIDED if sizes[3] < few_outputs.FEW for one in divided(sizes, "float32", False)),
        # A copy of the weight counts bytes.
        *(one for sizes in ((170, 64, 128, 1), (70, 64, 64, 20)) for one in divided(sizes, "float64", True)),
    ],
)
def test_every_division_is_right(threads, sizes, dtype, stores):
    cpu = SMALL if stores else dataclasses.replace(SMALL, forward_tiles_bytes=0)
    assert_right(Case(*sizes, dtype=dtype, mode="forward_backward"), threads, cpu)


@pytest.mark.parametrize("products", [0, 10**6])
@pytest.mark.parametrize(
    ("threads", "sizes", "dtype"),
    [
        *divided((600, 30, 40, 5), "float32")[1:],
        *divided((600, 70, 40, 1), "float32")[1:],
        *divided((70, 30, 40, 2), "float64")[1:],
    ],
)
def test_rows_packed_per_thread_or_by_all_sum_the_same(products, threads, sizes, dtype, monkeypatch):
    monkeypatch.setattr(grad_weight, "PACKED_PRODUCTS", products)
    cpu = dataclasses.replace(SMALL, packed_bytes=HOST.packed_bytes)  # several chunks of rows
    case = Case(*sizes, dtype=dtype, mode="forward_backward")
    assert grad_weight.plan(sizes_of(case), threads, cpu).pack_per_thread == (products == 0)
    assert_right(case, threads, cpu)


@pytest.mark.parametrize("in1", [20, 60])
def test_a_weight_gradient_over_several_panels_is_right(in1):
    assert_right(Case(2 * packing.PANEL_ROWS + 90, in1, 30, 3, mode="forward_backward"), threads=1)


@pytest.mark.parametrize("sizes", [(170, 42, 128, 1), (170, 520, 24, 1), (170, 1030, 12, 2)])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_transposed_weight_is_right_where_squares_are_not_full(sizes, threads):
    case, cpu = Case(*sizes, mode="forward_backward"), dataclasses.replace(HOST, forward_tiles_bytes=0)
    assert grad_inputs.plan(sizes_of(case), threads, cpu).weight_transposed
    assert_right(case, threads, cpu)


@pytest.mark.parametrize("sizes", [(0, 3, 4, 5), (3, 4, 5, 0), (0, 4, 5, 0)])
def test_empty_sums_are_zero_and_empty_results_are_empty(sizes):
    assert_right(Case(*sizes, mode="forward_backward"), threads=2)


def test_a_large_gradient_begins_with_a_cache_line_of_numpys_memory():
    case = Case(600, 700, 800, 1, mode="forward_backward")
    assert_right(case, threads=1)
    for gradient in step(case, make_inputs(case), threads=1)[1:4]:
        assert gradient.nbytes > HOST.private_bytes
        assert gradient.ctypes.data % HOST.line_bytes == 0
        assert gradient.base.flags.owndata  # NumPy requests huge pages for its own memory


@pytest.mark.slow
@pytest.mark.parametrize("features", ["", "+neon"])
def test_the_vectors_and_registers_of_other_cpus_are_right(features, tmp_path):
    """The least CPU, and NEON's shape of a tile (LLVM ignores a feature that the host does not have)."""
    ended = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            __file__,
            "-k",
            "any_sizes or last_strip or panels or packed_per_thread or every_division",
        ],
        cwd=ROOT,
        env=os.environ
        | {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": features, "NUMBA_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout[-3000:]

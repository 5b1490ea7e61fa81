"""The kernels touch no memory but the arrays that they are given."""

from __future__ import annotations

import sys

import pytest
from command_line import python

pytest.importorskip("numba", reason="numba is not installed")

#: Every array ends where a protected page begins, or begins where one ends.
GUARDED = """
import ctypes, mmap, sys
import numpy as np
from bilinear_bench.cpu import few_outputs, forward, grad_inputs, grad_weight, page_groups, small_batch
from bilinear_bench.cpu.sizes import Sizes

libc = ctypes.CDLL(None, use_errno=True)
kept = []
#: The modules whose results are in memory of ``gradient_buffer``.
MODULES = few_outputs, grad_inputs, grad_weight, page_groups, small_batch

def guarded(array, at_end):
    size = -(-max(array.nbytes, 1) // mmap.PAGESIZE) * mmap.PAGESIZE
    memory = mmap.mmap(-1, size + 2 * mmap.PAGESIZE)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for page in (start, start + mmap.PAGESIZE + size):
        assert libc.mprotect(ctypes.c_void_p(page), mmap.PAGESIZE, 0) == 0
    kept.append(memory)
    offset = mmap.PAGESIZE + (size - array.nbytes if at_end else 0)
    view = np.frombuffer(memory, array.dtype, array.size, offset).reshape(array.shape)
    view[:] = array
    return view

sizes = [(1, 1, 1, 1), (1, 7, 5, 3), (3, 5, 17, 9), (8, 3, 33, 2), (17, 9, 7, 11), (33, 19, 21, 5), (70, 31, 9, 13),
         (35, 41, 9, 2), (18, 101, 91, 31), (64, 19, 21, 9), (40, 61, 21, 1), (35, 5, 19, 210)]
generator = np.random.default_rng(0)
for dtype in sys.argv[1:]:
    for size in sizes:
        case, (b, i, j, o) = Sizes(*size, dtype), size
        shapes = {"input1": (b, i), "input2": (b, j), "weight": (o, i, j), "bias": (o,), "grad_output": (b, o)}
        for at_end in (True, False):
            a = {n: guarded(generator.standard_normal(s).astype(dtype), at_end) for n, s in shapes.items()}
            given = a["input1"], a["input2"], a["weight"]
            for module in MODULES:
                module.gradient_buffer = lambda shape, like: guarded(np.zeros(shape, like.dtype), at_end)
            inputs = grad_inputs.plan(case, 1)
            tiles = guarded(np.zeros(inputs.forward_tiles, dtype), at_end)
            forward.plan(case, 1).run(*given, a["bias"], tiles)
            forward.plan(case, 1).run(*given, a["bias"])
            inputs.run(*given, a["grad_output"], tiles)
            grad_weight.plan(case, 1).run(*given[:2], a["grad_output"])
print("touched nothing else")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="protects pages by Linux's mprotect")
@pytest.mark.parametrize(
    ("cpu", "dtypes"),
    [("host", ("float32", "float64")), pytest.param("generic", ("float32",), marks=pytest.mark.slow)],
)
def test_no_memory_is_touched_but_the_arrays(cpu, dtypes):
    ended = python(GUARDED, *dtypes, **({} if cpu == "host" else {"NUMBA_CPU_NAME": cpu}))
    assert ended.stdout == "touched nothing else\n", (ended.returncode, ended.stderr[-2000:])

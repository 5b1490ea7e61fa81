"""The fused kernel's own promises: right on any sizes, however divided, and no memory touched that is not given."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from command_line import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.case import Case
from harness.correctness import reference
from harness.correctness.inputs import make_inputs

numba = pytest.importorskip("numba", reason="numba is not installed")
numba_fused = pytest.importorskip("backends.numba_fused", reason="needs numba")

#: From far below a vector to several tiles and strips, odd sizes among them.
SIZES = st.integers(1, 75)
ULPS = 60
#: So many that on no CPU a tile of both input gradients has several rows of a page.
MANY_PAGES = 210


def step(case, made, threads):
    """Output and gradients, divided for so many threads."""
    fused = numba_fused.FusedStep(numba_fused.plan(case.with_mode("forward"), threads), numba_fused.plan(case, threads))
    output = fused.forward(made["input1"], made["input2"], made["weight"], made["bias"])
    return output, *fused.backward(made["grad_output"])


def assert_right(case, threads):
    made = make_inputs(case)
    expected, scales = reference.expected(case, made), reference.scales(case, made)
    for name, got in zip(case.result_shapes(), step(case, made, threads), strict=True):
        right, scale = expected[name].numpy(), scales[name].numpy()
        assert got.shape == right.shape
        assert got.dtype == case.dtype
        assert (np.abs(got - right) <= ULPS * np.finfo(case.dtype).eps * scale + np.finfo(case.dtype).tiny).all()


@settings(max_examples=40, deadline=None, derandomize=True)
@given(SIZES, SIZES, SIZES, st.integers(1, 20) | st.just(MANY_PAGES), st.sampled_from(["float32", "float64"]))
def test_any_sizes_are_right(batch, in1, in2, out, dtype):
    assert_right(Case(batch, in1, in2, out, dtype=dtype, mode="forward_backward"), threads=1)


@pytest.mark.parametrize("out", [3, 9])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("vectors", [1, 2, 3, 4])
@pytest.mark.parametrize("more", [0, 1])
def test_the_last_rows_are_right_whether_they_fill_one_vector_of_their_strip_or_two(out, dtype, vectors, more):
    lanes = numba_fused.VECTOR_BYTES // np.dtype(dtype).itemsize
    assert_right(Case(vectors * lanes + more, 13, 11, out, dtype=dtype, mode="forward_backward"), threads=1)


DIVIDED = [
    *((3, 90, 80, 70), (40, 60, 50, 30), (700, 33, 21, 3), (650, 20, 45, 11), (64, 7, 130, 64)),
    # Rows and pages of the weight at distances of a power of two: it is copied before it is contracted.
    *((170, 64, 128, 1), (70, 64, 64, 20)),
    # A small batch that a forward has in the rows of its tiles, so that it keeps nothing for a backward that has not.
    (6, 40, 60, 2),
    # A weight too large for a cache: threads share its rows, and of the last one lines are asked for ahead of time.
    *((40, 200, 90, 1), (60, 90, 200, 2), (40, 100, 90, 40)),
    # As that, and so few lines that several tiles go by before the next ones are due.
    (40, 800, 90, 4),
    # So many outputs that a tile of both input gradients is of one row of a page, not of several.
    (70, 33, 40, MANY_PAGES),
    # Pages of a small batch's grad_weight are taken together.
    *((20, 30, 33, 9), (5, 30, 70, 13)),
    # So wide that what grad_weight reads is packed in several goes, of fewer rows than one of its cohorts has.
    (600, 3, 2100, 1),
    # A single page, whose columns are scaled as they are packed; several, whose columns are scaled before their tiles.
    *((300, 70, 40, 1), (300, 70, 40, 5)),
    # So many outputs that a block's results are laid out in several goes.
    (300, 3, 2, 700),
]


@pytest.mark.parametrize(
    ("sizes", "dtype", "keeps"),
    [
        *((sizes, "float32", True) for sizes in DIVIDED),
        *((sizes, "float32", False) for sizes in DIVIDED if sizes[3] < numba_fused.FEW_PAGES),
        # What is copied are bytes.
        *(((170, 64, 128, 1), "float64", True), ((70, 64, 64, 20), "float64", True)),
    ],
)
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_however_it_is_divided_it_is_right(sizes, dtype, keeps, threads, monkeypatch):
    if not keeps:
        monkeypatch.setattr(numba_fused, "KEPT_BYTES", 0)
    # With so little room that there are several packed parts and blocks. That is what plans read: the compiled loops
    # have these numbers as they are.
    monkeypatch.setattr(numba_fused, "PARALLEL_FLOP", 0)
    monkeypatch.setattr(numba_fused, "BLOCK_BYTES", 2**14)
    monkeypatch.setattr(numba_fused, "PACKED_BYTES", 2**15)
    monkeypatch.setattr(numba_fused, "MEMORY_BYTES", 2**16)
    monkeypatch.setattr(numba_fused, "SHARE_FLOP", 1)
    assert_right(Case(*sizes, dtype=dtype, mode="forward_backward"), threads)


@pytest.mark.parametrize("products", [0, 10**6])
@pytest.mark.parametrize(
    ("sizes", "dtype"),
    [((600, 30, 40, 5), "float32"), ((600, 70, 40, 1), "float32"), ((70, 30, 40, 2), "float64")],
)
@pytest.mark.parametrize("threads", [2, 3])
def test_threads_that_pack_the_rows_for_all_or_each_for_itself_sum_the_same(
    products, sizes, dtype, threads, monkeypatch
):
    monkeypatch.setattr(numba_fused, "PARALLEL_FLOP", 0)
    monkeypatch.setattr(numba_fused, "BLOCK_BYTES", 2**14)  # several chunks of rows
    monkeypatch.setattr(numba_fused, "PACKED_PRODUCTS", products)
    case = Case(*sizes, dtype=dtype, mode="forward_backward")
    assert numba_fused.plan(case, threads).apiece == (products == 0)
    assert_right(case, threads)


@pytest.mark.parametrize(
    ("sizes", "threads", "apiece"),
    [
        ((128, 20, 30, 40), 2, True),
        ((300, 64, 64, 1), 2, True),
        ((300, 64, 64, 1), 1, False),
        # Each of many threads has too few products for what it would pack; or all would fill more memory than is given.
        ((300, 64, 64, 1), 16, False),
        ((4096, 512, 512, 512), 64, False),
    ],
)
def test_each_thread_packs_all_rows_where_that_is_little_beside_its_products(sizes, threads, apiece):
    assert numba_fused.plan(Case(*sizes, mode="forward_backward"), threads).apiece == apiece


@pytest.mark.parametrize(
    ("sizes", "threads", "groups"),
    [
        ((1, 32, 32, 16), 1, 1),
        # As many in a group as there are numbers for: 64 pages; pages of 200 KB, two of which are many bytes; of 4 MB.
        ((2, 32, 32, 256), 1, 4),
        ((1, 200, 250, 200), 1, 100),
        ((1, 1000, 1000, 200), 1, 200),
        # Every thread has as many groups, and enough pages that theirs are much alike.
        ((1, 32, 32, 16), 2, 2),
        ((32, 32, 64, 9), 2, 4),
        ((1, 32, 32, 7), 2, 0),
        # More rows, or more in each of them, make the page itself the work; and one page has no other beside it.
        ((32, 8, 8, 16), 1, 1),
        ((33, 8, 8, 16), 1, 0),
        ((8, 200, 200, 16), 1, 0),
        ((1, 32, 32, 1), 1, 0),
    ],
)
def test_pages_of_a_gradient_of_the_weight_are_taken_together_if_the_batch_is_small(
    sizes, threads, groups, monkeypatch
):
    monkeypatch.setattr(numba_fused, "PARALLEL_FLOP", 0)
    assert numba_fused.plan(Case(*sizes, mode="forward_backward"), threads).groups == groups


@pytest.mark.parametrize("in1", [20, 60])
def test_a_gradient_of_the_weight_over_more_rows_than_a_panel_has_is_right(in1):
    assert_right(Case(2 * numba_fused.PANEL_ROWS + 90, in1, 30, 3, mode="forward_backward"), threads=1)


@pytest.mark.parametrize("sizes", [(170, 42, 128, 1), (170, 520, 24, 1), (170, 1030, 12, 2)])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_copied_weight_of_few_outputs_is_right_where_its_rows_or_columns_fill_no_whole_squares(
    sizes, threads, monkeypatch
):
    monkeypatch.setattr(numba_fused, "KEPT_BYTES", 0)
    case = Case(*sizes, mode="forward_backward")
    assert numba_fused.plan(case, threads).panelled
    assert_right(case, threads)


@pytest.mark.parametrize("sizes", [(0, 3, 4, 5), (3, 4, 5, 0), (0, 4, 5, 0)])
def test_nothing_to_sum_is_zero_and_nothing_to_return_is_empty(sizes):
    assert_right(Case(*sizes, mode="forward_backward"), threads=2)


@pytest.mark.parametrize("threads", [1, 4, 16])
@pytest.mark.parametrize("batch", [128, 65536])
@pytest.mark.parametrize("features", [(8, 8), (100, 100), (1024, 1024), (10_000, 10), (10, 10_000)])
@pytest.mark.parametrize("out", [4, 16])
def test_what_is_packed_at_a_time_is_bounded_and_every_thread_has_a_share(batch, features, out, threads):
    in1, in2 = features
    for mode in ("forward", "forward_backward"):
        case = Case(batch, in1, in2, out, mode=mode)
        divided = numba_fused.plan(case, threads)
        strip = numba_fused.VECTORS * divided.lanes * 4
        strip *= 2 * in1 + (1 + divided.parts) * in2 + out if mode == "forward_backward" else in1 + in2
        workers = threads if divided.parallel else 1
        beside = workers if divided.parts == 1 else divided.blocks
        # A strip is the least; with sixteen threads and so many features each has one.
        assert divided.block * beside * strip <= max(numba_fused.PACKED_BYTES, workers * strip)
        assert divided.blocks * divided.parts >= workers
        if divided.parts == 1:  # in whole rounds of all threads
            strips = -(-batch // (numba_fused.VECTORS * divided.lanes))
            assert divided.blocks % workers == 0 or divided.blocks == strips


@pytest.mark.parametrize(
    ("sizes", "mode", "shared"),
    [
        # Half a vector's rows for the second thread, or a third strip that one of two must take: better share all.
        ((48, 100, 100, 20), "forward", True),
        ((96, 100, 100, 20), "forward", True),
        ((96, 100, 100, 20), "forward_backward", True),
        ((128, 100, 100, 20), "forward", False),
        # Three pages are no better to share between two.
        ((112, 100, 100, 3), "forward", False),
        # With few outputs a step would need sums of its own for every thread.
        ((96, 100, 100, 2), "forward_backward", False),
        # 17 MB of weight.
        ((1024, 256, 256, 68), "forward", True),
    ],
)
def test_two_threads_share_each_strip_only_where_the_batch_is_uneven_or_the_weight_comes_from_memory(
    sizes, mode, shared, monkeypatch
):
    monkeypatch.setattr(numba_fused, "VECTOR_BYTES", 64)
    assert (numba_fused.plan(Case(*sizes, mode=mode), 2).parts > 1) == shared


@pytest.mark.parametrize(
    ("sizes", "mode", "parts"),
    [
        # Eight shares for each; of four pages at least; as many as threads, of little work.
        ((128, 200, 200, 200), "forward", 16),
        ((64, 512, 512, 30), "forward", 6),
        ((33, 64, 64, 16), "forward", 2),
        # Each part of a backward has sums of its own.
        ((128, 200, 200, 200), "forward_backward", 2),
    ],
)
def test_threads_take_shares_of_the_pages_of_a_forward_one_after_the_other_where_each_is_much_work(sizes, mode, parts):
    assert numba_fused.plan(Case(*sizes, mode=mode), 2).parts == parts


@pytest.mark.parametrize(
    ("features", "out", "threads", "parts"),
    [
        (400, 1, 2, 8),
        (400, 3, 2, 6),
        (400, 16, 2, 1),
        (400, 10, 4, 4),
        (400, 3, 1, 1),
        # As many for each of the two, of 22, 13 and 12 tiles.
        (256, 1, 2, 4),
        (150, 1, 2, 2),
        (144, 1, 2, 2),
        # Nine tiles are not enough for more than every thread needs.
        (100, 1, 2, 2),
        (100, 3, 2, 2),
        (100, 4, 2, 2),
        (40, 4, 2, 1),
    ],
)
def test_pages_of_a_gradient_of_the_weight_are_divided_until_threads_have_as_many_each_and_shares_to_take(
    features, out, threads, parts, monkeypatch
):
    monkeypatch.setattr(numba_fused, "ROWS", 12)
    divided = numba_fused.plan(Case(256, features, features, out, mode="forward_backward"), threads)
    assert divided.weight_parts == parts


def test_a_weight_that_comes_from_memory_is_not_read_by_smaller_blocks_than_the_cache_holds(monkeypatch):
    monkeypatch.setattr(numba_fused, "VECTOR_BYTES", 64)
    monkeypatch.setattr(numba_fused, "BLOCK_BYTES", 768 * 2**10)
    divided = numba_fused.plan(Case(16384, 370, 370, 32), 64)
    assert (divided.parts, divided.block) == (32, 8)


@pytest.mark.parametrize(
    ("batch", "out", "kept"), [(2708, 1, True), (2708, 8, False), (4, 1, False), (20_000, 7, False)]
)
def test_a_step_with_few_outputs_keeps_what_its_forward_had_in_tiles_if_that_is_not_much(batch, out, kept):
    assert (numba_fused.plan(Case(batch, 512, 512, out, mode="forward_backward"), 2).kept > 0) == kept
    assert numba_fused.plan(Case(batch, 512, 512, out), 2).kept == 0


@pytest.mark.parametrize(
    ("batch", "out", "separate"),
    [(1000, 1, True), (1000, 7, True), (1000, 8, False), (8000, 5, False), (8000, 3, False), (80_000, 2, True)],
)
def test_input_gradients_are_made_apart_where_one_was_kept_or_a_tile_over_the_outputs_is_very_short(
    batch, out, separate
):
    divided = numba_fused.plan(Case(batch, 300, 300, out, mode="forward_backward"), 2)
    assert (divided.scale > 0, divided.share > 0) == (separate, not separate)


@pytest.mark.parametrize(
    ("pages", "row_bytes", "several"), [(16, 1024, True), (MANY_PAGES, 80, False), (16, 2**20, False)]
)
def test_a_tile_of_both_input_gradients_has_several_rows_where_caches_have_room_for_them(pages, row_bytes, several):
    assert (numba_fused._shared_rows(pages, row_bytes) > 1) == several


@pytest.mark.parametrize(("in2", "copied"), [(256, True), (250, False)])
def test_a_weight_is_copied_where_the_rows_that_a_tile_reads_of_all_pages_share_places_of_a_cache(in2, copied):
    # Of pages 33 x 256 numbers apart, one row of each would not: it takes the others, a power of two apart.
    assert numba_fused.plan(Case(1000, 33, in2, 16, mode="forward_backward"), 1).panelled == copied


def test_a_large_gradient_begins_with_a_line_of_memory_that_is_numpys():
    case = Case(600, 700, 800, 1, mode="forward_backward")
    assert_right(case, threads=1)
    for gradient in step(case, make_inputs(case), threads=1)[1:4]:
        assert gradient.nbytes > numba_fused.LARGE_BYTES
        assert gradient.ctypes.data % numba_fused.LINE_BYTES == 0
        assert gradient.base.flags.owndata  # NumPy's own memory, for which it asks for huge pages


#: Every array ends where a page begins that nobody may touch, or begins where one ends.
GUARDED = """
import ctypes, mmap, sys
import numpy as np
sys.path.insert(0, sys.argv[1])
from backends import numba_fused
from harness.case import Case

libc = ctypes.CDLL(None, use_errno=True)
kept = []
room = numba_fused._room

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
for dtype in sys.argv[2:]:
    for size in sizes:
        case = Case(*size, dtype=dtype, mode="forward_backward")
        for at_end in (True, False):
            a = {n: guarded(generator.standard_normal(s).astype(dtype), at_end) for n, s in case.shapes().items()}
            step = numba_fused.NumbaFused("cpu").prepare_forward_backward(case)
            step.forward(a["input1"], a["input2"], a["weight"], a["bias"])
            step.backward(a["grad_output"])
            numba_fused.NumbaFused("cpu").prepare_forward(case, a["weight"], a["bias"])(a["input1"], a["input2"])
            divided = numba_fused.plan(case, 1)
            tiles = guarded(np.zeros(divided.kept, dtype), at_end)
            given = a["input1"], a["input2"], a["weight"]
            numba_fused.forward(numba_fused.plan(case.with_mode("forward"), 1), *given, a["bias"], tiles)
            numba_fused._room = lambda shape, like: guarded(np.zeros(shape, like.dtype), at_end)
            numba_fused.input_gradients(divided, *given, a["grad_output"], tiles)
            numba_fused.weight_gradient(divided, a["input1"], a["input2"], a["grad_output"])
            numba_fused._room = room
print("touched nothing else")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="protects pages by Linux's mprotect")
@pytest.mark.parametrize(
    ("cpu", "dtypes"),
    [("host", ("float32", "float64")), pytest.param("generic", ("float32",), marks=pytest.mark.slow)],
)
def test_no_memory_is_read_that_is_not_given(cpu, dtypes):
    ended = subprocess.run(
        [sys.executable, "-c", GUARDED, str(ROOT), *dtypes],
        env=os.environ | ({} if cpu == "host" else {"NUMBA_CPU_NAME": cpu}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.stdout == "touched nothing else\n", (ended.returncode, ended.stderr[-2000:])


@pytest.mark.slow
@pytest.mark.parametrize("features", ["", "+neon"])
def test_with_the_vectors_and_registers_of_other_cpus_it_is_right_too(features, tmp_path):
    """The least of its CPU, and NEON's shape of a tile (LLVM passes over a feature that the host has not)."""
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
            "any_sizes or last_rows or panel or pack_the_rows or however_it_is_divided",
        ],
        cwd=ROOT,
        env=os.environ
        | {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": features, "NUMBA_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout[-3000:]


def test_what_is_compiled_is_kept_under_a_name_that_changes_with_the_code_it_takes_in():
    stamp = hashlib.sha256(Path(numba_fused.numba_tiles.__file__).read_bytes()).hexdigest()[:8]
    found = [one for value in vars(numba_fused).values() for one in (value if isinstance(value, tuple) else (value,))]
    compiled = [one for one in found if isinstance(one, numba.core.dispatcher.Dispatcher)]
    assert len(compiled) > 15
    for one in compiled:
        assert one.py_func.__qualname__.endswith(stamp)


def test_a_backward_without_a_forward_is_refused():
    divided = numba_fused.plan(Case(4, 3, 2, 1), 1)
    with pytest.raises(RuntimeError, match="call forward first"):
        numba_fused.FusedStep(divided, divided).backward(np.zeros((4, 1), np.float32))

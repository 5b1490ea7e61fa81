"""What a plan promises: everything is computed exactly once, within the workspace, and like the NumPy model."""

from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("numba", reason="numba is not installed")
from bilinear_bench.cpu import forward, grad_inputs, grad_weight, model  # after the skip
from bilinear_bench.cpu import threads as division
from bilinear_bench.cpu.cpu import HOST, KIB, MIB, ROWS, VECTORS, _features
from bilinear_bench.cpu.few_outputs import FewOutputsPlan
from bilinear_bench.cpu.forward import RESULT_BYTES, ForwardPlan
from bilinear_bench.cpu.grad_inputs import GradInputsPlan
from bilinear_bench.cpu.grad_weight import PANEL_ROWS, GradWeightPlan
from bilinear_bench.cpu.page_groups import PageGroupsPlan
from bilinear_bench.cpu.sizes import Sizes
from bilinear_bench.cpu.small_batch import SmallForwardPlan, SmallGradInputsPlan
from bilinear_bench.cpu.weight_packing import packed_row_bytes
from bilinear_bench.cpu.workspace import workspace_bytes

THREADS = st.integers(1, 64)
#: Small caches and little room force every way to divide; large ones are those of this machine.
CPUS = st.builds(
    dataclasses.replace,
    st.just(HOST),
    l2_bytes=st.sampled_from([16 * KIB, 512 * KIB, 2 * MIB]),
    packed_bytes=st.sampled_from([32 * KIB, 16 * MIB]),
    forward_tiles_bytes=st.sampled_from([0, 16 * MIB]),
    shared_bytes=st.sampled_from([64 * KIB, 16 * MIB]),
    parallel_flop=st.sampled_from([0, 1_000_000]),
)
SIZES = st.builds(
    Sizes,
    batch=st.integers(1, 5000),
    in1=st.integers(1, 600),
    in2=st.integers(1, 600),
    out=st.integers(1, 300),
    dtype=st.sampled_from(["float32", "float64"]),
)


def tasks(plan, sizes, along):
    """Count each (strip, page or row of a page) that a plan computes; a small batch has all strips at once."""
    strips = division.strips_of(sizes, HOST)
    if isinstance(plan, SmallForwardPlan | SmallGradInputsPlan):
        parts = [(range(strips), range(*division.part_of(part, plan.parts, along))) for part in range(plan.parts)]
    else:
        parts = list(model.tasks(plan.blocks, strips, along))
    return Counter((strip, number) for part, numbers in parts for strip in part for number in numbers)


def weight_tasks(plan, sizes):
    """Count each (page, tile) of the gradient of the weight; a page of a group has all its tiles."""
    tiles = -(-sizes.in1 // ROWS)
    if isinstance(plan, PageGroupsPlan):
        groups = [range(*division.part_of(group, plan.groups, sizes.out)) for group in range(plan.groups)]
        return Counter((page, tile) for group in groups for page in group for tile in range(tiles))
    whole = sizes.out * plan.parts
    shares = min(whole, plan.workers * division.SHARES)
    numbers = [number for share in range(shares) for number in range(*division.part_of(share, shares, whole))]
    parts = [(number // plan.parts, division.part_of(number % plan.parts, plan.parts, tiles)) for number in numbers]
    return Counter((page, tile) for page, part in parts for tile in range(*part))


def once(first, second):
    return Counter((one, other) for one in range(first) for other in range(second))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(SIZES, THREADS, CPUS)
def test_every_strip_meets_every_page_and_row_exactly_once(sizes, threads, cpu):
    sizes = sizes._replace(batch=min(sizes.batch, 800), in1=min(sizes.in1, 100), out=min(sizes.out, 100))
    strips = division.strips_of(sizes, cpu)
    assert tasks(forward.plan(sizes, threads, cpu), sizes, sizes.out) == once(strips, sizes.out)
    assert tasks(grad_inputs.plan(sizes, threads, cpu), sizes, sizes.in1) == once(strips, sizes.in1)
    assert weight_tasks(grad_weight.plan(sizes, threads, cpu), sizes) == once(sizes.out, -(-sizes.in1 // ROWS))


def strips_bytes(plan, sizes, cpu, features):
    """Return the bytes of all strips that are packed at a time."""
    blocks = plan.blocks
    together = min(plan.workers, blocks.count) if blocks.parts == 1 else blocks.count
    return together * blocks.strips * cpu.strip_width(sizes.itemsize) * sizes.itemsize * features


def forward_bytes(plan, sizes, cpu):
    if isinstance(plan, SmallForwardPlan):
        return 0
    block_row_bytes = plan.blocks.strips * cpu.strip_width(sizes.itemsize) * sizes.itemsize
    results = plan.workers * max(RESULT_BYTES, block_row_bytes)
    return strips_bytes(plan, sizes, cpu, sizes.in1 + sizes.in2) + results


def grad_inputs_bytes(plan, sizes, cpu):
    if isinstance(plan, SmallGradInputsPlan):
        return plan.parts * sizes.batch * sizes.in2 * sizes.itemsize
    total = strips_bytes(plan, sizes, cpu, 2 * sizes.in1 + (1 + plan.blocks.parts) * sizes.in2 + sizes.out)
    if isinstance(plan, FewOutputsPlan):
        return total + plan.forward_tiles * sizes.itemsize + plan.weight_transposed * sizes.weight_bytes
    rows_bytes = plan.tile_rows * sizes.in2 * sizes.itemsize + cpu.vector_bytes
    return total + plan.weight_packed * plan.workers * sizes.out * rows_bytes


def grad_weight_bytes(plan, sizes, cpu):
    if isinstance(plan, PageGroupsPlan):
        pages = -(-sizes.out // plan.groups)
        column = sizes.batch * VECTORS * cpu.vector_bytes
        return plan.workers * (sizes.batch * pages * sizes.in1 * sizes.itemsize + column)
    copies = plan.workers if plan.pack_per_thread else 1
    panels = plan.workers * PANEL_ROWS * VECTORS * cpu.vector_bytes
    return copies * min(sizes.batch, plan.rows) * packed_row_bytes(sizes, cpu) + panels


@settings(max_examples=400, deadline=None, derandomize=True)
@given(SIZES, THREADS, CPUS)
def test_the_workspace_stays_within_workspace_bytes(sizes, threads, cpu):
    sizes = sizes._replace(batch=sizes.batch * 20)
    most = workspace_bytes(sizes, threads, cpu)
    # The least that a plan needs is a strip, or a packed row, on each thread.
    strip_bytes = cpu.strip_width(sizes.itemsize) * sizes.itemsize
    least = threads * strip_bytes * (2 * sizes.in1 + (1 + threads) * sizes.in2 + sizes.out)
    for plan, used in (
        (forward.plan(sizes, threads, cpu), forward_bytes),
        (grad_inputs.plan(sizes, threads, cpu), grad_inputs_bytes),
        (grad_weight.plan(sizes, threads, cpu), grad_weight_bytes),
    ):
        assert used(plan, sizes, cpu) <= (most if cpu.packed_bytes >= least else most + least)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(SIZES, THREADS, CPUS)
def test_every_thread_has_work_where_there_is_enough(sizes, threads, cpu):
    """Blocks come in whole rounds of all threads: otherwise some threads wait for the last blocks."""
    plan = forward.plan(sizes, threads, cpu)
    if isinstance(plan, ForwardPlan):
        strips = division.strips_of(sizes, cpu)
        blocks = plan.blocks
        assert blocks.count * blocks.parts >= min(plan.workers, strips * sizes.out)
        if blocks.parts == 1:
            assert blocks.count % plan.workers == 0 or blocks.count == strips


#: Every way to divide, on few numbers: blocks of one thread, of several, and pages that threads share.
DIVISIONS = [
    ((70, 31, 9, 5), 1, {}),
    ((70, 9, 31, 5), 1, {}),
    ((130, 20, 30, 7), 3, {"parallel_flop": 0}),
    ((150, 40, 13, 9), 2, {"parallel_flop": 0, "l2_bytes": 4 * KIB}),
    ((33, 25, 30, 20), 3, {"parallel_flop": 0}),
    ((90, 30, 20, 11), 2, {"parallel_flop": 0, "shared_bytes": 0, "packed_bytes": 8 * KIB}),
]


def integers(sizes):
    """Return integers of 12 bits: their sums round in float32, and their products are exact in float64."""
    generator = np.random.default_rng(sizes)
    batch, in1, in2, out = sizes
    shapes = (batch, in1), (batch, in2), (out, in1, in2), (out,)
    return [generator.integers(-2048, 2048, shape).astype(np.float32) for shape in shapes]


@pytest.mark.skipif("fma" not in _features() and "neon" not in _features(), reason="the CPU rounds products, too")
@pytest.mark.parametrize(("sizes", "threads", "changes"), DIVISIONS)
def test_the_kernel_rounds_as_the_model_of_its_tiling_does(sizes, threads, changes):
    plan = forward.plan(Sizes(*sizes), threads, dataclasses.replace(HOST, **changes))
    made = integers(sizes)
    width = HOST.strip_width(4)
    assert np.array_equal(plan.run(*made), model.forward(plan.blocks, width, *made))
    # Sums in tiles of half the height round differently.
    assert not np.array_equal(plan.run(*made), model.forward(plan.blocks, width, *made, rows_of_tile=ROWS // 2))


@pytest.mark.parametrize("kind", [ForwardPlan, SmallForwardPlan, GradInputsPlan, FewOutputsPlan, GradWeightPlan])
def test_a_plan_is_a_value(kind):
    """A plan must not change, because calls of the same sizes, in any Python thread, share it."""
    assert kind.__dataclass_params__.frozen


@pytest.mark.parametrize(("sizes", "stores"), [((2708, 512, 512, 1), True), ((20_000, 512, 512, 7), False)])
def test_a_step_with_few_outputs_stores_the_forwards_tiles_if_they_fit(sizes, stores):
    assert (grad_inputs.plan(Sizes(*sizes), 2).forward_tiles > 0) == stores


@pytest.mark.parametrize(("in2", "packed"), [(256, True), (250, False)])
def test_a_weight_is_packed_where_the_rows_of_all_pages_clash_in_l1(in2, packed):
    # Pages are 33 x 256 numbers apart: one row of each page does not clash in L1, several rows do.
    assert grad_inputs.plan(Sizes(1000, 33, in2, 16), 1).weight_packed == packed

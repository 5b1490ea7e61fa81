"""float16 and bfloat16 are computed in float32 and rounded once, on any sizes, in any pieces."""

from __future__ import annotations

import dataclasses
import functools
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.case import Case
from harness.correctness import reference
from harness.correctness.inputs import make_inputs

numba = pytest.importorskip("numba", reason="numba is not installed")
torch = pytest.importorskip("torch", reason="torch is not installed")
from bilinear_bench import operator  # noqa: E402
from bilinear_bench.cpu import half_pieces, plans  # noqa: E402
from bilinear_bench.cpu.cpu import HOST, KIB, MIB  # noqa: E402
from bilinear_bench.cpu.sizes import HALF_TYPES, Sizes  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

SIZES = st.integers(1, 75)
#: Rounding errors of the sums, in float32.
SUMS = 60 * 2.0**-24
#: Threads share little work, too.
EAGER = dataclasses.replace(HOST, parallel_flop=0)
#: Without the instruction for pairs, where there is one.
KINDS = [EAGER, dataclasses.replace(EAGER, multiplies_bfloat16=False)] if HOST.multiplies_bfloat16 else [EAGER]


def bits(values, dtype):
    return torch.from_numpy(values).to(getattr(torch, dtype)).view(torch.int16).numpy().view(np.uint16)


def numbers(stored, dtype):
    return torch.from_numpy(stored.view(np.int16)).view(getattr(torch, dtype)).double().numpy()


def plan_of(dtype):
    return half_pieces.HalfPlan.of(Sizes(1, 1, 1, 1, dtype), 1)


def step(case, made, threads, cpu):
    """Return output and gradients as float64."""
    sizes = Sizes(*case.sizes, case.dtype)
    inputs = plans.grad_inputs_plan(sizes, threads, cpu)
    names = ("input1", "input2", "weight", "bias", "grad_output")
    input1, input2, weight, bias, gradient = (bits(made[name], case.dtype) for name in names)
    tiles = np.empty(inputs.forward_tiles, np.uint16)
    output = plans.forward_plan(sizes, threads, cpu).run(input1, input2, weight, bias, tiles)
    both = inputs.run(input1, input2, weight, gradient, tiles)
    of_weight = plans.grad_weight_plan(sizes, threads, cpu).run(input1, input2, gradient)
    return [numbers(one, case.dtype) for one in (output, *both, of_weight)]


@functools.lru_cache(64)
def question(case):
    made = make_inputs(case)
    return made, reference.expected(case, made), reference.scales(case, made)


def assert_rounded_once(case, threads, cpu):
    """Compare with float64: half of a last place, and what sums in float32 may be off."""
    made, expected, scales = question(case)
    kind = torch.finfo(getattr(torch, case.dtype))
    names = [name for name in case.result_shapes() if name != "grad_bias"]
    for name, result in zip(names, step(case, made, threads, cpu), strict=True):
        right, scale = expected[name].double().numpy(), scales[name].double().numpy()
        assert result.shape == right.shape
        assert (np.abs(result - right) <= kind.eps / 2 * np.abs(right) + SUMS * scale + kind.tiny).all(), name


@settings(max_examples=15, deadline=None, derandomize=True)
@given(SIZES, SIZES, SIZES, st.integers(1, 20), st.sampled_from(HALF_TYPES), st.sampled_from(KINDS))
def test_any_sizes_are_rounded_once(batch, in1, in2, out, dtype, cpu):
    assert_rounded_once(Case(batch, in1, in2, out, dtype=dtype, mode="forward_backward"), 1, cpu)


PIECES = [(40, 30, 20, 9), (3, 40, 60, 7), (33, 50, 21, 2), (1, 130, 70, 1), (70, 33, 40, 41), (90, 150, 31, 3)]


@pytest.mark.parametrize("cpu", KINDS, ids=lambda cpu: "pairs" if cpu.multiplies_bfloat16 else "no pairs")
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", HALF_TYPES)
@pytest.mark.parametrize("sizes", PIECES, ids=str)
def test_many_pieces_are_rounded_once(sizes, dtype, threads, cpu, monkeypatch):
    if threads > numba.config.NUMBA_NUM_THREADS:
        pytest.skip("this machine has one CPU")
    monkeypatch.setattr(half_pieces, "PIECE_BYTES", 8 * KIB)
    assert_rounded_once(Case(*sizes, dtype=dtype, mode="forward_backward"), threads, cpu)


@pytest.mark.parametrize("dtype", HALF_TYPES)
@pytest.mark.parametrize("sizes", [(70, 5, 6, 0), (3, 5, 6, 0), (0, 5, 6, 4), (70, 0, 5, 20), (70, 5, 0, 20)], ids=str)
def test_sizes_of_zero_give_the_bias_and_zeros(sizes, dtype):
    batch, in1, in2, out = sizes
    kind = getattr(torch, dtype)
    input1, input2, weight = (torch.ones(shape, dtype=kind) for shape in ((batch, in1), (batch, in2), (out, in1, in2)))
    output = torch.ops.bilinear_bench.bilinear(input1, input2, weight, torch.full((out,), 0.5, dtype=kind))
    assert torch.equal(output, torch.full_like(output, 0.5) + in1 * in2)
    if in1 and in2:
        both = torch.ops.bilinear_bench.grad_inputs(torch.ones_like(output), input1, input2, weight)
        assert torch.equal(both[0], torch.full_like(input1, out * in2))
        assert torch.equal(both[1], torch.full_like(input2, out * in1))


def test_a_sum_that_overflows_float16_leaves_its_row_as_it_is():
    input1, input2 = torch.full((1, 2), 300.0).half(), torch.full((1, 2), 0.05).half()
    weight = torch.full((2, 2, 2), 200.0).half()
    alone = operator.bilinear(input1, input2, weight)[0, 1]
    weight[0] *= 10
    assert operator.bilinear(input1, input2, weight)[0].tolist() == [torch.inf, alone.item()]


def test_no_copy_of_the_weight_is_made_in_float32():
    sizes = Sizes(40, 256, 256, 64, "float16")
    shapes = (40, 256), (40, 256), (64, 256, 256), (64,), (40, 64)
    input1, input2, weight, bias, gradient = (np.ones(shape, np.uint16) for shape in shapes)
    runs = [
        lambda: plans.forward_plan(sizes, 1).run(input1, input2, weight, bias),
        lambda: plans.grad_inputs_plan(sizes, 1).run(input1, input2, weight, gradient, np.empty(0, np.uint16)),
        lambda: plans.grad_weight_plan(sizes, 1).run(input1, input2, gradient, np.empty_like(weight)),
    ]
    for run in runs:
        run()  # what is kept between calls
        tracemalloc.start()
        run()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < weight.nbytes + 2 * MIB, "the gradient itself, and less than an eighth of it in float32"


@pytest.mark.parametrize("dtype", HALF_TYPES)
def test_all_numbers_of_16_bits_are_widened_exactly(dtype):
    every, wide = np.arange(2**16, dtype=np.uint16), np.empty(2**16, np.float32)
    plan_of(dtype).widen_into(wide[None], every[None], 0)
    np.testing.assert_array_equal(wide, numbers(every, dtype))


@pytest.mark.parametrize("dtype", HALF_TYPES)
def test_float32_is_rounded_to_the_nearest_number_ties_to_even(dtype):
    every = np.arange(2**16, dtype=np.uint16)
    exact = numbers(every, dtype).astype(np.float32)
    between = exact + (np.roll(exact, -1) - exact) / 2  # ties, infinities and NaN among them
    drawn = np.random.default_rng(5).integers(0, 2**32, 2**17, dtype=np.uint32).view(np.float32)
    wide = np.concatenate([exact, between, drawn])
    narrow = np.empty(wide.size, np.uint16)
    plan_of(dtype).round_into(narrow[None], wide[None], 0)
    np.testing.assert_array_equal(numbers(narrow, dtype), numbers(bits(wide, dtype), dtype))

"""The fused CPU kernel on tensors: the output, and the gradients that are needed.

Tensors are contiguous rows on a CPU, in float32 or float64. Results are new tensors of PyTorch's own memory.
"""

from __future__ import annotations

import functools
from typing import Any, Final

import numba
import numpy as np
import torch

from bilinear_bench.cpu import forward as forward_kernel
from bilinear_bench.cpu import grad_inputs, grad_weight
from bilinear_bench.cpu.finite import all_finite
from bilinear_bench.cpu.packing import bias_or_zeros
from bilinear_bench.cpu.sizes import Sizes
from bilinear_bench.memory import DTYPES, array_of, new_tensor
from bilinear_bench.numba_threads import numba_threads, thread_count

Tensor = Any

# Plans depend on sizes, dtype and threads alone. A step asks for the same three again and again.
_forward_plan = functools.lru_cache(1024)(forward_kernel.plan)
_grad_inputs_plan = functools.lru_cache(1024)(grad_inputs.plan)
_grad_weight_plan = functools.lru_cache(1024)(grad_weight.plan)
#: Whether the kernels can be compiled.
AVAILABLE: Final = not numba.config.DISABLE_JIT
#: Instead of a forward's tiles, where none are stored.
_NO_TILES: Final = {dtype: np.empty(0, dtype) for dtype in DTYPES.values()}


def room_for_tiles(input1: Tensor, weight: Tensor) -> Tensor | None:
    """Return memory for what a forward can store for the gradients of its inputs; None if that is nothing."""
    numbers = _grad_inputs_plan(_sizes(input1, weight), thread_count()).forward_tiles
    return weight.new_empty(numbers) if numbers else None


def forward(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None, tiles: Tensor | None) -> Tensor:
    """Return output (b, o) of input1 (b, i), input2 (b, j), weight (o, i, j), bias (o,); store tiles if there is room.

    The kernel sums weight times input2 first, if i is not much larger than j, and nn.Bilinear weight times input1. An
    intermediate sum may leave the range of the dtype in one order alone. Rows for which ours does are nn.Bilinear's.
    """
    count = thread_count()
    plan = _forward_plan(_sizes(input1, weight), count)
    given = [tensor.contiguous() for tensor in (input1, input2, weight)]
    rows1, rows2, pages = map(array_of, given)
    output = new_tensor((input1.shape[0], weight.shape[0]), input1)
    addend = None if bias is None else bias.contiguous()  # a name keeps a copy alive
    result = array_of(output)
    stored = None if tiles is None else array_of(tiles)
    with numba_threads(count, plan.workers):
        plan.run(
            rows1, rows2, pages, bias_or_zeros(pages, None if addend is None else array_of(addend)), stored, result
        )
    if not all_finite(result):
        _take_the_other_order(input1, input2, weight, bias, output)
    return output


def _take_the_other_order(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None, output: Tensor) -> None:
    """Compute the rows of output that are not finite as nn.Bilinear does."""
    rows = ~output.isfinite().all(1)
    output[rows] = torch.bilinear(input1[rows], input2[rows], weight, bias)


def gradients(
    input1: Tensor,
    input2: Tensor,
    weight: Tensor | None,
    grad_output: Tensor,
    needed: tuple[bool, bool, bool],
    tiles: Tensor | None = None,
) -> list[Tensor | None]:
    """Return the gradients of input1, input2 and weight, None for those that are not needed.

    Args:
        input1: Tensor (b, i).
        input2: Tensor (b, j).
        weight: Tensor (o, i, j); None if the inputs' gradients are not needed.
        grad_output: Tensor (b, o).
        needed: Which of the three are needed. Both inputs' gradients are computed if one is.
        tiles: What the forward stored, or None.
    """
    sizes = Sizes(len(input1), input1.shape[1], input2.shape[1], grad_output.shape[1], DTYPES[input1.dtype])
    count = thread_count()
    given = [tensor.contiguous() for tensor in (input1, input2, grad_output)]
    rows1, rows2, gradient = map(array_of, given)
    results: list[Tensor | None] = [None] * 3
    if needed[0] or needed[1]:
        plan = _grad_inputs_plan(sizes, count)
        pages = weight.contiguous()  # type: ignore[union-attr]  # there is one, then
        stored = _NO_TILES[sizes.dtype] if tiles is None else array_of(tiles)
        both = [new_tensor(tuple(one.shape), one) for one in (input1, input2)]
        with numba_threads(count, plan.workers):
            plan.run(rows1, rows2, array_of(pages), gradient, stored, (array_of(both[0]), array_of(both[1])))
        results[:2] = (one if need else None for one, need in zip(both, needed, strict=False))
    if needed[2]:
        weight_plan = _grad_weight_plan(sizes, count)
        results[2] = new_tensor((sizes.out, sizes.in1, sizes.in2), input1)
        with numba_threads(count, weight_plan.workers):
            weight_plan.run(rows1, rows2, gradient, array_of(results[2]))
    return results


def _sizes(input1: Tensor, weight: Tensor) -> Sizes:
    out, in1, in2 = weight.shape
    return Sizes(len(input1), in1, in2, out, DTYPES[weight.dtype])


def run_kernels(sizes: Sizes, threads: int, training: bool) -> None:
    """Run the kernels of one call on ones, so that they are compiled.

    Args:
        sizes: Sizes and dtype of the call.
        threads: Number of threads of its plans, at least 1.
        training: True to include the kernels of the gradients.
    """
    batch, in1, in2, out, dtype = sizes
    shapes = (batch, in1), (batch, in2), (out, in1, in2), (out,), (batch, out)
    rows1, rows2, pages, addend, gradient = (np.ones(shape, dtype) for shape in shapes)
    tiles = np.empty(_grad_inputs_plan(sizes, threads).forward_tiles if training else 0, dtype)
    plan = _forward_plan(sizes, threads)
    with numba_threads(threads, plan.workers):
        all_finite(plan.run(rows1, rows2, pages, addend, tiles))
    if training:
        inputs_plan, weight_plan = _grad_inputs_plan(sizes, threads), _grad_weight_plan(sizes, threads)
        with numba_threads(threads, inputs_plan.workers):
            inputs_plan.run(rows1, rows2, pages, gradient, tiles)
        with numba_threads(threads, weight_plan.workers):
            weight_plan.run(rows1, rows2, gradient)

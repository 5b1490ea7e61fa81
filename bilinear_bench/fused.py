"""The fused CPU kernel on tensors: the output, and the gradients that are needed.

Tensors are contiguous rows on a CPU, in any float of ``DTYPES``. Results are new tensors of PyTorch's own memory.
"""

from __future__ import annotations

import functools
from typing import Any, Final

import numba
import numpy as np
import torch

from bilinear_bench.contraction import full_precision
from bilinear_bench.cpu.cpu import HOST
from bilinear_bench.cpu.finite import all_finite
from bilinear_bench.cpu.plans import forward_plan, grad_inputs_plan, grad_weight_plan
from bilinear_bench.cpu.sizes import HALF_TYPES, Sizes
from bilinear_bench.cpu.threads import workers
from bilinear_bench.memory import DTYPES, array_of, new_tensor, stored_as
from bilinear_bench.numba_threads import run, thread_count
from bilinear_bench.plain_call import BUILTIN

Tensor = Any

# Plans depend on sizes, dtype and threads alone. A step asks for the same three again and again.
_forward_plan = functools.lru_cache(1024)(forward_plan)
_grad_inputs_plan = functools.lru_cache(1024)(grad_inputs_plan)
_grad_weight_plan = functools.lru_cache(1024)(grad_weight_plan)
#: Whether the kernels can be compiled.
AVAILABLE: Final = not numba.config.DISABLE_JIT
#: Dtypes that the kernels take on this CPU.
TAKES: Final = frozenset(dtype for dtype in DTYPES if dtype != torch.float16 or HOST.converts_float16)
#: Instead of a forward's tiles, where none are stored.
_NO_TILES: Final = {dtype: np.empty(0, stored_as(dtype)) for dtype in DTYPES.values()}


def forward(
    input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None, stores: bool
) -> tuple[Tensor, Tensor | None]:
    """Return output (b, o) of input1 (b, i), input2 (b, j), weight (o, i, j), bias (o,); and what is stored, or None.

    nn.Bilinear sums weight times input1 first, our kernel often weight times input2 (``contracts_input1``). An
    intermediate sum may leave the range of the dtype in one order alone. Rows for which ours does are nn.Bilinear's.

    Args:
        input1: Tensor (b, i).
        input2: Tensor (b, j).
        weight: Tensor (o, i, j).
        bias: Tensor (o,) or None.
        stores: Whether to store tiles for the gradients of the inputs, where that saves work.
    """
    out, in1, in2 = weight.shape
    sizes = Sizes(input1.shape[0], in1, in2, out, DTYPES[weight.dtype])
    threads = _threads(sizes)
    numbers = _grad_inputs_plan(sizes, threads).forward_tiles if stores else 0
    tiles = weight.new_empty(numbers) if numbers else None
    given1, given2, pages = input1.contiguous(), input2.contiguous(), weight.contiguous()  # names keep copies alive
    addend = pages.new_zeros(out) if bias is None else bias.contiguous()
    output = new_tensor((sizes.batch, out), input1)
    result = run(
        _forward_plan(sizes, threads), threads, array_of(given1), array_of(given2), array_of(pages), array_of(addend),
        _NO_TILES[sizes.dtype] if tiles is None else array_of(tiles), array_of(output),
    )  # fmt: skip
    if not _all_finite(output, result):
        _take_the_other_order(input1, input2, weight, bias, output)
    return output, tiles


def _take_the_other_order(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None, output: Tensor) -> None:
    """Compute the rows of output that are not finite as nn.Bilinear does; bfloat16 in float32, rounded once."""
    rows = ~output.isfinite().all(1)
    kind = torch.promote_types(output.dtype, torch.float32)
    operands = (one if one is None else one.to(kind) for one in (input1[rows], input2[rows], weight, bias))
    with full_precision(input1):
        output[rows] = BUILTIN(*operands).to(output.dtype)


def _all_finite(output: Tensor, array: Any) -> bool:
    """True if no other order of sums may give other numbers; float32 holds every sum of products of float16."""
    if output.dtype == torch.float16:
        return True
    return bool(output.isfinite().all()) if output.dtype == torch.bfloat16 else all_finite(array)


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
    sizes = Sizes(input1.shape[0], input1.shape[1], input2.shape[1], grad_output.shape[1], DTYPES[input1.dtype])
    threads = _threads(sizes)
    input1, input2, grad_output = input1.contiguous(), input2.contiguous(), grad_output.contiguous()
    rows1, rows2, gradient = array_of(input1), array_of(input2), array_of(grad_output)
    results: list[Tensor | None] = [None] * 3
    if needed[0] or needed[1]:
        weight = weight.contiguous()  # type: ignore[union-attr]  # there is one, then
        stored = _NO_TILES[sizes.dtype] if tiles is None else array_of(tiles)
        both = new_tensor(input1.shape, input1), new_tensor(input2.shape, input2)
        arrays = rows1, rows2, array_of(weight), gradient, stored, (array_of(both[0]), array_of(both[1]))
        run(_grad_inputs_plan(sizes, threads), threads, *arrays)
        results[:2] = (one if need else None for one, need in zip(both, needed, strict=False))
    if needed[2]:
        results[2] = new_tensor((sizes.out, sizes.in1, sizes.in2), input1)
        run(_grad_weight_plan(sizes, threads), threads, rows1, rows2, gradient, array_of(results[2]))
    return results


def _threads(sizes: Sizes) -> int:
    """Return the number of threads of a call; little work has one, and starts none."""
    return thread_count() if workers(sizes, 2, HOST) > 1 else 1


def run_kernels(sizes: Sizes, threads: int, training: bool) -> None:
    """Run the kernels of one call on ones, so that they are compiled.

    Args:
        sizes: Sizes and dtype of the call.
        threads: Number of threads of its plans, at least 1.
        training: True to include the kernels of the gradients.

    Raises:
        RuntimeError: Numba's compiler is switched off.
    """
    if not AVAILABLE:
        raise RuntimeError("there is nothing to compile: NUMBA_DISABLE_JIT is set, so plain products compute")
    batch, in1, in2, out, dtype = sizes
    shapes = (batch, in1), (batch, in2), (out, in1, in2), (out,), (batch, out)
    rows1, rows2, pages, addend, gradient = (np.ones(shape, stored_as(dtype)) for shape in shapes)
    tiles = np.empty(_grad_inputs_plan(sizes, threads).forward_tiles if training else 0, stored_as(dtype))
    output = run(_forward_plan(sizes, threads), threads, rows1, rows2, pages, addend, tiles)
    if dtype not in HALF_TYPES:
        all_finite(output)
    if training:
        run(_grad_inputs_plan(sizes, threads), threads, rows1, rows2, pages, gradient, tiles)
        run(_grad_weight_plan(sizes, threads), threads, rows1, rows2, gradient)

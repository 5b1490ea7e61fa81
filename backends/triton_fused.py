"""Fused kernels for a GPU, in Triton: the intermediate never leaves the chip (``bilinear_bench.gpu``).

Formula: that of ``bilinear_bench/gpu/launch.py``: a tile ``T`` of input1 times a page of the weight, in registers, is
multiplied by input2 and summed along ``j``.

Axes: ``b`` batch, ``i`` in1_features, ``j`` in2_features, ``o`` out_features.

* Backward, by the same means: ``grad_input2[b,j] = sum_o grad_output[b,o] T[b,j]``; ``grad_input1`` with ``i`` and
  ``j`` exchanged; ``grad_weight[o,i,j] = sum_b (grad_output[b,o] input1[b,i]) input2[b,j]``. The latter is one product
  over the batch whose left operand is scaled as it is loaded.
* Work: 2 b i j o flop forward, 6 b i j o for the step: the minimum.
* Written between: for a gradient a copy of the weight, or of input2, with its axes swapped, where that is faster. If a
  case has too few tiles to fill the chip: the sums of parts, ``PARTS_BYTES`` at most.
* Prepared outside the clock: the kernels are compiled for the case's features, and the most promising tiles timed on
  scratch arrays of its size.
* Arithmetic: float32 is multiplied as float32 (``ieee``; Triton's default would be tf32), or as tf32 if the case says
  so; the half types unchanged. Sums are float32, or float64. The results are rounded to a half type, and for
  grad_weight the scaled input1. T is not rounded, so half types are more accurate than nn.Bilinear's.

Under Triton's interpreter (``TRITON_INTERPRET=1``) the backend runs on a CPU, is checked there and not timed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import triton

from backends import _toolchain
from backends._step import Backward, ClosureStep, Gradients
from backends._torch import TorchBackend
from bilinear_bench.gpu.launch import PARTS_BYTES, Arithmetic, Tile, forward, grad_input, grad_weight, interpreted
from bilinear_bench.gpu.tuning import Problem, tuned
from harness.backend import Kernel, Support
from harness.case import Case

Tensor = Any


class TritonFused(TorchBackend):
    """One kernel forward, three backward."""

    name = "triton-fused"
    devices: ClassVar[tuple[str, ...]] = ("cuda", "cpu") if interpreted() else ("cuda",)

    @classmethod
    def available(cls, device: str) -> Support:
        """Return whether PyTorch sees the device, or the interpreter replaces one."""
        if device == "cuda" and interpreted():
            return Support(False, "Triton's interpreter runs on a CPU: unset TRITON_INTERPRET for the GPU")
        visible = super().available(device)
        return visible if interpreted() or not visible.ok else _toolchain.for_triton()

    @classmethod
    def timeable(cls, device: str) -> Support:
        """Return no in the interpreter, where a tile takes as long as NumPy needs for it."""
        if interpreted():
            return Support(False, "Triton's interpreter shows what is computed, not how fast: unset TRITON_INTERPRET")
        return Support(True)

    def supports(self, case: Case) -> Support:
        """Return yes for all dtypes; tf32 on a GPU."""
        if case.dtype == "bfloat16" and interpreted():
            return Support(False, "Triton's interpreter multiplies the bits of bfloat16 as integers")
        return super().supports(case)

    def workspace_bytes(self, case: Case) -> int:
        """Return the sums of parts, copies, and all arrays once more while tiles are timed; an upper figure."""
        operands = case.shapes()
        shapes = [*operands.values(), *case.result_shapes().values(), operands["weight"], operands["input2"]]
        return 4 * PARTS_BYTES + case.itemsize * sum(math.prod(shape) for shape in shapes)

    def version(self) -> str:
        """Return the versions of PyTorch and Triton."""
        return f"{super().version()}, triton {triton.__version__}" + (", interpreted" if interpreted() else "")

    def tuning(self, case: Case) -> str:
        """Return the tile of each kernel: rows x columns x depth / warps, stages."""
        return ", ".join(f"{kernel} {tile}" for kernel, tile in tuned(_problem(case), self.device).items())

    def prepare_forward(self, case: Case, weight: Tensor, bias: Tensor | None) -> Kernel:
        """Time the tiles."""
        arithmetic = Arithmetic.of(case.dtype, case.precision)
        tile = tuned(_problem(case), self.device)["forward"]

        def kernel(input1: Tensor, input2: Tensor) -> Tensor:
            return forward(input1, input2, weight, bias, tile, arithmetic)

        return kernel

    def prepare_forward_backward(self, case: Case) -> ClosureStep:
        """Time the tiles of all kernels."""
        return fused_step(tuned(_problem(case), self.device), Arithmetic.of(case.dtype, case.precision))


def fused_step(tiles: Mapping[str, Tile], arithmetic: Arithmetic) -> ClosureStep:
    """Return the training step of these tiles, by the name of the kernel."""

    def step(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Backward]:
        def backward(grad_output: Tensor) -> Gradients:
            return (
                grad_input(input2, grad_output, weight, 1, tiles["grad_input1"], arithmetic),
                grad_input(input1, grad_output, weight, 2, tiles["grad_input2"], arithmetic),
                grad_weight(input1, input2, grad_output, tiles["grad_weight"], arithmetic),
                None if bias is None else grad_output.sum(0),
            )

        return forward(input1, input2, weight, bias, tiles["forward"], arithmetic), backward

    return ClosureStep(step)


def _problem(case: Case) -> Problem:
    """Return a case's sizes and types, as the tuning takes them."""
    training = case.mode == "forward_backward"
    return Problem(*case.sizes, case.dtype, case.precision, bias=case.bias, training=training)

"""Plain PyTorch products in the cheapest order, in pieces that stay in cache: ``bilinear_bench.contraction``.

Formula: one of the three orders in ``bilinear_bench/order.py``, chosen for each case by the cost model there.

Axes: ``b`` batch, ``i`` in1_features, ``j`` in2_features, ``o`` out_features.

* Work: 2 b i j o flop forward; backward 4 b i j o if both inputs are multiplied first, else 6.
* Written between: ``PIECE_BYTES`` at a time of (b, o, i), (b, o, j) or (b, i, j), and a piece of grad_weight.
* Prepared outside the clock: the order; for inference, the weight with its last two axes swapped if "input1" is first.
* Products: PyTorch sends float32 to its BLAS. Where oneDNN is faster on this CPU, it gets the large products
  (``bilinear_bench/gemm.py``).
"""

from __future__ import annotations

from typing import Any

from backends._step import ClosureStep
from backends._torch import Formula, TorchBackend, set_precision
from bilinear_bench.contraction import PIECE_BYTES, RATES, contract
from bilinear_bench.gemm import onednn_is_faster
from bilinear_bench.operator import contracted
from bilinear_bench.order import PIECE_ROWS, cheapest
from harness.backend import Kernel
from harness.case import Case

Tensor = Any


class TorchContract(TorchBackend):
    """GEMMs in the cheapest order; gradients written by hand, as GEMMs too."""

    name = "torch-contract"

    def formula(self) -> Formula:
        """Return the contraction, differentiable."""
        return contracted

    def prepare_forward(self, case: Case, weight: Tensor, bias: Tensor | None) -> Kernel:
        """Choose the order and copy the weight for it."""
        set_precision(case)
        onednn_is_faster()  # timed here, once, and not in the first call
        order = cheapest(case.sizes, backward=False, packed=True, rates=RATES)
        packed = weight.transpose(1, 2).contiguous().transpose(1, 2) if order == "input1" else weight

        def kernel(input1: Tensor, input2: Tensor) -> Tensor:
            output = contract(order, input1, input2, packed)
            return output if bias is None else output.add_(bias)

        return kernel

    def prepare_forward_backward(self, case: Case) -> ClosureStep:
        """Return the contraction with autograd."""
        onednn_is_faster()  # timed here, once, and not in the first call
        return super().prepare_forward_backward(case)

    def workspace_bytes(self, case: Case) -> int:
        """Return a piece and its gradient, and a piece of the weight and of its gradient; an upper figure."""
        row = case.in1_features * case.in2_features * case.itemsize
        piece = PIECE_BYTES[self.device] + PIECE_ROWS * max(case.in1_features, case.in2_features) * case.itemsize
        return 2 * piece + 3 * case.out_features * row

    def version(self) -> str:
        """Return the version of PyTorch, and the library of the products on a CPU."""
        products = ", products by oneDNN" if self.device == "cpu" and onednn_is_faster() else ""
        return f"{super().version()}{products}"

"""torch.nn.Bilinear itself, the baseline of every comparison.

Formula, page ``o`` of the weight at a time, by a loop on the host::

    output[:, o] = sum_j((input1 @ weight[o]) * input2) + bias[o]          einsum: bi,oij,bj->bo

Axes: ``b`` batch, ``i`` in1_features, ``j`` in2_features, ``o`` out_features.

* Work: 2 b i j o flop and 2 b j o for the row sums. The step does that 4 times: the forward, and a loop of the same
  size for each of grad_input1, grad_input2 and grad_weight. Three kernels a page: launch-bound on a GPU.
* Written between: forward, one page (b, j), o times. Backward: for grad_input1 a full (b, i, j), o times.
* Prepared outside the clock: nothing; the module takes the given weight and bias as they are, without a copy.
* Source: pytorch/pytorch aten/src/ATen/native/Linear.cpp (``bilinear``, ``_trilinear``), and ``_trilinear_backward`` in
  torch/csrc/autograd/FunctionsManual.cpp.
"""

from __future__ import annotations

import torch

from backends._torch import Formula, Tensor, TorchBackend, set_precision
from harness.backend import Kernel
from harness.case import Case


class TorchBilinear(TorchBackend):
    """The module for inference, and the function that it calls for training."""

    name = "torch-bilinear"

    def formula(self) -> Formula:
        """Return the function that ``nn.Bilinear.forward`` calls; no module holds the weights, which a step changes."""
        return torch.nn.functional.bilinear

    def workspace_bytes(self, case: Case) -> int:
        """Return three pages (b, j), which are alive at a time; backward also (b, i, j), for grad_input1."""
        page = 3 * case.batch * case.in2_features
        product = case.batch * case.in1_features * case.in2_features if case.mode == "forward_backward" else 0
        return (page + product) * case.itemsize

    def prepare_forward(self, case: Case, weight: Tensor, bias: Tensor | None) -> Kernel:
        """Return the module with this weight and bias, as parameters that require no gradient."""
        set_precision(case)
        # On the meta device nothing is allocated or initialised: the parameters are replaced at once.
        module = torch.nn.Bilinear(
            case.in1_features, case.in2_features, case.out_features, bias=bias is not None, device="meta"
        )
        module.weight = torch.nn.Parameter(weight, requires_grad=False)
        if bias is not None:
            module.bias = torch.nn.Parameter(bias, requires_grad=False)
        return module

"""``torch.nn.Bilinear`` with the fused kernel inside: a layer to put in its place in a model.

::

    from bilinear_bench import Bilinear   # instead of torch.nn.Bilinear

It is a subclass: constructor, parameters, their first values and ``state_dict`` are nn.Bilinear's. ``operator`` says
which tensors the fused kernel takes, and where the others go.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bilinear_bench.operator import bilinear


class Bilinear(torch.nn.Bilinear):
    """``torch.nn.Bilinear``, computed by ``bilinear_bench.operator.bilinear``.

    Args:
        in1_features: Size i of the first input's last dimension.
        in2_features: Size j of the second input's last dimension.
        out_features: Size o of the output's last dimension.
        bias: Whether to learn a bias (o,).
        device: Device of the parameters.
        dtype: Dtype of the parameters.
    """

    def forward(self, input1: Tensor, input2: Tensor) -> Tensor:
        """Return output (*, o) of input1 (*, i) and input2 (*, j), with the same leading dimensions or none.

        Raises:
            RuntimeError: The sizes, dtypes or devices do not fit; the words are PyTorch's own.
        """
        if torch.jit.is_scripting():  # TorchScript knows no function of ours
            return torch.nn.functional.bilinear(input1, input2, self.weight, self.bias)
        return bilinear(input1, input2, self.weight, self.bias)

"""One torch.einsum, the common replacement of nn.Bilinear.

Formula::

    output = einsum("bi,oij,bj->bo", input1, weight, input2) + bias

Axes: ``b`` batch, ``i`` in1_features, ``j`` in2_features, ``o`` out_features.

* Work: 2 b i j o flop and, by the order, 2 b j o, 2 b i o or b i j more. The step: three times that, autograd through
  two batched matrix products.
* Written between: (b, o, j), (b, o, i) or the outer product (b, i, j). Mostly each call also writes a copy of the
  weight with its axes reordered. PyTorch takes the order with the fewest flop if the package opt_einsum is installed,
  and left to right if it is not; ``version`` says which.
* Prepared outside the clock: nothing.
* Source: spaCy's (explosion/spacy-experimental, PR 47) and Chainer's (PR 5207) replacements are this line.
"""

from __future__ import annotations

from backends._torch import Formula, TorchBackend, einsum_version, einsum_workspace_bytes
from bilinear_bench.contraction import einsum_bilinear
from harness.case import Case


class TorchEinsum(TorchBackend):
    """torch.einsum; gradients by autograd."""

    name = "torch-einsum"

    def formula(self) -> Formula:
        """Return the einsum."""
        return einsum_bilinear

    def workspace_bytes(self, case: Case) -> int:
        """Return the intermediate of the einsum and its copies; an upper figure."""
        return einsum_workspace_bytes(case)

    def version(self) -> str:
        """Return the versions of PyTorch and of opt_einsum."""
        return einsum_version()

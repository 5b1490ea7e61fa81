"""The fused CPU kernel behind nn.Bilinear's interface (``bilinear_bench.operator``) as a backend, with autograd.

What autograd and the call cost shows in small layers, compared with ``numba-fused``.
"""

from __future__ import annotations

import numba

from backends._torch import Formula, TorchBackend
from bilinear_bench.cpu.plans import call_bytes
from bilinear_bench.cpu.sizes import Sizes
from bilinear_bench.layer import Bilinear
from bilinear_bench.operator import bilinear
from harness.case import Case

#: ``Bilinear`` is here under its former name for one release: import it from ``bilinear_bench``.
__all__ = ["Bilinear", "TorchFused"]


class TorchFused(TorchBackend):
    """The operator as a differentiable formula."""

    name = "torch-fused"
    devices = ("cpu",)

    def formula(self) -> Formula:
        """Return the operator."""
        return bilinear

    def workspace_bytes(self, case: Case) -> int:
        """Return the kernels' upper figure."""
        return call_bytes(Sizes(*case.sizes, case.dtype), int(numba.get_num_threads()))

    def version(self) -> str:
        """Return the versions of PyTorch and Numba."""
        return f"{super().version()}, numba {numba.__version__}"

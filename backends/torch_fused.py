"""The fused CPU kernel behind nn.Bilinear's interface (``bilinear_bench.operator``) as a backend, with autograd.

What autograd and the call cost shows in small layers, compared with ``numba-fused``.
"""

from __future__ import annotations

import numba

from backends._torch import Formula, TorchBackend
from bilinear_bench.cpu.sizes import Sizes
from bilinear_bench.cpu.workspace import workspace_bytes
from bilinear_bench.layer import Bilinear
from bilinear_bench.memory import DTYPES
from bilinear_bench.operator import bilinear
from harness.backend import Support
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

    def supports(self, case: Case) -> Support:
        """Return whether the fused kernel has the dtype; other dtypes would be another backend's."""
        if case.dtype not in DTYPES.values():
            return Support(
                False, f"the fused kernel has no {case.dtype}: torch-contract has, and the module goes there"
            )
        return self.supports_mode_and_precision(case)

    def workspace_bytes(self, case: Case) -> int:
        """Return the kernels' upper figure."""
        return workspace_bytes(Sizes(*case.sizes, case.dtype), int(numba.get_num_threads()))

    def version(self) -> str:
        """Return the versions of PyTorch and Numba."""
        return f"{super().version()}, numba {numba.__version__}"

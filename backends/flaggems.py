"""FlagGems: the one published Triton kernel for this operator that is not ours.

Formula, one program for each element of the output::

    output[b,o] = sum_ij input1[b,i] weight[o,i,j] input2[b,j] + bias[o]

Axes: ``b`` batch, ``i`` in1_features, ``j`` in2_features, ``o`` out_features.

* Work: 3 b i j o flop, as products and sums of tiles of 32 x 32; no matrix unit. The weight is read b times.
* Written between: nothing.
* Prepared outside the clock: nothing.
* Source: ``flag_gems.ops.bilinear`` (flagos-ai/FlagGems, pull request 5480), called unchanged; forward only. The
  package's release 5.0.2 does not have it yet.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

from backends import _toolchain
from backends._torch import Formula, TorchBackend
from harness.backend import Support
from harness.case import Case

Tensor = Any
#: Length of a grid's second axis, at most: CUDA's programming guide, compute capabilities.
MOST_OUTPUTS: Final = 65535


class FlagGems(TorchBackend):
    """FlagGems' kernel."""

    name = "flaggems"
    devices: ClassVar[tuple[str, ...]] = ("cuda",)

    def formula(self) -> Formula:
        """Return FlagGems' function; importing it raises where there is no GPU."""
        from flag_gems.ops.bilinear import bilinear

        return bilinear

    def supports(self, case: Case) -> Support:
        """Return no for a backward, for float64 (computed in float32) and for tf32 (never used)."""
        if case.mode != "forward":
            return Support(False, "FlagGems has no backward for it")
        if case.dtype == "float64" or case.precision == "tf32":
            return Support(False, "FlagGems computes in float32, whatever it is given")
        if case.out_features > MOST_OUTPUTS:
            return Support(False, f"FlagGems launches a column of programs for each output, CUDA has {MOST_OUTPUTS}")
        return super().supports(case)

    @classmethod
    def available(cls, device: str) -> Support:
        """Return whether PyTorch sees the device, and Triton can compile for it."""
        visible = super().available(device)
        if visible.ok:
            import flag_gems.ops.bilinear  # noqa: F401  # a release may lack it
        return _toolchain.for_triton() if visible.ok else visible

    def workspace_bytes(self, case: Case) -> int:
        """Return 0: nothing is written between."""
        return 0

    def version(self) -> str:
        """Return the versions of PyTorch and FlagGems."""
        import flag_gems

        return f"{super().version()}, flag_gems {getattr(flag_gems, '__version__', 'unknown')}"

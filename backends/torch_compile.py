"""torch.compile of the einsum: TorchInductor fuses the operations around the matrix products.

Formula::

    output = einsum("bi,oij,bj->bo", input1, weight, input2) + bias

Axes: ``b`` batch, ``i`` in1_features, ``j`` in2_features, ``o`` out_features.

* Work: 2 b i j o flop and, by the order (that of ``torch-einsum``), 2 b j o, 2 b i o or b i j more. The step: three
  times that.
* Written between: (b, o, j), (b, o, i) or the outer product (b, i, j), unless it is fused away.
* Prepared outside the clock: nothing. Compiling happens at the first call, and shows in ``first_call_seconds``.
* Source: the einsum and not nn.Bilinear, since ``aten::_trilinear`` is a fallback in TorchInductor (pytorch issue
  105560): compiling the module runs the same loop over the pages as before.

Mode ``default``, so no CUDA graph, whose outputs would be overwritten by the next call. The weights are arguments.
"""

from __future__ import annotations

import os
from typing import Final

import torch
import torch._dynamo
import torch._inductor.config
import torch._inductor.cpp_builder

from backends import _toolchain
from backends._torch import Formula, TorchBackend, einsum_version, einsum_workspace_bytes
from bilinear_bench.contraction import einsum_bilinear
from harness.backend import Support
from harness.case import Case

#: The option that makes reaching the recompile limit an error, by its name now and its name up to PyTorch 2.5.
RECOMPILE_OPTIONS: Final = ("fail_on_recompile_limit_hit", "fail_on_cache_limit_hit")


class TorchCompile(TorchBackend):
    """torch.compile of the einsum; gradients by AOTAutograd, compiled too."""

    name = "torch-compile"

    @classmethod
    def available(cls, device: str) -> Support:
        """Return whether PyTorch sees the device, may compile, and finds the compilers for it."""
        if not (visible := super().available(device)):
            return visible
        if torch._dynamo.config.disable or os.environ.get("TORCHDYNAMO_DISABLE") == "1":  # read at each compilation
            return Support(False, "torch.compile is switched off: unset TORCH_COMPILE_DISABLE and TORCHDYNAMO_DISABLE")
        if device == "cuda" and os.environ.get("TRITON_INTERPRET") == "1":
            return Support(False, "torch.compile needs Triton's compiler: unset TRITON_INTERPRET")
        return _toolchain.for_triton() if device == "cuda" else _cpu_compilers()

    def formula(self) -> Formula:
        """Return the einsum, compiled again for one set of shapes."""
        _configure()
        return torch.compile(einsum_bilinear, dynamic=False, fullgraph=True)

    def workspace_bytes(self, case: Case) -> int:
        """Return the intermediate of the einsum and its copies; an upper figure."""
        return einsum_workspace_bytes(case)

    def version(self) -> str:
        """Return the versions of PyTorch and of opt_einsum."""
        return einsum_version()


def _configure() -> None:
    """Drop all compiled code, and make a fallback to uncompiled code an error.

    Raises:
        RuntimeError: This PyTorch has no option to fail instead of running uncompiled code.
    """
    torch._dynamo.reset()
    # After too many recompilations, or an error of its own, Dynamo runs the plain function.
    options = [option for option in RECOMPILE_OPTIONS if hasattr(torch._dynamo.config, option)]
    if not options:
        raise RuntimeError(
            f"torch {torch.__version__} has none of {', '.join(RECOMPILE_OPTIONS)} in torch._dynamo.config, without "
            "which it may silently run uncompiled: use a PyTorch from 2.4 to 2.13"
        )
    torch._dynamo.config.suppress_errors = False
    setattr(torch._dynamo.config, options[0], True)
    # Compile in this process: a pool of compile workers would stay, and disturb what is timed.
    torch._inductor.config.compile_threads = 1


def _cpu_compilers() -> Support:
    """Return whether the compilers for a CPU are here: TorchInductor writes C++, and a binding that needs Python.h."""
    try:
        torch._inductor.cpp_builder.get_cpp_compiler()  # tries the compiler that CXX names, else g++
    except (RuntimeError, OSError):
        return Support(False, "torch.compile needs a C++ compiler: apt-get install g++, or name one in CXX")
    return _toolchain.python_header()

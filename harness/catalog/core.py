"""The core set: what the suite `quick` and ``run --quick`` measure without ``--backend``.

It keeps these runs short: a readable way, the strongest of NumPy and of PyTorch, JAX's own formula, and what this
project ships, instead of all that is installed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from harness.catalog.registry import Entry

#: Backends of this project in the core set, each with the reason. The strongest are those of results/reference.
CORE: Final[Mapping[str, str]] = {
    "torch-bilinear": "the baseline of every ratio",
    "numpy-loop": "the readable way: a matrix product for each output feature",
    "numpy-einsum": "NumPy's own formula",
    "numpy-contract": "NumPy's strongest",
    "numba-fused": "this project's kernel for CPUs, compiled by Numba",
    "jax-jit": "the formula in JAX, compiled by XLA",
    "torch-compile": "PyTorch's strongest, apart from this project's kernel",
    "torch-fused": "what `bilinear_bench.Bilinear` runs on a CPU",
}
#: Further ones of a run with a GPU.
CORE_CUDA: Final[Mapping[str, str]] = {
    "torch-contract": "what `bilinear_bench.Bilinear` runs on a GPU",
    "triton-fused": "this project's kernel for GPUs",
}


def core(devices: Collection[str]) -> Mapping[str, str]:
    """Return the core set of a run on these devices: names of backends, each with the reason."""
    return {**CORE, **CORE_CUDA} if "cuda" in devices else CORE


def in_core(known: Mapping[str, Entry], devices: Collection[str]) -> list[str]:
    """Return the registered backends of the core set, and every backend of another distribution: a user's own.

    Args:
        known: Registered backends, by name.
        devices: Devices of the run.
    """
    ours = core(devices)
    return [name for name, entry in known.items() if name in ours or not entry.is_ours]

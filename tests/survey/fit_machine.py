"""Facts of a machine that is fit to measure on, and changes of them."""

from __future__ import annotations

import dataclasses

from harness.machine.activity import State
from harness.machine.nvidia_smi import GpuState
from harness.survey.facts import Facts
from harness.timing.roofline import Peaks, Product, Rate

GIB = 2**30
GIGA = 1e9
AVX512 = frozenset({"avx2", "fma", "avx512f", "avx512dq", "avx512bw", "avx512vl"})
AVX2 = frozenset({"avx", "avx2", "fma"})
QUIET = State(steal_seconds=1.0, running=0, clock_mhz=3000.0, swapped_bytes=0)
GPU = GpuState("NVIDIA H100", 1980, 1980, 0, True, 0, 0)

FIT = Facts(
    threads=2,
    affinity=(0, 1),
    cpu_count=2,
    quota=None,
    siblings=(),
    vendor="GenuineIntel",
    flags=AVX512,
    coretype=None,
    kernels=(),
    governors=("performance",),
    huge_pages="madvise",
    load=0.1,
    own_cpu_seconds=0.0,
    before=QUIET,
    after=QUIET,
    seconds=1.0,
    memory_bytes=16 * GIB,
    available_bytes=12 * GIB,
    swap_used_bytes=0,
    other_runs=0,
    gpus=(),
    peaks=None,
)


def machine(**changes) -> Facts:
    """Return the fit machine with changed facts."""
    return dataclasses.replace(FIT, **changes)


def state(**changes) -> State:
    """Return a quiet activity with changed values."""
    return dataclasses.replace(QUIET, **changes)


def peaks(*products: Product, float32=200 * GIGA, float64=100 * GIGA) -> Peaks:
    """Return peaks with rates in flop per second; 0 or None leaves a dtype out."""
    rates = {"float32": float32, "float64": float64}
    return Peaks({dtype: Rate(rate, "FMA") for dtype, rate in rates.items() if rate}, products, ())


def product(library, gigaflop, detail, dtype="float32") -> Product:
    """Return a product by its rate in GFLOP/s."""
    return Product(library, dtype, gigaflop * GIGA, detail)


def only(findings):
    """Return the only finding."""
    (finding,) = findings
    return finding


def levels(findings) -> list[str]:
    """Return the levels in order."""
    return [finding.level for finding in findings]

"""Variables of the environment that workers do not get: they would change what is measured, or refuse right backends.

Batch systems, containers and test suites set them for every process. ``environment.json`` and the doctor name those
that were set.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

#: Variables by what they would do to a worker.
WITHHELD: Final[Mapping[str, tuple[str, ...]]] = {
    "they bind threads, and the main thread with them, to CPUs of their own choice": (
        *("OMP_PROC_BIND", "OMP_PLACES", "GOMP_CPU_AFFINITY", "KMP_AFFINITY", "KMP_HIDDEN_HELPER_AFFINITY"),
        *("KMP_HW_SUBSET", "KMP_PLACE_THREADS", "GOTO_MAIN_FREE", "OPENBLAS_MAIN_FREE"),
    ),
    "they let a pool have other threads than the budget": (
        *("OMP_THREAD_LIMIT", "OMP_DYNAMIC", "OMP_MAX_ACTIVE_LEVELS", "OMP_NESTED", "KMP_ALL_THREADS"),
        *("KMP_MAX_THREADS", "KMP_DYNAMIC_MODE", "MKL_DYNAMIC", "MKL_DOMAIN_NUM_THREADS", "MKL_NUM_STRIPES"),
        *("OMP_SCHEDULE", "OMP_TARGET_OFFLOAD", "GOTO_NUM_THREADS", "OPENBLAS_DEFAULT_NUM_THREADS"),
    ),
    "they change how long idle threads spin, on the CPUs of the next pool": (
        *("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY", "OPENBLAS_THREAD_TIMEOUT"),
        "GOTO_THREAD_TIMEOUT",
    ),
    "they change the precision of some libraries and not of others": (
        *("NVIDIA_TF32_OVERRIDE", "ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE"),
        "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
    ),
    "they make errors of warnings, and of values and conversions that are right": (
        *("PYTHONWARNINGS", "JAX_DEBUG_NANS", "JAX_DEBUG_INFS", "JAX_NUMPY_RANK_PROMOTION"),
        *("JAX_NUMPY_DTYPE_PROMOTION", "JAX_TRANSFER_GUARD", "JAX_TRANSFER_GUARD_HOST_TO_DEVICE"),
        *("JAX_TRANSFER_GUARD_DEVICE_TO_HOST", "JAX_TRANSFER_GUARD_DEVICE_TO_DEVICE"),
    ),
    "they slow Python down to find faults in it": ("PYTHONDEVMODE", "PYTHONTRACEMALLOC", "PYTHONMALLOC"),
}
_NAMES: Final = frozenset(name for names in WITHHELD.values() for name in names)


def withheld(environment: Mapping[str, str]) -> list[str]:
    """Return the names of variables that are set and that no worker gets, sorted."""
    return sorted(_NAMES & set(environment))


def passed_on(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that a worker gets."""
    return {name: value for name, value in environment.items() if name not in _NAMES}


def reasons(names: Sequence[str]) -> list[str]:
    """Return why these variables are withheld, each reason once."""
    return [reason for reason, listed in WITHHELD.items() if not set(listed).isdisjoint(names)]

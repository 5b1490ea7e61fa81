"""Describe the machine and what is installed on it, without importing a framework.

Host name, user name and paths are left out, since the files of a run are made to be shared.
"""

from __future__ import annotations

import functools
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final, NamedTuple

import psutil

from harness.installed import version
from harness.machine import cgroup, nvidia_smi, threads
from harness.machine.variables import withheld

#: Distributions whose versions are recorded, if they are installed.
DISTRIBUTIONS: Final = (
    *("bilinear-bench", "numpy", "scipy", "pandas", "torch", "triton", "numba", "llvmlite", "jax", "jaxlib"),
    *("jax-cuda13-plugin", "jax-cuda12-plugin", "cupy-cuda13x", "cupy-cuda12x", "flag-gems", "nvidia-ml-py"),
    *("opt-einsum", "threadpoolctl"),
)
#: Prefixes of variables that change what frameworks do, recorded if they are set.
VARIABLE_PREFIXES: Final = (
    *("OMP_", "OPENBLAS_", "MKL_", "KMP_", "GOMP_", "BLIS_", "NUMBA_", "TORCH", "XLA_", "JAX_", "NVIDIA_TF32", "CUDA_"),
    *("TRITON_", "CUPY_", "LD_PRELOAD", "MALLOC_", "ONEDNN_", "DNNL_", "GOTO_", "PYTHONWARNINGS"),
)
#: Parts of names of variables that are never recorded: they may hold a secret or a path.
_SECRET: Final = ("KEY", "TOKEN", "SECRET", "PASS", "DIR", "PATH", "HOME")
#: The folders of a path inside a value, which may contain the owner's name; the file's name stays.
_FOLDERS: Final = re.compile(r"[^\s=:,;]*/")
#: Memory that the workers leave free, in bytes.
RESERVE_BYTES: Final = 2**30
#: Bytes of the units of a cache's size in /sys.
_SIZES: Final = {"K": 2**10, "M": 2**20, "G": 2**30}


class Cache(NamedTuple):
    """One cache of the machine.

    Attributes:
        name: Level: ``L1``, ``L2`` or ``L3``.
        size_bytes: Size in bytes.
        cpus: Numbers of the CPUs that share it.
    """

    name: str
    size_bytes: int
    cpus: frozenset[int]


def describe() -> dict[str, Any]:
    """Return a mapping that describes the machine of a run; unknown values are None."""
    memory = psutil.virtual_memory()
    return {
        "python": platform.python_version(),
        "system": platform.system(),
        "kernel": platform.release(),
        "cpu_model": cpu_model(),
        "cpu_count": os.cpu_count(),
        "cpu_flags": [flag for flag in ("avx2", "fma", "avx512f", "asimd", "sve") if flag in _cpu_flags()],
        "threads_available": threads.available_threads(),
        "cgroup_cpus": cgroup.cpus(),
        "frequency_governor": read(Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")),
        "transparent_huge_pages": read(Path("/sys/kernel/mm/transparent_hugepage/enabled")),
        "memory_bytes": memory.total,
        "memory_available_bytes": memory.available,
        "load_average": list(os.getloadavg()),
        "gpus": gpus(),
        "versions": {name: found for name in DISTRIBUTIONS if (found := version(name))},
        "variables": {
            name: _FOLDERS.sub("", value)
            for name, value in sorted(os.environ.items())
            if name.startswith(VARIABLE_PREFIXES) and not any(word in name for word in _SECRET)
        },
        "variables_withheld": withheld(os.environ),
        "git_revision": git_revision(Path(__file__).parent.parent.parent),
        "arguments": [Path(argument).name if os.sep in argument else argument for argument in sys.argv[1:]],
    }


def available_bytes() -> int:
    """Return the memory that all workers together may take, in bytes.

    It is the memory that is free now, at most the free part of the cgroups' limits, less ``RESERVE_BYTES``.
    """
    free = int(psutil.virtual_memory().available)
    granted = cgroup.memory_free()
    return max(0, (free if granted is None else min(free, granted)) - RESERVE_BYTES)


def total_bytes() -> int:
    """Return the memory of this machine or of its cgroups, whichever is less, in bytes."""
    total, limit = int(psutil.virtual_memory().total), cgroup.memory_limit()
    return total if limit is None else min(total, limit)


def gpus() -> list[str]:
    """Return name, driver and memory of each NVIDIA GPU; empty where there is none."""
    return nvidia_smi.names()


def devices() -> tuple[str, ...]:
    """Return the devices of this machine: ``cpu``, and ``cuda`` where nvidia-smi lists a GPU."""
    return ("cpu", "cuda") if gpus() else ("cpu",)


@functools.cache
def device_bytes(device: str) -> int | None:
    """Return the memory of the first GPU, in bytes; None for the CPU, and where nvidia-smi does not list it."""
    listed = gpus() if device != "cpu" else []
    match = re.search(r"(\d+) MiB", listed[0]) if listed else None
    return int(match[1]) * 2**20 if match else None


def caches(root: Path = Path("/sys/devices/system/cpu")) -> list[Cache]:
    """Return every cache that holds data, each once, smallest level first; empty if unknown.

    Args:
        root: Folder with a folder for each CPU.
    """
    data_caches = set()
    for folder in root.glob("cpu[0-9]*/cache/index[0-9]*"):
        level, kind, size, shared = (read(folder / name) for name in ("level", "type", "size", "shared_cpu_list"))
        if kind in ("Data", "Unified") and level and shared and (match := re.fullmatch(r"(\d+)([KMG]?)", size or "")):
            data_caches.add(Cache(f"L{level}", int(match[1]) * _SIZES.get(match[2], 1), cpu_list(shared)))
    return sorted(data_caches, key=lambda cache: (cache.name, min(cache.cpus)))


def oom_kills() -> int | None:
    """Return how many processes the kernel has killed for memory since boot; None if unknown."""
    for line in (read(Path("/proc/vmstat")) or "").splitlines():
        name, _, value = line.partition(" ")
        if name == "oom_kill":
            return int(value)
    return None


def cpu_model() -> str | None:
    """Return the CPU's name, with family and model if known: names in a virtual machine are often generic."""
    known = fields(Path("/proc/cpuinfo"))
    name = known.get("model name") or platform.processor() or None
    if name is None or not {"cpu family", "model"} <= set(known):
        return name
    return f"{name} (family {known['cpu family']}, model {known['model']})"


def git_revision(folder: Path) -> str | None:
    """Return the revision of the checkout in a folder, with ``+changed`` if files differ; None without a checkout."""
    if not (folder / ".git").exists() or shutil.which("git") is None:
        return None
    try:
        described = subprocess.run(
            ["git", "-C", str(folder), "describe", "--always", "--abbrev=12", "--dirty=+changed"],  # noqa: S607  # by name, as a user would
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip() or None


def cpu_list(text: str) -> frozenset[int]:
    """Return the CPUs of a list in the kernel's notation: ``0-3,8``."""
    ranges = re.findall(r"(\d+)(?:-(\d+))?", text)
    return frozenset(cpu for first, last in ranges for cpu in range(int(first), int(last or first) + 1))


def _cpu_flags() -> set[str]:
    known = fields(Path("/proc/cpuinfo"))
    return set((known.get("flags") or known.get("Features") or "").split())


def fields(path: Path) -> dict[str, str]:
    """Return the ``name: value`` lines of a file of the kernel, the first of each name; {} without the file."""
    values: dict[str, str] = {}
    for line in (read(path) or "").splitlines():
        name, _, value = line.partition(":")
        values.setdefault(name.strip(), value.strip())
    return values


def read(path: Path) -> str | None:
    """Return a small file of the kernel as text; None if it cannot be read."""
    try:
        return path.read_text().strip()
    except OSError:
        return None

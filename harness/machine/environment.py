"""What machine this is and what is installed on it, without importing a framework and without naming its owner.

Host name, user name and paths stay out: the files of a run are made to be shared.
"""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final, NamedTuple

import psutil

from harness.machine import nvidia_smi, threads

#: Distributions whose versions are noted, where they are installed.
DISTRIBUTIONS: Final = (
    *("bilinear-bench", "numpy", "scipy", "pandas", "torch", "triton", "numba", "llvmlite", "jax", "jaxlib"),
    *("jax-cuda13-plugin", "jax-cuda12-plugin", "cupy-cuda13x", "cupy-cuda12x", "flag-gems", "nvidia-ml-py"),
    *("opt-einsum", "threadpoolctl"),
)
#: Variables that change what frameworks do; noted when set.
VARIABLE_PREFIXES: Final = (
    *("OMP_", "OPENBLAS_", "MKL_", "KMP_", "GOMP_", "BLIS_", "NUMBA_", "TORCH", "XLA_", "JAX_", "NVIDIA_TF32", "CUDA_"),
    *("TRITON_", "CUPY_", "LD_PRELOAD", "MALLOC_"),
)
_SECRET: Final = ("KEY", "TOKEN", "SECRET", "PASS", "DIR", "PATH", "HOME")
#: The folders of a path inside a value, which would name the owner; the file's name stays.
_FOLDERS: Final = re.compile(r"[^\s=:,;]*/")
#: Memory that stays free beside the workers, in bytes.
RESERVE_BYTES: Final = 2**30
#: Units of a cache's size in /sys.
_SIZES: Final = {"K": 2**10, "M": 2**20, "G": 2**30}


class Cache(NamedTuple):
    """One cache of the machine: its level (``L1``), its size, and the CPUs that share it."""

    name: str
    size_bytes: int
    cpus: frozenset[int]


def describe() -> dict[str, Any]:
    """Return a flat mapping that says where a run was made; unknown things are None."""
    memory = psutil.virtual_memory()
    return {
        "python": platform.python_version(),
        "system": platform.system(),
        "kernel": platform.release(),
        "cpu_model": cpu_model(),
        "cpu_count": os.cpu_count(),
        "cpu_flags": [flag for flag in ("avx2", "fma", "avx512f", "asimd", "sve") if flag in _cpu_flags()],
        "threads_available": threads.available_threads(),
        "cgroup_cpus": threads.cgroup_quota(),
        "frequency_governor": read(Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")),
        "transparent_huge_pages": read(Path("/sys/kernel/mm/transparent_hugepage/enabled")),
        "memory_bytes": memory.total,
        "memory_available_bytes": memory.available,
        "load_average": list(os.getloadavg()),
        "gpus": gpus(),
        "versions": {name: version for name in DISTRIBUTIONS if (version := _version(name))},
        "variables": {
            name: _FOLDERS.sub("", value)
            for name, value in sorted(os.environ.items())
            if name.startswith(VARIABLE_PREFIXES) and not any(word in name for word in _SECRET)
        },
        "git_revision": git_revision(Path(__file__).parent.parent.parent),
        "arguments": [Path(argument).name if os.sep in argument else argument for argument in sys.argv[1:]],
    }


def available_bytes() -> int:
    """Memory that workers may take together: what is free now, cut to the cgroup's limit, less a reserve; in bytes."""
    free = int(psutil.virtual_memory().available)
    limit, used = read(Path("/sys/fs/cgroup/memory.max")), read(Path("/sys/fs/cgroup/memory.current"))
    if limit and limit.isdigit() and used and used.isdigit():
        free = min(free, int(limit) - int(used))
    return max(0, free - RESERVE_BYTES)


def total_bytes() -> int:
    """Memory of this machine or of its cgroup, whichever is less, in bytes."""
    limit = read(Path("/sys/fs/cgroup/memory.max"))
    total = int(psutil.virtual_memory().total)
    return min(total, int(limit)) if limit and limit.isdigit() else total


def gpus() -> list[str]:
    """Return name, driver and memory of each NVIDIA GPU; empty where there is none."""
    return nvidia_smi.names()


@functools.cache
def device_bytes(device: str) -> int | None:
    """Memory of a device that has its own: of the first GPU; None for the CPU, and where nobody tells."""
    listed = gpus() if device != "cpu" else []
    found = re.search(r"(\d+) MiB", listed[0]) if listed else None
    return int(found[1]) * 2**20 if found else None


def caches(root: Path = Path("/sys/devices/system/cpu")) -> list[Cache]:
    """Every cache that holds data, once each, smallest level first; empty where the system does not say."""
    found = set()
    for folder in root.glob("cpu[0-9]*/cache/index[0-9]*"):
        level, kind, size, shared = (read(folder / name) for name in ("level", "type", "size", "shared_cpu_list"))
        if kind in ("Data", "Unified") and level and shared and (match := re.fullmatch(r"(\d+)([KMG]?)", size or "")):
            found.add(Cache(f"L{level}", int(match[1]) * _SIZES.get(match[2], 1), cpu_list(shared)))
    return sorted(found, key=lambda cache: (cache.name, min(cache.cpus)))


def oom_kills() -> int | None:
    """How often the kernel has killed a process for memory since boot; None where it does not say."""
    for line in (read(Path("/proc/vmstat")) or "").splitlines():
        name, _, value = line.partition(" ")
        if name == "oom_kill":
            return int(value)
    return None


def cpu_model() -> str | None:
    """The CPU's own name, with family and model where it has them: in a virtual machine names say little."""
    known = fields(Path("/proc/cpuinfo"))
    name = known.get("model name") or platform.processor() or None
    if name is None or not {"cpu family", "model"} <= set(known):
        return name
    return f"{name} (family {known['cpu family']}, model {known['model']})"


def git_revision(folder: Path) -> str | None:
    """Revision of the checkout this package lies in, ``+changed`` if its files differ from it; None outside one."""
    if not (folder / ".git").exists() or shutil.which("git") is None:
        return None
    try:
        said = subprocess.run(
            ["git", "-C", str(folder), "describe", "--always", "--abbrev=12", "--dirty=+changed"],  # noqa: S607  # by name, as a user would
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return said.stdout.strip() or None


def cpu_list(text: str) -> frozenset[int]:
    """Read the kernel's way to list CPUs: ``0-3,8``."""
    ranges = re.findall(r"(\d+)(?:-(\d+))?", text)
    return frozenset(cpu for first, last in ranges for cpu in range(int(first), int(last or first) + 1))


def _cpu_flags() -> set[str]:
    said = fields(Path("/proc/cpuinfo"))
    return set((said.get("flags") or said.get("Features") or "").split())


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def fields(path: Path) -> dict[str, str]:
    """The ``name: value`` lines of a file of the kernel, the first of each name; {} where there is none."""
    found: dict[str, str] = {}
    for line in (read(path) or "").splitlines():
        name, _, value = line.partition(":")
        found.setdefault(name.strip(), value.strip())
    return found


def read(path: Path) -> str | None:
    """A small file of the kernel as text; None where it cannot be read."""
    try:
        return path.read_text().strip()
    except OSError:
        return None

"""What the control groups of this process grant: CPUs and memory, of versions 1 and 2, nested ones included.

A service, a job of a batch system and a container each have a group. Every group above theirs limits them too. A
container may see its own group as the root while ``/proc/self/cgroup`` has the host's path, so files that are not there
are passed over.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

#: Files of version 2, and of version 1.
_LIMITS: Final = ("memory.max", "memory.high", "memory.limit_in_bytes")
_USED: Final = ("memory.current", "memory.usage_in_bytes")
#: Lines of memory.stat with the cached files that the kernel drops when memory is short.
_DROPPABLE: Final = ("inactive_file", "total_inactive_file")


def cpus(root: Path = Path("/")) -> float | None:
    """Return the least quota of this process's groups, in CPUs; None without one.

    Args:
        root: Folder that holds proc and sys.
    """
    quotas = (_quota(folder) for folder in _folders(root, "cpu"))
    return min((quota for quota in quotas if quota is not None), default=None)


def memory_limit(root: Path = Path("/")) -> int | None:
    """Return the least memory limit of this process's groups, in bytes; None without one."""
    return min((limit for folder in _folders(root, "memory") for limit in _numbers(folder, _LIMITS)), default=None)


def memory_free(root: Path = Path("/")) -> int | None:
    """Return the memory that the groups of this process leave it, in bytes; None without a limit."""
    free = []
    for folder in _folders(root, "memory"):
        limits, used = _numbers(folder, _LIMITS), _numbers(folder, _USED)
        if limits and used:
            free.append(max(0, min(limits) - max(0, used[0] - _droppable(folder))))
    return min(free, default=None)


def _folders(root: Path, controller: str) -> Iterator[Path]:
    """Yield the folder of each group that this process is in, and of those above it."""
    mount = root / "sys/fs/cgroup"
    of_version_2, of_version_1, name = "/", "/", controller
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            of_version_2 = path
        elif controller in controllers.split(","):
            of_version_1, name = path, controllers
    places = {mount: of_version_2, mount / "unified": of_version_2}
    places |= {mount / controller: of_version_1, mount / name: of_version_1}
    for place, path in places.items():
        parts = [part for part in path.split("/") if part not in ("", "..")]
        yield from (place.joinpath(*parts[:count]) for count in range(len(parts) + 1))


def _quota(folder: Path) -> float | None:
    """Return the quota of one group in CPUs; None without one."""
    version_1 = " ".join(_read(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
    with contextlib.suppress(ValueError, ZeroDivisionError):  # "max" in version 2, no file
        quota, period = map(int, (_read(folder / "cpu.max") or version_1).split())
        return quota / period if quota > 0 else None  # -1 in version 1
    return None


def _droppable(folder: Path) -> int:
    lines = dict(line.split()[:2] for line in _read(folder / "memory.stat").splitlines() if " " in line)
    return max((int(lines[name]) for name in _DROPPABLE if lines.get(name, "").isdigit()), default=0)


def _numbers(folder: Path, names: tuple[str, ...]) -> list[int]:
    return [int(text) for name in names if (text := _read(folder / name)).isdigit()]


def _read(path: Path) -> str:
    """Return a file of the kernel as text; empty if it cannot be read."""
    try:
        return path.read_text().strip()
    except (OSError, ValueError):
        return ""

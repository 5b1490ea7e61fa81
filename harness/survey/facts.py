"""What the doctor looks at: the machine, for about a second; nothing here judges."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Final

import psutil

from harness.machine import activity as machine_state
from harness.machine import environment
from harness.machine import threads as budget
from harness.machine.activity import State

if TYPE_CHECKING:
    from harness.timing.roofline import Peaks

#: Tells OpenBLAS which kernels to use.
CORETYPE_VARIABLE: Final = "OPENBLAS_CORETYPE"
#: How long the machine is watched, in seconds: a hundred ticks.
WATCH_SECONDS: Final = 1.0
#: Commands of this harness that keep a machine busy.
COMMANDS: Final = ("run", "check")

#: Columns of ``nvidia-smi --query-gpu`` in order; the reasons have two names, the newer one first (driver 535).
GPU_COLUMNS: Final = ("uuid", "clocks.sm", "clocks.max.sm", "{reasons}", "persistence_mode", "utilization.gpu", "name")
GPU_REASONS: Final = ("clocks_event_reasons.active", "clocks_throttle_reasons.active")


@dataclasses.dataclass(frozen=True, slots=True)
class Gpu:
    """One NVIDIA GPU now; None where the driver does not say.

    Attributes:
        name: The product.
        clock_mhz: Of its multiprocessors.
        most_mhz: The most that this clock can be.
        reasons: Bits that say why the clock is what it is.
        persistent: Whether the driver stays loaded between processes.
        utilization: Per cent of the last moment in which a kernel ran.
        others: Processes on it that are not ours.
    """

    name: str
    clock_mhz: int | None
    most_mhz: int | None
    reasons: int | None
    persistent: bool | None
    utilization: int | None
    others: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What there is to judge; None where the system does not say.

    Attributes:
        threads: The thread budget.
        affinity: CPUs that this process may use, the budget's first.
        cpu_count: CPUs of the machine.
        quota: CPUs that the cgroups grant.
        siblings: CPUs of the budget that share a core, a tuple for each such core.
        vendor: Of the CPU, as it calls itself.
        flags: What the CPU can do, by the kernel's names.
        coretype: What OPENBLAS_CORETYPE is set to.
        kernels: Version and kernels of each OpenBLAS, for when there are no products: ``OpenBLAS 0.3.30 Haswell``.
        governors: Of the frequency, of the CPUs of the budget.
        huge_pages: When memory comes in huge pages: ``always``, ``madvise`` or ``never``.
        load: Average over the last minute.
        own_cpu_seconds: CPU time that this process and its children have used, which is in the load too.
        before: State of the machine when the watch began.
        after: State when it ended.
        seconds: How long it took.
        memory_bytes: All there is.
        available_bytes: What is free, or can be.
        swap_used_bytes: What lies in swap.
        other_runs: Runs of this harness that are not ours.
        gpus: Each NVIDIA GPU.
        peaks: What was measured; None without.
    """

    threads: int
    affinity: tuple[int, ...] | None
    cpu_count: int | None
    quota: float | None
    siblings: tuple[tuple[int, ...], ...]
    vendor: str | None
    flags: frozenset[str]
    coretype: str | None
    kernels: tuple[str, ...]
    governors: tuple[str, ...]
    huge_pages: str | None
    load: float | None
    own_cpu_seconds: float
    before: State
    after: State
    seconds: float
    memory_bytes: int | None
    available_bytes: int | None
    swap_used_bytes: int | None
    other_runs: int
    gpus: tuple[Gpu, ...]
    peaks: Peaks | None


def gather(
    threads: int,
    peaks: Peaks | None = None,
    pools: Sequence[budget.Pool] | None = None,
    *,
    root: Path = Path("/"),
    sleep: Callable[[float], object] = time.sleep,
    ask_gpus: Callable[[], tuple[str, str]] | None = None,
    processes: Callable[[], Mapping[int, tuple[int, list[str]]]] | None = None,
) -> Facts:
    """Look at the machine, for ``WATCH_SECONDS``. Nothing of ours should compute meanwhile.

    Args:
        threads: The thread budget.
        peaks: What was measured.
        pools: What ``threads.read_back`` said of a worker's pools; by default of this process's own.
        root: Where /proc and /sys lie.
        sleep: Lets so many seconds pass.
        ask_gpus: Returns what nvidia-smi says of GPUs and of the processes on them, as CSV; empty without.
        processes: Returns every process: parent and arguments by its number.
    """
    table = (processes or _processes)()
    cpus = budget.affinity()
    chosen = [] if cpus is None else cpus[:threads]
    # The CSV is asked for before the watch: nvidia-smi itself is load.
    listed, on_gpus = (ask_gpus or _ask_gpus)()
    load_average, own_cpu_seconds = _load(root), _own_cpu_seconds()
    begin = time.monotonic()
    before = machine_state.read(root, cpus and chosen)
    sleep(WATCH_SECONDS)
    after = machine_state.read(root, cpus and chosen)
    seconds = max(time.monotonic() - begin, WATCH_SECONDS)
    cpuinfo, memory = environment.fields(root / "proc/cpuinfo"), environment.fields(root / "proc/meminfo")
    swap_total, swap_free = _kib(memory.get("SwapTotal")), _kib(memory.get("SwapFree"))
    return Facts(
        threads=threads,
        affinity=None if cpus is None else tuple(cpus),
        cpu_count=os.cpu_count(),
        quota=_quota(root),
        siblings=_siblings(root, chosen),
        vendor=cpuinfo.get("vendor_id"),
        flags=frozenset((cpuinfo.get("flags") or cpuinfo.get("Features") or "").split()),
        coretype=os.environ.get(CORETYPE_VARIABLE),
        kernels=_kernels(budget.read_back().pools if pools is None else pools),
        governors=_governors(root, chosen),
        huge_pages=_chosen_word(environment.read(root / "sys/kernel/mm/transparent_hugepage/enabled")),
        load=load_average,
        own_cpu_seconds=own_cpu_seconds,
        before=before,
        after=after,
        seconds=seconds,
        memory_bytes=_kib(memory.get("MemTotal")),
        available_bytes=_kib(memory.get("MemAvailable")),
        swap_used_bytes=None if swap_total is None or swap_free is None else swap_total - swap_free,
        other_runs=count_other_runs(table, os.getpid()),
        gpus=parse_gpus(listed, on_gpus, _family(table, os.getpid())),
        peaks=peaks,
    )


def parse_gpus(listed: str, on_gpus: str, ours: frozenset[int] = frozenset()) -> tuple[Gpu, ...]:
    """Read what nvidia-smi says, as CSV without header and units; lines that are something else are left out.

    Args:
        listed: ``GPU_COLUMNS`` of each GPU.
        on_gpus: UUID of the GPU and number of each process that computes on one.
        ours: Processes that do not count.
    """
    users = [[cell.strip() for cell in line.split(",")] for line in on_gpus.splitlines()]
    found = []
    for line in listed.splitlines():
        cells = [cell.strip() for cell in line.split(",", len(GPU_COLUMNS) - 1)]
        if len(cells) != len(GPU_COLUMNS):
            continue
        uuid, clock, most, reasons, persistence, utilization, name = cells
        others = sum(1 for user in users if user[0] == uuid and len(user) > 1 and _integer(user[1]) not in ours)
        persistent = {"Enabled": True, "Disabled": False}.get(persistence)
        numbers = _integer(clock), _integer(most), _integer(reasons)
        found.append(Gpu(name, *numbers, persistent, _integer(utilization), others))
    return tuple(found)


def count_other_runs(table: Mapping[int, tuple[int, list[str]]], own: int) -> int:
    """Count runs of this harness that we are no part of, a run and its workers as one.

    Args:
        table: Parent and arguments of every process, by its number.
        own: The number of this process.
    """
    runs = {number for number, (_, arguments) in table.items() if is_run(arguments)}
    ours = _family(table, own)
    return sum(1 for number in runs if number not in ours and not runs & set(_ancestors(table, number)))


def is_run(arguments: Sequence[str]) -> bool:
    """Whether a process with these arguments is a run of this harness or one of its workers."""
    for at, argument in enumerate(arguments):
        module, command = (*arguments[at + 1 : at + 3], "", "")[:2]
        if argument == "-m":
            return module == "harness.worker.main" or (module == "harness" and command in COMMANDS)
        if at < 2 and PurePath(argument).name == "bilinear-bench":  # the script, alone or after its interpreter
            return module in COMMANDS
    return False


def _family(table: Mapping[int, tuple[int, list[str]]], own: int) -> frozenset[int]:
    """This process, its ancestors, and the descendants of the outermost run above it, or of itself."""
    above = [own, *_ancestors(table, own)]
    top = next((number for number in reversed(above) if is_run(table.get(number, (0, []))[1])), own)
    return frozenset(above) | {number for number in table if top in _ancestors(table, number)}


def _ancestors(table: Mapping[int, tuple[int, list[str]]], number: int) -> list[int]:
    """Nearest first."""
    found: list[int] = []
    parent = table.get(number, (0, []))[0]
    while parent not in (*found, number, 0):  # numbers that were given anew could make a circle
        found.append(parent)
        parent = table.get(parent, (0, []))[0]
    return found


def _processes() -> dict[int, tuple[int, list[str]]]:
    asked = psutil.process_iter(["pid", "ppid", "cmdline"])
    return {one.info["pid"]: (one.info["ppid"] or 0, one.info["cmdline"] or []) for one in asked}


def _own_cpu_seconds() -> float:
    """CPU time of this process, of its children that have ended, and of those that live."""
    ours = os.times()
    seconds = ours.user + ours.system + ours.children_user + ours.children_system
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it may end while we look
            seconds += child.cpu_times().user + child.cpu_times().system
    return seconds


def _ask_gpus() -> tuple[str, str]:
    program = shutil.which("nvidia-smi")
    if program is None:
        return "", ""
    for reasons in GPU_REASONS:  # a driver that does not know the name fails, and says so in place of the CSV
        listed = _nvidia_smi(program, "gpu", ",".join(GPU_COLUMNS).format(reasons=reasons))
        if listed:
            return listed, _nvidia_smi(program, "compute-apps", "gpu_uuid,pid")
    return "", ""


def _nvidia_smi(program: str, what: str, columns: str) -> str:
    command = [program, f"--query-{what}={columns}", "--format=csv,noheader,nounits"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ""  # installed without a device, or the driver does not answer: as good as none


def _quota(root: Path) -> float | None:
    """The least quota of this process's cgroup and those above it: a service's own is not at the root.

    Version 1 has its quota in other files; there it is the one of the root, where a container sees its own.
    """
    mount = root / "sys/fs/cgroup"
    path = next(
        (line[3:] for line in (environment.read(root / "proc/self/cgroup") or "").splitlines() if line[:3] == "0::"),
        "/",
    )
    folder = PurePath(path.lstrip("/"))
    quotas = [budget.cgroup_quota(mount / one) for one in (folder, *folder.parents)]
    quota, period = (_integer(environment.read(mount / f"cpu/cpu.cfs_{name}_us")) for name in ("quota", "period"))
    if quota is not None and period and quota > 0:
        quotas.append(quota / period)
    return min((one for one in quotas if one is not None), default=None)


def _siblings(root: Path, cpus: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    groups = set()
    for cpu in cpus:
        listed = environment.read(root / f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        groups.add(tuple(one for one in environment.cpu_list(listed or "") if one in cpus))
    return tuple(sorted(group for group in groups if len(group) > 1))


def _governors(root: Path, cpus: Sequence[int]) -> tuple[str, ...]:
    """Each governor once."""
    paths = (root / f"sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor" for cpu in cpus)
    return tuple(sorted({governor for path in paths if (governor := environment.read(path))}))


def _kernels(pools: Sequence[budget.Pool]) -> tuple[str, ...]:
    """Each OpenBLAS once, as products name it."""
    return tuple(
        dict.fromkeys(
            f"OpenBLAS {pool.version} {pool.architecture}" for pool in pools if pool.internal_api == "openblas"
        )
    )


def _load(root: Path) -> float | None:
    with contextlib.suppress(ValueError, IndexError):
        return float((environment.read(root / "proc/loadavg") or "").split()[0])
    return None


def _kib(text: str | None) -> int | None:
    """Bytes of a line of /proc/meminfo, which counts in KiB."""
    return 2**10 * int(text.split()[0]) if text and text.split()[0].isdigit() else None


def _chosen_word(text: str | None) -> str | None:
    """The word in brackets: ``always [madvise] never``."""
    found = re.search(r"\[(\w+)\]", text or "")
    return found[1] if found else None


def _integer(text: str | None) -> int | None:
    """Read a number, also ``0x0000000000000004``; ``[N/A]`` and the like are None."""
    try:
        return int(text or "", 0)
    except ValueError:
        return None

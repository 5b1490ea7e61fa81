"""What the doctor looks at: the machine, for about a second; nothing here judges."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psutil

from harness.machine import activity, cgroup, environment, nvidia_smi, variables
from harness.machine import threads as budget
from harness.machine.activity import State
from harness.machine.nvidia_smi import GpuState
from harness.survey import busy
from harness.survey.other_runs import ProcessTable, count_other_runs, family, process_table

if TYPE_CHECKING:
    from harness.timing.roofline import Peaks

#: Variable that chooses OpenBLAS's kernels.
CORETYPE_VARIABLE: Final = "OPENBLAS_CORETYPE"
#: Time between the two readings of the machine's activity, in seconds: a hundred ticks of the kernel's clock.
WATCH_SECONDS: Final = 1.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Facts of the machine; None where the system does not report a value.

    Attributes:
        threads: Thread budget.
        affinity: CPUs that this process may use, the budget's first.
        cpu_count: Number of CPUs of the machine.
        quota: CPUs that the cgroups grant.
        siblings: CPUs of the budget that share a core, a tuple for each such core.
        vendor: Vendor of the CPU, by its own name.
        flags: Instruction sets of the CPU, by the kernel's names.
        coretype: Value of OPENBLAS_CORETYPE.
        kernels: Version and kernels of each OpenBLAS, such as ``OpenBLAS 0.3.30 Haswell``; used where no product was
            measured.
        governors: Frequency governors of the budget's CPUs, each once.
        huge_pages: Mode of transparent huge pages: ``always``, ``madvise`` or ``never``.
        load: Load average of the last minute.
        own_cpu_seconds: CPU time of this process and its children, in seconds; the load includes it.
        before: Activity of the machine at the start of the watch.
        after: Activity at its end.
        seconds: Time between the two, in seconds.
        memory_bytes: Size of the memory, or of the least limit of the cgroups.
        available_bytes: Memory that is free or can be freed, within the limits of the cgroups.
        swap_used_bytes: Bytes in swap.
        other_runs: Number of other runs of this harness.
        gpus: State of each NVIDIA GPU.
        peaks: Measured peaks; None without a measurement.
        busiest: Other processes that computed during the watch, in words.
        withheld: Variables that are set and that no worker gets.
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
    gpus: tuple[GpuState, ...]
    peaks: Peaks | None
    busiest: tuple[str, ...] = ()
    withheld: tuple[str, ...] = ()


def gather(
    threads: int,
    peaks: Peaks | None = None,
    pools: Sequence[budget.Pool] | None = None,
    *,
    root: Path = Path("/"),
    sleep: Callable[[float], object] = time.sleep,
    query_gpus: Callable[[], tuple[str, str]] = nvidia_smi.query_states,
    processes: Callable[[], ProcessTable] = process_table,
) -> Facts:
    """Watch the machine for ``WATCH_SECONDS``; no worker of this run may compute in that time.

    Length: one line for each fact.

    Args:
        threads: Thread budget.
        peaks: Measured peaks.
        pools: Thread pools of a worker, by ``threads.read_back``; None reads those of this process.
        root: Folder that holds proc and sys.
        sleep: Function that waits for a number of seconds.
        query_gpus: Function that returns GPUs and their processes as CSV; see ``nvidia_smi.query_states``.
        processes: Function that returns the table of processes.
    """
    table, own = processes(), os.getpid()
    cpus = budget.affinity()
    chosen = [] if cpus is None else cpus[:threads]
    gpu_states, gpu_processes = query_gpus()  # before the watch: nvidia-smi itself is load
    load_average, own_cpu_seconds = _load(root), _own_cpu_seconds()
    used = busy.cpu_times()
    begin = time.monotonic()
    before = activity.read(root, cpus and chosen)
    sleep(WATCH_SECONDS)
    after = activity.read(root, cpus and chosen)
    seconds = max(time.monotonic() - begin, WATCH_SECONDS)
    ours = family(table, own)
    cpuinfo, memory = environment.fields(root / "proc/cpuinfo"), environment.fields(root / "proc/meminfo")
    swap_total, swap_free = _kib(memory.get("SwapTotal")), _kib(memory.get("SwapFree"))
    return Facts(
        threads=threads,
        affinity=None if cpus is None else tuple(cpus),
        cpu_count=os.cpu_count(),
        quota=cgroup.cpus(root),
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
        memory_bytes=_least(_kib(memory.get("MemTotal")), cgroup.memory_limit(root)),
        available_bytes=_least(_kib(memory.get("MemAvailable")), cgroup.memory_free(root)),
        swap_used_bytes=None if swap_total is None or swap_free is None else swap_total - swap_free,
        other_runs=count_other_runs(table, own),
        gpus=nvidia_smi.parse_states(gpu_states, gpu_processes, ours),
        peaks=peaks,
        busiest=busy.busiest(used, busy.cpu_times(), seconds, ours),
        withheld=tuple(variables.withheld(os.environ)),
    )


def _own_cpu_seconds() -> float:
    """Return the CPU time of this process, of its ended children, and of its living descendants, in seconds."""
    ours = os.times()
    seconds = ours.user + ours.system + ours.children_user + ours.children_system
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):  # the child may have ended since
            seconds += child.cpu_times().user + child.cpu_times().system
    return seconds


def _siblings(root: Path, cpus: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    groups = set()
    for cpu in cpus:
        siblings = environment.read(root / f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        groups.add(tuple(one for one in environment.cpu_list(siblings or "") if one in cpus))
    return tuple(sorted(group for group in groups if len(group) > 1))


def _governors(root: Path, cpus: Sequence[int]) -> tuple[str, ...]:
    """Return each governor once."""
    paths = (root / f"sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor" for cpu in cpus)
    return tuple(sorted({governor for path in paths if (governor := environment.read(path))}))


def _kernels(pools: Sequence[budget.Pool]) -> tuple[str, ...]:
    """Return each OpenBLAS once, with version and kernels as a product's detail has them."""
    openblas = (pool for pool in pools if pool.internal_api == "openblas")
    return tuple(dict.fromkeys(f"OpenBLAS {pool.version} {pool.architecture}" for pool in openblas))


def _load(root: Path) -> float | None:
    with contextlib.suppress(ValueError, IndexError):
        return float((environment.read(root / "proc/loadavg") or "").split()[0])
    return None


def _kib(text: str | None) -> int | None:
    """Return the bytes of a line of /proc/meminfo, which counts in KiB."""
    return 2**10 * int(text.split()[0]) if text and text.split()[0].isdigit() else None


def _least(size: int | None, limit: int | None) -> int | None:
    return min((one for one in (size, limit) if one is not None), default=None)


def _chosen_word(text: str | None) -> str | None:
    """Return the word in brackets, as in ``always [madvise] never``."""
    match = re.search(r"\[(\w+)\]", text or "")
    return match[1] if match else None

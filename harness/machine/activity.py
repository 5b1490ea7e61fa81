"""Read the machine's activity before and after a sample, to flag disturbed samples.

A reading takes a few small files of the kernel and a fraction of a millisecond. A value that they lack is None.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from harness.machine import threads

#: Largest share of all CPUs' time that a hypervisor may steal: about the width of the reported intervals. Stolen time
#: is counted in ticks of 10 ms, so one tick flags a sample shorter than 0.2 s / CPUs.
STOLEN_SHARE: Final = 0.05
#: Largest rate of involuntary context switches, per second. An exclusive CPU has a few, for threads of the kernel. A
#: shared one has more than 150: one for each time slice of 0.75 to 6 ms (base slice of kernel/sched/fair.c).
SWITCHES_PER_SECOND: Final = 100.0
#: Fewest involuntary context switches that flag a sample: in a short sample one or two are chance.
FEWEST_SWITCHES: Final = 3
#: Least share of the best clock. The turbo of all cores is about a tenth below the turbo of one core; a lower clock
#: means heat, a power limit or a governor.
CLOCK_SHARE: Final = 0.9
#: Largest number of CPUs whose clocks are read. Each is a file to open, and before Linux 5.18 a wait of up to 10 ms
#: (arch_freq_get_on_cpu). Heat and power are common to the package, so a few CPUs represent it.
MOST_CLOCKS: Final = 8


@dataclasses.dataclass(frozen=True, slots=True)
class State:
    """One reading; a value that the system does not provide is None.

    Attributes:
        steal_seconds: Time in seconds since boot that the hypervisor took from runnable CPUs, summed over all CPUs.
        running: Number of runnable threads of the whole machine, less the one that reads.
        clock_mhz: Mean clock of the requested CPUs, in MHz.
        swapped_bytes: Bytes swapped in and out since boot.
    """

    steal_seconds: float | None
    running: int | None
    clock_mhz: float | None
    swapped_bytes: int | None


def read(root: Path = Path("/"), cpus: Sequence[int] | None = None) -> State:
    """Read the state of the machine now.

    Args:
        root: Folder of /proc and /sys.
        cpus: Numbers of the CPUs whose clocks are read, those of the thread budget; None for all CPUs of this process.
    """
    chosen = threads.affinity() if cpus is None else cpus
    return State(
        _steal_seconds(root / "proc/stat"),
        _running(root / "proc/loadavg"),
        _clock_mhz(root, None if chosen is None else chosen[:MOST_CLOCKS]),
        _swapped_bytes(root / "proc/vmstat"),
    )


def disturbed(
    before: State,
    after: State,
    seconds: float,
    cpus: int,
    involuntary_switches: int | None,
    best_clock_mhz: float | None,
) -> str | None:
    """Return the disturbances of a sample, words joined by ``+``; None without any, and if nothing is known.

    Args:
        before: Reading before the sample.
        after: Reading after the sample.
        seconds: Time between the readings, in seconds.
        cpus: Number of CPUs of the machine, since stolen time is summed over all of them.
        involuntary_switches: Number of the worker's involuntary context switches between the readings; None if unknown.
        best_clock_mhz: Highest mean clock of any reading, in MHz; None if unknown.
    """
    stolen = stolen_seconds(before, after) or 0.0
    switches = involuntary_switches or 0
    clocks = [clock for clock in (before.clock_mhz, after.clock_mhz) if clock is not None]
    disturbances = {
        "steal": stolen > STOLEN_SHARE * seconds * cpus,
        "switches": switches >= FEWEST_SWITCHES and switches > SWITCHES_PER_SECOND * seconds,
        "clock": bool(clocks) and sum(clocks) / len(clocks) < CLOCK_SHARE * (best_clock_mhz or 0.0),
        # In one reading alone it may be a thread of the kernel that was awake by chance.
        "load": bool(before.running and after.running),
        "swap": (_gain(before.swapped_bytes, after.swapped_bytes) or 0) > 0,
    }
    return "+".join(word for word, present in disturbances.items() if present) or None


def stolen_seconds(before: State, after: State) -> float | None:
    """Return the time stolen between two readings in seconds, summed over all CPUs; None if unknown."""
    return _gain(before.steal_seconds, after.steal_seconds)


def _gain(before: float | None, after: float | None) -> float | None:
    """Return the growth of a count; None where it is unknown."""
    return None if before is None or after is None else after - before


def _steal_seconds(path: Path) -> float | None:
    """Return the stolen time: the eighth number of the first line, in ticks (proc_stat(5))."""
    with contextlib.suppress(OSError, ValueError, IndexError), path.open() as file:
        return int(file.readline().split()[8]) / os.sysconf("SC_CLK_TCK")
    return None


def _running(path: Path) -> int | None:
    """Return the runnable threads but one, from the fourth field, ``running/all`` (proc_loadavg(5))."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return max(0, int(path.read_text().split()[3].partition("/")[0]) - 1)
    return None


def _clock_mhz(root: Path, cpus: Sequence[int] | None) -> float | None:
    """Return the mean clock in MHz, from the governor's driver (in kHz), or else from cpuinfo (in MHz)."""
    clocks = []
    for cpu in cpus or ():
        with contextlib.suppress(OSError, ValueError):
            path = root / f"sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_cur_freq"
            clocks.append(int(path.read_text()) / 1000)
    clocks = clocks or _cpuinfo_clocks(root / "proc/cpuinfo", cpus)
    return sum(clocks) / len(clocks) if clocks else None


def _cpuinfo_clocks(path: Path, cpus: Sequence[int] | None) -> list[float]:
    """Return the clocks of these CPUs in MHz; for None those of the first ``MOST_CLOCKS``.

    The file has a page for each CPU, so reading stops at the last clock.
    """
    clocks: list[float] = []
    most = MOST_CLOCKS if cpus is None else len(cpus)
    wanted = False
    with contextlib.suppress(OSError, ValueError), path.open() as file:
        for line in file:
            if line.startswith("processor"):
                wanted = cpus is None or int(line.partition(":")[2]) in cpus
            elif wanted and line.startswith("cpu MHz"):
                clocks.append(float(line.partition(":")[2]))
                if len(clocks) == most:
                    break
    return clocks


def _swapped_bytes(path: Path) -> int | None:
    """Return the pages swapped in and out (/proc/vmstat), in bytes."""
    with contextlib.suppress(OSError, ValueError):
        pages = dict(line.split()[:2] for line in path.read_text().splitlines() if line.startswith("pswp"))
        if pages:
            return sum(map(int, pages.values())) * os.sysconf("SC_PAGE_SIZE")
    return None

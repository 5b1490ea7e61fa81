"""What the machine is doing right now: read before and after a sample, to flag samples that something disturbed.

A few small files of the kernel are read, in a fraction of a millisecond. What they do not say is None.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from harness.machine import threads

#: Share of the machine's time that a hypervisor may take: about the width of the intervals that are reported. Stolen
#: time is counted in ticks of 10 ms, so that one of them is enough in samples shorter than 0.2 s over the CPUs.
STOLEN_SHARE: Final = 0.05
#: A CPU of one's own switches a few times a second, for threads of the kernel; a shared one with every time slice,
#: which is 0.75 to 6 ms (base slice of kernel/sched/fair.c), so more than 150 times.
SWITCHES_PER_SECOND: Final = 100.0
#: Fewer are chance, however short the sample.
FEWEST_SWITCHES: Final = 3
#: Share of the best clock. Turbo on all cores is about a tenth below turbo on one; what is lower is heat, a power limit
#: or a governor.
CLOCK_SHARE: Final = 0.9
#: Clocks of so many CPUs are read at most. Each is a file to open, and before Linux 5.18 a wait of up to 10 ms
#: (arch_freq_get_on_cpu); heat and power are the package's, so a few CPUs tell.
MOST_CLOCKS: Final = 8


@dataclasses.dataclass(frozen=True, slots=True)
class State:
    """One reading; None where the system does not say.

    Attributes:
        steal_seconds: Time since boot that the hypervisor took while a CPU wanted to run; all CPUs added up.
        running: Threads of the whole machine that run or want to, less the one that reads.
        clock_mhz: Mean clock of the CPUs asked for.
        swapped_bytes: What went to swap since boot, and what came back.
    """

    steal_seconds: float | None
    running: int | None
    clock_mhz: float | None
    swapped_bytes: int | None


def read(root: Path = Path("/"), cpus: Sequence[int] | None = None) -> State:
    """Read the state of the machine now.

    Args:
        root: Where /proc and /sys lie.
        cpus: Whose clocks are meant, those of the thread budget; by default all that this process may use.
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
    """Say what disturbed a sample, words joined by ``+``; None if nothing did, or nothing is known.

    Args:
        before: Read before the sample.
        after: Read after it.
        seconds: Time between the two.
        cpus: CPUs of the machine, for stolen time is that of all of them.
        involuntary_switches: Context switches of the worker in between that it did not ask for.
        best_clock_mhz: The best mean clock that any reading had.
    """
    stolen = stolen_seconds(before, after) or 0.0
    switches = involuntary_switches or 0
    clocks = [clock for clock in (before.clock_mhz, after.clock_mhz) if clock is not None]
    found = {
        "steal": stolen > STOLEN_SHARE * seconds * cpus,
        "switches": switches >= FEWEST_SWITCHES and switches > SWITCHES_PER_SECOND * seconds,
        "clock": bool(clocks) and sum(clocks) / len(clocks) < CLOCK_SHARE * (best_clock_mhz or 0.0),
        # Seen once it is a thread of the kernel that happened to be awake.
        "load": bool(before.running and after.running),
        "swap": (_gain(before.swapped_bytes, after.swapped_bytes) or 0) > 0,
    }
    return "+".join(word for word, so in found.items() if so) or None


def stolen_seconds(before: State, after: State) -> float | None:
    """What the hypervisor took between two readings, all CPUs added up; None where the system does not tell."""
    return _gain(before.steal_seconds, after.steal_seconds)


def _gain(before: float | None, after: float | None) -> float | None:
    """How much a count has grown; None where it is unknown."""
    return None if before is None or after is None else after - before


def _steal_seconds(path: Path) -> float | None:
    """The eighth number of the first line, in ticks (proc_stat(5))."""
    with contextlib.suppress(OSError, ValueError, IndexError), path.open() as file:
        return int(file.readline().split()[8]) / os.sysconf("SC_CLK_TCK")
    return None


def _running(path: Path) -> int | None:
    """The fourth field, ``running/all`` (proc_loadavg(5))."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return max(0, int(path.read_text().split()[3].partition("/")[0]) - 1)
    return None


def _clock_mhz(root: Path, cpus: Sequence[int] | None) -> float | None:
    """Mean of what the governor's driver says, in kHz; else of what cpuinfo says, in MHz."""
    clocks = []
    for cpu in cpus or ():
        with contextlib.suppress(OSError, ValueError):
            path = root / f"sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_cur_freq"
            clocks.append(int(path.read_text()) / 1000)
    clocks = clocks or _cpuinfo_clocks(root / "proc/cpuinfo", cpus)
    return sum(clocks) / len(clocks) if clocks else None


def _cpuinfo_clocks(path: Path, cpus: Sequence[int] | None) -> list[float]:
    """The clocks of these CPUs, of the first few if None; the file has a page for each CPU, and is read no further."""
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
    """Pages swapped in and out (/proc/vmstat), in bytes."""
    with contextlib.suppress(OSError, ValueError):
        found = dict(line.split()[:2] for line in path.read_text().splitlines() if line.startswith("pswp"))
        if found:
            return sum(map(int, found.values())) * os.sysconf("SC_PAGE_SIZE")
    return None

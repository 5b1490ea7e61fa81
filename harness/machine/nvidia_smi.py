"""NVIDIA GPUs as the program nvidia-smi lists them: it comes with the driver, and needs no Python package.

Each call takes a tenth of a second or more. ``gpu.Watch`` reads NVML itself, in a worker, where a reading follows every
sample.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import subprocess
from collections.abc import Set
from typing import Final

#: Columns of ``names``.
NAME_COLUMNS: Final = "name,driver_version,memory.total"
#: Columns of a GPU's state, in order. The name comes last because it may hold a comma.
STATE_COLUMNS: Final = (
    *("uuid", "clocks.sm", "clocks.max.sm", "{reasons}", "persistence_mode", "utilization.gpu", "name"),
)
#: Names of the column of clock event reasons: since driver 535, and before.
REASON_COLUMNS: Final = ("clocks_event_reasons.active", "clocks_throttle_reasons.active")
#: Columns of each process that computes on a GPU.
PROCESS_COLUMNS: Final = "gpu_uuid,pid"
#: Time limit of a call, in seconds.
LIMIT_SECONDS: Final = 30


@dataclasses.dataclass(frozen=True, slots=True)
class GpuState:
    """One GPU now; None where the driver does not report a value.

    Attributes:
        name: Name of the product.
        clock_mhz: Clock of the multiprocessors, in MHz.
        max_clock_mhz: Highest clock of the multiprocessors, in MHz.
        reasons: Bits of the clock event reasons; see ``gpu.REASONS``.
        persistent: True if the driver stays loaded between processes.
        utilization: Percentage of the last moment in which a kernel ran.
        others: Number of other processes on it.
    """

    name: str
    clock_mhz: int | None
    max_clock_mhz: int | None
    reasons: int | None
    persistent: bool | None
    utilization: int | None
    others: int


def names() -> list[str]:
    """Return name, driver and memory of each GPU, a line each; empty where there is none."""
    return [line.strip() for line in _query("gpu", NAME_COLUMNS, "csv,noheader").splitlines() if line.strip()]


def query_states() -> tuple[str, str]:
    """Return the states of all GPUs and the processes on them, as CSV; both empty where there is no GPU."""
    for reasons in REASON_COLUMNS:  # an older driver rejects the newer name
        states = _query("gpu", ",".join(STATE_COLUMNS).format(reasons=reasons))
        if states:
            return states, _query("compute-apps", PROCESS_COLUMNS)
    return "", ""


def parse_states(states: str, processes: str, ours: Set[int] = frozenset()) -> tuple[GpuState, ...]:
    """Return the state of each GPU; lines of another form are left out.

    Args:
        states: CSV with ``STATE_COLUMNS``, without header and units.
        processes: CSV with ``PROCESS_COLUMNS``, without header.
        ours: Numbers of processes that do not count.
    """
    users = [[cell.strip() for cell in line.split(",")] for line in processes.splitlines()]
    parsed = []
    for line in states.splitlines():
        cells = [cell.strip() for cell in line.split(",", len(STATE_COLUMNS) - 1)]
        if len(cells) != len(STATE_COLUMNS):
            continue
        uuid, clock, max_clock, reasons, persistence, utilization, name = cells
        others = sum(1 for user in users if user[0] == uuid and len(user) > 1 and _integer(user[1]) not in ours)
        persistent = {"Enabled": True, "Disabled": False}.get(persistence)
        numbers = _integer(clock), _integer(max_clock), _integer(reasons)
        parsed.append(GpuState(name, *numbers, persistent, _integer(utilization), others))
    return tuple(parsed)


def _query(subject: str, columns: str, form: str = "csv,noheader,nounits") -> str:
    program = shutil.which("nvidia-smi")
    if program is None:
        return ""
    command = [program, f"--query-{subject}={columns}", f"--format={form}"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_SECONDS, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ""  # installed without a device, or the driver does not answer


def _integer(text: str) -> int | None:
    """Return a number, hexadecimal too; None for ``[N/A]``."""
    with contextlib.suppress(ValueError):
        return int(text, 0)
    return None

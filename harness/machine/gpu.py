"""What a GPU is doing right now, by NVML: its clock, its temperature, and what holds it back.

Read in the worker, right after its kernel has run: an idle GPU soon lowers its clock. Without the package nvidia-ml-py,
or without a GPU, nothing is known. GPUs have the numbers of the PCI bus, as CUDA has them with
``CUDA_DEVICE_ORDER=PCI_BUS_ID``, which workers are given.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import os
from collections.abc import Callable
from typing import Any, Final

from harness.machine.activity import CLOCK_SHARE

#: Reasons of NVML (nvmlClocksEventReasons) that make a GPU slower than it can be. Not among them: idleness, a clock
#: that somebody has set on purpose, the display's clock.
REASONS: Final = {
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x10: "sync boost",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "power brake",
}
#: A kernel that takes all the power there may be runs at the cap all the time: that is its way, and no disturbance.
USUAL: Final = frozenset({"power cap"})
#: Two readings within this share of each other are a clock that is steady; at its power cap one wavers by as much.
STEADY_SHARE: Final = 0.05
#: Running between two readings, in seconds; and how often at most.
STEADY_SECONDS, STEADY_READINGS = 0.020, 10


@dataclasses.dataclass(frozen=True, slots=True)
class State:
    """One reading.

    Attributes:
        clock_mhz: Of the multiprocessors.
        temperature_celsius: Of the chip.
        held_back: Why it is slower than it could be, words joined by ``+``; empty if it is not.
    """

    clock_mhz: float
    temperature_celsius: float
    held_back: str


def disturbed(state: State, best_clock_mhz: float) -> str | None:
    """Say what disturbed a sample, words joined by ``+``; None if nothing did.

    Args:
        state: Read right after it.
        best_clock_mhz: The best clock after any sample of the same kernel, for some need more power than others.
    """
    reasons = set(filter(None, state.held_back.split("+")))
    found = {"gpu_clock": state.clock_mhz < CLOCK_SHARE * best_clock_mhz, "gpu_held_back": bool(reasons - USUAL)}
    return "+".join(word for word, so in found.items() if so) or None


class Watch:
    """Reads one GPU: the first that this process may use.

    Args:
        nvml: The module ``pynvml``, or what stands in for it; imported if None.
    """

    def __init__(self, nvml: Any = None) -> None:
        self._nvml: Any = nvml
        self._handle: Any = None
        self._steady_mhz = 0.0
        with contextlib.suppress(Exception):  # no package, no driver, no GPU: NVML has an error for each
            self._nvml = nvml or importlib.import_module("pynvml")
            self._nvml.nvmlInit()
            first = os.environ.get("CUDA_VISIBLE_DEVICES", "").partition(",")[0].strip() or "0"
            by = self._nvml.nvmlDeviceGetHandleByIndex if first.isdigit() else self._nvml.nvmlDeviceGetHandleByUUID
            self._handle = by(int(first) if first.isdigit() else first)

    def read(self) -> State | None:
        """Read the state now; None where nobody can tell."""
        if self._handle is None:
            return None
        with contextlib.suppress(Exception):
            reasons = self._reasons()
            return State(
                float(self._nvml.nvmlDeviceGetClockInfo(self._handle, self._nvml.NVML_CLOCK_SM)),
                float(self._nvml.nvmlDeviceGetTemperature(self._handle, self._nvml.NVML_TEMPERATURE_GPU)),
                "+".join(word for bit, word in REASONS.items() if reasons & bit),
            )
        return None

    def run_until_steady(self, run: Callable[[float], object]) -> None:
        """Run in stretches until the clock no longer rises or falls, or is where it was steady before.

        Once where it cannot be read.

        Args:
            run: Keeps the GPU busy for so many seconds.
        """
        for _ in range(STEADY_READINGS):
            run(STEADY_SECONDS)
            now = self.read()
            if now is None:
                return
            before, self._steady_mhz = self._steady_mhz, now.clock_mhz
            if abs(now.clock_mhz - before) <= STEADY_SHARE * before:
                return

    def _reasons(self) -> int:
        """Under its name of today; under that before CUDA 12.3 where package or driver do not know it."""
        with contextlib.suppress(Exception):
            return int(self._nvml.nvmlDeviceGetCurrentClocksEventReasons(self._handle))
        return int(self._nvml.nvmlDeviceGetCurrentClocksThrottleReasons(self._handle))

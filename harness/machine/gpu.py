"""What a GPU is doing right now, by NVML: its clock, its temperature, and what holds it back.

Read in the worker, right after its kernel has run: an idle GPU soon lowers its clock. Without the package nvidia-ml-py,
or without a GPU, nothing is known.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import os
from collections.abc import Callable
from typing import Any, Final

from harness.machine.state import CLOCK_SHARE

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
#: Two readings within this share of each other are a clock that is steady.
STEADY_SHARE: Final = 0.02
#: Running between two readings, in seconds; and how often at most.
STEADY_SECONDS, STEADY_READINGS = 0.020, 25


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
        best_clock_mhz: The best clock that any reading had.
    """
    found = {"gpu_clock": state.clock_mhz < CLOCK_SHARE * best_clock_mhz, "gpu_held_back": bool(state.held_back)}
    return "+".join(word for word, so in found.items() if so) or None


class Watch:
    """Reads one GPU: the first that this process may use.

    Args:
        nvml: The module ``pynvml``, or what stands in for it; imported if None.
    """

    def __init__(self, nvml: Any = None) -> None:
        self._nvml: Any = nvml
        self._handle: Any = None
        with contextlib.suppress(Exception):  # no package, no driver, no GPU: NVML has an error for each
            self._nvml = nvml or importlib.import_module("pynvml")
            self._nvml.nvmlInit()
            self._handle = self._nvml.nvmlDeviceGetHandleByIndex(visible_index(os.environ.get("CUDA_VISIBLE_DEVICES")))

    def read(self) -> State | None:
        """Read the state now; None where nobody can tell."""
        if self._handle is None:
            return None
        with contextlib.suppress(Exception):
            reasons = int(self._reasons()(self._handle))
            return State(
                float(self._nvml.nvmlDeviceGetClockInfo(self._handle, self._nvml.NVML_CLOCK_SM)),
                float(self._nvml.nvmlDeviceGetTemperature(self._handle, self._nvml.NVML_TEMPERATURE_GPU)),
                "+".join(word for bit, word in REASONS.items() if reasons & bit),
            )
        return None

    def run_until_steady(self, run: Callable[[float], object]) -> None:
        """Run in stretches until the clock no longer rises or falls; once where it cannot be read.

        Args:
            run: Keeps the GPU busy for so many seconds.
        """
        before = None
        for _ in range(STEADY_READINGS):
            run(STEADY_SECONDS)
            now = self.read()
            if now is None or (before and abs(now.clock_mhz - before.clock_mhz) <= STEADY_SHARE * before.clock_mhz):
                return
            before = now

    def _reasons(self) -> Callable[[Any], int]:
        """Under its name of today, or that before CUDA 12.3."""
        names = ("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons")
        found: Callable[[Any], int] = next(getattr(self._nvml, name) for name in names if hasattr(self._nvml, name))
        return found


def visible_index(visible: str | None) -> int:
    """The number that NVML has for the first GPU of CUDA_VISIBLE_DEVICES; 0 where that gives none."""
    first = (visible or "").partition(",")[0].strip()
    return int(first) if first.isdigit() else 0

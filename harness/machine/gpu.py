"""Read a GPU's clock, temperature and clock event reasons by NVML, in the worker, right after its kernel.

An idle GPU soon lowers its clock, so a later reading would say nothing of the kernel. Without the package nvidia-ml-py,
or without a GPU, there is no reading. GPUs are numbered in the order of the PCI bus, as CUDA numbers them with
``CUDA_DEVICE_ORDER=PCI_BUS_ID``, which the supervisor sets for workers.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import os
from collections.abc import Callable
from typing import Any, Final

from harness.machine.activity import CLOCK_SHARE

#: Clock event reasons that make a GPU slower than it can be, by bit (nvmlClocksEventReasons in nvml.h). Idleness, a
#: clock set on purpose and the display's clock (bits 0x1, 0x2 and 0x100) are left out.
REASONS: Final = {
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x10: "sync boost",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "power brake",
}
#: Reasons that disturb no sample: a kernel that needs all the power runs at the cap all the time.
USUAL: Final = frozenset({"power cap"})
#: Largest relative difference of two readings of a steady clock; at the power cap a clock varies by as much.
STEADY_SHARE: Final = 0.05
#: Length of a run between two readings, in seconds.
STEADY_SECONDS: Final = 0.020
#: Most readings before a clock counts as steady.
STEADY_READINGS: Final = 10


@dataclasses.dataclass(frozen=True, slots=True)
class State:
    """One reading.

    Attributes:
        clock_mhz: Clock of the multiprocessors, in MHz.
        temperature_celsius: Temperature of the chip, in degrees Celsius.
        held_back: Values of ``REASONS`` joined by ``+``; empty at full speed.
    """

    clock_mhz: float
    temperature_celsius: float
    held_back: str


def disturbed(state: State, best_clock_mhz: float) -> str | None:
    """Return the disturbances of a sample, words joined by ``+``; None without any.

    Args:
        state: Reading right after the sample.
        best_clock_mhz: Highest clock after any sample of the same kernel, in MHz; kernels differ in power, so in clock.
    """
    reasons = set(filter(None, state.held_back.split("+")))
    disturbances = {"gpu_clock": state.clock_mhz < CLOCK_SHARE * best_clock_mhz, "gpu_held_back": bool(reasons - USUAL)}
    return "+".join(word for word, present in disturbances.items() if present) or None


class Watch:
    """Reads one GPU: the first that this process may use.

    Args:
        nvml: Module with the functions of ``pynvml``; None imports ``pynvml``.
    """

    def __init__(self, nvml: Any = None) -> None:
        self._nvml: Any = nvml
        self._handle: Any = None
        self._steady_mhz = 0.0
        with contextlib.suppress(Exception):  # no package, no driver or no GPU, each an error of its own
            self._nvml = nvml or importlib.import_module("pynvml")
            self._nvml.nvmlInit()
            first = os.environ.get("CUDA_VISIBLE_DEVICES", "").partition(",")[0].strip() or "0"
            by = self._nvml.nvmlDeviceGetHandleByIndex if first.isdigit() else self._nvml.nvmlDeviceGetHandleByUUID
            self._handle = by(int(first) if first.isdigit() else first)

    def read(self) -> State | None:
        """Return the state now; None where it cannot be read."""
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
        """Run until two readings in a row agree, the last reading of the call before included.

        Where the clock cannot be read, run once.

        Args:
            run: Function that keeps the GPU busy for a number of seconds.
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
        """Return the bits; before CUDA 12.3 package and driver know only the older name of the function."""
        with contextlib.suppress(Exception):
            return int(self._nvml.nvmlDeviceGetCurrentClocksEventReasons(self._handle))
        return int(self._nvml.nvmlDeviceGetCurrentClocksThrottleReasons(self._handle))

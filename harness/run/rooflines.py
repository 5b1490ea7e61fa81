"""The rooflines of a run's devices, at their peaks and at the spot peak of each block."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from harness.case import Case
from harness.run.cell import Cell
from harness.timing import roofline

#: Ratio of a GEMM's rate to the best rate of the FMA chains in a run: from there on the GEMM has units that the chains
#: do not reach. A GEMM that is less ahead was measured in a better moment.
OTHER_UNITS: Final = 1.5
#: A median more than 5 % below the roofline is impossible: flag the row, do not rank it.
IMPLAUSIBLE: Final = 1.05


class Rooflines:
    """The rooflines of a run's devices.

    Args:
        peaks: Peaks of each device; rows of a device without peaks have no roofline.
        survey: Function that measures a device's peaks again, before a row is called faster than the device.
        stage: Callback before the peaks are measured again.
    """

    def __init__(
        self,
        peaks: Mapping[str, roofline.Peaks],
        survey: Callable[[str], roofline.Peaks] | None,
        stage: Callable[[str], None],
    ) -> None:
        self._peaks, self._survey, self._stage = dict(peaks), survey, stage
        #: Highest spot peak of the run until now, in flop per second, by arithmetic.
        self._best_spot_peaks: dict[str, float] = {}

    def add_spot_peaks(self, case: Case, cells: list[Cell]) -> None:
        """Take the spot peaks of a group into the highest spot peak of the run."""
        arithmetic = roofline.arithmetic_of(case)
        peaks = [peak for cell in cells for peak in cell.timings.spot_peaks.values()]
        self._best_spot_peaks[arithmetic] = max([self._best_spot_peaks.get(arithmetic, 0.0), *peaks])

    def seconds(self, case: Case, device: str, fastest: float | None) -> float | None:
        """Return the least time that a device could take, in seconds; None if it is unknown.

        Args:
            case: The case.
            device: The device.
            fastest: Smallest median of the group, in seconds; if it is impossible, the peaks are measured again.
        """
        if device not in self._peaks:
            return None
        least = roofline.roofline_seconds(case, self._peaks[device])
        if least is None or fastest is None or least <= IMPLAUSIBLE * fastest or self._survey is None:
            return least
        self._stage("how fast this machine can compute, once more")
        self._peaks[device] = self._peaks[device].best(self._survey(device))
        return roofline.roofline_seconds(case, self._peaks[device])

    def at_spot_peaks(self, case: Case, device: str, spot_peaks: Mapping[int, float]) -> dict[int, float]:
        """Return the roofline at each block's spot peak, in seconds; empty if the spot peak is no part of the roofline.

        Where units that no FMA chain reaches make the peak, the chains' spot peak says nothing of it.
        """
        arithmetic = roofline.arithmetic_of(case)
        peaks = self._peaks.get(device)
        if peaks is None or (rate := peaks.arithmetic.get(arithmetic)) is None:
            return {}
        if rate.flop_per_second >= OTHER_UNITS * max(rate.chains or 0.0, self._best_spot_peaks.get(arithmetic, 0.0)):
            return {}
        return {
            block: seconds
            for block, spot_peak in spot_peaks.items()
            if (seconds := roofline.roofline_seconds(case, peaks.at_spot_peak(arithmetic, spot_peak))) is not None
        }

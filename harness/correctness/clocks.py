"""The conduct probe on clocks: judge the times that a worker reports by the run's own clock."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from harness.correctness.conduct import PROBE
from harness.correctness.verdict import Verdict, passed, refused

#: Median unseen time of a block that is always allowed, in seconds: the parent's clock includes pipes and thawing. The
#: largest of four allowances counts; the fourth is the median wait for a CPU while others ran.
UNSEEN_SECONDS: Final = 0.015
#: Median unseen time that is always allowed, as a share of the measured time.
UNSEEN_SHARE: Final = 0.5
#: Median unseen time that is always allowed, as a multiple of another backend's: the machine delays all of them.
UNSEEN_TIMES: Final = 3.0
#: Unseen time of a long sample beyond that of short ones that is always allowed, as a share of the measured time.
LONG_SHARE: Final = 0.05
#: Number of long samples that a refusal of a clock rests on: each of them is beyond the share.
LONG_SAMPLES: Final = 4
#: Fewest blocks that a refusal of a clock rests on: in one or two the machine may have taken the time.
CLOCK_BLOCKS: Final = 3


def judge_clock(
    unseen_seconds: Sequence[float],
    measured_seconds: Sequence[float],
    waited_seconds: Sequence[float] = (),
    others: Sequence[Sequence[float]] = (),
) -> Verdict:
    """Refuse a worker that measured less time than passed by the parent's own clock.

    Args:
        unseen_seconds: Time of each block that passed in the parent, in seconds, less the worker's time and the time
            that the hypervisor took CPUs away.
        measured_seconds: Time of each block that the worker measured, in seconds.
        waited_seconds: Time of each block that waits for a CPU may have taken while others ran, in seconds.
        others: Unseen times of each other backend of the cohort; the smallest median counts.
    """
    if not unseen_seconds:
        return passed(PROBE)
    unseen, measured = float(np.median(unseen_seconds)), float(np.median(measured_seconds))
    waited = float(np.median(waited_seconds)) if len(waited_seconds) else 0.0
    usual = min((float(np.median(other)) for other in others if len(other)), default=0.0)
    if unseen > max(UNSEEN_SECONDS, UNSEEN_SHARE * measured, UNSEEN_TIMES * usual, waited):
        return refused(PROBE, f"its samples say {measured:.3g} s where {measured + unseen:.3g} s passed")
    return passed(PROBE)


def judge_long_sample(
    measured_seconds: float,
    unseen_seconds: float,
    waited_seconds: float,
    short_unseen_seconds: Sequence[float],
    others: Sequence[Sequence[float]] = (),
) -> Verdict:
    """Refuse a worker that measured less time in a long sample than passed by the run's own clock.

    What a sample costs next to its calls is the same in a short one and cancels; a false clock grows with the sample.

    Args:
        measured_seconds: Time of the sample as the worker measured it, in seconds.
        unseen_seconds: Time around it that the worker does not account for, in seconds.
        waited_seconds: Time that waits for a CPU may have taken around it while others ran, in seconds.
        short_unseen_seconds: Unseen times of the backend's short samples, in seconds; the smallest one counts.
        others: Unseen times of each other backend of the cohort; the smallest median counts.
    """
    excess = unseen_seconds - max(0.0, min(short_unseen_seconds, default=0.0))
    usual = min((float(np.median(other)) for other in others if len(other)), default=0.0)
    if excess > max(LONG_SHARE * measured_seconds, UNSEEN_TIMES * usual, waited_seconds):
        passed_seconds = measured_seconds + excess
        return refused(PROBE, f"its clock says {measured_seconds:.3g} s of a sample of {passed_seconds:.3g} s")
    return passed(PROBE)

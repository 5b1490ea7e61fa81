"""The conduct probe on the thread budget: what a backend's threads and descendants are granted, and what they took."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from harness.correctness.conduct import PROBE
from harness.correctness.verdict import Verdict, passed, refused

#: Most CPU time, as a share of what the budget grants.
CPU_SHARE: Final = 1.15
#: CPU time that is always allowed beyond that, in seconds: the system counts it in ticks of 10 ms.
CPU_SECONDS: Final = 0.05


def judge_granted(
    cpus: Collection[int], allowed: Collection[int], nice: int, usual_nice: int, real_time: bool
) -> Verdict:
    """Refuse a backend with a thread or descendant on other CPUs, or with a higher priority, than it was started with.

    Args:
        cpus: CPUs that any of its threads may run on.
        allowed: CPUs of its worker.
        nice: Lowest nice value of any of its threads.
        usual_nice: Nice value that its worker was started with.
        real_time: True if a thread has a real-time scheduling class that its worker was not started with.
    """
    if not set(cpus) <= set(allowed):
        return refused(PROBE, f"runs on the CPUs {sorted(cpus)}, was held to {sorted(allowed)}")
    if nice < usual_nice:
        return refused(PROBE, f"runs at nice {nice}, was started at {usual_nice}")
    if real_time:
        return refused(PROBE, "runs in a real-time scheduling class")
    return passed(PROBE)


def judge_cpu_seconds(cpu_seconds: float, seconds: float, threads: int) -> Verdict:
    """Refuse a backend whose processes took more CPU time than the budget grants.

    Args:
        cpu_seconds: CPU time of the worker and its descendants during all samples, in seconds.
        seconds: Time of all samples by the run's clock, in seconds.
        threads: Thread budget.
    """
    if cpu_seconds > CPU_SHARE * threads * seconds + CPU_SECONDS:
        return refused(PROBE, f"took {cpu_seconds:.3g} s of CPU time in {seconds:.3g} s, with a budget of {threads}")
    return passed(PROBE)

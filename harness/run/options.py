"""Options of a plan, and of carrying it out."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence


class PlanError(ValueError):
    """Options that contradict each other, or this machine. The message says what to leave out."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PlanOptions:
    """Options of a command line; None leaves the choice to the suite or the machine.

    Attributes:
        suite: Name of a suite; not together with ``cases``.
        cases: Cases as text: sizes or labels.
        quick: True for one case within about a minute; not together with ``suite``.
        backends: Names, patterns and lists of backends; default all, or the core set where the suite says so.
        skip: Names, patterns and lists of backends to leave out.
        devices: ``cpu`` or ``cuda``; default all devices of the machine.
        modes: Keys of ``MODE_NAMES``; default both modes.
        dtype: Dtype in place of every case's own.
        precision: Precision in place of every case's own.
        threads: Number of CPUs of every worker; default all.
        seed: Seed of the inputs and of the order of measuring; default drawn.
        budget_seconds: Measuring time of a group, in seconds.
        target: Half-width of the intervals at which measuring stops, as a share of the ratio.
        band: Half-width of the equivalence band, as a share of the ratio.
        processes: Largest number of fresh processes of a backend in a group.
        time_limit_seconds: Time limit of any one request, in seconds.
        timing: False for the gate alone.
        flush_l2: True if twice the GPU's L2 is written before each timed call.
        recheck: True if edge cases are asked that an earlier run has found right.
    """

    suite: str | None = None
    cases: Sequence[str] = ()
    quick: bool = False
    backends: Sequence[str] = ()
    skip: Sequence[str] = ()
    devices: Sequence[str] = ()
    modes: Sequence[str] = ()
    dtype: str | None = None
    precision: str | None = None
    threads: int | None = None
    seed: int | None = None
    budget_seconds: float | None = None
    target: float | None = None
    band: float | None = None
    processes: int | None = None
    time_limit_seconds: float = 120.0
    timing: bool = True
    flush_l2: bool = False
    recheck: bool = False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """Options of carrying out a plan.

    Attributes:
        freeze: True if idle workers are stopped while another one runs.
        empty_compile_cache: True if every cell has empty compile caches and a fresh worker.
        roofline: True if the machine's peaks are measured.
    """

    freeze: bool = True
    empty_compile_cache: bool = False
    roofline: bool = True

"""The cases, the clock and the faults of fake workers."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from harness.case import Case
from harness.machine import activity
from harness.machine.gpu import State as GpuState
from harness.machine.standing import Standing
from harness.machine.usage import Usage
from harness.process.protocol import Request, Stretch

if TYPE_CHECKING:
    from fake_worker import FakeWorker

#: Cases that runs of fake workers measure: a small one, its training step, and another size.
CASE = Case(3, 2, 2, 2)
STEP = CASE.with_mode("forward_backward")
LARGER = dataclasses.replace(CASE, batch=4)
GIB = 2**30
#: The activity of a machine that runs nothing else.
QUIET = activity.State(0.0, 0, 3000.0, 0)

TICK_SECONDS = 1e-7
OVERHEAD_SECONDS = 1e-8
NATIVE_TYPE = "numpy.ndarray"


class Clock:
    """The clock of a run, which fake calls advance.

    Attributes:
        now: Time since the run's beginning, in seconds.
    """

    def __init__(self) -> None:
        self.now = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Faults:
    """How a fake worker behaves; by default it is right, supports all cases and takes 10 ms a call.

    Attributes:
        kind: Class of the worker.
        instead: Reply in place of the usual one, or the error that is raised, by class of request.
        call_seconds: Time of a call.
        unseen_seconds: Time around each request that the worker does not account for.
        usage: CPU time and waits of its threads in each request; empty where the system does not count them.
        standing: Returns what the system grants it at a time of the clock.
        looks: What the system grants it during calls that are not timed.
        spread: Standard deviations of the logarithm of a sample's time: of processes, of blocks.
        import_seconds: Time of importing.
        compile_seconds: Time of the first call beyond 0.2 s.
        untimeable: Why its times mean nothing.
        tuning: What it chose for the case.
        workspace_bytes: Memory that its technique takes.
        peak_bytes: Memory of a call at its peak; None where the system does not tell.
        trims: True if freed memory goes back to the system.
        device: Device of its arrays.
        input_dtype: Dtype of its inputs.
        home_made: True if the type of its arrays is its own.
        answers: Variation that a scenario's results are right for, by the scenario's name.
        noise: Relative error of every term.
        first_becomes: Variation of the first results after the scenarios.
        changed: Inputs that it has changed.
        replaced: Functions that it has replaced.
        convert_seconds: Time of its own conversion to the host.
        kept: Variation of the results from inside a sample; None for the right one.
        kept_forward: Variation of the results from inside a step's forward that is timed alone; None for the right one.
        edge_case_errors: What it raises, by the edge case's name.
        gradcheck: What finite differences object to.
        fresh_seconds: Time of a call on new inputs at each attempt, the last one repeated; empty for ``call_seconds``.
        affinity_later: Its CPUs after timing.
        wrong_later: Difference of the variation whose results it returns after timing.
        runnable: Threads that want to run, on average.
        stretches: Calls of its warmup; empty for one call of ``call_seconds``.
        device_shares: Time by the device's clock as a share of ``call_seconds``, by column; None for none.
        absent: Why there are no times of the device's clock, by column; the process is unusable then.
        gpu_states: States of the GPU after each sample; None without NVML.
        gpu_seconds: Time of reading the GPU's state.
    """

    kind: type[FakeWorker] | None = None
    instead: Mapping[type[Request[Any]], object] = dataclasses.field(default_factory=dict)
    call_seconds: float = 0.01
    unseen_seconds: float = 0.0
    usage: tuple[Usage, ...] = (Usage(10_000_000, 0, 1),)
    looks: tuple[Standing, ...] = ()
    standing: Callable[[float], Standing | None] = lambda now: Standing(frozenset({0}), os.nice(0), False, now)
    spread: tuple[float, float] = (0.0, 0.0)
    import_seconds: float = 0.1
    compile_seconds: float = 0.0
    untimeable: str = ""
    tuning: str = ""
    workspace_bytes: int = 0
    peak_bytes: int | None = 2**20
    trims: bool = True
    device: str = "cpu"
    input_dtype: str = "float32"
    home_made: bool = False
    answers: Mapping[str, int] = dataclasses.field(default_factory=dict)
    noise: float = 0.0
    first_becomes: int = 0
    changed: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()
    convert_seconds: float = 0.0
    kept: int | None = None
    kept_forward: int | None = None
    edge_case_errors: Mapping[str, str] = dataclasses.field(default_factory=dict)
    gradcheck: str = ""
    fresh_seconds: tuple[float, ...] = ()
    affinity_later: tuple[int, ...] = (0,)
    wrong_later: int = 0
    runnable: float = 1.0
    stretches: tuple[Stretch, ...] = ()
    device_shares: Mapping[str, float | None] = dataclasses.field(default_factory=dict)
    absent: Mapping[str, str] = dataclasses.field(default_factory=dict)
    gpu_states: Iterator[GpuState] | None = None
    gpu_seconds: float = 1.0


#: A worker without a fault.
RIGHT = Faults()

"""Let the rule of the harness measure simulated times: time passes as a sample costs, nothing is run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from harness.run.sample import WARM_UP_SECONDS
from harness.timing.clock import SAMPLE_SECONDS
from harness.timing.deciding import Measured, Rule
from harness.timing.stopping import State, budget_is_over, piloting

#: Time of a sample besides its calls, in seconds: as long as the calls.
OTHER_SECONDS: Final = 0.020
#: Time to start a backend's process again, in seconds.
START_SECONDS: Final = 1.0
#: Name of the backend with which the others are compared.
BASELINE: Final = "baseline"

Logs = npt.NDArray[np.float64]
#: Times of a call in seconds, by backend and block.
Seconds = dict[str, dict[int, float]]


@dataclasses.dataclass(frozen=True, slots=True)
class Conditions:
    """The options of a run that the rule depends on.

    Attributes:
        target: Half-width of the intervals at which measuring stops, as a share of the ratio.
        band: Half-width of the equivalence band, as a share of the ratio.
        budget_seconds: Measuring time, in seconds.
        most_processes: Largest number of processes.
    """

    target: float
    band: float
    budget_seconds: float
    most_processes: int


@dataclasses.dataclass
class Outcome:
    """What was measured.

    Attributes:
        seconds: Times of a call in seconds, by backend and block.
        processes: Number of the process, by block.
        left: Backends that left, each with the one that it is slower than.
        precise: Backends that were stopped by the target.
        spent_seconds: Time until now, in seconds.
        why: Reason why measuring ended.
    """

    seconds: Seconds
    processes: dict[int, int] = dataclasses.field(default_factory=dict)
    left: dict[str, str] = dataclasses.field(default_factory=dict)
    precise: set[str] = dataclasses.field(default_factory=set)
    spent_seconds: float = 0.0
    why: str = ""


def measure(
    logs: Logs,
    call_seconds: Sequence[float],
    conditions: Conditions,
    rule: type[Rule] = Rule,
    enough: Callable[[Outcome], bool] = lambda _: False,
) -> Outcome:
    """Measure backends whose times are known beforehand; the last one is the baseline.

    Args:
        logs: Logarithms of the times, (backends, processes, blocks); the blocks of a process are not used up.
        call_seconds: Time of a call of each backend in seconds, which decides what its samples cost.
        conditions: Options of the run.
        rule: The rule.
        enough: Function that is called after each block; measuring ends where it is true.
    """
    names = [*(f"backend-{number}" for number in range(len(logs) - 1)), BASELINE]
    costs = {name: max(SAMPLE_SECONDS, call) + OTHER_SECONDS for name, call in zip(names, call_seconds, strict=True)}
    times = dict(zip(names, np.exp(logs), strict=True))
    decides = rule(conditions.target, conditions.band, conditions.most_processes)
    outcome = Outcome({name: {} for name in names}, spent_seconds=WARM_UP_SECONDS * len(names))
    process, taken = 0, 0
    while not outcome.why:
        going = [name for name in names if name not in outcome.left and name not in outcome.precise]
        cost = sum(costs[name] for name in going)
        left_seconds = conditions.budget_seconds - outcome.spent_seconds
        fewest = min(len(outcome.seconds[name]) for name in going)
        if budget_is_over(fewest, process == 0, left_seconds, conditions.budget_seconds, cost):
            outcome.why = "budget"
            break
        block = len(outcome.processes)
        outcome.processes[block] = process
        for name in going:
            outcome.seconds[name][block] = float(times[name][process, taken])
        outcome.spent_seconds += cost
        taken += 1
        again = len(going) * (START_SECONDS + WARM_UP_SECONDS)
        state = State(process + 1, conditions.most_processes, left_seconds - cost, cost, again)
        due = decides.after_block(_measured(outcome, going, taken), state)
        outcome.left |= due.left
        if due.precise and not piloting(process + 1, conditions.most_processes):
            outcome.precise |= due.precise
        if enough(outcome):
            outcome.why = "enough"
        elif due.next.action == "stop":
            outcome.why = due.next.why
        elif due.next.action == "process":
            process, taken = process + 1, 0
            outcome.spent_seconds += again
    return outcome


def _measured(outcome: Outcome, going: Sequence[str], taken: int) -> Measured:
    baseline: Mapping[int, float] = outcome.seconds[BASELINE]
    return Measured(
        seconds={name: outcome.seconds[name] for name in going if name != BASELINE},
        baseline=baseline,
        rival=BASELINE,
        classes={},
        processes=outcome.processes,
        taken=taken,
    )

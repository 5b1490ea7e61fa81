"""What the gate asks about one case, as a table; edge cases, which have sizes of their own, are in ``edge_cases``.

All backends of a cohort are asked a question before the reference computes its answer, and judged after that. The first
question is put before the scenarios, ``IN_SAMPLE`` while the case is timed, ``UNSEEN`` after it.
"""

from __future__ import annotations

import dataclasses
from typing import Final, Literal

from harness.case import Mode
from harness.correctness import telling, telling_rows


@dataclasses.dataclass(frozen=True, slots=True)
class Question:
    """One question to a backend.

    Attributes:
        name: Name of the question, and of the scenario where it is one.
        sentence: What a right backend does.
        request: Name of the protocol's class of requests that puts it.
        kind: Kind of the inputs; see ``inputs.py``.
        variation: Number of the inputs; None if it is drawn or follows from the block.
        form: Probe that names what the results say of themselves.
        judge: How the values are judged: ``exactly``; within the ``bound``; or ``repeated``, bit for bit with the first
            results, and within the bound where bits differ; or as ``own_size.py`` has it.
    """

    name: str
    sentence: str
    request: str
    kind: str
    variation: int | None
    form: Literal["exact", "bound", "conduct"]
    judge: Literal["exactly", "bound", "repeated", "rows", "nonfinite"]

    @property
    def in_part(self) -> bool:
        """True if a part of a large case's results is judged, as in all later answers that have a bound."""
        return self.judge in ("bound", "repeated", "rows") and self.request != "Prepare"


FIRST: Final = Question(
    "first", "the first results are right, to rounding", "Prepare", "normal", 0, form="bound", judge="bound"
)
AGAIN: Final = Question(
    "again",
    "the same inputs again give right results in memory of their own",
    "RunScenario",
    "normal",
    0,
    form="conduct",
    judge="repeated",
)
ANOTHER_KERNEL: Final = Question(
    "another kernel",
    "small integers come out exactly, from kernels that take turns, and after changes of single elements",
    "RunScenario",
    telling.KIND,
    0,
    form="exact",
    judge="exactly",
)
NEW_VALUES: Final = Question(
    "new values in the same buffers",
    "new values in the same buffers are seen",
    "RunScenario",
    "normal",
    1,
    form="conduct",
    judge="bound",
)
NEW_BUFFERS: Final = Question(
    "the same values in new buffers",
    "the same values in new buffers give right results",
    "RunScenario",
    "normal",
    0,
    form="conduct",
    judge="repeated",
)
TELLING_ROWS: Final = Question(
    "telling rows",
    "rows of any scale, of single terms and of subnormal numbers come out right next to others",
    "RunScenario",
    telling_rows.ROWS,
    0,
    form="bound",
    judge="rows",
)
#: The worker puts NaN and infinity into the inputs of the first question; all other results follow from its answer.
NONFINITE: Final = Question(
    "NaN and infinity",
    "NaN and infinity reach the results that they reach in nn.Bilinear, and all others are right",
    "RunScenario",
    "normal",
    0,
    form="bound",
    judge="nonfinite",
)
#: Telling calls after the first one, in the order of asking; the first of them tells how long a call takes.
SCENARIOS: Final = (AGAIN, ANOTHER_KERNEL, NEW_VALUES, NEW_BUFFERS, TELLING_ROWS, NONFINITE)
#: Scenarios that the samples of a slow call ask, too: each sample has new values, and the call after it new memory.
AS_IN_SAMPLES: Final = (NEW_VALUES, NEW_BUFFERS)
IN_SAMPLE: Final = Question(
    "in a timed sample",
    "results from inside a timed sample are right",
    "KeptResults",
    "normal",
    None,
    form="bound",
    judge="bound",
)
IN_FORWARD: Final = dataclasses.replace(IN_SAMPLE, name="in a timed forward")


def unseen(mode: Mode) -> Question:
    """Return the question after timing; in a training step the weights have changed, too."""
    return Question(
        "unseen",
        "inputs that no call has seen give right results, in memory that holds garbage",
        "CheckFresh",
        "normal" if mode == "forward" else "new weight",
        None,
        form="bound",
        judge="bound",
    )

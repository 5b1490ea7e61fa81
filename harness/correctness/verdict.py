"""The words of the gate: what a backend says of a result, what is expected, and the verdict."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from harness.checked import Elements
    from harness.correctness.drawn import Drawn
    from harness.correctness.precision import Errors

    Arrays = Mapping[str, npt.NDArray[np.floating]]

#: The probes of a row, in the order of the table that ``check`` prints.
PROBES: Final = ("edge_cases", "exact", "bound", "precision", "conduct")


@dataclasses.dataclass(frozen=True, slots=True)
class Facts:
    """What a native result says of itself before it is converted; None where it does not say."""

    type: str
    dtype: str | None
    shape: tuple[int, ...] | None
    device: str | None


@dataclasses.dataclass(frozen=True, slots=True)
class Expected:
    """The reference's answer to one question.

    Attributes:
        values: Right results, float64.
        scales: S of each element: the same sum with every term positive; empty for questions with tolerance zero.
        quadratics: For each result, the root of the mean over its elements of Q squared, the sum of squared terms.
        samples: For float64 cases: positions of some elements of each result, and a wider reference for them.
        drawn: Part of the results that all of these are of; None for all.
    """

    values: Arrays
    scales: Arrays = dataclasses.field(default_factory=dict)
    quadratics: Mapping[str, float] = dataclasses.field(default_factory=dict)
    samples: Mapping[str, tuple[npt.NDArray[np.integer], npt.NDArray[np.floating]]] = dataclasses.field(
        default_factory=dict
    )
    drawn: Drawn | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Verdict:
    """The gate's answer to one question; a new one says no.

    Attributes:
        ok: True if every check passed.
        reason: The first check that failed, in words; empty if all passed.
        probe: The one of ``PROBES`` that asked.
        error_over_bound: The largest of two ratios: an element's error over its bound, and the figures of
            ``precision.py`` over the limits of the case's class. None where no rounding was judged.
        absolute_error: Largest absolute error over all results; None where no rounding was judged.
        errors: The figures of ``precision.py`` by result.
        remark: A flag that does not refuse; empty if there is none.
        promise: Name of the question that asked, as in ``promises.py``; empty if the verdict belongs to none.
        elements: The wrong elements; None where no values were compared.
        result: Name of the result that is wrong where no values were compared; empty where none is.
        few_are_wrong: True if few elements are beyond their bound, and some far beyond: no arithmetic does that.
        hypothesis: What the wrong results fit; see ``diagnosis.py``. Empty if nothing fits.
        traceback: Traceback of what the backend raised; empty if it returned.
    """

    ok: bool = False
    reason: str = "nothing was checked"
    probe: str = ""
    error_over_bound: float | None = None
    absolute_error: float | None = None
    errors: Mapping[str, Errors] = dataclasses.field(default_factory=dict)
    remark: str = ""
    promise: str = ""
    elements: Elements | None = None
    result: str = ""
    few_are_wrong: bool = False
    hypothesis: str = ""
    traceback: str = ""

    @property
    def wrong_result(self) -> str:
        """The name of the result that is wrong, the first of several; empty where none is."""
        return self.result if self.elements is None else self.elements.result

    @property
    def full_reason(self) -> str:
        """The reason, and what the wrong results fit."""
        return f"{self.reason}. {self.hypothesis}" if self.hypothesis else self.reason


def passed(probe: str, remark: str = "") -> Verdict:
    """Return a yes."""
    return Verdict(ok=True, reason="", probe=probe, remark=remark)


def refused(
    probe: str, reason: str, elements: Elements | None = None, hypothesis: str = "", result: str = ""
) -> Verdict:
    """Return a no with its reason, and with the wrong elements where values were compared."""
    return Verdict(reason=reason, probe=probe, elements=elements, hypothesis=hypothesis, result=result)

"""The words of the gate: what a backend says of a result, what is expected, and the verdict."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

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
    """

    values: Arrays
    scales: Arrays = dataclasses.field(default_factory=dict)
    quadratics: Mapping[str, float] = dataclasses.field(default_factory=dict)
    samples: Mapping[str, tuple[npt.NDArray[np.integer], npt.NDArray[np.floating]]] = dataclasses.field(
        default_factory=dict
    )


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
    """

    ok: bool = False
    reason: str = "nothing was checked"
    probe: str = ""
    error_over_bound: float | None = None
    absolute_error: float | None = None
    errors: Mapping[str, Errors] = dataclasses.field(default_factory=dict)
    remark: str = ""


def passed(probe: str, remark: str = "") -> Verdict:
    """Return a yes."""
    return Verdict(ok=True, reason="", probe=probe, remark=remark)


def refused(probe: str, reason: str) -> Verdict:
    """Return a no with its reason."""
    return Verdict(reason=reason, probe=probe)

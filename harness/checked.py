"""What a check says of each backend: the words that the gate fills in, screens print and JSON carries.

Every class holds text, integers and classes of this module, so that JSON holds it whole.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from harness.record import Record

#: Whether a backend kept a promise.
Answer = Literal["kept", "failed", "not asked"]
#: Number of the JSON object's form; a field that goes, or changes its meaning, raises it.
SCHEMA: Final = 1


@dataclasses.dataclass(frozen=True, slots=True)
class Location:
    """A place in source code.

    Attributes:
        file: Path of the file.
        line: Number of the line, from 1.
        function: Name of the function; empty outside of one.
    """

    file: str
    line: int
    function: str = ""

    def __str__(self) -> str:
        return f"{Path(self.file).name}:{self.line} {self.function}".rstrip()


@dataclasses.dataclass(frozen=True, slots=True)
class Elements:
    """The wrong elements of one result.

    Attributes:
        result: Name of the result: ``output`` or a gradient.
        index: Indices of the first wrong element.
        actual: Its value, as text: JSON has neither NaN nor infinity.
        expected: The right value, as text.
        wrong: Number of wrong elements.
        size: Number of all elements.
        where: Place of the wrong elements in words; empty if all are wrong.
    """

    result: str
    index: tuple[int, ...]
    actual: str
    expected: str
    wrong: int
    size: int
    where: str = ""

    def __str__(self) -> str:
        return f"{self.first}; {self.count}"

    @property
    def first(self) -> str:
        """The first wrong element with both values."""
        index = ", ".join(map(str, self.index))
        return f"{self.result}[{index}] is {self.actual}, expected {self.expected}"

    @property
    def count(self) -> str:
        """The number of wrong elements, and where they are."""
        counted = f"{self.wrong} of {self.size} elements {'is' if self.wrong == 1 else 'are'} wrong"
        return f"{counted}, {self.where}" if self.where else counted


@dataclasses.dataclass(frozen=True, slots=True)
class Promise:
    """One promise of a backend, and whether it was kept.

    Attributes:
        name: Name of the question that asks for it.
        short: Short name, for a line of many.
        sentence: What a right backend does.
        answer: Whether it was kept.
    """

    name: str
    short: str
    sentence: str
    answer: Answer


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """What is known of a backend that is wrong or failed, in one case, mode and device.

    Attributes:
        backend: Name of the backend.
        device: ``cpu`` or ``cuda``.
        mode: ``forward`` or ``forward_backward``.
        planned: Case of the row.
        case: Case of the question that tells most; an edge case has sizes of its own.
        status: Status of the row.
        phase: Step that decided it, as in the data dictionary.
        summary: What is wrong, in one sentence.
        promises: Every promise that the gate asks for; none if the backend failed before.
        elements: The wrong elements; None where no values were compared.
        hypothesis: What the wrong results fit, with the likely cause as a question; empty if nothing fits.
        location: Deepest frame in the backend's own files, or the function that made the results; None if unknown.
        again: The command that repeats it.
        traceback: Traceback of the exception, or lines of the crash; empty without.
        output: End of what the backend printed.
    """

    backend: str
    device: str
    mode: str
    planned: str
    case: str
    status: str
    phase: str
    summary: str
    promises: tuple[Promise, ...] = ()
    elements: Elements | None = None
    hypothesis: str = ""
    location: Location | None = None
    again: str = ""
    traceback: str = ""
    output: str = ""

    def count(self, answer: Answer) -> int:
        """Return the number of promises with this answer."""
        return sum(promise.answer == answer for promise in self.promises)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CheckedRow:
    """The outcome of one backend in one case, mode and device.

    Attributes:
        backend: Name of the backend.
        case: The case.
        label: What people call it; None without a name.
        mode: ``forward`` or ``forward_backward``.
        device: ``cpu`` or ``cuda``.
        status: ``checked`` if it is right; else a status of the data dictionary.
        reason: Why it has that status.
        probes: Each probe's answer, ``ok`` or ``no``, or ``kept`` from an earlier run; probes that did not ask are left
            out.
        precision_class: Arithmetic that the errors show; None if it is unknown.
        error_over_bound: Largest error over its bound; None if none was judged, or if it is infinite.
        flags: What to know before trusting the row.
    """

    backend: str
    case: str
    label: str | None
    mode: str
    device: str
    status: str
    reason: str
    probes: dict[str, str]
    precision_class: str | None
    error_over_bound: float | None
    flags: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    """A whole check, as ``--format json`` prints it.

    Attributes:
        schema: ``SCHEMA``.
        version: Version of bilinear-bench.
        seed: Seed of the inputs.
        ok: True if the exit code is 0.
        rows: A row for each backend, case, mode and device.
        diagnoses: What is known of each row that is wrong or failed.
    """

    schema: int
    version: str
    seed: int
    ok: bool
    rows: tuple[CheckedRow, ...]
    diagnoses: tuple[Diagnosis, ...]


def checked_row(record: Record) -> CheckedRow:
    """Return a record as a row of the report."""
    error = record.max_error_over_bound
    return CheckedRow(
        backend=record.backend,
        case=record.case,
        label=record.label,
        mode=record.mode,
        device=record.device,
        status=str(record.status),
        reason=record.reason or "",
        probes=dict(_pairs(record.probes)),
        precision_class=record.precision_class,
        error_over_bound=error if error is not None and math.isfinite(error) else None,
        flags=tuple((record.flags or "").split(";")) if record.flags else (),
    )


def _pairs(probes: str | None) -> Mapping[str, str]:
    return dict(part.split("=", 1) for part in (probes or "").split(";") if part)

"""Print a check as annotations that GitHub shows at the line of the fault.

The form is that of workflow commands: ``::error file=PATH,line=NUMBER,title=TITLE::MESSAGE``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from harness.checked import CheckReport, Diagnosis
from harness.output import format as form
from harness.output.diagnoses import distinct
from harness.output.report import short
from harness.record import Status

#: What a message may not hold; a property may not hold the further ones either. The percent sign comes first.
_IN_MESSAGES: Final = {"%": "%25", "\r": "%0D", "\n": "%0A"}
_IN_PROPERTIES: Final = _IN_MESSAGES | {":": "%3A", ",": "%2C"}


def commands(checked: CheckReport) -> Iterator[str]:
    """Yield an error for each fault of each backend, and a warning for each backend that could not be checked."""
    for diagnosis in distinct(checked.diagnoses):
        yield _error(diagnosis)
    unchecked = {(row.backend, row.reason) for row in checked.rows if row.status == Status.UNAVAILABLE.value}
    for backend, reason in sorted(unchecked):
        yield command("warning", {"title": f"{backend} could not be checked"}, reason)


def command(kind: str, properties: dict[str, str], message: str) -> str:
    """Return a workflow command.

    Args:
        kind: ``error`` or ``warning``.
        properties: Properties by name.
        message: Text, of several lines or one.
    """
    listed = ",".join(f"{name}={_escaped(value, _IN_PROPERTIES)}" for name, value in properties.items())
    return f"::{kind} {listed}::{_escaped(message, _IN_MESSAGES)}"


def _error(diagnosis: Diagnosis) -> str:
    place = {}
    if diagnosis.location is not None:
        place = {"file": str(short(Path(diagnosis.location.file))), "line": str(diagnosis.location.line)}
    title = f"{diagnosis.backend}: {form.MODES[diagnosis.mode]}, {diagnosis.case}"
    message = "\n".join(line for line in (diagnosis.summary, diagnosis.hypothesis, f"again: {diagnosis.again}") if line)
    return command("error", place | {"title": title}, message)


def _escaped(text: str, signs: dict[str, str]) -> str:
    for sign, code in signs.items():
        text = text.replace(sign, code)
    return text

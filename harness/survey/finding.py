"""One finding of the doctor, and its levels."""

from __future__ import annotations

import dataclasses
from typing import Final

OK, NOTE, WARNING = "ok", "note", "warning"
#: Levels, most severe first.
LEVELS: Final = (WARNING, NOTE, OK)


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """One judged property of the machine.

    Attributes:
        level: ``ok``, ``note`` (times mean what they say, with a reservation) or ``warning`` (times may mislead).
        topic: Property, in a word or two.
        saw: State of the property, with its numbers.
        advice: Remedy; empty where none is needed.
    """

    level: str
    topic: str
    saw: str
    advice: str

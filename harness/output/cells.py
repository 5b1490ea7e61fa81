"""Write and read the cells of a row as text; a missing value is empty, never 0.

What is read is a row as ``harness.record`` allows it, or is refused: a file may come from anywhere.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, Final

from harness.case import Case
from harness.output.foreign import LARGEST
from harness.output.format import printable
from harness.record import TIMES, Record, Relation, Sample

#: Longest text of a cell, in characters; reading allows for the quote before a formula.
TEXT_LENGTH: Final = 2000
#: Columns that may be infinite or not a number, and as small as a subnormal number.
ERRORS: Final = ("max_error_over_bound", "mean_absolute_error", "max_absolute_error")
#: Shortest time that is read, in seconds, and least ratio.
SHORTEST: Final = 1e-12
#: Values of columns that ``Case`` does not check.
CHOICES: Final[dict[str, tuple[str, ...]]] = {
    "device": ("cpu", "cuda"),
    "comparison": tuple(Relation),
    "comparison_undisturbed": tuple(Relation),
}


def text(value: object) -> str:
    """Return a value as text: printable, short, and quoted against spreadsheets that would run it as a formula."""
    if value is None:
        return ""
    if isinstance(value, float):
        return repr(float(value))
    if not isinstance(value, str):
        return str(value)
    plain = printable(value)[:TEXT_LENGTH]
    # A spreadsheet runs a cell with such a first sign as a formula, quoted or not (CWE-1236).
    return f"'{plain}" if plain.startswith(("=", "+", "-", "@", "＝", "＋", "－", "＠")) else plain


def read(row_type: type[Record | Sample], texts: Mapping[str, str]) -> Record | Sample:
    """Return the row that cells stand for.

    Args:
        row_type: Class of the row.
        texts: Text of every column.

    Raises:
        ValueError: A cell is of another type, or the row is none that this project writes.
    """
    kinds = column_types(row_type)  # type: ignore[arg-type]  # mypy 1.x takes a class for one of its instances
    values = {name: _value(name, kind, texts[name]) for name, kind in kinds.items()}
    required = {field.name for field in dataclasses.fields(row_type) if field.default is dataclasses.MISSING}
    if empty := sorted(name for name in required if values[name] is None):
        raise ValueError(f"column {empty[0]} is empty")
    row = row_type(**values)
    if isinstance(row, Record):
        Case(**{name: values[name] for name in Case.__dataclass_fields__})  # raises CaseError, a ValueError
    return row


@functools.cache
def column_types(row_type: type) -> dict[str, type]:
    """Return the Python type of each column, optional or not."""
    kinds: dict[str, type] = {}
    for name, hint in typing.get_type_hints(row_type).items():
        options = [option for option in typing.get_args(hint) if option is not types.NoneType]
        kinds[name] = options[0] if options else hint
    return kinds


def _value(name: str, kind: Any, cell: str) -> Any:
    """Return the value of a cell, held to its column."""
    if not cell:
        return None
    try:
        return _typed(name, kind, cell)
    except ValueError:
        raise ValueError(f"column {name} holds what is no {kind.__name__}: {cell!r:.60}") from None


def _typed(name: str, kind: Any, cell: str) -> Any:
    if kind is str:
        if len(cell) > TEXT_LENGTH + 1 or not cell.isprintable() or cell not in CHOICES.get(name, (cell,)):
            raise ValueError
        return cell
    if issubclass(kind, enum.Enum):
        return kind(cell)
    value = ("False", "True").index(cell) == 1 if kind is bool else kind(cell)
    least = 0 if kind is int else SHORTEST if name in TIMES and name != "backward_seconds" else -LARGEST
    if name not in ERRORS and not (math.isfinite(value) and least <= value <= LARGEST):
        raise ValueError
    return value

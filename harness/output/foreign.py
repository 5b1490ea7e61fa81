"""Read files that may come from anywhere: regular files of bounded size, UTF-8, in complete lines or as JSON.

A file is data, whatever it holds. Each failure is a ``ForeignError`` of a few words, to which the caller adds the path.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from harness.output.format import printable

#: Longest line of a CSV file, in bytes.
LINE_BYTES: Final = 2**16
#: Longest text that is taken from JSON, in characters; the rest of it is left out.
TEXT_LENGTH: Final = 2000
#: Largest whole number.
LARGEST: Final = 2**63 - 1


class ForeignError(ValueError):
    """A file that is not what was expected. The message has no path, and begins with a verb."""


@contextlib.contextmanager
def opened(path: Path, most_bytes: int) -> Iterator[io.BufferedReader]:
    """Open a regular file for reading; a FIFO or a device is refused without waiting.

    Args:
        path: The file, or a link to it.
        most_bytes: Largest size of the file, in bytes.

    Raises:
        ForeignError: It cannot be opened, is no regular file, or is too large.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ForeignError("is no regular file: give the folder of a run")
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:  # noqa: PTH123  # a descriptor has no path
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise ForeignError("is no regular file: give the folder of a run")
            if status.st_size > most_bytes:
                raise ForeignError(f"has {status.st_size:,} bytes, expected at most {most_bytes:,}")
            yield file
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle, before Python 3.13
        raise ForeignError(
            f"cannot be read ({getattr(error, 'strerror', None) or error}): give the folder of a run"
        ) from None


def lines(path: Path, most_bytes: int) -> Iterator[str]:
    """Yield the complete lines of a text file; a torn last line is left out, and so is a byte order mark.

    Args:
        path: The file.
        most_bytes: Largest size of the file, in bytes.

    Raises:
        ForeignError: As ``opened``; or a line is too long, binary or not UTF-8.
    """
    with opened(path, most_bytes) as file:
        for number, line in enumerate(iter(lambda: file.readline(LINE_BYTES + 1), b""), start=1):
            if len(line) > LINE_BYTES:
                raise ForeignError(f"has over {LINE_BYTES:,} bytes in line {number}, expected fewer")
            if not line.endswith(b"\n"):
                return
            if b"\0" in line:
                raise ForeignError(f"is binary: line {number} holds a NUL")
            try:
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError:
                raise ForeignError(f"is not UTF-8 in line {number}: save it as UTF-8") from None


def json_object(path: Path, most_bytes: int) -> dict[str, object]:
    """Return the object that a JSON file holds.

    Args:
        path: The file.
        most_bytes: Largest size of the file, in bytes.

    Raises:
        ForeignError: As ``opened``; or it is no JSON, nested too deeply, or holds something else.
    """
    with opened(path, most_bytes) as file:
        try:
            value = json.loads(file.read(most_bytes).decode("utf-8-sig"), parse_constant=_no_constant)
        except RecursionError:
            raise ForeignError("is nested too deeply") from None
        except ValueError as error:
            raise ForeignError(f"is no JSON ({error})") from None
    if not isinstance(value, dict):
        raise ForeignError("holds no JSON object")
    return value


def held_to(form: Any, value: Any, where: str = "") -> Any:
    """Return a value from JSON held to a form: its types are right, its texts short and printable.

    Args:
        form: A type; a list with the form of all items; a mapping with the form of each name, or with that of all
            under the name ``*``. Names that a mapping lacks are kept as they are.
        value: The value. In a mapping a null counts as missing.
        where: Name of the value in messages.

    Raises:
        ForeignError: A part is of another type, or is no finite number.
    """
    if isinstance(form, dict) and isinstance(value, dict):
        forms = {name: form.get(name, form.get("*")) for name in value}
        return {
            name: part if forms[name] is None else held_to(forms[name], part, f"{where}.{name}".lstrip("."))
            for name, part in value.items()
            if part is not None
        }
    if isinstance(form, list) and isinstance(value, list):
        return [held_to(form[0], item, f"{where}[{number}]") for number, item in enumerate(value)]
    if form is str and isinstance(value, str):
        return printable(value[:TEXT_LENGTH])
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if form is float and number and math.isfinite(value) and abs(value) <= LARGEST:
        return value
    if form is int and number and isinstance(value, int) and 0 <= value <= LARGEST:
        return value
    raise ForeignError(f"has a wrong {where[:TEXT_LENGTH]}: {value!r:.60}, expected {_name(form)}")


def _name(form: Any) -> str:
    names = {str: "a text", int: "a whole number", float: "a finite number"}
    return names.get(form, "") if isinstance(form, type) else "an object" if isinstance(form, dict) else "a list"


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")

"""Records and samples on disk: ``records.csv``, ``samples.csv``, ``environment.json`` in a folder of the run's own.

Rows are appended whole and forced to disk one by one, so a run that is killed leaves complete rows and at most one
torn one at the end, which reading ignores. Values are text: a missing one is empty, never 0. Text that came from
elsewhere (an error message, say) is stripped of control characters, and quoted against spreadsheets that would run it
as a formula.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import json
import os
import secrets
import time
import types
import typing
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from harness.record import Record, Sample

if TYPE_CHECKING:
    import pandas as pd

RECORDS: Final = "records.csv"
SAMPLES: Final = "samples.csv"
ENVIRONMENT: Final = "environment.json"
#: Points to the newest run beside it.
LATEST: Final = "latest"
#: Longest reason that is kept, in characters.
REASON_LENGTH: Final = 2000


class StoreError(Exception):
    """A folder that cannot be written, or that is no run. The message says what to do."""


def new_run_id(now: time.struct_time | None = None) -> str:
    """Return an identifier that sorts by time: UTC to the second, and four random hexadecimal digits."""
    return time.strftime("%Y%m%dT%H%M%SZ", now or time.gmtime()) + "-" + secrets.token_hex(2)


class Store:
    """The files of one run, open for appending. Use as a context manager."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._records = (folder / RECORDS).open("ab")
        self._samples = (folder / SAMPLES).open("ab")

    @classmethod
    def create(cls, folder: Path, environment: dict[str, Any]) -> Self:
        """Make the folder and write the headers and ``environment.json``; nothing is ever overwritten.

        Raises:
            StoreError: It exists, or cannot be made.
        """
        try:
            folder.mkdir(parents=True)
            (folder / RECORDS).write_text(_line(columns(Record)))
            (folder / SAMPLES).write_text(_line(columns(Sample)))
            _replace(folder / ENVIRONMENT, json.dumps(environment, indent=2) + "\n")
        except FileExistsError:
            raise StoreError(f"{folder} exists: choose another --out, or complete that run with --resume") from None
        except OSError as error:
            raise StoreError(f"{folder} cannot be written ({error.strerror}): choose another --out") from None
        store = cls(folder)
        _point(folder)
        return store

    @classmethod
    def resume(cls, folder: Path, keep: Callable[[dict[str, str]], bool]) -> Self:
        """Open the files of a run that was stopped, without the rows that will be measured again.

        Args:
            folder: The run's.
            keep: Says of a row of either file whether its group is complete.
        """
        for name, row_type in ((RECORDS, Record), (SAMPLES, Sample)):
            kept = (_line(row[column] for column in columns(row_type)) for row in rows(folder / name) if keep(row))
            _replace(folder / name, "".join((_line(columns(row_type)), *kept)))
        return cls(folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for file in (self._records, self._samples):
            with contextlib.suppress(OSError):
                file.close()

    def add_record(self, record: Record) -> None:
        """Append a record and force it to disk; samples first, for a record without them would lack its evidence.

        Raises:
            StoreError: The disk is full, say; what was written before stays whole.
        """
        self._append(self._samples, b"", force=True)
        self._append(self._records, _row(record), force=True)

    def add_sample(self, sample: Sample) -> None:
        """Append a sample; it reaches the disk at the latest with its record.

        Raises:
            StoreError: As for ``add_record``.
        """
        self._append(self._samples, _row(sample), force=False)

    def _append(self, file: io.BufferedWriter, line: bytes, force: bool) -> None:
        try:
            file.write(line)
            file.flush()
            if force:
                os.fsync(file.fileno())
        except OSError as error:
            raise StoreError(f"{file.name} cannot be written ({error.strerror}); rows before are whole") from None


def columns(row_type: type) -> list[str]:
    """Names of a row's columns, in order."""
    return [field.name for field in dataclasses.fields(row_type)]


def rows(path: Path, earlier: bool = False) -> list[dict[str, str]]:
    """Read the complete rows of a file as text; a torn last line is left out.

    Args:
        path: The file.
        earlier: Whether it may be an earlier version's, without columns that not every row has: they are empty then.

    Raises:
        StoreError: The file is missing, or not what this version writes.
    """
    row_type = Sample if path.name == SAMPLES else Record
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise StoreError(f"{path.parent} is not a run: no {path.name} in it ({error.strerror})") from None
    whole = text[: text.rfind("\n") + 1]
    reader = csv.reader(io.StringIO(whole))
    header = next(reader, None)
    known = columns(row_type)
    required = {field.name for field in dataclasses.fields(row_type) if field.default is dataclasses.MISSING}
    expected = [name for name in known if name in (header or []) or name in required] if earlier else known
    if header != expected:
        raise StoreError(f"{path} has other columns than this version writes: read it with the version that wrote it")
    found = []
    for row in reader:
        if len(row) != len(header):
            raise StoreError(f"{path}, line {reader.line_num}: {len(row)} values for {len(header)} columns")
        found.append(dict.fromkeys(known, "") | dict(zip(header, row, strict=True)))
    return found


def read(path: Path) -> pd.DataFrame:
    """Read ``records.csv`` or ``samples.csv`` with the type of each column; missing values are ``NA``.

    Raises:
        StoreError: The file is missing, torn in the middle, or not what this version writes.
    """
    import pandas as pd

    row_type = Sample if path.name == SAMPLES else Record
    text = pd.DataFrame(rows(path, earlier=True), columns=columns(row_type), dtype="string").replace("", pd.NA)
    try:
        for name, kind in column_types(row_type).items():
            if kind is bool:
                if not text[name].dropna().isin(["True", "False"]).all():
                    raise ValueError("expected True or False")
                text[name] = text[name].map({"True": True, "False": False}).astype("boolean")
            elif kind is int:
                numbers = pd.to_numeric(text[name])
                if (numbers.dropna() % 1 != 0).any():
                    raise ValueError("expected whole numbers")
                text[name] = numbers.astype("Int64")
            elif kind is float:
                text[name] = pd.to_numeric(text[name]).astype("Float64")
    except (ValueError, TypeError) as error:
        raise StoreError(f"{path}: column {name} holds what is no {kind.__name__} ({error})") from None
    return text


def column_types(row_type: type) -> dict[str, type]:
    """The Python type behind each column, optional or not."""
    found: dict[str, type] = {}
    for name, hint in typing.get_type_hints(row_type).items():
        options = [option for option in typing.get_args(hint) if option is not types.NoneType]
        found[name] = options[0] if options else hint
    return found


def environment(folder: Path) -> dict[str, Any]:
    """Read ``environment.json``.

    Raises:
        StoreError: It is missing or malformed.
    """
    try:
        read_back = json.loads((folder / ENVIRONMENT).read_text())
    except (OSError, ValueError) as error:
        raise StoreError(f"{folder} is not a run: {ENVIRONMENT} cannot be read ({error})") from None
    if not isinstance(read_back, dict):
        raise StoreError(f"{folder} is not a run: {ENVIRONMENT} holds no mapping")
    return read_back


def add_to_environment(folder: Path, additions: dict[str, Any]) -> None:
    """Add keys to ``environment.json``: what only the workers could tell."""
    _replace(folder / ENVIRONMENT, json.dumps(environment(folder) | additions, indent=2) + "\n")


def find(name: str, results: Path) -> Path:
    """Return the folder of a run, given as a path, as a run id or as ``latest``.

    Raises:
        StoreError: There is no such run.
    """
    for folder in (Path(name), results / name):
        if (folder / RECORDS).is_file():
            return folder.resolve()
    raise StoreError(f"{name} is no run: expected a folder with {RECORDS} in it, or the name of one in {results}/")


def check_free(folder: Path) -> None:
    """Find out before anything is measured that a folder cannot be made.

    Raises:
        StoreError: It exists, its parent is not a folder, or is read-only.
    """
    if folder.exists() or folder.is_symlink():
        what = "exists" if folder.is_dir() else "is a file"
        raise StoreError(f"--out {folder} {what}: give a folder that does not exist yet (--resume completes a run)")
    parent = next(above for above in folder.absolute().parents if above.exists())
    if not parent.is_dir():
        raise StoreError(f"--out {folder} cannot be made: {parent} is not a folder")
    # Trying is the only honest way to ask: root may write where the mode says no, and not on a read-only file system.
    probe = parent / f".bilinear-bench-{secrets.token_hex(4)}"
    try:
        probe.mkdir()
        probe.rmdir()
    except OSError as error:
        raise StoreError(f"--out {folder} cannot be made: {parent} is not writable ({error.strerror})") from None


def _row(row: Record | Sample) -> bytes:
    return _line(_text(getattr(row, name)) for name in columns(type(row))).encode()


def _line(values: Iterable[str]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(list(values))
    return buffer.getvalue()


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return repr(float(value))
    if not isinstance(value, str):
        return str(value)
    plain = "".join(sign if sign.isprintable() else " " for sign in value)[:REASON_LENGTH]
    # A spreadsheet runs a cell that begins so as a formula, quoted or not (CWE-1236).
    return f"'{plain}" if plain.startswith(("=", "+", "-", "@", "＝", "＋", "－", "＠")) else plain


def _replace(path: Path, text: str) -> None:
    """Write a whole file so that a reader, or a crash, sees the old one or the new one."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with draft.open("w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise StoreError(f"{path} cannot be written ({error.strerror}); what was there is whole") from None


def _point(folder: Path) -> None:
    """Let ``latest`` beside the run point to it, if nothing else is called so."""
    link = folder.parent / LATEST
    if link.exists() and not link.is_symlink():
        return
    draft = folder.parent / f".{LATEST}.{os.getpid()}"
    try:
        draft.unlink(missing_ok=True)
        draft.symlink_to(folder.name)
        draft.replace(link)
    except OSError:
        # A file system without links: `latest` is a convenience, the run is not harmed.
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)

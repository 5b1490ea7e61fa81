"""Write and read a run's files: ``records.csv``, ``samples.csv`` and ``environment.json``, in a folder for each run.

Rows are appended whole and forced to disk one by one. A run that is killed leaves complete rows and at most one torn
row at the end, which reading ignores. Values are text: a missing one is empty, never 0. Text from elsewhere, such as an
error message, loses its control characters, and is quoted against spreadsheets that would run it as a formula.

Length: writing and reading share the format.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import json
import os
import secrets
import shutil
import time
import types
import typing
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from harness.catalog.suggest import did_you_mean
from harness.catalog.suites import labels
from harness.record import Record, Sample

if TYPE_CHECKING:
    import pandas as pd

#: What ``environment.json`` holds: the machine, the plan, the replies of workers; each part has its own form.
Json = dict[str, Any]

RECORDS: Final = "records.csv"
SAMPLES: Final = "samples.csv"
ENVIRONMENT: Final = "environment.json"
#: What the command line calls the newest run in the folder of all runs.
LATEST: Final = "latest"
#: Characters of a run id that are its time, to the second.
_SECONDS: Final = len("20260102T030405Z")
#: Longest text of a cell, in characters.
REASON_LENGTH: Final = 2000


class StoreError(Exception):
    """A folder that cannot be written, or is no run. The message says what to do."""


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
    def create(cls, folder: Path, environment: Json) -> Self:
        """Make the folder, and write the headers and ``environment.json``; nothing is ever overwritten.

        Args:
            folder: Folder that does not exist yet.
            environment: Machine, versions and plan, as JSON can hold them.

        Raises:
            StoreError: The folder exists, or cannot be made.
        """
        if folder.exists():
            raise StoreError(f"{folder} exists: choose another --out, or complete that run with --resume")
        # The folder gets its name when it is whole: whatever stops this, the same name can be given again.
        draft = folder.with_name(f".bilinear-bench-{secrets.token_hex(4)}")
        try:
            draft.mkdir(parents=True)
            (draft / RECORDS).write_text(_line(columns(Record)))
            (draft / SAMPLES).write_text(_line(columns(Sample)))
            _replace(draft / ENVIRONMENT, json.dumps(environment, indent=2) + "\n")
            draft.rename(folder)
        except OSError as error:
            raise StoreError(f"{folder} cannot be written ({error.strerror}): choose another --out") from None
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return cls(folder)

    @classmethod
    def resume(cls, folder: Path, keep: Callable[[dict[str, str]], bool]) -> Self:
        """Open the files of a run that was stopped, without the rows of incomplete groups.

        Args:
            folder: Folder of the run.
            keep: Function of a row of either file; True if its group is complete.
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
        """Append a record and force it to disk, after its samples.

        Raises:
            StoreError: The file cannot be written; earlier rows stay whole.
        """
        self._append(self._samples, b"", force=True)
        self._append(self._records, _row(record), force=True)

    def add_sample(self, sample: Sample) -> None:
        """Append a sample; it reaches the disk at the latest with its record.

        Raises:
            StoreError: The file cannot be written; earlier rows stay whole.
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
    """Return the names of a row's columns, in order."""
    return [field.name for field in dataclasses.fields(row_type)]


def rows(path: Path, earlier: bool = False) -> list[dict[str, str]]:
    """Read the complete rows of a file as text; a torn last line is left out.

    Args:
        path: ``records.csv`` or ``samples.csv`` of a run.
        earlier: True if the file may lack optional columns, as an earlier version's does; they are empty then, but
            for the labels of cases, which come from the suites.

    Raises:
        StoreError: The file is missing, or has other columns than this version writes.
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
    complete = []
    for row in reader:
        if len(row) != len(header):
            raise StoreError(f"{path}, line {reader.line_num}: {len(row)} values for {len(header)} columns")
        complete.append(dict.fromkeys(known, "") | dict(zip(header, row, strict=True)))
    if "label" in known and "label" not in header:
        for values in complete:
            values["label"] = labels(values["suite"]).get(values["case"], "")
    return complete


def read(path: Path) -> pd.DataFrame:
    """Read ``records.csv`` or ``samples.csv`` with the type of each column; missing values are ``NA``.

    Raises:
        StoreError: The file is missing, torn in the middle, or has other columns than this version writes.
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
    """Return the Python type of each column, optional or not."""
    kinds: dict[str, type] = {}
    for name, hint in typing.get_type_hints(row_type).items():
        options = [option for option in typing.get_args(hint) if option is not types.NoneType]
        kinds[name] = options[0] if options else hint
    return kinds


def environment(folder: Path) -> Json:
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


def add_to_environment(folder: Path, additions: Json) -> None:
    """Add keys to ``environment.json``."""
    _replace(folder / ENVIRONMENT, json.dumps(environment(folder) | additions, indent=2) + "\n")


def find(name: str, results: Path) -> Path:
    """Return the folder of a run.

    Args:
        name: Path of the folder, run id, or ``latest``.
        results: Folder of all runs.

    Raises:
        StoreError: No such run exists.
    """
    if name == LATEST:
        return _newest(results)
    for folder in (Path(name), results / name):
        if folder.name == LATEST and folder.is_symlink():
            raise StoreError(f"{folder} is a link that an earlier version made: give the run's folder, or {LATEST}")
        with contextlib.suppress(OSError):  # such as a name that is too long
            if name and (folder / RECORDS).is_file():
                return folder.resolve()
    expected = f"expected a folder with {RECORDS} in it, or the name of one in {results}/"
    meant = did_you_mean(name, (LATEST, *(run.name for run in _runs(results))))
    raise StoreError(f"{name} is no run: {meant or expected}")


def _runs(results: Path) -> list[Path]:
    """Return the folders of all runs; links, as earlier versions made, are none."""
    return [path.parent for path in results.glob(f"*/{RECORDS}") if not path.parent.is_symlink()]


def _newest(results: Path) -> Path:
    """Return the folder of the run that began last: a run id begins with that time."""
    runs = _runs(results)
    if not runs:
        raise StoreError(f"{LATEST} is the newest run in {results}/, which has none: give the folder of a run")
    return max(runs, key=_began).resolve()


def _began(folder: Path) -> tuple[str, int]:
    """Return when a run began, to the second; and when its rows were last written, for two of one second."""
    run_id = ""
    with contextlib.suppress(StoreError):
        run_id = str(environment(folder).get("run_id", ""))
    return run_id[:_SECONDS], (folder / RECORDS).stat().st_mtime_ns


def check_free(folder: Path) -> None:
    """Check that a folder can be made, before a run measures anything.

    Raises:
        StoreError: The folder exists, or its parent is not a folder or is read-only.
    """
    try:
        taken = folder.exists() or folder.is_symlink()
    except OSError as error:  # such as a name that is too long
        raise StoreError(f"--out {folder} cannot be made ({error.strerror}): choose another") from None
    if taken:
        what = "exists" if folder.is_dir() else "is a file"
        raise StoreError(f"--out {folder} {what}: give a folder that does not exist yet (--resume completes a run)")
    parent = next(above for above in folder.absolute().parents if above.exists())
    if not parent.is_dir():
        raise StoreError(f"--out {folder} cannot be made: {parent} is not a folder")
    # Only trying shows it: root may write against the mode, but not on a read-only file system.
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
    # A spreadsheet runs a cell with such a first sign as a formula, quoted or not (CWE-1236).
    return f"'{plain}" if plain.startswith(("=", "+", "-", "@", "＝", "＋", "－", "＠")) else plain


def _replace(path: Path, text: str) -> None:
    """Write a whole file so that a reader, or a crash, leaves the old file or the new one."""
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

"""Write and read a run's files: ``records.csv``, ``samples.csv`` and ``environment.json``, in a folder for each run.

Rows are appended whole and forced to disk one by one. A run that is killed leaves complete rows and at most one torn
row at the end, which reading ignores. Values are text: a missing one is empty, never 0. Text from elsewhere, such as an
error message, loses its control characters, and is quoted against spreadsheets that would run it as a formula.

Length: writing, reading and finding share the format.
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
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from harness.catalog.suggest import did_you_mean
from harness.catalog.suites import labels
from harness.output import cells, foreign
from harness.output.foreign import ForeignError
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
#: Beginning of the name of a folder that is being made.
DRAFT: Final = ".bilinear-bench-new-"
#: Age from which such a folder is that of a killed run, in seconds.
DRAFT_SECONDS: Final = 600.0
#: Largest file of each name that is read, in bytes.
MOST_BYTES: Final = {RECORDS: 2**24, SAMPLES: 2**28, ENVIRONMENT: 2**22}
#: Parts of a finding of the doctor.
FINDING: Final = dict.fromkeys(("level", "topic", "saw", "advice"), str)
#: Types of the parts of ``environment.json`` that reports use; see ``foreign.held_to``.
FORM: Final = {
    "run_id": str,
    "cpu_model": str,
    "cpu_count": int,
    "gpus": [str],
    "versions": {"*": str},
    "plan": {"budget_seconds": float, "left_out": [str]},
    "doctor": [FINDING],
}


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
        # A run that ends here leaves the whole folder or none: half of one could be neither resumed nor made again.
        draft = folder.parent / f"{DRAFT}{secrets.token_hex(4)}"
        _remove_drafts(folder.parent)
        try:
            if folder.exists() or folder.is_symlink():
                raise FileExistsError
            draft.mkdir(parents=True)
            (draft / RECORDS).write_text(_line(columns(Record)))
            (draft / SAMPLES).write_text(_line(columns(Sample)))
            _write(draft / ENVIRONMENT, json.dumps(environment, indent=2) + "\n")
            draft.rename(folder)
        except FileExistsError:
            raise StoreError(f"{folder} exists: choose another --out, or complete that run with --resume") from None
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
        for name in (RECORDS, SAMPLES, ENVIRONMENT):
            for draft in folder.glob(f".{name}.*"):  # of a run that was killed while it wrote
                draft.unlink()
        for name, row_type in ((RECORDS, Record), (SAMPLES, Sample)):
            kept = (
                _line(texts[column] for column in columns(row_type))
                for texts, _ in each_row(folder / name)
                if keep(texts)
            )
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
        StoreError: The file is missing, has other columns than this version writes, or a row that none writes.
    """
    return [texts for texts, _ in each_row(path, earlier)]


def each_row(path: Path, earlier: bool = False) -> Iterator[tuple[dict[str, str], Record | Sample]]:
    """Yield each complete row of a file, as text and as the values that it stands for; see ``rows``."""
    row_type = Sample if path.name == SAMPLES else Record
    seen: dict[tuple[object, ...], int] = {}
    try:
        reader = csv.reader(foreign.lines(path, MOST_BYTES[path.name]))
        header = _header(next(reader, []), row_type, earlier)
        for row in reader:
            if len(row) != len(header):
                raise ValueError(f"{len(row)} values for {len(header)} columns")
            texts = dict.fromkeys(columns(row_type), "") | dict(zip(header, row, strict=True))
            if row_type is Record and "label" not in header:
                texts["label"] = labels(texts["suite"]).get(texts["case"], "")
            values = cells.read(row_type, texts)
            if isinstance(values, Record):
                key = (values.run_id, values.flush_l2, *values.cell)
                if seen.setdefault(key, reader.line_num) != reader.line_num:
                    raise ValueError(f"it repeats line {seen[key]}")
            yield texts, values
    except ForeignError as error:
        raise StoreError(f"{path} {error}") from None
    except (ValueError, csv.Error) as error:
        raise StoreError(f"{path}, line {reader.line_num}: {error}; take the file that the run wrote") from None


def _header(header: list[str], row_type: type, earlier: bool) -> list[str]:
    """Return the columns of a file if this version can read them.

    Raises:
        ForeignError: It cannot.
    """
    known = columns(row_type)
    required = {field.name for field in dataclasses.fields(row_type) if field.default is dataclasses.MISSING}
    expected = [name for name in known if name in header or name in required] if earlier else known
    if header != expected:
        raise ForeignError("has other columns than this version writes: read it with the version that wrote it")
    return header


def read(path: Path) -> pd.DataFrame:
    """Read ``records.csv`` or ``samples.csv`` with the type of each column; missing values are ``NA``.

    Raises:
        StoreError: As ``rows``.
    """
    import pandas as pd

    dtypes = {bool: "boolean", int: "Int64", float: "Float64"}
    found = [values for _, values in each_row(path, earlier=True)]
    kinds = cells.column_types(Sample if path.name == SAMPLES else Record)
    return pd.DataFrame(
        {
            name: pd.Series([getattr(values, name) for values in found], dtype=dtypes.get(kind, "string"))
            for name, kind in kinds.items()
        }
    )


def environment(folder: Path) -> Json:
    """Read ``environment.json``; the parts that reports use have the types of ``FORM``, and texts are printable.

    Raises:
        StoreError: It is missing, malformed or has a part of another type.
    """
    try:
        read_back: Json = foreign.held_to(FORM, _environment(folder))
    except ForeignError as error:
        raise StoreError(f"{folder / ENVIRONMENT} {error}") from None
    for finding in read_back.get("doctor", []):
        finding |= dict.fromkeys(FINDING, "") | finding
    return read_back


def _environment(folder: Path) -> Json:
    """Read ``environment.json`` as it is."""
    try:
        return foreign.json_object(folder / ENVIRONMENT, MOST_BYTES[ENVIRONMENT])
    except ForeignError as error:
        raise StoreError(f"{folder} is not a run: {ENVIRONMENT} {error}") from None


def add_to_environment(folder: Path, additions: Json) -> None:
    """Add keys to ``environment.json``."""
    _replace(folder / ENVIRONMENT, json.dumps(_environment(folder) | additions, indent=2) + "\n")


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
        with contextlib.suppress(OSError, RuntimeError):  # such as a name that is too long, or links in a circle
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
    return _line(cells.text(getattr(row, name)) for name in columns(type(row))).encode()


def _line(values: Iterable[str]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(list(values))
    return buffer.getvalue()


def _remove_drafts(parent: Path) -> None:
    """Delete what a run left that was killed while it made its folder; another run's draft lives for milliseconds."""
    for draft in parent.glob(f"{DRAFT}*"):
        with contextlib.suppress(OSError):
            if time.time() - draft.stat().st_mtime > DRAFT_SECONDS:
                shutil.rmtree(draft, ignore_errors=True)


def _replace(path: Path, text: str) -> None:
    """Write a whole file so that a reader, or a crash, leaves the old file or the new one."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        _write(draft, text)
        draft.replace(path)
    except OSError as error:
        raise StoreError(f"{path} cannot be written ({error.strerror}); what was there is whole") from None
    finally:
        draft.unlink(missing_ok=True)


def _write(path: Path, text: str) -> None:
    """Write a whole file and force it to disk."""
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())

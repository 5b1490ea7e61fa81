"""Put the screens of a run together: the end of a run, its whole report, or one case."""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from harness.case import CaseError
from harness.output import store, sweep
from harness.output.answer import answer, remedy, resume
from harness.output.bars import bars
from harness.output.case_labels import find, labels_of
from harness.output.format import argument
from harness.output.header import run_line
from harness.output.layout import Lines, plain, wrapped
from harness.output.remarks import absent, reached, resumed_elsewhere, trouble, unreached, untimed, warnings
from harness.output.tables import FEW, case_tables, few_samples

if TYPE_CHECKING:
    import pandas as pd


def _rows(folder: Path) -> pd.DataFrame:
    """Return a run's rows, all columns of one dtype: taking a row from 90 columns of several takes twice as long."""
    return store.read(folder / store.RECORDS).astype(object)


def ending(folder: Path, name: str, width: int) -> Lines:
    """Return what a run ends with: what went wrong, what is not timed or not here, and the answer.

    Args:
        folder: Folder of the run.
        name: Name of the run, as ``report`` takes it.
        width: Terminal cells of a line.
    """
    return _ending(_rows(folder), store.environment(folder), name, width)


def _ending(records: pd.DataFrame, environment: store.Json, name: str, width: int) -> Lines:
    if records.empty:
        return [Text(f"The run {name} has no row yet.")]
    begun, names = reached(records), labels_of(records)
    lines = Lines()
    for remark in (
        unreached(records, width),
        trouble(begun, names, width),
        untimed(begun, width),
        absent(begun, width),
        resumed_elsewhere(environment, width),
    ):
        lines += [*remark, Text()] if remark else []
    lines += answer(begun, names, environment, name, width) if not begun.empty else []
    return lines + resume(records, name, width)


def report(folder: Path, name: str, width: int, wide: bool = False) -> Lines:
    """Return the lines of a run's report: every table, then the end of the run.

    Args:
        folder: Folder of the run.
        name: Name of the run, as ``report`` takes it.
        width: Terminal cells of a line.
        wide: True if no column is left out.
    """
    records, environment = _rows(folder), store.environment(folder)
    last = _ending(records, environment, name, width)
    if records.empty:
        return last
    files = f"Files: {argument(str(short(folder) / store.RECORDS))}, {store.SAMPLES}, {store.ENVIRONMENT}"
    lines = [*run_line(records, environment, width), *wrapped(files, width, "  "), Text()]
    found = warnings(environment.get("doctor", []), width)
    lines += [*found, Text()] if found else []
    begun = reached(records)
    lines += case_tables(begun, labels_of(records), width, wide)
    grown = sweep.summary(sweep.find(records), width)
    lines += [*grown, Text()] if grown else []
    advice = remedy(environment)
    if advice not in plain(last) and any(few_samples(row) for _, row in begun.iterrows()):
        lines += [*wrapped(f"{FEW}: {advice}", width), Text()]
    return lines + last


def one_case(folder: Path, case: str | None, modes: Collection[str], width: int, wide: bool = False) -> Lines:
    """Return the screens of one case of a run, with a bar for each backend.

    Args:
        folder: Folder of the run.
        case: Text of a case, its sizes, or its label; all cases if it is None.
        modes: Modes to show; all if empty.
        width: Terminal cells of a line.
        wide: True if no column is left out.

    Raises:
        CaseError: The run has no such case, or not in these modes.
    """
    rows, environment = chosen(folder, case, modes), store.environment(folder)
    lines = [*run_line(rows, environment, width), Text(), *bars(rows, labels_of(rows), width, wide)]
    if any(few_samples(row) for _, row in rows.iterrows()):
        lines += [*wrapped(f"{FEW}: {remedy(environment)}", width), Text()]
    return lines[:-1]


def chosen(folder: Path, case: str | None, modes: Collection[str]) -> pd.DataFrame:
    """Return the rows of some cases and modes of a run, without the groups that were not reached.

    Args:
        folder: Folder of the run.
        case: Text of a case, its sizes, or its label; all cases if it is None.
        modes: Modes to choose; all if empty.

    Raises:
        CaseError: The run has no such case, or not in these modes.
    """
    records = _rows(folder)
    if records.empty:
        return records
    rows = reached(records)
    if case is not None:
        rows = rows[rows["case"].isin(find(case, rows["case"].unique(), labels_of(rows)))]
    there = rows["mode"].unique()
    rows = rows[rows["mode"].isin(modes)] if modes else rows
    if modes and rows.empty:
        expected = ", ".join(there)
        raise CaseError(f"the run has no row of mode {', '.join(modes)} there, expected one of: {expected}")
    return rows


def short(path: Path) -> Path:
    """Return a path relative to the working folder if it is below it."""
    with contextlib.suppress(ValueError):
        return path.resolve().relative_to(Path.cwd())
    return path

"""Put the report of a run together: the answer, what went wrong, the files, what next; then every table."""

from __future__ import annotations

import contextlib
from pathlib import Path

from rich.text import Text

from harness.catalog.suites import labels
from harness.output import store, sweep
from harness.output.answer import answer
from harness.output.layout import Lines, wrapped
from harness.output.remarks import absent, reached, trouble, unreached, warnings
from harness.output.tables import case_tables


def report(folder: Path, width: int) -> Lines:
    """Return the lines of a run's report.

    Args:
        folder: Folder of the run.
        width: Terminal cells of a line.
    """
    records = store.read(folder / store.RECORDS)
    if records.empty:
        return [Text(f"No row in {folder} yet.")]
    begun, names = reached(records), labels()
    lines = answer(begun, names, width) if not begun.empty else Lines()
    for remark in (
        unreached(records, width),
        trouble(begun, width),
        warnings(store.environment(folder).get("doctor", []), width),
        absent(begun, width),
    ):
        lines += [*remark, Text()] if remark else []
    name = short(folder)
    stopped = bool((records["status"] == "interrupted").any())
    lines += wrapped(Text(f"Files: {name / store.RECORDS}, {store.SAMPLES}, {store.ENVIRONMENT}", "bold"), width, "  ")
    if stopped:
        lines += wrapped(f"Resume: bilinear-bench run --resume {name}", width, "  ")
    lines += wrapped(f"Again:  bilinear-bench report {name}", width, "  ")
    lines += wrapped(f"Load:   pandas.read_csv('{name / store.RECORDS}')", width, "  ")
    lines += [Text(), *case_tables(begun, names, width)]
    return lines + sweep.summary(sweep.find(records), width)


def short(path: Path) -> Path:
    """Return a path relative to the working folder if it is below it."""
    with contextlib.suppress(ValueError):
        return path.resolve().relative_to(Path.cwd())
    return path

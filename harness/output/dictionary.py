"""Write the data dictionary, ``results/README.md``, from the classes of the rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from harness.output.cells import column_types
from harness.output.store import ENVIRONMENT, LATEST, RECORDS, SAMPLES
from harness.record import FLAG_MEANING, RELATION_MEANING, STATUS_MEANING, Record, Sample

_HEAD = f"""# What a run leaves

`results/<run-id>/` holds the files of one run; `bilinear-bench report {LATEST}` takes the newest. Runs stay on the
machine that made them; `results/reference/` holds the committed ones.

* `{RECORDS}`: one row for every planned case, mode, backend and device, whatever its status.
* `{SAMPLES}`: one row for every recorded time, warmup included.
* `{ENVIRONMENT}`: the machine, the versions, the plan (`--resume` reads it), the machine's peaks, the doctor's
  findings, the thread pools that each worker reported, and what the time went into (`time_spent`, in seconds).

Text is UTF-8, one header line, RFC 4180 quoting. A missing value is empty, never 0. Times are seconds, memory is
bytes, rates are 1e9 operations a second. `make dictionary` writes this page from `harness/record.py`; a test compares.
"""


def render() -> str:
    """Return the page as Markdown."""
    parts = [
        _HEAD,
        f"## `{RECORDS}`\n\n{columns_table(Record)}",
        f"### Statuses\n\n{meanings('status', STATUS_MEANING)}",
        f"### Comparisons\n\n{meanings('comparison', RELATION_MEANING)}",
        f"### Flags\n\n{meanings('flag', FLAG_MEANING)}",
        f"## `{SAMPLES}`\n\n{columns_table(Sample)}",
    ]
    return "\n".join(parts)


def columns_table(row_type: type) -> str:
    """Return the columns of a row type as a Markdown table: name, type and meaning."""
    types = column_types(row_type)
    lines = [
        f"| `{field.name}` | {'text' if issubclass(types[field.name], str) else types[field.name].__name__} "
        f"| {field.metadata['meaning'].replace('|', '/')} |"
        for field in dataclasses.fields(row_type)
    ]
    return "\n".join(("| column | type | meaning |", "|---|---|---|", *lines, ""))


def meanings(heading: str, lines: Mapping[Any, str]) -> str:
    """Return words and their meanings as a Markdown table."""
    rows = (f"| `{word}` | {meaning} |" for word, meaning in lines.items())
    return "\n".join((f"| {heading} | meaning |", "|---|---|", *rows, ""))

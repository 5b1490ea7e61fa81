"""The data dictionary, ``results/README.md``, made from the rows themselves so that it cannot say something else."""

from __future__ import annotations

import dataclasses

from harness.output.store import ENVIRONMENT, LATEST, RECORDS, SAMPLES, column_types
from harness.record import FLAG_MEANING, RELATION_MEANING, STATUS_MEANING, Record, Sample

_HEAD = f"""# What a run leaves

`results/<run-id>/` holds the files of one run; `results/{LATEST}` points to the newest. Runs stay on the machine
that made them; `results/reference/` is where committed ones go.

* `{RECORDS}`: one row for every planned case, mode, backend and device, whatever became of it.
* `{SAMPLES}`: one row for every recorded time, warmup included.
* `{ENVIRONMENT}`: the machine, the versions, the plan (with which `--resume` goes on), what the machine could do at
  best and what the doctor said of it, and what the workers said of their threads.

Text is UTF-8, one header line, RFC 4180 quoting. A missing value is empty, never 0. Times are seconds, memory is
bytes, rates are 1e9 operations a second. This page is made by `make dictionary` from `harness/record.py`, and a test
holds it to it.
"""


def render() -> str:
    """Return the page as Markdown."""
    statuses = "\n".join(f"| `{status}` | {meaning} |" for status, meaning in STATUS_MEANING.items())
    relations = "\n".join(f"| `{relation}` | {meaning} |" for relation, meaning in RELATION_MEANING.items())
    flags = "\n".join(f"| `{flag}` | {meaning} |" for flag, meaning in FLAG_MEANING.items())
    parts = [
        _HEAD,
        f"## `{RECORDS}`\n\n{_table(Record)}",
        f"### Statuses\n\n| status | meaning |\n|---|---|\n{statuses}\n",
        f"### Comparisons\n\n| comparison | meaning |\n|---|---|\n{relations}\n",
        f"### Flags\n\n| flag | meaning |\n|---|---|\n{flags}\n",
        f"## `{SAMPLES}`\n\n{_table(Sample)}",
    ]
    return "\n".join(parts)


def _table(row_type: type) -> str:
    types = column_types(row_type)
    lines = [
        f"| `{field.name}` | {'text' if issubclass(types[field.name], str) else types[field.name].__name__} "
        f"| {field.metadata['meaning'].replace('|', '/')} |"
        for field in dataclasses.fields(row_type)
    ]
    return "\n".join(("| column | type | meaning |", "|---|---|---|", *lines, ""))

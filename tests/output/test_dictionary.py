from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from harness.output.dictionary import render
from harness.record import Record, Sample, Status

PAGE = Path(__file__).parent.parent.parent / "results" / "README.md"


def test_the_committed_page_is_current():
    assert PAGE.read_text(encoding="utf-8") == render(), "run `make dictionary`"


@pytest.mark.parametrize("row_type", [Record, Sample])
def test_every_column_is_on_the_page_in_order_with_type_and_meaning(row_type):
    lines = [line for line in render().splitlines() if line.startswith("| `")]
    names = [line.split("`")[1] for line in lines]
    fields = dataclasses.fields(row_type)
    start = names.index(fields[0].name) if row_type is Record else len(names) - len(fields)
    assert names[start : start + len(fields)] == [field.name for field in fields]
    for line in lines:
        assert all(cell.strip() for cell in line.strip("|").split("|")), line
    assert set(Status) <= set(names)


def test_types_are_named_for_a_reader():
    assert "| `run_id` | text |" in render()
    assert "| `status` | text |" in render()
    assert "| `batch` | int |" in render()
    assert "| `bias` | bool |" in render()
    assert "| `threads` | int |" in render()
    assert "| `median_seconds` | float |" in render()

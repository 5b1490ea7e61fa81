"""The table of faults in ``docs/evidence.md`` is true: each fault has tests that exist, or a reason why not."""

from __future__ import annotations

import ast
import csv
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
with (TESTS / "fault_catalogue.csv").open(newline="") as file:
    FAULTS = list(csv.DictReader(file))


def test_the_catalogue_has_each_fault_once():
    assert [row["id"] for row in FAULTS] == [f"F{number:02}" for number in range(1, 45)]


@pytest.mark.parametrize("row", FAULTS, ids=lambda row: row["id"])
def test_a_fault_has_tests_that_exist_or_a_reason(row):
    assert row["happens"]
    for test in row["tests"].split():
        path, _, name = test.partition("::")
        tree = ast.parse((TESTS / path).read_text())
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert row["tests"] or row["happens"].startswith("needs a device. ")

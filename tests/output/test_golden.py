"""What is printed of committed runs, at several widths, held to files.

``REWRITE_GOLDEN=1 pytest tests/output/test_golden.py`` writes the files again.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from harness.catalog.suites import labels
from harness.output import store
from harness.output.answer import answer
from harness.output.console import PIPE_WIDTH
from harness.output.layout import plain
from harness.output.tables import case_tables, groups, timed
from harness.record import Status

GOLDEN = Path(__file__).parent / "golden"
REFERENCE = Path(__file__).parent.parent.parent / "results" / "reference"
RUNS = ("intel-emerald-rapids-2cpu/quick", "nvidia-h200/warm")
WIDTHS = (80, 100, 120, 160, PIPE_WIDTH)
#: Tables in a golden file; the properties below hold for all.
TABLES = 3


@pytest.fixture(scope="module", params=RUNS)
def run(request):
    records = store.read(REFERENCE / request.param / store.RECORDS)
    return request.param, records[records["status"] != Status.INTERRUPTED.value]


@pytest.mark.parametrize("width", WIDTHS)
def test_the_tables_of_a_committed_run_are_as_in_the_golden_file(run, width):
    name, records = run
    first = [rows for _, (_, rows) in zip(range(TABLES), groups(records), strict=False)]
    lines = answer(records, labels(), width)
    for rows in first:
        lines += case_tables(rows, labels(), width)
    path = GOLDEN / f"{name.replace('/', '-')}-{width}.txt"
    if os.environ.get("REWRITE_GOLDEN") == "1":
        path.write_text(plain(lines), encoding="utf-8")
    assert plain(lines) == path.read_text(encoding="utf-8"), "REWRITE_GOLDEN=1 pytest tests/output/test_golden.py"


@pytest.mark.parametrize("width", [20, 80, 100, PIPE_WIDTH])
def test_rank_backend_median_ratio_and_verdict_are_there_at_every_width(run, width):
    _, records = run
    for key, rows in groups(records):
        lines = plain(case_tables(rows, {}, width)).splitlines()
        ranked = timed(rows)
        (start,) = (number for number, line in enumerate(lines) if line.startswith("rank "))
        table = lines[start : start + 1 + len(ranked)]
        for (_, row), line in zip(ranked.iterrows(), table[1:], strict=True):
            cells = re.split(r"\s{2,}", line.strip())
            assert cells[:2] == [str(row["rank"]), row["backend"]], key
            assert re.search(r"\d (s|ms|µs)  ", line), key
            assert re.search(r"\dx(  |$)", line), key
            assert row["backend"] == "torch-bilinear" or row["comparison"] in cells, key
        assert width < 80 or max(len(line) for line in lines) <= width, key


def test_rows_are_sorted_by_rank_then_median_as_they_are_printed(run):
    units = {"s": 1.0, "ms": 1e-3, "µs": 1e-6}
    for _, rows in groups(run[1]):
        lines = plain(case_tables(rows, {}, 80)).splitlines()
        cells = [re.match(r" *(\d+)  .*?([\d.,]+) (s|ms|µs) ", line) for line in lines]
        printed = [(float(m[2].replace(",", "")) * units[m[3]], int(m[1])) for m in cells if m]
        assert len(printed) == len(timed(rows))
        assert printed == sorted(printed, key=lambda pair: pair[::-1])


def test_no_case_has_a_fastest_that_is_slower_than_nn_bilinear(run):
    ratios = re.findall(r" (\d[\d.,]*)x(?= |$)", plain(answer(run[1], labels(), 80)), re.MULTILINE)
    assert ratios
    assert all(float(ratio.replace(",", "")) >= 1 for ratio in ratios)


@pytest.mark.parametrize("width", [80, 100])
@pytest.mark.parametrize("path", sorted(REFERENCE.rglob(store.RECORDS)), ids=lambda path: path.parent.name)
def test_every_answer_fits_its_width_and_names_each_case(path, width):
    records = store.read(path)
    text = plain(answer(records, labels(), width))
    assert max(len(line) for line in text.splitlines()) <= width
    words = " ".join(text.split())
    for case in records["case"].unique():
        assert all(word in words for word in labels().get(case, case).split())

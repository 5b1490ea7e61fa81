"""What is printed of committed runs, at several widths, held to files.

``REWRITE_GOLDEN=1 pytest tests/output/test_golden.py`` writes the files again.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from harness.output import format as form
from harness.output import store
from harness.output.answer import answer
from harness.output.bars import bars
from harness.output.case_labels import labels_of
from harness.output.group_line import group_line
from harness.output.layout import plain
from harness.output.remarks import reached
from harness.output.report import ending, report
from harness.output.tables import FEW, GROUP, case_tables, few_samples, groups, timed, title

GOLDEN = Path(__file__).parent / "golden"
REFERENCE = Path(__file__).parent.parent.parent / "results" / "reference"
RUNS = (
    "amd-epyc-zen3-2cpu/quick",
    "intel-emerald-rapids-2cpu/quick",
    "intel-emerald-rapids-2cpu/batch-sweep",
    "nvidia-h200/warm",
)
WIDTHS = (80, 100, 120, 160)
#: Tables in a golden file; the properties below hold for all.
TABLES = 3


@pytest.fixture(scope="module", params=RUNS)
def run(request):
    return REFERENCE / request.param, reached(store.read(REFERENCE / request.param / store.RECORDS))


@pytest.mark.parametrize("width", WIDTHS)
def test_the_screens_of_a_committed_run_are_as_in_the_golden_file(run, width):
    (folder, records), names = run, labels_of(run[1])
    first = [rows for _, (_, rows) in zip(range(TABLES), groups(records), strict=False)]
    lines = [line for rows in first for line in case_tables(rows, names, width)]
    lines += [*bars(first[-1], names, width), *ending(folder, "latest", width)]
    text = "".join(f"{group_line(rows, names)}\n" for rows in first) + plain(lines)
    path = GOLDEN / f"{folder.parent.name}-{folder.name}-{width}.txt"
    if os.environ.get("REWRITE_GOLDEN") == "1":
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8"), "REWRITE_GOLDEN=1 pytest tests/output/test_golden.py"


def check_tables(text, records):
    """Assert that each timed row has a line in the report with its name, time, ratio and verdict."""
    lines, names = text.splitlines(), labels_of(records)
    for (device, case, mode), rows in groups(records):
        start = lines.index(title(names, case, mode, device).plain)
        heading = next(number for number in range(start, len(lines)) if lines[number].startswith("rank "))
        ranked = timed(rows)
        for (_, row), line in zip(ranked.iterrows(), lines[heading + 1 : heading + 1 + len(ranked)], strict=True):
            cells = re.split(r"\s{2,}", line.strip())
            median = form.seconds(row["median_seconds"], row["median_low_seconds"], row["median_high_seconds"])
            assert re.fullmatch(r"[\d.,]+ (s|ms|us)", median)
            assert cells[1] == row["backend"], line
            assert median in cells, line
            ratio = form.ratio(row["speedup"], row["speedup_low"], row["speedup_high"])
            assert ("?" if few_samples(row) else ratio) in cells, line
            assert (FEW if few_samples(row) else form.text(row["comparison"])) in [*cells, ""], line


def check_answer(text, records):
    """Assert that the winner of each group, by its rank, is in the answer with its time."""
    for key, rows in records.groupby(GROUP, sort=False):
        best = timed(rows)[timed(rows)["rank"] == 1]
        for _, same in best.groupby("precision_class"):
            first = same.iloc[0]
            ties = len(same) > 1 and "torch-bilinear" in set(same["backend"])
            name = f"{len(same)} tie" if ties else re.escape(first["backend"])
            median = form.seconds(first["median_seconds"], first["median_low_seconds"], first["median_high_seconds"])
            assert re.search(rf"{name}( \(\w+\))? +{re.escape(median)}", text), key


@pytest.mark.parametrize("width", [60, *WIDTHS])
def test_every_name_time_ratio_and_verdict_is_in_a_report(run, width):
    folder, records = run
    text, last = plain(report(folder, "latest", width)), plain(ending(folder, "latest", width))
    assert text.endswith(last)
    check_tables(text, records)
    check_answer(last, records)
    assert text.isascii()
    assert width < 80 or max(len(line) for line in text.splitlines()) <= width


def test_no_ratio_of_the_answer_is_below_one_or_without_its_mark(run):
    folder, records = run
    text = plain(answer(records, labels_of(records), store.environment(folder), "latest", 120)).partition(
        "In your model"
    )[0]
    ratios = [float(ratio.replace(",", "")) for ratio in re.findall(r" (\d[\d.,]*)x(?= |$)", text, re.MULTILINE)]
    assert ratios
    assert min(ratios) >= 1


def test_rows_are_sorted_by_rank_then_median_as_they_are_printed(run):
    units = {"s": 1.0, "ms": 1e-3, "us": 1e-6}
    for _, rows in groups(run[1]):
        lines = plain(case_tables(rows, {}, 80)).splitlines()
        cells = [re.match(r" *(\d+)  .*?([\d.,]+) (s|ms|us) ", line) for line in lines]
        printed = [(float(m[2].replace(",", "")) * units[m[3]], int(m[1])) for m in cells if m]
        assert len(printed) == len(timed(rows))
        assert printed == sorted(printed, key=lambda pair: pair[::-1])


@pytest.mark.parametrize("path", sorted(REFERENCE.rglob(store.RECORDS)), ids=lambda path: path.parent.name)
def test_every_answer_names_each_case_of_its_run(path):
    records = store.read(path)
    text = plain(answer(records, labels_of(records), store.environment(path.parent), "latest", 80))
    for case in records["case"].unique():
        assert labels_of(records).get(case, case.partition(":")[0]) in text

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
from harness.output.tables import FEW, case_tables, few_samples, groups, timed, title

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


@pytest.fixture(scope="module")
def ranked(run):
    """Title and timed rows of each table."""
    names = labels_of(run[1])
    return [
        (title(names, case, mode, device).plain, [row for _, row in timed(rows).iterrows()])
        for (device, case, mode), rows in groups(run[1])
    ]


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


def median_of(row):
    return form.seconds(row["median_seconds"], row["median_low_seconds"], row["median_high_seconds"])


def check_table(lines, rows):
    """Assert that each timed row has its name, time, ratio and verdict in the lines below the heading of its table."""
    heading = next(number for number, line in enumerate(lines) if line.startswith("rank "))
    for row, line in zip(rows, lines[heading + 1 :], strict=False):
        cells, few = re.split(r"\s{2,}", line.strip()), few_samples(row)
        assert re.fullmatch(r"[\d.,]+ (s|ms|us)", median_of(row))
        assert cells[1] == row["backend"], line
        assert median_of(row) in cells, line
        assert ("?" if few else form.ratio(row["speedup"], row["speedup_low"], row["speedup_high"])) in cells, line
        assert (FEW if few else form.text(row["comparison"])) in [*cells, ""], line


def check_answer(text, rows):
    """Assert that the winner of a group, by its rank, is in the answer, for each precision class: with its time.

    Where nn.Bilinear is one of several, the answer has their number instead.
    """
    best = [row for row in rows if form.text(row["rank"]) == "1"]
    for name in dict.fromkeys(form.text(row["precision_class"]) for row in best):
        same = [row for row in best if form.text(row["precision_class"]) == name]
        ties = len(same) > 1 and "torch-bilinear" in [row["backend"] for row in same]
        winner = rf"{re.escape(same[0]['backend'])}( \(\w+\))? +{re.escape(median_of(same[0]))}"
        words = rf"no difference shown among {len(same)}( \({name}\))?( |$)"
        assert re.search(words if ties else winner, text, re.MULTILINE), same[0]["case"]


@pytest.mark.parametrize("width", [60, 80, 120, *(pytest.param(width, marks=pytest.mark.slow) for width in (100, 160))])
def test_every_name_time_ratio_and_verdict_is_in_a_report(run, ranked, width):
    text, last = plain(report(run[0], "latest", width)), plain(ending(run[0], "latest", width))
    lines = text.splitlines()
    for heading, rows in ranked:
        check_table(lines[lines.index(heading) :], rows)
        check_answer(last, rows)
    assert text.endswith(last)
    assert text.isascii()
    assert width < 80 or max(len(line) for line in lines) <= width


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

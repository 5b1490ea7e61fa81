from __future__ import annotations

import re

from report_rows import line_with, timed, untimed

from harness.output.bars import bars
from harness.output.layout import plain
from harness.record import Status

LABELS = {"3x2x2x2": "a small layer"}


def bar(line):
    return len(re.search(r"#+", line)[0])


def many(frame):
    return frame(
        timed("quick", 4e-5, 1, comparison="faster", blocks=3, flags="few_blocks"),
        timed("second", 4.1e-5, 1, comparison="faster"),
        timed("third", 4e-4, 3, comparison="faster", peak_memory_bytes=2**20),
        timed("torch-bilinear", 4e-3, 4, speedup_low=1.0, speedup_high=1.0),
        untimed("broken", Status.FAILED, "no module"),
    )


def test_a_case_has_a_bar_for_each_backend_and_marks_for_a_tie(frame):
    lines = bars(many(frame), LABELS, 80)
    text = plain(lines)
    assert text.startswith("a small layer, forward on cpu (3x2x2x2)  few samples: 3\n")
    names = ["quick", "second", "third", "torch-bilinear"]
    rows = [line_with(lines, f" {name} ") for name in names]
    assert [row[0] for row in rows] == ["=", "=", " ", " "]
    assert bar(rows[0]) == bar(rows[1]) > bar(rows[2]) > bar(rows[3]) == 1
    assert rows[0].split()[-4:] == ["80x", "..", "120x", "faster"]
    assert "broken: failed, no module" in text
    assert max(len(line) for line in text.splitlines()) <= 80


def test_hidden_columns_are_named_and_wide_shows_them(frame):
    records = many(frame)
    hidden = line_with(bars(records, LABELS, 80), "hidden at 80 columns")
    assert "memory" in hidden
    assert "(--wide shows them)" in plain(bars(records, LABELS, 80))
    wide = bars(records, LABELS, 80, wide=True)
    assert "1.0 MiB" in line_with(wide, " third ")
    assert "hidden" not in plain(wide)


def test_bars_go_before_names_times_ratios_and_verdicts_do(frame):
    row = line_with(bars(many(frame), LABELS, 20), " third ")
    assert row.split() == ["third", "400", "us", "10x", "faster"]


def test_noise_does_not_look_like_a_difference(frame):
    lines = bars(frame(timed("one", 1.00e-3, 1), timed("two", 1.02e-3, 1)), {}, 80)
    assert bar(line_with(lines, " one ")) == bar(line_with(lines, " two "))


def test_one_winner_has_no_mark(frame):
    records = frame(timed("one", 1e-3, 1), timed("two", 2e-3, 2))
    assert line_with(bars(records, {}, 80), " one ").startswith("  one")

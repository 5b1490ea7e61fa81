from __future__ import annotations

import re

import pandas as pd
import pytest
from report_rows import WIDE, line_with, timed, untimed

from harness.output import tables
from harness.output.layout import plain
from harness.record import FLAG_MEANING, Flag, Status


def shown(records, labels=None, width=WIDE):
    return tables.case_tables(records, labels or {}, width)


def test_every_row_that_was_not_timed_appears_with_its_reason(frame):
    others = [status for status in Status if status not in (Status.TIMED, Status.UNAVAILABLE)]
    rows = [untimed(f"b-{status}", status, f"reason of {status}, x[0, 1] [/red]") for status in others]
    lines = shown(frame(timed("fine", 1e-3, 1), *rows))
    for status in others:
        assert f"b-{status}: {status}, reason of {status}, x[0, 1] [/red]" in plain(lines)
    assert "1.0 ms" in line_with(lines, "fine")


def test_backends_that_are_not_here_have_no_line_in_a_table(frame):
    records = frame(
        timed("fine", 1e-3, 1),
        untimed("triton", Status.UNSUPPORTED, "triton runs on cuda", phase="load"),
        untimed("cupy", Status.UNAVAILABLE, "cupy is not installed", phase="load"),
        untimed("small", Status.UNSUPPORTED, "no bf16", phase="support"),
    )
    text = plain(shown(records))
    assert "triton" not in text
    assert "cupy" not in text
    assert "small: unsupported, no bf16" in text


def test_each_case_mode_and_device_has_a_table_sorted_by_speed(frame):
    records = frame(
        timed("slow", 4e-3, 2),
        timed("fast", 1e-3, 1, comparison="faster", speedup_low=3.9, speedup_high=4.1),
        timed("step", 1e-3, 1, mode="forward_backward"),
        timed("gpu", 1e-3, 1, device="cuda"),
    )
    keys = [key for key, _ in tables.groups(records)]
    assert keys == [("cpu", "3x2x2x2", m) for m in ("forward", "forward_backward")] + [("cuda", "3x2x2x2", "forward")]
    lines = shown(records, {"3x2x2x2": "small"})
    text = plain(lines)
    assert text.index("fast") < text.index("slow") < text.index("step") < text.index("gpu")
    assert "4.00x" in line_with(lines, "fast")
    assert "3.90x .. 4.10x" in line_with(lines, "fast")
    assert "small, training step on cpu (3x2x2x2)" in text


def test_a_rate_has_no_digits_that_the_time_hides(frame):
    ends = {"median_low_seconds": 0.7e-3, "median_high_seconds": 1.3e-3}
    narrow = {"median_low_seconds": 0.999e-3, "median_high_seconds": 1.001e-3}
    rows = [
        timed("wide", 1e-3, 1, gflop_per_second=123.4, **ends),
        timed("thin", 1e-3, 1, gflop_per_second=123.4, **narrow),
    ]
    lines = shown(frame(*rows))
    assert " 30 % " in line_with(lines, "wide")
    assert "120" in line_with(lines, "wide").split()
    assert "123.4" in line_with(lines, "thin").split()


def test_a_missing_number_is_shown_as_nothing(frame):
    text = plain(shown(frame(timed("base", 4e-3, 1, speedup=None, baseline_median_seconds=None))))
    assert "nan" not in text.lower()
    assert "<NA>" not in text


def test_a_row_shows_its_verdict_its_costs_and_its_share_of_the_roofline(frame):
    known = {
        "comparison": "faster",
        "roofline_fraction": 0.625,
        "peak_memory_bytes": 3 * 2**20,
        "break_even_calls": 6506,
    }
    costs = {"prepare_seconds": 0.3, "first_call_seconds": 2.5, "mean_absolute_error": 3.84e-8}
    row = line_with(shown(frame(timed("fast", 1e-3, 1, **known, **costs))), "fast")
    for word in ("faster", "62 %", "3.0 MiB", "6,506", "2.8 s", "3.8e-08"):
        assert word in row


def test_the_share_is_that_of_the_spot_roofline_where_it_is_known(frame):
    def spot(name, milliseconds, share, low=None, high=None):
        ends = {"spot_roofline_fraction_low": low, "spot_roofline_fraction_high": high}
        return timed(
            name, milliseconds * 1e-3, milliseconds, roofline_fraction=0.4, spot_roofline_fraction=share, **ends
        )

    rows = [
        spot("one", 1, 0.625, 0.6, 0.7),
        spot("two", 2, None),
        spot("once", 3, 0.625),
        spot("few", 4, 2.1, 0.4, 9.0),
    ]
    lines = shown(frame(*rows))
    assert "62 %" in line_with(lines, "one")
    assert "40 %" in line_with(lines, "two")
    assert "40 %" in line_with(lines, "once"), "without an interval the share is unknown"
    assert "40 %" in line_with(lines, "few"), "with a wide interval the share is unknown, too"


def test_a_row_that_is_not_ranked_has_a_dash_for_a_rank(frame):
    lines = shown(frame(timed("miracle", 1e-6, None, flags="implausible")))
    assert line_with(lines, " us").split()[:3] == ["-", "miracle", "!"]
    assert line_with(lines, "implausible").strip() == "! implausible: miracle"


def test_rows_of_one_class_need_no_column_for_it(frame):
    records = frame(timed("one", 1e-3, 1), timed("other", 2e-3, 1))
    records["precision_class"] = ["float32", "float32"]
    assert "class" not in plain(shown(records, width=80))
    records["precision_class"] = ["tf32", "float32"]
    assert "tf32" in plain(shown(records, width=10))


def test_a_flag_that_most_rows_have_is_said_once_above_the_table(frame):
    rows = [timed(f"b{number}", 1e-3, 1, flags="few_blocks") for number in range(3)]
    rows += [timed("b3", 1e-3, 1, flags="overhead;oversubscribed(3.4)"), timed("b4", 1e-3, 1)]
    _, above, heading, *lines = plain(shown(frame(*rows))).splitlines()
    assert above == f"few_blocks on 3 of 5 rows (not b3, b4): {FLAG_MEANING[Flag.FEW_BLOCKS]}"
    assert heading.split()[:3] == ["rank", "backend", "!"]
    assert [line.split()[1] for line in lines if " !  " in line] == ["b3"]
    assert lines[5:] == ["   ! overhead: b3", "   ! oversubscribed: b3 (3.4)", ""]


def test_a_flag_of_all_rows_marks_none(frame):
    lines = plain(shown(frame(*(timed(name, 1e-3, 1, flags="few_blocks") for name in "ab")))).splitlines()
    assert lines[1] == f"few_blocks on all 2 rows: {FLAG_MEANING[Flag.FEW_BLOCKS]}"
    assert not [line for line in lines if "!" in line]


@pytest.mark.parametrize("flags", ["undisturbed(faster)", "few_blocks"])
def test_a_flag_with_details_or_of_one_row_alone_stays_below(frame, flags):
    rows = [timed(name, 1e-3, 1, flags=flags) for name in ("ab" if "(" in flags else "a")]
    text = plain(shown(frame(*rows)))
    assert f"! {flags.partition('(')[0]}: a" in text
    assert "rows" not in text


def test_no_escape_sequence_of_a_reason_reaches_the_terminal(frame):
    records = frame(untimed("evil", Status.FAILED, "placeholder"))
    records["reason"] = pd.array(["\x1b]0;title\x07\x1b[2J\x9b31m\rgone\u202e"], dtype="string")
    text = plain(shown(records))
    assert "gone" in text
    assert not set("\x1b\x07\x9b\r\u202e") & set(text)


def test_every_heading_has_its_meaning(frame):
    records = frame(timed("one", 1e-3, 1, flags="overhead"), timed("other", 2e-3, 1))
    records["precision_class"] = ["tf32", "float32"]
    heading = plain(shown(records)).splitlines()[1]
    assert sorted(word.strip() for word in heading.split("  ") if word) == sorted(tables.HEADINGS)


FEW = {"speedup_low": 1e-6, "speedup_high": 7e8, "comparison": "ambiguous"}


@pytest.mark.parametrize("ends", [FEW, FEW | {"speedup_low": None, "speedup_high": None}])
def test_too_few_samples_are_said_in_place_of_a_ratio(frame, ends):
    row = line_with(shown(frame(timed("one", 1e-3, 1, **ends), timed("torch-bilinear", 4e-3, 2))), " one ")
    assert re.split(r"\s{2,}", row.strip()) == ["1", "one", "1.0 ms", "?", "too few samples"]


def test_the_baseline_needs_no_interval_for_its_ratio(frame):
    ends = {"speedup_low": 1.0, "speedup_high": 1.0}
    assert "1x" in line_with(shown(frame(timed("torch-bilinear", 4e-3, 1, **ends))), "torch-bilinear").split()


def test_all_tables_lack_the_same_columns_and_one_line_names_them(frame):
    costs = {"peak_memory_bytes": 2**20, "mean_absolute_error": 1e-8}
    rows = [
        timed("x", 1e-3, 1, **costs),
        timed("a-name-of-forty-characters-is-rather-wide", 1e-3, 1, case="9x2x2x2", **costs),
    ]
    records = frame(*rows)
    text = plain(shown(records, width=110))
    headings = [line.split() for line in text.splitlines() if line.startswith("rank")]
    assert headings[0] == headings[1]
    (line,) = (line for line in text.splitlines() if line.startswith("hidden"))
    assert line == (
        "hidden at 110 columns: first call, memory, GFLOP/s, break-even (calls), mean abs diff (--wide shows them)"
    )
    wide = plain(tables.case_tables(records, {}, 20, wide=True))
    assert "mean abs diff" in wide
    assert "hidden" not in wide


def test_backends_of_a_rank_are_sorted_by_printed_median_then_by_name(frame):
    narrow = {"median_low_seconds": 1.3049e-3, "median_high_seconds": 1.3051e-3}
    rows = [
        timed("d", 1.26e-3, 1),  # 1.3 ms
        timed("c", 1.34e-3, 1),  # 1.3 ms
        timed("b", 1.305e-3, 1, **narrow),  # 1.305 ms
        timed("a", 0.99e-3, 2),
        timed("e", 1.2e-3, 1),
    ]
    assert list(tables.timed(frame(*rows))["backend"]) == ["e", "c", "d", "b", "a"]

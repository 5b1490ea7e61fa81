from __future__ import annotations

import io

import pandas as pd
import pytest
from rich.console import Console, Group

from harness.output import tables
from harness.record import BAD, Record, Status

KEY = {
    **{"run_id": "20260102T030405Z-00ff", "suite": "quick", "case": "3x2x2x2", "backend": "numpy-loop"},
    **{"batch": 3, "in1_features": 2, "in2_features": 2, "out_features": 2, "dtype": "float32", "precision": "ieee"},
    **{"bias": True, "mode": "forward", "seed": 0, "device": "cpu"},
}


def timed(backend, median, rank, **changes):
    given = {"baseline_median_seconds": 4e-3, "speedup": 4e-3 / median, "median_seconds": median, "rank": rank}
    return Record(**KEY | {"backend": backend, "status": Status.TIMED} | given | changes)


def untimed(backend, status, reason, **changes):
    return Record(**KEY | {"backend": backend, "status": status, "reason": reason} | changes)


def shown(renderable):
    console = Console(file=io.StringIO(), width=400, force_terminal=False, color_system=None)
    console.print(renderable)
    return console.file.getvalue()


def line_with(text, word):
    (found,) = (line for line in text.splitlines() if word in line)
    return found


def test_the_answer_is_the_winner_with_those_that_tie_and_no_other(frame):
    records = frame(
        timed("slow", 4e-3, 3),
        timed("second", 2.02e-3, 1),
        timed("first", 2e-3, 1),
        untimed("broken", Status.FAILED, "why", case="9x2x2x2"),
    )
    text = shown(tables.answer(records, {"3x2x2x2": "a small layer"}))
    winner = line_with(text, "3x2x2x2")
    assert "first = second" in winner
    assert "2.0 ms" in winner
    assert "2.0x" in winner
    assert "a small layer" in winner
    assert "slow" not in text
    assert "none was timed" in line_with(text, "9x2x2x2")


def test_a_run_killed_before_the_winners_row_was_written_can_still_be_shown(frame):
    records = frame(timed("second", 2e-3, 2))
    assert "3x2x2x2" in shown(tables.answer(records, {}))
    assert "second" in shown(Group(*tables.tables(records, {})))


def test_groups_that_a_stopped_run_did_not_reach_are_counted_and_not_listed(frame):
    records = frame(
        timed("first", 2e-3, 1),
        untimed("second", Status.INTERRUPTED, "stopped"),
        untimed("first", Status.INTERRUPTED, "stopped", mode="forward_backward"),
        untimed("first", Status.INTERRUPTED, "stopped", case="9x2x2x2"),
    )
    # The group that it was at has its row that is missing.
    assert tables.reached(records)["status"].tolist() == ["timed", "interrupted"]
    assert "2 of 3 cases" in shown(tables.unreached(records))
    assert tables.unreached(tables.reached(records)) is None


def test_every_row_that_was_not_timed_appears_with_its_reason(frame):
    others = [status for status in Status if status is not Status.TIMED]
    rows = [untimed(f"b-{status}", status, f"reason of {status}, x[0, 1] [/red]") for status in others]
    text = shown(Group(*tables.tables(frame(timed("fine", 1e-3, 1), *rows), {})))
    for status in others:
        assert f"b-{status}: {status}, reason of {status}, x[0, 1] [/red]" in text
    assert "1.0 ms" in line_with(text, "fine")


def test_backends_for_other_devices_are_told_once_and_not_below_every_table(frame):
    for_gpus = [
        untimed("triton", Status.UNSUPPORTED, "triton runs on cuda", phase="load", mode=mode)
        for mode in ("forward", "forward_backward")
    ]
    records = frame(timed("fine", 1e-3, 1), *for_gpus, untimed("small", Status.UNSUPPORTED, "no bf16", phase="support"))
    text = shown(Group(*tables.tables(records, {})))
    assert "triton" not in text
    assert "small: unsupported, no bf16" in text
    assert shown(tables.elsewhere(records)).strip() == "Not on cpu: triton runs on cuda"
    assert tables.elsewhere(records[records["backend"] == "fine"]) is None


def test_winners_of_different_precision_classes_stand_apart_with_their_class(frame):
    records = frame(timed("quick", 1e-3, 1), timed("exact", 2e-3, 1), timed("like", 2e-3, 1))
    records["precision_class"] = ["tf32", "float32", "float32"]
    assert "quick (tf32); exact = like (float32)" in shown(tables.answer(records, {}))


def test_rows_of_a_table_are_sorted_by_speed_and_each_case_mode_and_device_has_its_own(frame):
    records = frame(
        timed("slow", 4e-3, 2),
        timed("fast", 1e-3, 1, comparison="faster", speedup_low=3.9, speedup_high=4.1, gflop_per_second=123.4),
        timed("step", 1e-3, 1, mode="forward_backward"),
        timed("gpu", 1e-3, 1, device="cuda"),
    )
    keys = [key for key, _ in tables.groups(records)]
    assert keys == [("cpu", "3x2x2x2", m) for m in ("forward", "forward_backward")] + [("cuda", "3x2x2x2", "forward")]
    text = shown(Group(*tables.tables(records, {"3x2x2x2": "small"})))
    assert text.index("fast") < text.index("slow") < text.index("step") < text.index("gpu")
    assert "4.00x" in line_with(text, "fast")
    assert "3.90x .. 4.10x" in line_with(text, "fast")
    assert "123" in line_with(text, "fast")
    assert "small: 3x2x2x2, forward + backward, cpu" in text


def test_a_missing_number_is_shown_as_nothing(frame):
    records = frame(timed("base", 4e-3, 1, speedup=None, baseline_median_seconds=None))
    text = shown(Group(*tables.tables(records, {}), tables.answer(records, {})))
    assert "nan" not in text.lower()
    assert "<NA>" not in text


def test_trouble_is_one_line_for_every_bad_row_and_nothing_without_one(frame):
    rows = [untimed(f"b-{status}", status, f"reason {status}") for status in Status if status is not Status.TIMED]
    records = frame(timed("fine", 1e-3, 1), *rows)
    text = shown(tables.trouble(records))
    for status in Status:
        assert (f"{status} b-{status} on 3x2x2x2, forward, cpu (): reason {status}" in text) == (status in BAD)
    assert tables.trouble(records[records["status"] == "timed"]) is None


def test_the_checks_have_a_column_for_each_probe_and_say_each_reason_word_for_word(frame):
    records = frame(
        untimed("good", Status.CHECKED, "only checked", max_error_over_bound=0.123, mean_absolute_error=3.8e-8),
        untimed("bad", Status.REJECTED, "output[0, 1] is [float32], not [/red]", probes="edge_cases=ok;exact=no"),
        untimed("absent", Status.UNAVAILABLE, "pip install 'x[/red]'"),
    )
    records["precision_class"] = ["float32", None, None]
    text = shown(Group(*tables.checks(records, {"3x2x2x2": "small"}), tables.trouble(records), tables.unasked(records)))
    assert "small: 3x2x2x2, forward, cpu" in text
    assert "right" in line_with(text, "good")
    assert "0.12" in line_with(text, "good")
    assert "3.8e-08" in line_with(text, "good")
    assert "float32" in line_with(text, "good")
    (bad,) = (line for line in text.splitlines() if line.startswith("bad "))
    assert bad.split()[:7] == ["bad", "rejected", "ok", "no", "-", "-", "-"]
    assert "output[0, 1] is [float32], not [/red]" in text
    assert "absent: unavailable, pip install 'x[/red]'" in text


def test_no_escape_sequence_of_a_reason_reaches_the_terminal(frame):
    records = frame(untimed("evil", Status.FAILED, "placeholder"))
    records["reason"] = pd.array(["\x1b]0;title\x07\x1b[2J\x9b31m\rgone\u202e"], dtype="string")
    for renderable in (Group(*tables.tables(records, {})), tables.trouble(records)):
        text = shown(renderable)
        assert "gone" in text
        assert not set("\x1b\x07\x9b\r\u202e") & set(text)


@pytest.mark.parametrize(
    ("value", "low", "high", "text"),
    [
        (1.2345, 1.20, 1.28, "1.23 s"),
        (1.2345, 1.2344, 1.2346, "1.234 s"),  # four digits are the most
        (1.2345, 0.5, 2.5, "1 s"),
        (12.34, 12.1, 12.5, "12.3 s"),
        (0.0005049, 0.000480, 0.000530, "500 µs"),
        (0.0005049, 0.0005040, 0.0005058, "504.9 µs"),
        (9.996e-3, 9.98e-3, 10.01e-3, "10.0 ms"),
        (0.9996, 0.8, 1.2, "1 s"),
        (0.9994e-3, 0.98e-3, 1.02e-3, "1.0 ms"),
        (0.9994e-3, 0.9993e-3, 0.9995e-3, "999.4 µs"),
        (12345.6, 12000.0, 13000.0, "12,300 s"),
        (1.23e-8, 1.22e-8, 1.24e-8, "0.0123 µs"),
        (1.864e-3, pd.NA, pd.NA, "1.9 ms"),  # no interval: two digits
        (123.4, None, None, "120 s"),
        (pd.NA, pd.NA, pd.NA, ""),
        (None, None, None, ""),
        (float("nan"), 1.0, 2.0, ""),
    ],
)
def test_a_time_has_the_digits_that_its_interval_supports_and_the_unit_that_suits_it(value, low, high, text):
    assert tables.seconds(value, low, high) == text


@pytest.mark.parametrize(
    ("value", "low", "high", "text"),
    [
        (1.0, 1.0, 1.0, "1x"),  # the baseline, which is as fast as itself
        (1.864, 1.80, 1.92, "1.86x"),
        (41.93, 38.0, 45.0, "42x"),
        (0.1234, 0.1, 0.15, "0.12x"),
        (57.0, 7.0, 460.0, "60x"),
        (250.4, 249.0, 252.0, "250x"),
        (1.864, pd.NA, pd.NA, "1.9x"),
        (pd.NA, pd.NA, pd.NA, ""),
    ],
)
def test_a_ratio_has_the_digits_that_its_interval_supports(value, low, high, text):
    assert tables.times(value, low, high) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(pd.NA, ""), (0, "0"), (1023, "0"), (1024, "1.0 KiB"), (300 * 1024, "300 KiB"), (2.8e9, "2.6 GiB")],
)
def test_memory_has_two_digits_and_what_is_below_a_kibibyte_is_none(value, text):
    assert tables.size(value) == text


def test_a_row_shows_its_verdict_its_costs_and_its_share_of_the_limit(frame):
    known = {
        "comparison": "faster",
        "roofline_fraction": 0.625,
        "peak_memory_bytes": 3 * 2**20,
        "break_even_calls": 6506,
    }
    costs = {"prepare_seconds": 0.3, "first_call_seconds": 2.5}
    text = shown(Group(*tables.tables(frame(timed("fast", 1e-3, 1, **known, **costs)), {})))
    row = line_with(text, "fast")
    for word in ("faster", "62 %", "3.0 MiB", "6,506", "2.8 s"):
        assert word in row


def test_the_share_of_the_limit_is_that_at_the_pace_before_each_sample_where_it_is_known(frame):
    def paced(name, milliseconds, share, low=None, high=None):
        ends = {"spot_roofline_fraction_low": low, "spot_roofline_fraction_high": high}
        seconds = milliseconds * 1e-3
        return timed(name, seconds, milliseconds, roofline_fraction=0.4, spot_roofline_fraction=share, **ends)

    few = paced("few", 4, 2.1, 0.4, 9.0)
    records = frame(paced("one", 1, 0.625, 0.6, 0.7), paced("two", 2, None), paced("once", 3, 0.625), few)
    text = shown(Group(*tables.tables(records, {})))
    assert "62 %" in line_with(text, "one")
    assert "40 %" in line_with(text, "two")
    assert "40 %" in line_with(text, "once"), "without an interval it may be anything"
    assert "40 %" in line_with(text, "few"), "and so it may with one like this"
    assert "62 %" in line_with(shown(tables.answer(records, {})), "one")


def test_a_row_that_is_not_ranked_has_a_dash_for_a_rank(frame):
    text = shown(Group(*tables.tables(frame(timed("miracle", 1e-6, None, flags="implausible")), {})))
    assert line_with(text, "miracle").split()[0] == "-"
    assert "implausible" in text


def test_rows_of_one_class_need_no_column_for_it(frame):
    records = frame(timed("one", 1e-3, 1), timed("other", 2e-3, 1))
    records["precision_class"] = ["float32", "float32"]
    assert "class" not in shown(Group(*tables.tables(records, {})))
    records["precision_class"] = ["tf32", "float32"]
    assert "tf32" in shown(Group(*tables.tables(records, {})))


FINDINGS = [
    {"level": "warning", "topic": "load", "saw": "3 others [run]", "advice": "wait"},
    {"level": "note", "topic": "virtual machine", "saw": "it is one", "advice": ""},
    {"level": "ok", "topic": "swap", "saw": "none", "advice": ""},
]


def test_only_warnings_about_the_machine_stand_in_a_runs_report():
    text = shown(tables.warnings(FINDINGS))
    assert "warning load: 3 others [run] -> wait" in text
    assert "virtual machine" not in text
    assert tables.warnings(FINDINGS[1:]) is None
    assert tables.warnings([]) is None


def test_the_doctors_report_has_every_rate_every_finding_and_what_is_missing():
    peaks = {
        "arithmetic": {"float32": {"flop_per_second": 2.345e11, "source": "FMA [chains]"}},
        "products": [{"library": "numpy", "dtype": "float32", "flop_per_second": 2e11, "detail": "OpenBLAS"}],
        "levels": [
            {"name": "L1", "capacity_bytes": 2**16, "bytes_per_second": 4e11},
            {"name": "memory", "capacity_bytes": None, "bytes_per_second": 3e10},
        ],
        "missing": ["jax in float32: not installed"],
    }
    text = shown(Group(*tables.machine(peaks, FINDINGS)))
    for line in ("234 GFLOP/s", "FMA [chains]", "OpenBLAS", "L1, 64 KiB", "400 GB/s", "not measured: jax in float32"):
        assert line in text
    for finding in FINDINGS:
        assert f"{finding['level']} {finding['topic']}: {finding['saw']}" in text

from __future__ import annotations

import io

import pandas as pd
import pytest
from rich.console import Console, Group

from harness.output import report, store
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


@pytest.fixture
def frame(tmp_path):
    def frame(*records):
        with store.Store.create(tmp_path / "run", {}) as opened:
            for record in records:
                opened.add_record(record)
        return store.read(tmp_path / "run" / store.RECORDS)

    return frame


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
    text = shown(report.answer(records, {"3x2x2x2": "a small layer"}))
    winner = line_with(text, "3x2x2x2")
    assert "first = second" in winner
    assert "2.00 ms" in winner
    assert "2.00x" in winner
    assert "a small layer" in winner
    assert "slow" not in text
    assert "none was timed" in line_with(text, "9x2x2x2")


def test_a_run_killed_before_the_winners_row_was_written_can_still_be_shown(frame):
    records = frame(timed("second", 2e-3, 2))
    assert "3x2x2x2" in shown(report.answer(records, {}))
    assert "second" in shown(Group(*report.tables(records, {})))


def test_every_row_that_was_not_timed_appears_with_its_reason(frame):
    others = [status for status in Status if status is not Status.TIMED]
    rows = [untimed(f"b-{status}", status, f"reason of {status}, x[0, 1] [/red]") for status in others]
    text = shown(Group(*report.tables(frame(timed("fine", 1e-3, 1), *rows), {})))
    for status in others:
        assert f"b-{status}: {status}, reason of {status}, x[0, 1] [/red]" in text
    assert "1.00 ms" in line_with(text, "fine")


def test_winners_of_different_precision_classes_stand_apart_with_their_class(frame):
    records = frame(timed("quick", 1e-3, 1), timed("exact", 2e-3, 1), timed("like", 2e-3, 1))
    records["precision_class"] = ["tf32", "float32", "float32"]
    assert "quick (tf32); exact = like (float32)" in shown(report.answer(records, {}))


def test_rows_of_a_table_are_sorted_by_speed_and_each_case_mode_and_device_has_its_own(frame):
    records = frame(
        timed("slow", 4e-3, 2),
        timed("fast", 1e-3, 1, speedup_low=3.9, speedup_high=4.1, gflop_per_second=123.4),
        timed("step", 1e-3, 1, mode="forward_backward"),
        timed("gpu", 1e-3, 1, device="cuda"),
    )
    keys = [key for key, _ in report.groups(records)]
    assert keys == [("cpu", "3x2x2x2", m) for m in ("forward", "forward_backward")] + [("cuda", "3x2x2x2", "forward")]
    text = shown(Group(*report.tables(records, {"3x2x2x2": "small"})))
    assert text.index("fast") < text.index("slow") < text.index("step") < text.index("gpu")
    assert "3.90x .. 4.10x" in line_with(text, "fast")
    assert "123" in line_with(text, "fast")
    assert "small: 3x2x2x2, forward + backward, cpu" in text


def test_a_missing_number_is_shown_as_nothing(frame):
    records = frame(timed("base", 4e-3, 1, speedup=None, baseline_median_seconds=None))
    text = shown(Group(*report.tables(records, {}), report.answer(records, {})))
    assert "nan" not in text.lower()
    assert "<NA>" not in text


def test_trouble_is_one_line_for_every_bad_row_and_nothing_without_one(frame):
    rows = [untimed(f"b-{status}", status, f"reason {status}") for status in Status if status is not Status.TIMED]
    records = frame(timed("fine", 1e-3, 1), *rows)
    text = shown(report.trouble(records))
    for status in Status:
        assert (f"{status} b-{status} on 3x2x2x2, forward, cpu (): reason {status}" in text) == (status in BAD)
    assert report.trouble(records[records["status"] == "timed"]) is None


def test_the_checks_have_a_column_for_each_probe_and_say_each_reason_word_for_word(frame):
    records = frame(
        untimed("good", Status.CHECKED, "only checked", max_error_over_bound=0.123, mean_absolute_error=3.8e-8),
        untimed("bad", Status.REJECTED, "output[0, 1] is [float32], not [/red]", probes="structure=ok;exact=no"),
        untimed("absent", Status.UNAVAILABLE, "pip install 'x[/red]'"),
    )
    records["precision_class"] = ["float32", None, None]
    text = shown(Group(*report.checks(records, {"3x2x2x2": "small"}), report.trouble(records), report.unasked(records)))
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
    for renderable in (Group(*report.tables(records, {})), report.trouble(records)):
        text = shown(renderable)
        assert "gone" in text
        assert not set("\x1b\x07\x9b\r\u202e") & set(text)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *[(None, ""), (float("nan"), ""), (pd.NA, "")],
        *[(1.0, "1.00 s"), (12.34, "12.3 s"), (123.4, "123 s"), (12345.6, "12,346 s")],
        *[(0.99949, "999 ms"), (0.9996, "1.00 s"), (9.996e-3, "10.0 ms"), (99.96e-3, "100 ms"), (1.234e-3, "1.23 ms")],
        *[
            (0.9996e-3, "1.00 ms"),
            (0.9994e-3, "999 µs"),
            (1e-6, "1.00 µs"),
            (2.5e-7, "0.250 µs"),
            (1.23e-8, "0.0123 µs"),
        ],
    ],
)
def test_a_time_has_three_digits_and_the_unit_that_suits_it(value, text):
    assert report.seconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(pd.NA, ""), (1.0, "1.00x"), (1.864, "1.86x"), (0.1234, "0.123x"), (93.21, "93.2x"), (250.4, "250x")],
)
def test_a_ratio_has_three_digits(value, text):
    assert report.times(value) == text

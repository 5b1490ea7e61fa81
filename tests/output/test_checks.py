"""What a check prints: a line for each right backend, a block for each wrong one."""

from __future__ import annotations

import dataclasses
import json

import pandas as pd
from report_rows import WIDE, line_with, untimed

from harness.checked import SCHEMA, CheckReport, Diagnosis, Elements, Location, Promise, checked_row
from harness.output.checks import report
from harness.output.layout import plain
from harness.process.protocol import decode, encode
from harness.record import Status

PROMISES = (
    Promise("primes", "axes kept apart", "no axis is taken for another", "failed"),
    Promise("one-hot", "one-hot", "one-hot inputs read single weights back", "failed"),
    Promise("added", "linear", "the result is linear in input1", "kept"),
    Promise("again", "the same again", "the same inputs again give right results", "not asked"),
)
WRONG = Diagnosis(
    backend="bad",
    device="cpu",
    mode="forward",
    planned="3x2x2x2",
    case="7x5x3x11",
    status="rejected",
    phase="gate",
    summary="output[0, 0] is -10, expected -9; 49 of 77 elements are wrong, in every row",
    promises=PROMISES,
    elements=Elements("output", (0, 0), "-10", "-9", 49, 77, "in every row"),
    hypothesis="It equals the right answer without the bias: is the bias added?",
    location=Location("/home/me/my_kernel.py", 17, "forward"),
    again="bilinear-bench check --backend bad --case 7x5x3x11 --seed 1",
)
FAILED = dataclasses.replace(
    WRONG,
    status="failed",
    summary="killed by signal 11 (SIGSEGV)",
    promises=(),
    elements=None,
    hypothesis="",
    traceback='Current thread 0x01 (most recent call first):\n  File "/home/me/my_kernel.py", line 17 in forward',
    output="loading\x1b[31m tables",
)


def checked(*diagnoses):
    rows = [
        untimed("good", Status.CHECKED, "only checked", max_error_over_bound=0.123, mean_absolute_error=3.8e-8),
        untimed("bad", Status.REJECTED, "output[0, 1] is [float32], not [/red]", probes="edge_cases=ok;exact=no"),
        untimed("absent", Status.UNAVAILABLE, "pip install 'x[/red]'"),
    ]
    rows = [dataclasses.replace(row, precision_class="float32" if row.backend == "good" else None) for row in rows]
    whole = CheckReport(
        schema=SCHEMA,
        version="1",
        seed=7,
        ok=False,
        rows=tuple(checked_row(row) for row in rows),
        diagnoses=diagnoses,
    )
    return rows, whole


def printed(*diagnoses, width=WIDE, verbose=False):
    rows, whole = checked(*diagnoses)
    records = pd.DataFrame([dataclasses.asdict(row) for row in rows])
    return report(whole, records, {"3x2x2x2": "small"}, width, verbose)


def test_right_backends_have_a_line_each():
    lines = printed(WRONG)
    text = plain(lines)
    assert text.startswith("Checked against nn.Bilinear in float64: small, 3x2x2x2, forward, cpu\n")
    assert line_with(lines, "good").split() == ["good", "right", "0.12", "float32", "3.8e-08"]
    assert "absent: unavailable, pip install 'x[/red]'" in text
    assert text.splitlines()[-1] == "1 of 3 passed the gate, 1 did not, 1 could not be checked. Seed: 7."


def test_a_wrong_backend_has_pattern_place_cause_and_command():
    block = plain(printed(WRONG)).partition("\nbad")[2].splitlines()[:6]
    assert block == [
        "  WRONG  1 of 4 promises kept, forward, 7x5x3x11",
        "  x axes kept apart   x one-hot   ok linear   - 1 not asked",
        "  output[0, 0] is -10, expected -9; 49 of 77 elements are wrong, in every row",
        "  It equals the right answer without the bias: is the bias added?",
        "  my_kernel.py:17 forward      again: bilinear-bench check --backend bad --case 7x5x3x11 --seed 1",
        "",
    ]


def test_a_narrow_block_cuts_nothing_and_its_command_can_be_pasted():
    lines = plain(printed(WRONG, width=60)).splitlines()
    assert max(map(len, lines)) <= 80
    start = next(number for number, line in enumerate(lines) if line.strip().startswith("again:"))
    assert lines[start].endswith(" \\")
    pasted = " ".join(line.strip().removesuffix("\\").strip() for line in lines[start : start + 2])
    assert pasted == f"again: {WRONG.again}"
    assert "  my_kernel.py:17 forward" in lines


def test_a_crash_shows_where_it_was_and_verbose_what_was_printed():
    brief, whole = (plain(printed(FAILED, verbose=verbose)) for verbose in (False, True))
    for text in (brief, whole):
        assert "bad  FAILED  forward, 7x5x3x11" in text
        assert '      File "/home/me/my_kernel.py", line 17 in forward' in text
    assert "tables" not in brief
    assert "    loading [31m tables" in whole, "no escape sequence reaches the terminal"


def test_one_fault_in_several_rows_is_one_block():
    step = dataclasses.replace(WRONG, mode="forward_backward", planned="4x2x2x2")
    text = plain(printed(step, WRONG))
    assert text.count("WRONG") == 1
    assert "forward, 7x5x3x11" in text
    assert "  the same: training step, 1 other case" in text


def test_different_faults_of_a_backend_have_a_block_each():
    other = dataclasses.replace(WRONG, mode="forward_backward", hypothesis="It is twice the right answer.")
    assert plain(printed(WRONG, other)).count("WRONG") == 2


def test_verbose_has_every_promise_and_a_column_for_each_probe():
    text = plain(printed(WRONG, verbose=True))
    assert "small, forward on cpu (3x2x2x2)" in text
    (bad,) = (line for line in text.splitlines() if line.split()[:2] == ["bad", "rejected"])
    assert bad.split() == ["bad", "rejected", "ok", "no", "-", "-", "-"]
    assert "  x  no axis is taken for another" in text
    assert "  -  the same inputs again give right results" in text


def test_a_narrow_table_keeps_backend_verdict_and_probes():
    lines = plain(printed(width=70, verbose=True)).splitlines()
    assert ["backend", "verdict", "edge_cases", "exact", "bound", "precision", "conduct"] in [
        line.split() for line in lines
    ]
    assert max(len(line) for line in lines[:7]) <= 70


def test_json_holds_the_whole_check():
    _, whole = checked(WRONG, FAILED)
    assert decode(CheckReport, json.loads(json.dumps(encode(whole), allow_nan=False))) == whole

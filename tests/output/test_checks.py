from __future__ import annotations

from report_rows import WIDE, line_with, untimed

from harness.output.checks import report
from harness.output.layout import plain
from harness.record import Status


def check(frame):
    records = frame(
        untimed("good", Status.CHECKED, "only checked", max_error_over_bound=0.123, mean_absolute_error=3.8e-8),
        untimed("bad", Status.REJECTED, "output[0, 1] is [float32], not [/red]", probes="edge_cases=ok;exact=no"),
        untimed("absent", Status.UNAVAILABLE, "pip install 'x[/red]'"),
    )
    records["precision_class"] = ["float32", None, None]
    return records


def test_a_check_has_a_column_for_each_probe_and_every_reason(frame):
    lines = report(check(frame), {"3x2x2x2": "small"}, 7, WIDE)
    text = plain(lines)
    assert "small, forward on cpu (3x2x2x2)" in text
    for word in ("right", "0.12", "3.8e-08", "float32"):
        assert word in line_with(lines, "good")
    (bad,) = (line for line in text.splitlines() if line.startswith("bad "))
    assert bad.split()[:7] == ["bad", "rejected", "ok", "no", "-", "-", "-"]
    assert "output[0, 1] is [float32], not [/red]" in text
    assert "absent: unavailable, pip install 'x[/red]'" in text
    assert text.splitlines()[-1] == "1 of 3 passed the gate, 1 did not, 1 could not be checked. Seed: 7."


def test_a_narrow_check_keeps_backend_verdict_and_probes(frame):
    lines = plain(report(check(frame), {}, 7, 70)).splitlines()
    assert lines[1].split() == ["backend", "verdict", "edge_cases", "exact", "bound", "precision", "conduct"]
    assert max(len(line) for line in lines[:5]) <= 70

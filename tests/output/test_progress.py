from __future__ import annotations

import pytest

from harness.case import Case
from harness.output import progress as module
from harness.output.progress import progress

CASE = Case(3, 2, 2, 2)


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test moves."""
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_a_file_gets_a_line_for_each_group_with_the_time_left(clock, capsys):
    with progress(3, budget_seconds=60.0) as line:
        line.begin("the machine's peaks")
        line.group(1, 3, CASE, "cpu")
        line.stage("check numpy-loop")
        clock[0] = 600.0
        line.group(2, 3, CASE.with_mode("forward_backward"), "cpu")
    assert capsys.readouterr().err.splitlines() == [
        "the machine's peaks",
        # Twice the budget for each group, before any has ended.
        "[1/3] 3x2x2x2 forward cpu, about 6 min left",
        "[2/3] 3x2x2x2 forward_backward cpu, about 20 min left",
    ]


def test_force_color_does_not_redraw_in_a_file(clock, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    with progress(1, budget_seconds=60.0) as line:
        line.group(1, 1, CASE, "cpu")
        line.stage("check numpy-loop")
    text = capsys.readouterr().err
    assert "[1/1] 3x2x2x2 forward cpu, about 2 min left" in text
    assert "check numpy-loop" not in text
    assert "\r" not in text

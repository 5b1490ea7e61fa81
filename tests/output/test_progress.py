from __future__ import annotations

import io
import re

import pytest
from report_rows import timed
from rich.console import Console
from rich.live import Live

from harness.case import Case
from harness.output import progress as module
from harness.output.progress import GUESS_WEIGHT, ProgressLine, TimeLeft, progress

CASE = Case(3, 2, 2, 2)


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test moves."""
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize("colour", [None, "1"])
def test_a_file_gets_a_line_for_each_finished_group_and_no_more(clock, capsys, monkeypatch, colour):
    if colour:
        monkeypatch.setenv("FORCE_COLOR", colour)
    with progress(backends=2, budget_seconds=60.0) as line:
        line.begin("Run 20260102T030405Z-00ff")
        line.stage("how fast this machine can compute and read")
        for number, mode in enumerate(("forward", "forward_backward"), start=1):
            line.group(number, 2, CASE.with_mode(mode), "cpu")
            line.stage("check numpy-loop")
            line.finished(number, 2, [timed("numpy-loop", 1e-3, 1, mode=mode)])
    assert capsys.readouterr().err.splitlines() == [
        "Run 20260102T030405Z-00ff",
        "[1/2] 3x2x2x2 forward: numpy-loop 1.0 ms, 4.0x nn.Bilinear (1 right)",
        "[2/2] 3x2x2x2 training step: numpy-loop 1.0 ms, 4.0x nn.Bilinear (1 right)",
    ]


def test_the_time_left_counts_down_within_a_group():
    left = TimeLeft(guess_seconds=30.0)
    left.begin(100.0)
    assert [left.seconds(now, groups=3) for now in (100.0, 110.0, 130.0, 200.0)] == [90.0, 80.0, 60.0, 60.0]


def test_the_time_left_does_not_follow_one_slow_group():
    left = TimeLeft(guess_seconds=30.0)
    for begin, end in ((0.0, 300.0), (300.0, 335.0)):  # the first group starts every backend
        left.begin(begin)
        left.end(end)
    left.begin(335.0)
    assert left.seconds(335.0, groups=10) <= 10 * 35.0


def test_the_time_left_follows_groups_that_are_all_slower():
    left = TimeLeft(guess_seconds=30.0)
    for number in range(GUESS_WEIGHT + 1):
        left.begin(100.0 * number)
        left.end(100.0 * (number + 1))
    left.begin(300.0)
    assert left.seconds(300.0, groups=2) == 200.0


def test_a_terminal_redraws_one_line_below_those_of_finished_groups(clock):
    file = io.StringIO()
    out = Console(file=file, force_terminal=True, width=60, height=25)
    with Live(console=out, auto_refresh=False, transient=True) as live:
        line = ProgressLine(out, TimeLeft(guess_seconds=90.0), live)
        line.stage("how fast this machine can compute and read")
        line.group(1, 4, CASE, "cuda")
        line.stage("time every backend, round 8")
        clock[0] = 1.0
        line.finished(1, 4, [timed("numpy-loop", 1e-3, 1, device="cuda")])
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", file.getvalue()).replace("\r", "\n").split("\n")
    assert "how fast this machine can compute and read" in shown
    assert "[1/4] 3x2x2x2 forward on cuda, about 6 min left: time every…" in shown
    assert "[1/4] 3x2x2x2 forward on cuda: numpy-loop 1.0 ms, 4.0x nn.Bilinear (1 right)" in shown

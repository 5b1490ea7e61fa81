from __future__ import annotations

import io
import re

import pytest
from report_rows import timed
from rich.console import Console
from rich.live import Live

from harness.case import Case
from harness.output import progress as module
from harness.output.progress import ProgressLine, progress
from harness.output.time_left import Planned, TimeLeft

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
    groups = [(CASE.with_mode(mode), "cpu") for mode in ("forward", "forward_backward")]
    with progress(groups, backends=2, budget_seconds=80.0) as line:
        line.begin("Run 20260102T030405Z-00ff")
        line.stage("how fast this machine can compute and read")
        for number, (case, device) in enumerate(groups, start=1):
            line.group(number, 2, case, device)
            line.stage("check numpy-loop")
            clock[0] += 84.0
            line.finished(number, 2, [timed("numpy-loop", 1e-3, 1, mode=case.mode)], 0.0)
    assert capsys.readouterr().err.splitlines() == [
        "Run 20260102T030405Z-00ff",
        "[1/2, about 2 min left] 3x2x2x2 forward: numpy-loop 1.0 ms, 4.0x nn.Bilinear (1 right)",
        "[2/2] 3x2x2x2 training step: numpy-loop 1.0 ms, 4.0x nn.Bilinear (1 right)",
    ]


def test_a_terminal_redraws_one_line_below_those_of_finished_groups(clock):
    file = io.StringIO()
    out = Console(file=file, force_terminal=True, width=60, height=25)
    with Live(console=out, auto_refresh=False, transient=True) as live:
        groups = {number: Planned.of(CASE, "cuda") for number in range(1, 5)}
        line = ProgressLine(out, TimeLeft(groups, backends=1, budget_seconds=80.0), live)
        line.stage("how fast this machine can compute and read")
        line.group(1, 4, CASE, "cuda")
        line.stage("time every backend, round 8")
        clock[0] = 1.0
        line.finished(1, 4, [timed("numpy-loop", 1e-3, 1, device="cuda")], 0.0)
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", file.getvalue()).replace("\r", "\n").split("\n")
    assert "how fast this machine can compute and read" in shown
    assert "[1/4] 3x2x2x2 forward on cuda, about 6 min left: time every…" in shown
    assert "[1/4] 3x2x2x2 forward on cuda: numpy-loop 1.0 ms, 4.0x nn.Bilinear (1 right)" in shown

from __future__ import annotations

import pytest
from report_rows import timed, untimed

from harness.output.group_line import group_line
from harness.record import Status

WIDE = {"speedup_low": 1e-3, "speedup_high": 1e3}


@pytest.mark.parametrize(
    ("rows", "line"),
    [
        ([timed("one", 2e-3, 1)], "small forward: one 2.0 ms, 2.0x nn.Bilinear (1 right)"),
        (
            [timed("one", 2e-3, 1), timed("two", 2.1e-3, 1), timed("torch-bilinear", 4e-3, 3)],
            "small forward: one +1 2.0 ms, 2.0x nn.Bilinear (3 right)",
        ),
        (
            [timed("one", 3.9e-3, 1), timed("torch-bilinear", 4e-3, 1)],
            "small forward: no difference shown among 2, nn.Bilinear too, from 3.9 ms (2 right)",
        ),
        ([timed("one", 2e-3, 1, **WIDE)], "small forward: one 2.0 ms, too few samples for a ratio (1 right)"),
        (
            [timed("one", 2e-3, 1), untimed("bad", Status.REJECTED, "wrong"), untimed("b", Status.FAILED, "x")],
            "small forward: one 2.0 ms, 2.0x nn.Bilinear (1 right, wrong: bad, failed: b)",
        ),
        (
            [untimed("one", Status.CHECKED, "only checked"), untimed("none", Status.UNAVAILABLE, "not here")],
            "small forward: 1 right",
        ),
        (
            [
                *(timed("one", 2e-3, 1), timed("quick", 1e-9, None, flags="implausible")),
                *(untimed("late", Status.TOO_SLOW, "40 s"), untimed("narrow", Status.UNSUPPORTED, "no bias")),
                untimed("elsewhere", Status.UNSUPPORTED, "runs on cuda", phase="load"),
            ],
            "small forward: one 2.0 ms, 2.0x nn.Bilinear "
            "(3 right, too slow: late, not supported: narrow, impossible time: quick)",
        ),
    ],
)
def test_a_line_says_how_a_group_ended(frame, rows, line):
    assert group_line(frame(*rows), {"3x2x2x2": "small"}) == line


def test_a_line_names_the_dtype_and_the_gpu(frame):
    rows = frame(timed("one", 2e-3, 1, case="3x2x2x2:bfloat16", device="cuda", mode="forward_backward"))
    line = group_line(rows, {"3x2x2x2:bfloat16": "small"})
    assert line.startswith("small:bfloat16 training step on cuda: one")

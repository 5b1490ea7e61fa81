"""Rows for the tests of the report, and lines as text."""

from __future__ import annotations

from harness.output.layout import plain
from harness.record import Record, Status

KEY = {
    **{"run_id": "20260102T030405Z-00ff", "suite": "quick", "case": "3x2x2x2", "backend": "numpy-loop"},
    **{"batch": 3, "in1_features": 2, "in2_features": 2, "out_features": 2, "dtype": "float32", "precision": "ieee"},
    **{"bias": True, "mode": "forward", "seed": 0, "device": "cpu"},
}
#: Wide enough for every column.
WIDE = 400


def timed(backend, median, rank, **changes):
    speedup = changes.get("speedup", 4e-3 / median)
    times = {"baseline_median_seconds": 4e-3, "speedup": speedup, "median_seconds": median, "rank": rank}
    ends = {} if speedup is None else {"speedup_low": 0.8 * speedup, "speedup_high": 1.2 * speedup}
    baseline = {"baseline": "torch-bilinear"}
    return Record(**KEY | {"backend": backend, "status": Status.TIMED} | times | ends | baseline | changes)


def untimed(backend, status, reason, **changes):
    return Record(**KEY | {"backend": backend, "status": status, "reason": reason} | changes)


def line_with(lines, word):
    """Return the one line that has a word."""
    (line,) = (line for line in plain(lines).splitlines() if word in line)
    return line

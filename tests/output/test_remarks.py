from __future__ import annotations

from report_rows import WIDE, timed, untimed

from harness.output import remarks
from harness.output.layout import plain
from harness.record import BAD, Status

FINDINGS = [
    {"level": "warning", "topic": "load", "saw": "3 others [run]", "advice": "wait"},
    {"level": "note", "topic": "virtual machine", "saw": "it is one", "advice": ""},
    {"level": "ok", "topic": "swap", "saw": "none", "advice": ""},
]


def test_groups_that_a_stopped_run_did_not_reach_are_counted(frame):
    records = frame(
        timed("first", 2e-3, 1),
        untimed("second", Status.INTERRUPTED, "stopped"),
        untimed("first", Status.INTERRUPTED, "stopped", mode="forward_backward"),
        untimed("first", Status.INTERRUPTED, "stopped", case="9x2x2x2"),
    )
    # The group that the run was in keeps its interrupted row.
    assert remarks.reached(records)["status"].tolist() == ["timed", "interrupted"]
    assert "2 of 3 cases" in plain(remarks.unreached(records, WIDE))
    assert remarks.unreached(remarks.reached(records), WIDE) == []


def test_trouble_is_one_line_for_every_bad_row(frame):
    rows = [untimed(f"b-{status}", status, f"reason {status}") for status in Status if status is not Status.TIMED]
    records = frame(timed("fine", 1e-3, 1), *rows)
    text = plain(remarks.trouble(records, {"3x2x2x2": "small"}, WIDE))
    for status in Status:
        assert (f"{status} b-{status}: small, forward on cpu (): reason {status}" in text) == (status in BAD)
    assert remarks.trouble(records[records["status"] == "timed"], {}, WIDE) == []


def test_a_reason_that_repeats_is_one_line_with_its_number(frame):
    modes = ("forward", "forward_backward")
    records = frame(*(untimed("broken", Status.FAILED, "no module", mode=mode, phase="load") for mode in modes))
    (_, line) = plain(remarks.trouble(records, {}, WIDE)).splitlines()
    assert line == "  failed broken: 2 times, first 3x2x2x2, forward on cpu (load): no module"


def test_backends_that_are_not_here_are_one_line(frame):
    for_gpus = [
        untimed("triton", Status.UNSUPPORTED, "triton runs on cuda", phase="load", mode=mode)
        for mode in ("forward", "forward_backward")
    ]
    missing = [
        untimed(name, Status.UNAVAILABLE, f"{name} is not installed: pip install '{name}[/red]'", phase="load")
        for name in ("cupy", "flaggems")
    ]
    records = frame(
        timed("fine", 1e-3, 1), *for_gpus, *missing, untimed("small", Status.UNSUPPORTED, "no", phase="support")
    )
    lines = plain(remarks.absent(records, WIDE)).splitlines()
    assert lines == ["Not here: triton (needs CUDA), cupy, flaggems (not installed)"]
    assert remarks.absent(records[records["backend"] == "fine"], WIDE) == []


def test_right_backends_that_were_not_timed_are_named_with_their_reasons(frame):
    records = frame(
        untimed("slow", Status.TOO_SLOW, "one call takes 4.2 s, the budget is 2 s"),
        untimed("interpreted", Status.CHECKED, "passed the gate; not timed, because it is interpreted: unset IT"),
        untimed("wrong", Status.REJECTED, "bound"),
    )
    lines = plain(remarks.untimed(records, 200)).splitlines()
    assert lines == [
        "Not timed: slow (too slow in 1 of 1, a call takes longer than --budget), "
        "interpreted (it is interpreted: unset IT)"
    ]
    assert remarks.untimed(records[records["backend"] == "wrong"], WIDE) == []


def test_a_backend_that_is_here_on_one_device_is_not_called_absent(frame):
    records = frame(
        timed("fused", 1e-3, 1), untimed("fused", Status.UNSUPPORTED, "fused runs on cpu", phase="load", device="cuda")
    )
    assert remarks.absent(records, WIDE) == []


def test_only_warnings_about_the_machine_are_in_a_report():
    text = plain(remarks.warnings(FINDINGS, WIDE))
    assert "warning load: 3 others [run] -> wait" in text
    assert "virtual machine" not in text
    assert remarks.warnings(FINDINGS[1:], WIDE) == []
    assert remarks.warnings([], WIDE) == []


def test_the_doctors_report_has_every_rate_finding_and_missing_rate():
    peaks = {
        "arithmetic": {"float32": {"flop_per_second": 2.345e11, "source": "FMA [chains]"}},
        "products": [{"library": "numpy", "dtype": "float32", "flop_per_second": 2e11, "detail": "OpenBLAS"}],
        "levels": [
            {"name": "L1", "capacity_bytes": 2**16, "bytes_per_second": 4e11},
            {"name": "memory", "capacity_bytes": None, "bytes_per_second": 3e10},
        ],
        "missing": ["jax in float32: not installed"],
    }
    text = plain(remarks.machine(peaks, FINDINGS, WIDE))
    for line in ("234 GFLOP/s", "FMA [chains]", "OpenBLAS", "L1, 64 KiB", "400 GB/s", "not measured: jax in float32"):
        assert line in text
    for finding in FINDINGS:
        assert f"{finding['level']} {finding['topic']}: {finding['saw']}" in text

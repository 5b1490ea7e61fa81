from __future__ import annotations

import re

import pytest
from report_rows import WIDE, line_with, timed, untimed

from harness.output.answer import answer, remedy, resume
from harness.output.layout import plain
from harness.record import Status

MACHINE = {"cpu_count": 2, "cpu_model": "AMD EPYC (family 25, model 1)", "gpus": ["NVIDIA H200, 580.1, 143771 MiB"]}
STEP = {"mode": "forward_backward"}


def shown(records, labels=None, width=WIDE, environment=MACHINE):
    return answer(records, labels or {}, environment, "latest", width)


def cells(line):
    return re.split(r"\s{2,}", line.strip())


def row(lines, case="3x2x2x2"):
    """Return the cells of the one line that begins with a case."""
    (line,) = (line for line in plain(lines).splitlines() if line.startswith(case))
    return cells(line)


def test_the_block_has_its_header_and_ends_with_what_to_do_next(frame):
    records = frame(timed("one", 2e-3, 1), timed("torch-bilinear", 4e-3, 2))
    assert plain(shown(records, {"3x2x2x2": "a small layer"}, 80)).splitlines() == [
        "Fastest right way, and times as fast as nn.Bilinear  run 20260102T030405Z-00ff",
        "2 CPUs AMD EPYC, float32, 2 backends, all right",
        "               forward",
        "a small layer  one  2.0 ms  2.0x",
        "",
        "In your model:  from bilinear_bench import Bilinear",
        "See more:       bilinear-bench report latest [--case 'a small layer']",
        "                [--plot=FILE]",
    ]


def test_others_that_cannot_be_told_apart_are_counted(frame):
    lines = shown(frame(*(timed(f"b{number}", (2 + number / 100) * 1e-3, 1) for number in range(4))))
    assert row(lines) == ["3x2x2x2", "b0", "2.0 ms", "2.0x", "+3"]
    assert line_with(lines, "cannot be told").strip() == "+N others cannot be told from it"


def test_a_tie_with_nn_bilinear_is_counted_and_has_no_ratio(frame):
    rows = [timed("torch-einsum", 3.9e-3, 1, speedup=0.7), timed("torch-bilinear", 4e-3, 1), timed("slow", 9e-3, 3)]
    lines = shown(frame(*rows))
    assert row(lines) == ["3x2x2x2", "no difference shown among 2"]
    assert line_with(lines, "one of") == "among N: nn.Bilinear is one of the N"


def test_nn_bilinear_alone_is_the_fastest_by_name(frame):
    ends = {"speedup_low": 1.0, "speedup_high": 1.0}
    lines = shown(frame(timed("torch-bilinear", 4e-3, 1, **ends)))
    assert row(lines) == ["3x2x2x2", "torch-bilinear", "4.0 ms", "1x"]


def test_the_winner_is_read_from_the_ranks(frame):
    rows = [timed("quick", 1e-3, None, flags="implausible"), timed("slow", 3e-3, 1), timed("b", 2e-3, 2)]
    assert row(shown(frame(*rows)), "3x2x2x2")[1] == "slow"


def test_few_samples_are_marked_and_too_few_have_no_ratio(frame):
    wide = {"speedup_low": 1e-6, "speedup_high": 7e8}
    records = frame(timed("one", 2e-3, 1, flags="overhead;few_blocks"), timed("one", 2e-3, 1, **wide, case="9x2x2x2"))
    lines = shown(records)
    assert row(lines)[3:] == ["2.0x", "~"]
    assert row(lines, "9x2x2x2")[3:] == ["?"]
    assert line_with(lines, "~ under").strip() == "~ under ten samples"
    assert line_with(lines, "budget").strip() == "? too few samples for a ratio: --budget 60, or fewer backends"
    assert remedy({"plan": {"budget_seconds": 60.0}}) == "--budget 120, or fewer backends"


def test_both_modes_have_columns_next_to_each_other(frame):
    lines = shown(frame(timed("one", 2e-3, 1), timed("two", 1e-3, 1, **STEP)))
    assert cells(line_with(lines, "training step")) == ["forward", "training step"]
    assert row(lines)[1:] == ["one", "2.0 ms", "2.0x", "two", "1.0 ms", "4.0x"]


def test_modes_come_one_below_the_other_where_there_is_no_room(frame):
    lines = plain(shown(frame(timed("one", 2e-3, 1), timed("two", 1e-3, 1, **STEP)), width=30))
    rows = [
        cells(line) for line in lines.splitlines() if "3x2x2x2" in line or line.strip() in ("forward", "training step")
    ]
    assert rows[0] == ["forward"]
    assert rows[1][:2] == ["3x2x2x2", "one"]
    assert rows[2] == ["training step"]
    assert rows[3][:2] == ["3x2x2x2", "two"]


def test_each_device_has_a_block_and_each_dtype_a_heading(frame):
    rows = [
        timed("one", 2e-3, 1),
        timed("two", 2e-3, 1, device="cuda"),
        timed("two", 2e-3, 1, device="cuda", case="3x2x2x2:bfloat16", dtype="bfloat16"),
    ]
    text = plain(shown(frame(*rows), {"3x2x2x2": "small", "3x2x2x2:bfloat16": "small"}))
    cpu, cuda = text.split("Fastest right way")[1:]
    assert "2 CPUs AMD EPYC, float32, 1 backend, right" in cpu
    assert "cuda: NVIDIA H200, 1 backend, right" in cuda
    headings = [line.split() for line in cuda.splitlines() if "forward" in line]
    assert headings == [["float32", "forward"], ["bfloat16", "forward"]]
    assert [line.split()[:2] for line in cuda.splitlines() if line.startswith("small")] == [["small", "two"]] * 2


def test_each_precision_class_has_a_winner_of_its_own(frame):
    records = frame(timed("quick", 1e-3, 1), timed("exact", 2e-3, 1), timed("like", 2.01e-3, 1))
    records["precision_class"] = ["tf32", "float32", "float32"]
    lines = shown(records)
    assert "1.0 ms" in line_with(lines, "quick (tf32)")
    assert cells(line_with(lines, "exact (float32)"))[1:] == ["2.0 ms", "2.0x", "+1"]


def test_backends_that_are_wrong_or_failed_are_counted(frame):
    rows = [
        timed("one", 2e-3, 1),
        untimed("bad", Status.REJECTED, "output[0, 0]"),
        untimed("worse", Status.REJECTED, "output[0, 0]"),
        untimed("late", Status.TIMEOUT, "no answer within 10 s"),
        untimed("hungry", Status.OUT_OF_MEMORY, "needs 3 TiB"),
        untimed("absent", Status.UNAVAILABLE, "not installed", phase="load"),
    ]
    assert "float32, 5 backends, 2 wrong, 1 failed, 1 out of memory" in plain(shown(frame(*rows)))


@pytest.mark.parametrize("flags", ["mostly_disturbed", "oversubscribed(3.4)", None])
@pytest.mark.parametrize("topic", ["load", "GEMM"])
def test_other_work_on_the_machine_is_said_in_the_header(frame, flags, topic):
    doctor = {"doctor": [{"level": "warning", "topic": topic, "saw": "3 others", "advice": "wait"}]}
    text = plain(shown(frame(timed("one", 2e-3, 1, flags=flags)), environment=MACHINE | doctor))
    assert ("(busy at times)" in text) == (flags is not None or topic == "load")


def test_the_layer_has_the_range_of_the_kernel_that_it_runs(frame):
    def layer(backend, case, speedup, **changes):
        return timed(backend, 1e-3, 1, case=case, speedup=speedup, **changes)

    rows = [
        layer("torch-fused", "1x2x2x2", 1.86),
        layer("torch-fused", "2x2x2x2", 70.0),
        layer("torch-fused", "3x2x2x2", 900.0, speedup_low=1e-3, speedup_high=1e9),
        layer("numba-fused", "3x2x2x2", 99.0),
        layer("torch-contract", "4x2x2x2:bfloat16", 0.5, dtype="bfloat16"),
        layer("torch-contract", "4x2x2x2", 200.0),
    ]
    line = line_with(shown(frame(*rows)), "In your model")
    assert line.endswith("from bilinear_bench import Bilinear  (0.50 to 70 times as fast)")


@pytest.mark.parametrize(
    ("label", "case"), [("SimGNN", "SimGNN"), ("Deep Graph Infomax", "'Deep Graph Infomax'"), ("DGI's", "3x2x2x2")]
)
def test_the_last_command_has_a_case_that_can_be_typed(frame, label, case):
    text = plain(shown(frame(timed("numpy-loop", 1e-3, 1)), {"3x2x2x2": label}))
    assert f"report latest [--case {case}] [--plot=FILE]" in text


def test_a_group_without_a_winner_says_why(frame):
    records = frame(
        untimed("broken", Status.FAILED, "why"), timed("second", 2e-3, 2, case="9x2x2x2"), timed("s", 1e-3, 1, **STEP)
    )
    lines = shown(records)
    assert row(lines)[1] == "none was timed"
    assert row(lines, "9x2x2x2")[1:] == ["its row is missing", "not reached"]


def test_only_a_stopped_run_names_the_command_that_completes_it(frame):
    records = frame(timed("one", 1e-3, 1), untimed("two", Status.INTERRUPTED, "stopped"))
    assert plain(resume(records, "latest", WIDE)).strip() == "Complete it:    bilinear-bench run --resume latest"
    assert resume(records[records["status"] == "timed"], "latest", WIDE) == []


def test_what_most_winners_have_is_said_once(frame):
    def few(case, **changes):
        return timed("one", 2e-3, 1, flags="few_blocks", case=case, **changes)

    records = frame(few("1x2x2x2"), few("3x2x2x2"), timed("one", 2e-3, 1, case="9x2x2x2"))
    lines = shown(records, {"9x2x2x2": "large"})
    assert line_with(lines, "under ten") == "under ten samples: 2 of 3, not large forward"
    assert "~" not in plain(lines)
    assert line_with(shown(records[:2]), "under ten") == "all under ten samples"
    half = shown(records[1:])
    assert row(half)[-1] == "~"
    assert line_with(half, "under ten") == "~ under ten samples"


def test_what_is_installed_and_left_out_is_named_once_and_never_cut(frame):
    names = ["jax-contract", "numba-loop", "opt-einsum", "torch-contract", "torch-einsum"]
    records = frame(timed("one", 2e-3, 1))
    lines = shown(records, width=80, environment=MACHINE | {"plan": {"left_out": names}})
    text = " ".join(plain(lines).split())
    assert text.endswith(f"Left out: {', '.join(names)} (installed; --backend all measures them)")
    assert max(len(line) for line in plain(lines).splitlines()) <= 80
    assert "Left out" not in plain(shown(records, environment=MACHINE | {"plan": {"left_out": []}}))


@pytest.mark.parametrize("width", [80, WIDE])
def test_no_difference_takes_the_room_of_name_time_and_ratio(frame, width):
    tie = {"case": "9x2x2x2", "speedup": 1.0}
    rows = [
        *(timed("numba-fused", 2e-3, 1), timed("torch-compile", 1e-3, 1, **STEP)),
        *(timed(f"b{number}", 4e-3, 1, **tie) for number in range(11)),
        *(timed("torch-bilinear", 4e-3, 1, **tie), timed("torch-compile", 1e-3, 1, case="9x2x2x2", **STEP)),
    ]
    lines = plain(shown(frame(*rows), {"9x2x2x2": "Deep Graph Infomax"}, width)).splitlines()
    (line,) = (line for line in lines if line.startswith("Deep"))
    assert cells(line)[1:] == ["no difference shown among 12", "torch-compile", "1.0 ms", "4.0x"]
    assert max(len(line) for line in lines) <= width

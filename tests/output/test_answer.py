from __future__ import annotations

from report_rows import WIDE, line_with, timed, untimed

from harness.output.answer import answer
from harness.output.layout import plain
from harness.record import Status


def test_the_answer_is_the_fastest_with_those_that_tie(frame):
    records = frame(
        timed("slow", 4e-3, 3),
        timed("second", 2.02e-3, 1),
        timed("first", 2e-3, 1, roofline_fraction=0.625),
        untimed("broken", Status.FAILED, "why", case="9x2x2x2"),
    )
    lines = answer(records, {"3x2x2x2": "a small layer"}, WIDE)
    winner = line_with(lines, "3x2x2x2")
    assert winner.startswith("a small layer ")
    for word in ("first = second", "2.0 ms", "2.0x", "62 %"):
        assert word in winner
    assert "slow" not in plain(lines)
    assert "none was timed" in line_with(lines, "9x2x2x2")


def test_a_large_tie_names_the_first_and_counts_the_others(frame):
    lines = answer(frame(*(timed(f"b{number}", (2 + number / 100) * 1e-3, 1) for number in range(4))), {}, WIDE)
    assert "b0 = 3 others" in line_with(lines, "2.0 ms")


def test_a_tie_with_nn_bilinear_shows_no_difference_and_no_ratio(frame):
    rows = [timed("torch-einsum", 3.9e-3, 1, speedup=0.7), timed("torch-bilinear", 4e-3, 1), timed("slow", 9e-3, 3)]
    line = line_with(answer(frame(*rows), {}, WIDE), "3x2x2x2")
    assert "no difference shown among 2 backends" in line
    assert "3.9 ms" in line
    assert "x" not in line.replace("3x2x2x2", "")


def test_nn_bilinear_alone_is_the_fastest_by_name(frame):
    assert "torch-bilinear" in line_with(answer(frame(timed("torch-bilinear", 4e-3, 1)), {}, WIDE), "3x2x2x2")


def test_each_precision_class_has_a_winner_of_its_own(frame):
    records = frame(timed("quick", 1e-3, 1), timed("exact", 2e-3, 1), timed("like", 2.01e-3, 1))
    records["precision_class"] = ["tf32", "float32", "float32"]
    lines = answer(records, {}, WIDE)
    assert "1.0 ms" in line_with(lines, "quick (tf32)")
    assert "2.0 ms" in line_with(lines, "exact = like (float32)")


def test_each_mode_has_a_table(frame):
    lines = answer(frame(timed("one", 1e-3, 1), timed("two", 1e-3, 1, mode="forward_backward")), {}, WIDE)
    titles = [line for line in plain(lines).splitlines() if "implementation" in line]
    assert titles == [f"Fastest right implementation: {mode}, cpu" for mode in ("forward", "training step")]


def test_a_label_keeps_the_options_of_its_case(frame):
    case = "3x2x2x2:tf32"
    lines = answer(frame(timed("one", 1e-3, 1, case=case)), {case: "SimGNN"}, 40)
    assert line_with(lines, "one").startswith("SimGNN, tf32  one")


def test_a_run_killed_before_the_winners_row_can_still_be_shown(frame):
    assert "its row is missing" in line_with(answer(frame(timed("second", 2e-3, 2)), {}, WIDE), "3x2x2x2")

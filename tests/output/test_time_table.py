from __future__ import annotations

from harness.output.layout import plain
from harness.output.time_table import OF_SAMPLES, time_table
from harness.run.time_spent import Stage

SPENT = {
    "seconds": {"start of backends": 2.0, f"{OF_SAMPLES}timed calls": 5.0, f"{OF_SAMPLES}spot peak": 1.0, "other": 2.0},
    "samples": 100,
}


def test_each_stage_has_its_seconds_its_share_and_its_time_a_sample():
    assert plain(time_table(SPENT, 80)).splitlines() == [
        "What the time went into",
        "stage                 seconds  share  ms a sample",
        "start of backends         2.0   20 %",
        "samples: timed calls      5.0   50 %        50.00",
        "samples: spot peak        1.0   10 %        10.00",
        "other                     2.0   20 %",
        "all                      10.0  100 %",
        "100 samples, 60.0 ms each with all that belongs to them",
    ]


def test_the_table_of_every_stage_fits_80_columns():
    lines = time_table({"seconds": dict.fromkeys(map(str, Stage), 12345.678), "samples": 12345}, 80)
    assert max(line.cell_len for line in lines) <= 80
    assert len(lines) == len(Stage) + 4


def test_a_run_without_samples_has_no_time_a_sample():
    shown = plain(time_table({"seconds": {"other": 2.0}, "samples": 0}, 80)).splitlines()
    assert shown[2:] == ["other      2.0  100 %", "all        2.0  100 %"]


def test_a_run_without_time_has_no_share():
    assert plain(time_table({"seconds": {}, "samples": 0}, 80)).splitlines()[-1].split() == ["all", "0.0"]

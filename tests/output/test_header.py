from __future__ import annotations

import pytest
from report_rows import WIDE, timed

from harness.output.header import cpus, gpus, run_line
from harness.output.layout import plain

XEON = "Intel(R) Xeon(R) Processor (family 6, model 207)"


@pytest.mark.parametrize(
    ("count", "model", "text"),
    [
        (2, "AMD EPYC (family 25, model 1)", "2 CPUs AMD EPYC"),
        (16, XEON, "16 CPUs Intel Xeon"),
        (1, "Intel(R) Core(TM) i7-9750H CPU @ 2.60GHz", "1 CPU Intel Core i7-9750H"),
        (32, "AMD EPYC 7313 16-Core Processor", "32 CPUs AMD EPYC 7313"),
        (None, "arm", "arm"),
        (4, None, "4 CPUs"),
        (None, None, ""),
    ],
)
def test_a_processor_is_named_without_filler(count, model, text):
    assert cpus(count, model) == text


def test_gpus_of_one_kind_are_counted():
    assert gpus([]) == ""
    assert gpus(["NVIDIA H200, 580, 143771 MiB"] * 2 + ["NVIDIA T4, 580, 1 MiB"]) == "2 x NVIDIA H200 and NVIDIA T4"


def test_the_first_line_names_run_date_machine_and_threads(frame):
    environment = {"cpu_count": 16, "cpu_model": XEON, "gpus": ["NVIDIA H200, 580, 143771 MiB"]}
    records = frame(timed("one", 1e-3, 1, device="cuda", threads=16))
    (line,) = plain(run_line(records, environment, WIDE)).splitlines()
    assert line == "Run 20260102T030405Z-00ff, 2026-01-02: NVIDIA H200, 16 CPUs Intel Xeon, threads: 16"


def test_a_run_without_a_description_is_named_all_the_same(frame):
    assert plain(run_line(frame(timed("one", 1e-3, 1)), {}, WIDE)).strip() == "Run 20260102T030405Z-00ff, 2026-01-02"

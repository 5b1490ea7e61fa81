"""Other runs in the table of processes."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from harness.survey import other_runs


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["python", "-m", "harness", "run"], True),
        (["python3.12", "-P", "-m", "harness", "check", "--suite", "models"], True),
        (["python", "-P", "/site/harness/process/start.py", "harness.worker.main", "{}"], True),
        (["/usr/bin/python", "/usr/local/bin/bilinear-bench", "run", "--suite", "quick"], True),
        (["bilinear-bench", "run"], True),
        (["bilinear-bench", "doctor"], False),
        (["python", "-m", "harness", "report"], False),
        (["python", "-m", "harness"], False),
        (["python", "-m", "pytest", "harness", "run"], False),
        (["sh", "-c", "python -m harness run"], False),
        (["grep", "-r", "bilinear-bench", "run"], False),
        (["python", "-m"], False),
        ([], False),
    ],
)
def test_run_is_recognised_by_its_arguments(arguments, expected):
    assert other_runs.is_run(arguments) == expected


RUN, WORKER, SHELL = (
    ["python", "-m", "harness", "run"],
    ["python", "-P", "start.py", "harness.worker.main", "{}"],
    ["sh"],
)


@pytest.mark.parametrize(
    ("table", "count"),
    [
        ({1: (0, SHELL), 9: (1, RUN)}, 0),
        ({1: (0, SHELL), 9: (1, RUN), 10: (9, WORKER)}, 0),
        ({1: (0, SHELL), 9: (1, RUN), 20: (1, RUN), 21: (20, WORKER), 22: (21, WORKER)}, 1),
        ({1: (0, SHELL), 9: (1, SHELL), 20: (1, WORKER)}, 1),  # an orphan
        ({1: (0, SHELL), 9: (1, SHELL), 20: (1, RUN), 30: (1, RUN)}, 2),
        # This process is a worker's child: the run above it and its other workers are ours.
        ({1: (0, SHELL), 7: (1, RUN), 8: (7, WORKER), 9: (8, SHELL), 10: (7, WORKER)}, 0),
        ({}, 0),
        ({9: (9, SHELL), 20: (21, RUN), 21: (20, SHELL)}, 1),  # reused process numbers can make a circle
    ],
)
def test_other_runs_count_once_and_ours_does_not(table, count):
    assert other_runs.count_other_runs(table, own=9) == count


def test_family_has_all_below_the_outermost_run():
    table = {1: (0, SHELL), 5: (1, RUN), 6: (5, WORKER), 7: (5, RUN), 8: (7, WORKER), 9: (8, SHELL), 20: (1, SHELL)}
    assert other_runs.family(table, 9) == {1, 5, 6, 7, 8, 9}
    assert other_runs.family(table, 20) == {1, 20}


def test_real_run_belongs_to_its_parents_family():
    code = "import time; print(flush=True); time.sleep(60)"
    arguments = [sys.executable, "-c", code, "-m", "harness", "run"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as other:
        try:
            other.stdout.readline()
            table = other_runs.process_table()
        finally:
            other.kill()
    assert table[other.pid][0] == os.getpid()
    assert other_runs.is_run(table[other.pid][1])
    # It is a child of this process, so it is ours, and not that of a process that is no relative.
    assert other.pid in other_runs.family(table, os.getpid())
    assert other.pid not in other_runs.family({**table, 10**9: (0, [])}, 10**9)

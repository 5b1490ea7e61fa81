"""The suite for pytest-benchmark, which plain pytest does not collect, still runs behind the gate."""

from __future__ import annotations

import os
import subprocess
import sys

from command_line import ROOT


def collect(*options: str) -> str:
    # pytest-benchmark does nothing in a process of pytest-xdist.
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")}
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "tests/benchmarks", "-p", "no:cacheprovider", *options],
        cwd=ROOT,
        env=variables,
        capture_output=True,
        text=True,
        check=False,
    )
    return ran.stdout + ran.stderr


def test_a_backend_is_benchmarked_on_a_case_by_their_names():
    short = ("--benchmark-only", "--benchmark-max-time=0.01", "--benchmark-min-rounds=1")
    said = collect(*short, "-k", "numpy-loop and 1x32x32x16-forward_backward")
    assert "1 passed" in said, said


def test_plain_pytest_does_not_collect_it():
    assert "test_speed" not in collect("--collect-only")

"""Fixtures for the tests that start processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PLANTED = Path(__file__).parent / "planted"


@pytest.fixture
def planted_path(monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put the planted backends on the path of this process and of its workers."""
    monkeypatch.setenv("PYTHONPATH", str(PLANTED))
    monkeypatch.syspath_prepend(PLANTED)
    return PLANTED


@pytest.fixture
def bilinear_bench(tmp_path: Path):
    """Run the command line in an empty folder, planted backends on its path; return the finished process."""

    def run(*arguments: str, timeout: float = 300, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command(*arguments),
            cwd=tmp_path,
            env=environment(**variables),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return run


def command(*arguments: str) -> list[str]:
    """The command line, as a list for subprocess."""
    return [sys.executable, "-P", "-m", "harness", *arguments]


def environment(**variables: str) -> dict[str, str]:
    """This process's environment with checkout and planted backends on the path."""
    return os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{PLANTED}"} | variables

"""The command ``bilinear-bench``, under a module name that no other project has.

Another project's ``harness`` may come first on PYTHONPATH, so the command line is loaded from the folder next to this
file. It is no part of ``bilinear_bench``, which never imports ``harness``.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Final

#: Installs the finder of our own packages; needs the standard library alone.
START: Final = Path(__file__).parent / "harness" / "process" / "start.py"


def main() -> None:
    """Run the command line."""
    specification = importlib.util.spec_from_file_location("bilinear_bench_start", START)
    assert specification is not None and specification.loader is not None  # noqa: S101, PT018  # for mypy: it is a file
    start = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(start)
    start.find_own_packages()
    from harness.cli import main as command_line

    command_line()

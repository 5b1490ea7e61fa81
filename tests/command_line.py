"""How tests start the command line: from the checkout, with the planted backends on its path."""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
PLANTED = Path(__file__).parent / "planted"
#: Leaves out what takes longest in a run and is tested on its own: the machine's limit, and fresh processes.
BRIEF = ("--no-limit", "--processes", "1")


def command(*arguments: str) -> list[str]:
    """The command line, as a list for subprocess."""
    return [sys.executable, "-P", "-m", "harness", *arguments]


def environment(**variables: str) -> dict[str, str]:
    """This process's environment with checkout and planted backends on the path."""
    return os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{PLANTED}"} | variables

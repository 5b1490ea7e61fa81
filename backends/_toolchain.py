"""What compilers need of a machine, checked first: a backend that cannot compile is unavailable, and says why."""

from __future__ import annotations

import importlib.util
import shutil
import sysconfig
from pathlib import Path

from harness.backend import Support


def for_triton() -> Support:
    """Return whether Triton can compile: it writes the launcher of a kernel in C, and includes Python.h."""
    if importlib.util.find_spec("triton") is None:
        return Support(False, "Triton is not installed: pip install triton")
    if not any(shutil.which(compiler) for compiler in ("gcc", "clang", "cc")):
        return Support(False, "Triton needs a C compiler: apt-get install gcc")
    return python_header()


def python_header() -> Support:
    """Return whether C and C++ can include Python.h."""
    header = Path(sysconfig.get_paths()["include"]) / "Python.h"
    if not header.is_file():
        return Support(False, f"compiling needs {header}: apt-get install python3-dev")
    return Support(True)

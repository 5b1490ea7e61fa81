"""How a worker starts: with our own packages, whatever PYTHONPATH holds, and the standard library before all others.

The worker runs this file by its path. Another project's ``harness`` or ``backends`` may come first on PYTHONPATH. So a
finder resolves exactly our package names to the folder that holds them. That folder is never put on the import path: an
installed package is in site-packages, where an obsolete backport would hide a module of the standard library. A third
party's backends are found on PYTHONPATH and in site-packages as usual.

This file imports the standard library alone, since it runs before the finder is installed.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Final

#: Top-level packages of this project.
OWN: Final = ("harness", "backends", "bilinear_bench")
#: Folder that holds them: a checkout, or site-packages.
FOLDER: Final = str(Path(__file__).resolve().parent.parent.parent)


class OwnPackages(importlib.abc.MetaPathFinder):
    """Finds our top-level packages in ``FOLDER``, and nothing else."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return the location of one of our packages; None for every other name."""
        if fullname not in OWN:
            return None
        return importlib.machinery.PathFinder.find_spec(fullname, [FOLDER], target)


def find_own_packages() -> None:
    """Put the finder before all others."""
    sys.meta_path.insert(0, OwnPackages())


def command(module: str, *arguments: str) -> list[str]:
    """Return the command line that calls ``main()`` of a module of ours in a new process.

    Args:
        module: Full name of the module.
        arguments: Arguments of the process, which the module finds from ``sys.argv[1]`` on.
    """
    # -P keeps this file's folder off the import path: a module of it must not hide one of the standard library.
    return [sys.executable, "-P", str(Path(__file__).resolve()), module, *arguments]


if __name__ in ("__main__", "__mp_main__"):  # the latter in a process that a backend spawns by multiprocessing
    find_own_packages()
if __name__ == "__main__":
    importlib.import_module(sys.argv.pop(1)).main()  # the module's own arguments begin at sys.argv[1]

"""Virtual environments in which tests install projects, without an index."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "-q")


class VirtualEnvironment:
    """A new environment of the tests' Python, without pip.

    Args:
        folder: Folder in which it is created, as ``env``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.programs = folder, folder / "env" / "bin"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "env")], check=True)
        (self.packages,) = (folder / "env" / "lib").glob("python*/site-packages")

    def install(self, project: Path, *options: str) -> None:
        """Install a wheel, or a project's folder, and none of its requirements."""
        pip = (*PIP, "--python", str(self.programs / "python"))
        subprocess.run([*pip, "install", "--no-index", "--no-deps", *options, str(project)], check=True)

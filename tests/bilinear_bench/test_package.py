"""What users install: a wheel works without frameworks, and next to packages of the same names."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import ROOT
from packaging.requirements import Requirement
from virtual_environment import PIP, VirtualEnvironment


class Installed(VirtualEnvironment):
    """Our wheel in an environment of its own, with another project's folders on PYTHONPATH.

    Args:
        folder: Folder of the environment, which is created here.
        wheel: Our wheel.
    """

    def __init__(self, folder: Path, wheel: Path) -> None:
        super().__init__(folder)
        self.install(wheel)
        for name in ("backends", "harness"):
            (folder / "stranger" / name).mkdir(parents=True)
            (folder / "stranger" / name / "__init__.py").write_text(f"raise ImportError('a stranger called {name}')")
        (self.packages / "pathlib.py").write_text("raise ImportError('an obsolete backport')")

    def run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment in an empty folder."""
        (self.folder / "empty").mkdir(exist_ok=True)
        return subprocess.run(
            [self.programs / program, *arguments],
            cwd=self.folder / "empty",
            env=os.environ
            | {"PYTHONPATH": str(self.folder / "stranger"), "XDG_CACHE_HOME": str(self.folder / "cache")},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    ignore = shutil.ignore_patterns(".*", "results", "build", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, folder / "source", ignore=ignore)
    options = ("--no-index", "--no-deps", "--no-build-isolation", "-w", str(folder))
    subprocess.run([*PIP, "wheel", *options, str(folder / "source")], check=True)
    return next(folder.glob("bilinear_bench-*.whl"))


@pytest.fixture(scope="module")
def plain(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Return an environment with our declared requirements, and no framework."""
    installed = Installed(tmp_path_factory.mktemp("plain"), wheel)
    for place in requirement_places():
        (installed.packages / place.name).symlink_to(place)
    return installed


def requirement_places() -> set[Path]:
    """Return the folders and files in site-packages of what we require, directly and indirectly."""
    names, waiting, places = set(), ["bilinear-bench"], set()
    while waiting:
        name = waiting.pop()
        if name in names:
            continue
        names.add(name)
        distribution = importlib.metadata.distribution(name)
        waiting += required(distribution)
        if name != "bilinear-bench":
            tops = {file.parts[0] for file in distribution.files or () if file.parts[0] not in ("..", "__pycache__")}
            places |= {Path(str(distribution.locate_file(top))) for top in tops}
    return places


def required(distribution: importlib.metadata.Distribution) -> Iterator[str]:
    """Yield the names of a distribution's requirements without extras."""
    for requirement in map(Requirement, distribution.requires or ()):
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield re.sub(r"[-_.]+", "-", requirement.name).lower()


def test_a_wheel_without_frameworks_imports_and_says_what_is_missing(plain):
    used = plain.run("python", "-c", "import bilinear_bench; print('imported'); bilinear_bench.Bilinear")
    assert used.stdout == "imported\n"
    assert used.stderr.splitlines()[-1] == (
        "ImportError: bilinear_bench.Bilinear needs torch and numba, not installed here: "
        "pip install 'torch>=2.6' 'numba>=0.60'"
    )


def test_a_wheel_without_frameworks_lists_the_backends(plain):
    listed = plain.run("bilinear-bench", "list")
    assert listed.returncode == 0, listed.stderr
    assert "torch is not installed: pip install" in listed.stdout
    assert "numpy-loop" in listed.stdout


def test_a_wheel_has_every_module_of_the_checkout(plain):
    for name in ("bilinear_bench", "harness", "backends"):
        ours = {path.relative_to(ROOT) for path in (ROOT / name).rglob("*.py")}
        assert ours == {path.relative_to(plain.packages) for path in (plain.packages / name).rglob("*.py")}
    assert (plain.packages / "bilinear_bench" / "py.typed").is_file()


@pytest.mark.slow
def test_a_wheel_checks_next_to_its_own_names_and_an_old_backport(wheel, tmp_path):
    pytest.importorskip("torch", reason="torch is not installed")
    installed = Installed(tmp_path, wheel)
    places = {str(Path(str(importlib.metadata.distribution(name).locate_file("")))) for name in ("torch", "numpy")}
    (installed.packages / "frameworks.pth").write_text("\n".join(places))
    checked = installed.run(
        "bilinear-bench", "check", "--case", "8x8x8x8", "--mode", "forward", "--backend", "numpy-loop"
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "1 of 1 passed the gate" in checked.stdout
    found = installed.run("python", "-c", "from bilinear_bench import Bilinear; print(Bilinear.__module__)")
    assert found.stdout == "bilinear_bench.layer\n", found.stderr

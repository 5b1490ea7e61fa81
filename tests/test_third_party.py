"""An outside package from its folder to a row in the tables, by the steps of its author."""

from __future__ import annotations

import csv
import os
import shutil
import site
import subprocess
from pathlib import Path

import pytest
from command_line import BRIEF, ROOT, cpus_for
from virtual_environment import VirtualEnvironment

OUTSIDE = ROOT / "tests" / "third_party"
CASE = ("--case", "33x20x30x7", "--backend", "outside-matmul", "--threads", "1")


class Environment(VirtualEnvironment):
    """A virtual environment that sees the packages of this one."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        lines = [f"import site; site.addsitedir({place!r})" for place in [*site.getsitepackages(), str(ROOT)]]
        (self.packages / "what_the_tests_have.pth").write_text("\n".join(lines))

    def build(self, project: Path) -> None:
        """Build and install a copy of a project, since a build writes into its source."""
        copy = shutil.copytree(project, self.folder / f"source-{project.name}")
        self.install(copy, "--no-build-isolation", "--force-reinstall")

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        with cpus_for(arguments):
            return subprocess.run(
                [self.programs / "python", "-P", *arguments],
                cwd=self.folder,
                capture_output=True,
                text=True,
                timeout=300,
                check=False,
                env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
            )


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    environment = Environment(tmp_path_factory.mktemp("outside"))
    environment.build(OUTSIDE)
    return environment


def test_it_is_listed_after_its_installation(outside):
    listed = outside.run("-m", "harness", "list")
    assert "outside-matmul" in listed.stdout, listed.stdout + listed.stderr
    assert "[bilinear-outside 1.0]" in listed.stdout


@pytest.mark.slow
def test_it_is_checked(outside):
    checked = outside.run("-m", "harness", "check", *CASE)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    lines = [line for line in checked.stdout.splitlines() if line.startswith("outside-matmul ")]
    assert [" right " in line for line in lines] == [True]


@pytest.mark.slow
def test_it_is_timed(outside):
    ended = outside.run("-m", "harness", "run", *BRIEF, *CASE, "--budget", "1", "--out", "run")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    with (outside.folder / "run" / "records.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["backend"] == "outside-matmul"]
    assert [row["status"] for row in rows] == ["timed", "timed"]


@pytest.mark.slow
def test_its_own_tests_are_the_conformance_checks_each_named_by_a_sentence(outside):
    tests = outside.folder / f"source-{OUTSIDE.name}" / "test_bilinear_outside.py"
    tested = outside.run("-m", "pytest", "-v", "-p", "no:cacheprovider", str(tests))
    assert tested.returncode == 0, tested.stdout + tested.stderr
    assert "outside-matmul: one-hot inputs read single weights back [forward_backward" in tested.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "right", "wrong", "reason"),
    [  # reasons end before the column, since an element may be right by chance
        pytest.param("forward", "output + bias", "output", "output[0, ", id="bias dropped"),
        pytest.param(
            "forward_backward",
            "@ gradient)[:, 0, :]",
            "@ gradient)[:, 0, :] / 2",
            "grad_input2[0, ",
            id="half a gradient",
        ),
    ],
)
def test_a_broken_copy_is_rejected_and_never_timed(tmp_path, mode, right, wrong, reason):
    copy = shutil.copytree(OUTSIDE, tmp_path / "broken")
    source = (copy / "bilinear_outside.py").read_text()
    assert source.count(right) == 1
    (copy / "bilinear_outside.py").write_text(source.replace(right, wrong))
    broken = Environment(tmp_path)
    broken.build(copy)
    ended = broken.run("-m", "harness", "run", *BRIEF, *CASE, "--mode", mode, "--budget", "1", "--out", "run")
    assert ended.returncode == 1, ended.stdout + ended.stderr
    with (tmp_path / "run" / "records.csv").open() as file:
        (row,) = [row for row in csv.DictReader(file) if row["backend"] == "outside-matmul"]
    assert (row["status"], row["median_seconds"]) == ("rejected", "")
    assert reason in row["reason"]

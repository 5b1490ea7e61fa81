"""A new backend's package: what is written, that it is right, and which names are refused."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from command_line import ROOT, environment

from harness.new_backend import NewBackendError, write

TEMPLATES = pytest.mark.parametrize("torch", [False, True], ids=["numpy", "torch"])


@TEMPLATES
def test_a_package_has_an_entry_point_a_module_and_a_test(tmp_path, torch):
    folder = write("my-kernel", tmp_path, (), torch=torch)
    assert {path.name for path in folder.iterdir()} == {"pyproject.toml", "my_kernel.py", "test_my_kernel.py"}
    project = tomllib.loads((folder / "pyproject.toml").read_text())
    assert project["project"]["entry-points"] == {"bilinear_bench.backends": {"my-kernel": "my_kernel:MyKernel"}}
    assert project["project"]["dependencies"] == ["bilinear-bench", "torch" if torch else "numpy"]
    code = [line for line in (folder / "my_kernel.py").read_text().splitlines() if line.strip() and '"""' not in line]
    assert len(code) <= 10


@TEMPLATES
def test_a_package_is_formatted_and_passes_ruff(tmp_path, torch):
    folder = write("my-kernel", tmp_path, (), torch=torch)
    for command in (["check", "--select", "B,D2,D4,E,F,I,N,UP,W"], ["format", "--check"]):
        ended = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--isolated", "--no-cache", "--line-length", "120", "."],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr


def installed(folder: Path) -> Path:
    """Put the metadata next to the package that an editable installation would leave; return the folder."""
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    info = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    ((group, points),) = project["entry-points"].items()
    (info / "entry_points.txt").write_text(
        f"[{group}]\n" + "".join(f"{name} = {target}\n" for name, target in points.items())
    )
    return folder


@pytest.mark.slow
@TEMPLATES
def test_a_new_backend_passes_check_as_its_command_says(bilinear_bench, tmp_path, torch):
    made = bilinear_bench("new", "my-kernel", *(["--torch"] if torch else []))
    assert made.returncode == 0, made.stderr
    pip, check = (line.strip() for line in made.stdout.splitlines()[-2:])
    assert pip == "pip install -e ./my-kernel"
    paths = os.pathsep.join((str(installed(tmp_path / "my-kernel")), environment()["PYTHONPATH"]))
    program, *arguments = check.split()
    assert program == "bilinear-bench"
    checked = bilinear_bench(*arguments, "--case", "7x5x3x11", "--threads", "1", PYTHONPATH=paths)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "my-kernel" in checked.stdout


@TEMPLATES
def test_the_tests_of_a_new_backend_pass(tmp_path, torch):
    folder = write("my-kernel", tmp_path, (), torch=torch)
    chosen = ("-k", "one-hot and float64" if torch else "one-hot")
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *chosen, "my-kernel"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert " passed" in ended.stdout
    assert folder.is_dir()


@pytest.mark.parametrize(
    "name",
    ["", "my kernel", "../up", "my;kernel", "$(reboot)", "-rf", "my--kernel", "über", "1st", "a" * 65, "a\nb", "."],
)
def test_a_malformed_name_is_refused_with_an_example(tmp_path, name):
    with pytest.raises(NewBackendError, match=r"is no name of a backend, expected a letter, then .* as in my-kernel"):
        write(name, tmp_path, ())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("numpy-loop", "registered already"),
        ("numpy", "would hide the module numpy"),
        ("json", "would hide the module json"),
        ("class", "a word that Python or the package needs"),
        ("backend", "a word that Python or the package needs"),
        ("all", "a word that Python or the package needs"),
        ("there", "there exists in"),
    ],
)
def test_a_name_that_is_taken_is_refused(tmp_path, name, words):
    (tmp_path / "there").mkdir()
    with pytest.raises(NewBackendError, match=words):
        write(name, tmp_path, ("numpy-loop",))
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_a_refused_name_is_one_line_without_control_characters(bilinear_bench):
    ended = bilinear_bench("new", "a\x1b[31m\nb")
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert "\x1b" not in ended.stderr

"""Workers find our packages and the standard library, whatever PYTHONPATH and site-packages hold."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import harness
from harness.process import start

ROOT = Path(harness.__file__).parent.parent

#: A module on PYTHONPATH, started like a worker. It spawns a process that imports our packages, as a backend may.
SPAWNS = """
import multiprocessing
import pathlib
import sys

def files():
    import backends, bilinear_bench, harness.case
    return [module.__file__ for module in (backends, bilinear_bench, harness, harness.case)]

def main():
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(*files(), *pool.apply(files), pathlib.__file__, *sys.argv[1:], sep="\\n")
"""


@pytest.fixture
def strangers(tmp_path, monkeypatch):
    """Put another project's packages of our names first on PYTHONPATH; return their folder."""
    for name in start.OWN:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"raise ImportError('a stranger called {name}')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


def test_a_worker_and_its_children_find_our_packages_and_others(strangers):
    (strangers / "spawns.py").write_text(SPAWNS)
    ended = subprocess.run(start.command("spawns", "argument"), capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    *ours, standard, argument = ended.stdout.splitlines()
    folders = ("backends", "bilinear_bench", "harness", "harness")
    assert [Path(file).parent for file in ours] == [ROOT / folder for folder in folders] * 2
    assert standard == sys.modules["pathlib"].__file__
    assert argument == "argument"


def test_the_command_finds_itself_next_to_packages_of_its_names(strangers):
    program = "import sys; sys.path.append(sys.argv.pop(1)); import bilinear_bench_cli; bilinear_bench_cli.main()"
    ended = subprocess.run(
        [sys.executable, "-c", program, str(ROOT), "list"], capture_output=True, text=True, check=False, cwd=strangers
    )
    assert ended.returncode == 0, ended.stderr
    assert "torch-bilinear" in ended.stdout


def test_the_folder_of_our_packages_is_not_put_on_the_path(strangers):
    (strangers / "path.py").write_text("import sys\ndef main():\n    print(*sys.path, sep='\\n')\n")
    ended = subprocess.run(start.command("path"), capture_output=True, text=True, check=True, cwd=strangers)
    library = str(Path(os.__file__).parent)
    before = ended.stdout.splitlines()[: ended.stdout.splitlines().index(library)]
    assert {str(ROOT), str(ROOT / "harness" / "process"), ""}.isdisjoint(before)
    assert str(strangers) in before  # the user's own folders stay where Python puts them


def test_the_finder_answers_for_our_top_level_names_alone():
    finder = start.OwnPackages()
    for name in start.OWN:
        specification = finder.find_spec(name)
        assert specification is not None
        assert Path(specification.origin) == ROOT / name / "__init__.py"
    for name in ("numpy", "harness.case", "harness_of_another_project"):
        assert finder.find_spec(name) is None


def test_the_start_imports_the_standard_library_alone():
    tree = ast.parse(Path(start.__file__).read_text())
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in imported} <= sys.stdlib_module_names

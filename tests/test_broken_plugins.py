"""Broken plug-ins, as their authors see them: each fails `check` and its own tests, and the cause is named."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import broken_plugins
import pytest
from broken_plugins import HONEST, LOADING, PLUGINS, WRONG, module_of
from command_line import ROOT, command, cpus_for, environment

#: Runs the tests of each plug-in in a process of its own, forked once PyTorch is there; prints the exit codes.
TESTS_OF_ALL = """
import os, sys
import pytest, torch
import harness.conformance
torch.set_num_threads(1)
for path in sys.argv[1:]:
    child = os.fork()
    if not child:
        sys.stdout = sys.stderr = open(path + ".out", "w")
        os._exit(pytest.main(["-q", "-x", "-p", "no:cacheprovider", path]))
    print(path, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
TEST = """
from harness.conformance import parametrize_with_checks
from {module} import Mine

@parametrize_with_checks(Mine, modes=("{mode}",), dtypes=("float32",))
def test_the_backend_conforms(backend, check):
    check(backend)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plugins")
    broken_plugins.write(folder)
    return folder


@pytest.fixture(scope="module")
def blocks(folder: Path) -> dict[str, str]:
    """Check all plug-ins, those of a mode in one run; return what is printed of each, without line breaks."""
    found = {}
    for mode in ("forward", "forward_backward"):
        names = [name for name, plugin in PLUGINS.items() if plugin.mode == mode]
        chosen = [option for name in names for option in ("--backend", name)]
        arguments = ("check", "--case", "6x5x4x3", "--threads", "1", "--seed", "1", "--mode", mode, *chosen)
        with cpus_for(arguments):
            ended = subprocess.run(
                command(*arguments),
                cwd=folder,
                env=environment(COLUMNS="80", PYTHONPATH=f"{folder}{os.pathsep}{ROOT}"),
                capture_output=True,
                text=True,
                timeout=600,
                check=False,
            )
        assert ended.returncode == 1, ended.stdout + ended.stderr
        assert max(map(len, ended.stdout.splitlines())) <= 80
        for paragraph in ended.stdout.split("\n\n"):
            name = paragraph.partition(" ")[0]
            if name in PLUGINS:
                found[name] = " ".join(paragraph.split())
        rows = [line.split() for line in ended.stdout.splitlines()]
        found |= {row[0]: " ".join(row) for row in rows if row[:2] == ["is-right", "right"]}
    return found


@pytest.mark.parametrize("name", PLUGINS)
def test_what_check_prints_names_the_cause(blocks, name):
    if name in HONEST:
        assert blocks[name].startswith("is-right right")
        return
    verdict = blocks[name].split()[1]
    assert verdict in (("WRONG", "FAILED") if name in WRONG else ("FAILED",))
    for words in PLUGINS[name].named:
        assert words in blocks[name]
    assert f"again: bilinear-bench check --backend {name} --case " in blocks[name]


@pytest.fixture(scope="module")
def codes(folder: Path) -> dict[str, int]:
    """Run the tests of every plug-in; return their exit codes."""
    paths = []
    for name, plugin in PLUGINS.items():
        path = folder / f"test_{module_of(name)}.py"
        path.write_text(TEST.format(module=module_of(name), mode=plugin.mode))
        paths.append(str(path))
    ended = subprocess.run(
        [sys.executable, "-P", "-c", TESTS_OF_ALL, *paths],
        cwd=folder,
        env=environment(PYTHONPATH=f"{folder}{os.pathsep}{ROOT}"),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    by_path = {Path(line.split()[0]).stem: int(line.split()[1]) for line in ended.stdout.splitlines()}
    return {name: by_path[f"test_{module_of(name)}"] for name in PLUGINS}


@pytest.mark.parametrize("name", PLUGINS)
def test_its_own_tests_fail(codes, name):
    assert (codes[name] == 0) == (name in HONEST)


def test_its_own_tests_show_cause_place_and_traceback(codes, folder):
    said = {name: (folder / f"test_{module_of(name)}.py.out").read_text() for name in WRONG}
    assert "without the bias: is the bias added?" in said["no-bias"]
    assert "no_bias.py:35 forward" in said["no-bias"]
    assert "raises_deep.py:34: in forward" in said["raises-deep"], "pytest shows the line that raised"
    assert "harness/worker" not in said["raises-deep"], "no frame of the harness"
    assert "backward returned 3 gradients, grad_bias is missing" in said["three-gradients"]


def test_there_are_ten_that_do_not_load_and_twenty_that_are_wrong():
    assert len(LOADING) >= 10
    assert len(WRONG) >= 20

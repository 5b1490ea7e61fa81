"""Broken plug-ins, as their authors see them: each fails `check` and its own tests, and the cause is named."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import broken_plugins
import pytest
from broken_plugins import HONEST, LOADING, PLUGINS, WRONG, module_of
from command_line import ROOT, command, cpus_for, environment

#: Plug-ins that every run of the tests tries; `make slow` tries the others.
FEW = ("is-right", "no-syntax", "exits", "other-name", "no-bias", "raises-deep", "crashes", "three-gradients")
#: The one whose class is right; only its entry point leads astray.
RIGHT_CLASS = "other-name"
#: The one that lacks a package of others, and so is not broken itself.
LACKS_PACKAGE = "no-package"
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
        code = pytest.main(["-q", "-x", "-p", "no:cacheprovider", path])
        sys.stdout.flush()
        os._exit(code)
    print(path, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
TEST = """
from harness.conformance import parametrize_with_checks
from {module} import Mine

@parametrize_with_checks(Mine, modes=("{mode}",), dtypes=("float32",))
def test_the_backend_conforms(backend, check):
    check(backend)
"""


def part_of(name: str) -> str:
    """Return the name of the run that a plug-in is in."""
    return "few" if name in FEW else "many"


def each(names: Iterable[str]) -> list[Any]:
    """Return parameters for tests; pytest-xdist sends those of a part to one process, which runs them once."""
    return [
        pytest.param(name, id=f"{part_of(name)}: {name}", marks=[] if name in FEW else [pytest.mark.slow])
        for name in names
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plugins")
    broken_plugins.write(folder)
    return folder


@pytest.fixture(scope="module")
def printed(folder: Path) -> Callable[[str], str]:
    """Return what `check` prints of a plug-in, without line breaks; the first request of a part checks all of it."""
    of_part = functools.cache(functools.partial(check_part, folder))
    return lambda name: of_part(part_of(name))[name]


def check_part(folder: Path, part: str) -> dict[str, str]:
    """Check the plug-ins of a part, those of a mode in one run; return what is printed of each, in one line."""
    found = {}
    for mode in ("forward", "forward_backward"):
        names = [name for name, plugin in PLUGINS.items() if (part_of(name), plugin.mode) == (part, mode)]
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
        lines = [line for line in ended.stdout.splitlines() if 'File "' not in line]
        assert max(map(len, lines)) <= 80
        paragraphs = [paragraph.split() for paragraph in ended.stdout.split("\n\n")]
        rows = [line.split() for line in lines if line.split()[1:2] == ["right"]]
        found |= {words[0].rstrip(":"): " ".join(words).replace(" \\ ", " ") for words in (*paragraphs, *rows) if words}
    return found


@pytest.mark.parametrize("name", each(PLUGINS))
def test_what_check_prints_names_the_cause(printed, name):
    text = printed(name)
    verdict = text.split()[1].rstrip(",")
    if name in HONEST:
        assert verdict == "right"
        return
    expected = ("FAILED",) if name in LOADING else ("WRONG", "FAILED")
    assert verdict in (("unavailable",) if name == LACKS_PACKAGE else expected)
    for words in PLUGINS[name].named:
        assert words in text
    if name != LACKS_PACKAGE:
        assert f"again: bilinear-bench check --backend {name} --case " in text


@pytest.fixture(scope="module")
def tested(folder: Path) -> Callable[[str], tuple[int, str]]:
    """Return exit code and output of a plug-in's own tests; the first request of a part runs those of all of it."""
    of_part = functools.cache(functools.partial(run_tests_of_part, folder))
    return lambda name: of_part(part_of(name))[name]


def run_tests_of_part(folder: Path, part: str) -> dict[str, tuple[int, str]]:
    """Run the tests of every plug-in of a part; return exit code and output of each."""
    paths = {}
    for name, plugin in PLUGINS.items():
        if part_of(name) == part:
            paths[name] = folder / f"test_{module_of(name)}.py"
            paths[name].write_text(TEST.format(module=module_of(name), mode=plugin.mode))
    ended = subprocess.run(
        [sys.executable, "-P", "-c", TESTS_OF_ALL, *map(str, paths.values())],
        cwd=folder,
        env=environment(PYTHONPATH=f"{folder}{os.pathsep}{ROOT}"),
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    codes = dict(line.rsplit(" ", 1) for line in ended.stdout.splitlines())
    return {name: (int(codes[str(path)]), Path(f"{path}.out").read_text()) for name, path in paths.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", each(PLUGINS))
def test_its_own_tests_fail(tested, name):
    code, output = tested(name)
    assert (code == 0) == (name in (*HONEST, RIGHT_CLASS)), output


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "words"),
    [
        pytest.param(name, words, id=f"few: {name} {words}")
        for name, words in (
            ("no-bias", "It equals the right answer without the bias: is the bias added?"),
            ("no-bias", "no_bias.py:35 forward"),
            ("raises-deep", "raises_deep.py:34: in forward"),
            ("three-gradients", "backward returned 3 gradients, grad_bias is missing"),
        )
    ],
)
def test_its_own_tests_show_cause_place_and_traceback(tested, name, words):
    _, output = tested(name)
    assert words in output
    assert "harness/worker/calls.py" not in output, "no frame of the harness"


def test_there_are_ten_that_do_not_load_and_twenty_that_are_wrong():
    assert len(LOADING) >= 10
    assert len(WRONG) >= 20

"""The first minutes of a new user, in a terminal of 80 columns: from the bare command to a backend of their own."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import pytest
from command_line import command, environment
from terminal import Screen, in_terminal


@pytest.fixture
def type_in(tmp_path):
    """Return a function that types a command line as a new user would; the package `my-kernel` counts as installed."""

    def type_in(line: str) -> Screen:
        program, *arguments = shlex.split(line)
        assert program == "bilinear-bench"
        paths = f"{tmp_path / 'my-kernel'}:{environment()['PYTHONPATH']}"
        return in_terminal(command(*arguments), tmp_path, environment(PYTHONPATH=paths, TERM="xterm-256color"))

    return type_in


def install(folder: Path) -> None:
    """Leave the metadata that `pip install -e` would."""
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    info = folder / "my_kernel-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    ((group, points),) = project["entry-points"].items()
    lines = [f"{name} = {target}\n" for name, target in points.items()]
    (info / "entry_points.txt").write_text(f"[{group}]\n{''.join(lines)}")


def commands(screen: Screen) -> list[str]:
    """Return the commands that a screen tells to type."""
    found = (re.search(r"(?:bilinear-bench|pip) [a-z].*?(?=\s{2,}|$)", line) for line in screen.lines)
    return [match[0] for match in found if match]


@pytest.mark.slow
def test_a_newcomer_gets_from_the_bare_command_to_a_backend_of_their_own(type_in, tmp_path):
    bare = type_in("bilinear-bench")
    assert bare.code == 0
    assert "which way of computing torch.nn.Bilinear is right, and" in bare.lines[0]
    assert re.search(r"\d+ CPU.* \d+ backends ready", " ".join(bare.lines))
    quick, published, mine, explain = (
        *("bilinear-bench run --quick", "bilinear-bench run --case SimGNN"),
        *("bilinear-bench check --backend mine", "bilinear-bench explain"),
    )
    assert commands(bare) == [quick, published, mine, explain]

    cases = type_in("bilinear-bench list cases quick")
    assert "Deep Graph Infomax" in cases.text

    brief = "--backend numpy-loop,numpy-einsum --budget 0.5 --threads 1"
    measured = type_in(f"{quick} 'deep graph' {brief} --mode forward")
    assert measured.code == 0, measured.text
    assert [path.name for path in tmp_path.iterdir()] == ["results"]
    answer = measured.text[measured.text.index("Fastest right way, and times as fast as nn.Bilinear") :]
    assert re.search(r"Deep Graph Infomax +(\S.* (us|ms|s)\b|no difference shown among)", answer)
    assert "In your model:  from bilinear_bench import Bilinear" in answer
    assert "See more:       bilinear-bench report latest [--case 'Deep Graph Infomax']" in answer
    assert max(len(line) for line in answer.splitlines()) <= 80

    again = type_in("bilinear-bench report latest --case 'Deep Graph Infomax'")
    assert again.code == 0, again.text
    assert "Deep Graph Infomax, forward on cpu (2708x512x512x1)" in again.text
    assert {"numpy-loop", "numpy-einsum", "torch-bilinear"} <= set(again.text.split())

    made = type_in("bilinear-bench new my-kernel")
    assert made.code == 0, made.text
    pip, check = commands(made)
    assert (pip, check) == ("pip install -e ./my-kernel", "bilinear-bench check --backend my-kernel")
    install(tmp_path / "my-kernel")
    checked = type_in(f"{check} --case SimGNN --threads 1")
    assert checked.code == 0, checked.text
    assert "my-kernel" in checked.text


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("bilinear-bench run --case SimGMN", "did you mean 'SimGNN'?"),
        ("bilinear-bench run --backend numba-fusd", "did you mean 'numba-fused'"),
        ("bilinear-bench report lates", "lates is no run: did you mean 'latest'?"),
        ("bilinear-bench new 'my kernel'", "as in my-kernel"),
    ],
)
def test_a_mistake_is_answered_in_one_line(type_in, typed, words):
    screen = type_in(typed)
    assert screen.code == 2
    assert [line for line in screen.lines if line] == [screen.lines[0]]
    assert words in screen.lines[0]

"""How the terminal, a pipe and the environment change what is printed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from terminal import in_terminal

from harness.output.console import USUAL_WIDTH

CODE = """
from rich.text import Text
from harness.output.console import accept_any_text, console, show, width_of
import sys
accept_any_text()
print(width_of(sys.stdout), flush=True)
show([Text.assemble(("red", "red"), " " + "word " * 60 + "end")], console())
"""
LINE = "red " + "word " * 60 + "end"


def environment(**variables):
    kept = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "FORCE_COLOR", "NO_COLOR")}
    return kept | {"TERM": "xterm-256color"} | variables


def piped(**variables):
    command = [sys.executable, "-c", CODE]
    ended = subprocess.run(command, env=environment(**variables), capture_output=True, text=True, check=True)
    width, *lines = ended.stdout.splitlines()
    return int(width), lines


def on_terminal(columns, **variables):
    """Run the code on a terminal of a width; return what reaches it."""
    screen = in_terminal([sys.executable, "-c", CODE], Path.cwd(), environment(**variables), columns)
    assert screen.code == 0
    width, *lines = screen.raw.splitlines()
    return int(width), lines


def test_a_pipe_has_the_usual_width_no_colour_and_whole_lines():
    assert piped() == (USUAL_WIDTH, [LINE])


def test_columns_sets_the_width_of_a_pipe():
    assert piped(COLUMNS="90") == (90, [LINE])
    assert piped(COLUMNS="many")[0] == USUAL_WIDTH


def test_force_color_colours_a_pipe_without_another_width():
    width, (line,) = piped(FORCE_COLOR="1")
    assert width == USUAL_WIDTH
    assert "\x1b[31mred\x1b[0m" in line
    assert re.sub(r"\x1b\[\d*m", "", line) == LINE


def test_a_terminal_has_its_own_width_and_colours():
    width, (line,) = on_terminal(73)
    assert width == 73
    assert line.startswith("\x1b[31mred\x1b[0m")


@pytest.mark.parametrize("variables", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_a_terminal_can_be_without_colours(variables):
    assert on_terminal(73, **variables) == (73, [LINE])


def test_a_terminal_without_a_width_has_the_usual_one():
    assert on_terminal(0)[0] == USUAL_WIDTH


SIGNS = f"""
from harness.output.console import accept_any_text
import sys
accept_any_text()
print({"±30 % of 5 µs × 2 – “so”… é 漢"!a})
print({"é → no"!a}, file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("variables", "encoding", "seen"),
    [
        ({"PYTHONIOENCODING": "ascii"}, "ascii", '+-30 % of 5 us x 2 - "so"... e ?|e -> no'),
        (
            {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
            "ascii",
            '+-30 % of 5 us x 2 - "so"... e ?|e -> no',
        ),
        ({"PYTHONIOENCODING": "latin-1"}, "latin-1", '±30 % of 5 µs × 2 - "so"... é ?|é -> no'),
        ({"PYTHONIOENCODING": "utf-8"}, "utf-8", "±30 % of 5 µs × 2 – “so”… é 漢|é → no"),
    ],
)
def test_what_an_encoding_lacks_is_replaced_by_ascii(variables, encoding, seen):
    ended = subprocess.run([sys.executable, "-c", SIGNS], env=environment(**variables), capture_output=True, check=True)
    assert [stream.decode(encoding).strip() for stream in (ended.stdout, ended.stderr)] == seen.split("|")

"""Annotations for GitHub: one for each fault, at the line of the backend's source, and escaped."""

from __future__ import annotations

import dataclasses

import pytest
from test_checks import FAILED, WRONG, checked

from harness.checked import Location
from harness.output.annotations import command, commands


def test_each_fault_is_an_error_at_its_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    here = dataclasses.replace(WRONG, location=Location(str(tmp_path / "src" / "my_kernel.py"), 17, "forward"))
    error, warning = commands(checked(here, dataclasses.replace(here, mode="forward_backward"))[1])
    assert error == (
        "::error file=src/my_kernel.py,line=17,title=bad%3A forward%2C 7x5x3x11::"
        "output[0, 0] is -10, expected -9; 49 of 77 elements are wrong, in every row%0A"
        "It equals the right answer without the bias: is the bias added?%0A"
        "again: bilinear-bench check --backend bad --case 7x5x3x11 --seed 1"
    )
    assert warning == "::warning title=absent could not be checked::pip install 'x[/red]'"


def test_a_fault_without_a_place_has_no_file():
    (error, _) = commands(checked(dataclasses.replace(FAILED, location=None))[1])
    assert error.startswith("::error title=bad%3A forward%2C 7x5x3x11::killed by signal 11")


@pytest.mark.parametrize(
    ("text", "message", "title"),
    [
        ("100 %", "100 %25", "100 %25"),
        ("a\r\nb", "a%0D%0Ab", "a%0D%0Ab"),
        ("a: b, c", "a: b, c", "a%3A b%2C c"),
        ("%0A", "%250A", "%250A"),
        ("\n::error::forged", "%0A::error::forged", "%0A%3A%3Aerror%3A%3Aforged"),
    ],
)
def test_what_would_end_a_command_is_escaped(text, message, title):
    line = command("error", {"title": text}, text)
    assert line == f"::error title={title}::{message}"
    assert "\n" not in line

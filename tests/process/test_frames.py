"""The backend's own place in a traceback, and in what faulthandler printed."""

from __future__ import annotations

import sys

import pytest

from harness.checked import Location
from harness.process import frames

CRASH = """some words
Fatal Python error: Segmentation fault

Thread 0x0002 (most recent call first):
  File "/usr/lib/other.py", line 3 in wait

Current thread 0x0001 (most recent call first):
  File "{library}", line 519 in string_at
  File "{own}", line 12 in kernel
  File "{harness}", line 55 in call

Extension modules: numpy (total: 1)
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Import a module with a function that calls another one, which raises in a library."""
    path = tmp_path / "my_kernel_of_a_test.py"
    path.write_text(
        "import json\n\n\ndef kernel():\n    return forward()\n\n\ndef forward():\n    return json.loads('{')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield __import__("my_kernel_of_a_test")
    del sys.modules["my_kernel_of_a_test"]


def test_the_deepest_frame_of_the_backend_is_found_below_a_library(own):
    with pytest.raises(ValueError, match="property name") as raised:
        own.kernel()
    text = frames.text_of(raised.value)
    assert str(frames.own_frame(text, "my_kernel_of_a_test:Mine")) == "my_kernel_of_a_test.py:9 forward"
    assert frames.deepest_frame(text) == Location(own.__file__, 9, "forward"), "the standard library is left out"
    assert text.endswith("Expecting property name enclosed in double quotes: line 1 column 2 (char 1)\n")


def test_a_syntax_error_has_the_line_that_does_not_parse(tmp_path, monkeypatch):
    (tmp_path / "no_syntax_of_a_test.py").write_text("x = 1\ndef broken(:\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SyntaxError) as raised:
        __import__("no_syntax_of_a_test")
    place = frames.own_frame(frames.text_of(raised.value), "no_syntax_of_a_test:Mine")
    assert str(place) == "no_syntax_of_a_test.py:2"


def test_a_crash_is_parted_from_what_was_printed(own):
    names = {"own": own.__file__, "library": __import__("ctypes").__file__, "harness": frames.__file__}
    printed, crash = frames.parted(CRASH.format(**names))
    assert printed == "some words\n"
    assert crash.splitlines() == [
        "Fatal Python error: Segmentation fault",
        "Current thread 0x0001 (most recent call first):",
        f'  File "{own.__file__}", line 12 in kernel',
    ]
    assert str(frames.own_frame(crash, "my_kernel_of_a_test:Mine")) == "my_kernel_of_a_test.py:12 kernel"


def test_output_without_a_crash_is_whole():
    assert frames.parted("hello\nworld\n") == ("hello\nworld\n", "")


def test_a_package_is_its_folder_and_what_is_not_there_is_nothing(own):
    assert frames.root_of("harness.case:Case").name == "harness"
    assert frames.root_of("my_kernel_of_a_test:Mine").name == "my_kernel_of_a_test.py"
    assert frames.root_of("a_module_that_is_not_there:Mine") is None
    assert frames.own_frame("", "a_module_that_is_not_there:Mine") is None

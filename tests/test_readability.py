"""Limits that keep the code readable: the map, lengths, types at boundaries, words, and names of tests."""

from __future__ import annotations

import ast
import re

import pytest
from command_line import ROOT

#: Folders whose files the map in CONTRIBUTING.md lists.
MAPPED = ("harness", "bilinear_bench", "backends")
#: Most lines of a module, and of a function with its docstring, without a line ``Length: ...`` in the docstring that
#: gives the reason.
MODULE_LINES, FUNCTION_LINES = 250, 40
#: Most uses of ``dict[str, Any]`` in ``harness/``: what crosses a boundary has a class.
UNTYPED_DICTIONARIES = 10
#: The project's former dialect.
DIALECT = re.compile(
    "entrant|sitting|contestant|referee|surveyor|examin|so many|so much|anew|whoever|nobody", re.IGNORECASE
)


def mapped(text: str) -> set[str]:
    """Return the paths that a map lists: words that end in ``.py``, under the last word that ends in ``/``."""
    listing = text.partition("<!-- map:begin -->")[2].partition("<!-- map:end -->")[0]
    folder, paths = "", set()
    for word in listing.split():
        if word.endswith("/"):
            folder = word
        elif word.endswith(".py"):
            paths.add(folder + word)
    return paths


def test_the_map_in_contributing_lists_every_file():
    present = {
        path.relative_to(ROOT).as_posix()
        for folder in MAPPED
        for path in (ROOT / folder).rglob("*.py")
        if path.name != "__init__.py" or path.read_text().count("\n") > 5
    }
    assert mapped((ROOT / "CONTRIBUTING.md").read_text()) == present


def test_a_map_is_read_folder_by_folder():
    text = "x.py <!-- map:begin --> a/ one.py and two.py\n b/c/ three.py <!-- map:end --> y.py"
    assert mapped(text) == {"a/one.py", "a/two.py", "b/c/three.py"}


def too_long(source: str) -> list[str]:
    """Return the module and the functions of a source that are too long and give no reason."""
    tree = ast.parse(source)
    if "\nLength: " in (ast.get_docstring(tree) or ""):
        return []
    found = ["module"] if len(source.splitlines()) > MODULE_LINES else []
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or 0) - node.lineno + 1
            if lines > FUNCTION_LINES and "Length: " not in (ast.get_docstring(node) or ""):
                found.append(node.name)
    return found


@pytest.mark.parametrize("folder", MAPPED)
def test_modules_and_functions_are_short_or_say_why_not(folder):
    long = {str(path.relative_to(ROOT)): too_long(path.read_text()) for path in (ROOT / folder).rglob("*.py")}
    assert {path: names for path, names in long.items() if names} == {}


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("x = 1\n" * (MODULE_LINES + 1), ["module"]),
        ("def f():\n" + "    x = 1\n" * FUNCTION_LINES, ["f"]),
        ('def f():\n    """Do.\n\n    Length: a table.\n    """\n' + "    x = 1\n" * FUNCTION_LINES, []),
        ('"""Do.\n\nLength: a table.\n"""\n' + "x = 1\n" * MODULE_LINES, []),
    ],
)
def test_what_is_too_long_without_a_reason_is_found(source, found):
    assert too_long(source) == found


def test_what_crosses_a_boundary_in_the_harness_has_a_class():
    texts = {path: path.read_text() for path in (ROOT / "harness").rglob("*.py")}
    uses = {str(path.relative_to(ROOT)): text.count("dict[str, Any]") for path, text in texts.items()}
    assert sum(uses.values()) <= UNTYPED_DICTIONARIES, uses


def test_the_former_dialect_is_gone():
    places = [
        *(path for folder in (*MAPPED, "docs") for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".md")),
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")),
    ]
    found = [f"{path.relative_to(ROOT)}: {line}" for path in places for line in path.read_text().splitlines()]
    assert [line for line in found if DIALECT.search(line)] == []


def test_names_of_tests_are_short_sentences():
    functions = [
        (path.name, node.name)
        for path in (ROOT / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    ]
    assert [(file, name) for file, name in functions if len(name) > 70] == []

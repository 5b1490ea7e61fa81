"""The floors, held by reading imports; and that the parent process imports no framework."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

#: Folders and files of ``harness/`` by floor, lowest first. A module imports from floors below its own, from its own
#: folder, and on one floor only what ``SIDEWAYS`` lists.
FLOORS = (
    {"case", "backend", "record"},
    {"catalog", "correctness", "timing", "machine", "output"},
    {"process", "worker"},
    {"survey"},
    {"run", "conformance", "explain", "new_backend"},
    {"cli", "cli_options", "__main__"},
)
#: From, to: the vocabulary is one; reports name the suites' cases; workers speak the protocol; conformance and explain
#: use what a run uses.
SIDEWAYS = {
    ("backend", "case"),
    ("output", "catalog"),
    ("worker", "process"),
    ("conformance", "run"),
    ("cli", "cli_options"),
    ("__main__", "cli"),
}
FRAMEWORKS = ("torch", "jax", "jaxlib", "numba", "triton", "cupy")


def modules() -> list[Path]:
    return sorted((ROOT / "harness").rglob("*.py"))


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def unit(module: str) -> str:
    """Return what a floor lists: a folder or a file of harness."""
    return module.split(".")[1]


def floor(unit: str) -> int:
    return next(number for number, members in enumerate(FLOORS) if unit in members)


def imports(source: str) -> set[str]:
    """Every module that a source imports anywhere, in functions and under TYPE_CHECKING too."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            deeper = {f"{node.module}.{alias.name}" for alias in node.names}
            files = {module for module in deeper if (ROOT / Path(*module.split("."))).with_suffix(".py").is_file()}
            found |= files or {node.module}
    return found


def faults(module: str, imported: set[str]) -> list[str]:
    """Say which imports of a harness module go the wrong way."""
    wrong = []
    for other in sorted(imported):
        if other.split(".")[0] == "backends":
            wrong.append(f"{module} imports {other}: backends are reached through entry points only")
        if other.split(".")[0] != "harness" or other == "harness" or unit(other) == unit(module):
            continue
        here, there = unit(module), unit(other)
        if floor(there) >= floor(here) and (here, there) not in SIDEWAYS:
            wrong.append(f"{module} imports {other}: not from a floor below")
    return wrong


@pytest.mark.parametrize("path", [path for path in modules() if name_of(path) != "harness"], ids=name_of)
def test_imports_go_strictly_downward(path):
    assert faults(name_of(path), imports(path.read_text())) == []


@pytest.mark.parametrize(
    "source",
    [
        "from harness.timing import clock",
        "def f():\n    import harness.run.session",
        "if TYPE_CHECKING:\n    from harness.process.supervisor import Worker",
        "import backends.numpy_loop",
    ],
)
def test_the_test_above_can_fail(source):
    assert faults("harness.correctness.gate", imports(source))


def test_every_module_has_a_floor():
    assert all(floor(unit(name_of(path))) >= 0 for path in modules() if name_of(path) != "harness")


@pytest.mark.parametrize("path", sorted((ROOT / "backends").glob("*.py")), ids=name_of)
def test_a_backend_imports_the_interface_and_shared_code_only(path):
    ours = {module for module in imports(path.read_text()) if module.split(".")[0] in ("harness", "backends")}
    other_backends = {module for module in ours if module.startswith("backends.") and "._" not in module}
    assert not other_backends
    assert {module for module in ours if module.startswith("harness")} <= {"harness.backend", "harness.case"}


def test_only_the_reference_imports_a_framework_in_the_harness():
    users = {
        name_of(path)
        for path in modules()
        if any(module.split(".")[0] in FRAMEWORKS for module in imports(path.read_text()))
    }
    measuring = {"harness.worker.peak_kernels", "harness.worker.peak_products", "harness.worker.gpu_peak_worker"}
    assert users <= {"harness.correctness.reference", "harness.worker.reference_worker", *measuring}


def test_nothing_is_called_utils_helpers_or_common():
    assert not [path for path in modules() if path.stem in ("utils", "helpers", "common", "misc")]


def frameworks_in(code: str) -> str:
    """Run code in a new process; return the frameworks that it has imported then."""
    ended = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint(*[f for f in {FRAMEWORKS} if f in sys.modules])"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    return ended.stdout.splitlines()[-1].strip()


PARENT = """
from harness import cli
from harness.output import store, tables
import harness.explain, harness.run.session
from harness.process.supervisor import Supervisor, default_cache
from harness.run.plan import PlanOptions, make_plan
plan = make_plan("run", PlanOptions(suite="seed", threads=1, seed=0))
with Supervisor(plan.threads, default_cache()):
    pass
"""


def test_the_parent_process_imports_no_framework():
    assert frameworks_in(PARENT) == ""


def test_the_test_above_sees_a_framework_that_is_imported():
    assert frameworks_in(PARENT + "import harness.correctness.reference") == "torch"


# Limits that keep the code readable.

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
    uses = [
        str(path.relative_to(ROOT)) for path in modules() for _ in re.findall(r"dict\[str, Any\]", path.read_text())
    ]
    assert len(uses) <= UNTYPED_DICTIONARIES, uses


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

"""The floors, which the imports keep to."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from command_line import ROOT, python

#: Folders and files of ``harness/`` by floor, lowest first. A module imports from floors below its own, from its own
#: folder, and on one floor only what ``SIDEWAYS`` lists.
FLOORS = (
    {"case", "backend", "record", "checked", "installed"},
    {"catalog", "correctness", "timing", "machine", "output"},
    {"process", "worker"},
    {"survey"},
    {"run", "conformance", "explain", "new_backend"},
    {"cli", "cli_options", "cli_runs", "cli_interrupt", "__main__"},
)
#: Imports within one floor, (from, to): the vocabulary is one, reports name the suites' cases, workers speak the
#: protocol, and conformance uses the parts of a run.
SIDEWAYS = {
    ("backend", "case"),
    ("checked", "record"),
    ("output", "catalog"),
    ("worker", "process"),
    ("conformance", "run"),
    ("cli", "cli_options"),
    ("cli", "cli_runs"),
    ("cli", "cli_interrupt"),
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
    """Return every module that a source imports anywhere, also in functions and under TYPE_CHECKING."""
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
    """Return a line for each import of a harness module that goes the wrong way."""
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
    """Run code in a new process; return the frameworks that it has imported."""
    ended = python(f"{code}\nimport sys\nprint(*[f for f in {FRAMEWORKS} if f in sys.modules])")
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.splitlines()[-1].strip()


PARENT = """
from harness import cli
from harness.output import store, tables
import harness.explain, harness.run.session
from harness.process.folders import default_cache
from harness.process.supervisor import Supervisor
from harness.run.plan import PlanOptions, make_plan
plan = make_plan("run", PlanOptions(suite="seed", threads=1, seed=0))
with Supervisor(plan.threads, default_cache()):
    pass
"""


def test_the_parent_process_imports_no_framework():
    assert frameworks_in(PARENT) == ""


def test_the_test_above_sees_a_framework_that_is_imported():
    assert frameworks_in(PARENT + "import harness.correctness.reference") == "torch"

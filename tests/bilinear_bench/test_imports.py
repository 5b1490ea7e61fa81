"""The package that users install: it imports nothing of the harness, and no framework before a name is used."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from command_line import ROOT, python

import bilinear_bench

PACKAGE = ROOT / "bilinear_bench"
FRAMEWORKS = {"torch", "numba", "triton", "jax", "numpy"}


def imports(source: str) -> set[str]:
    """Return the top-level name of every module that a source imports anywhere."""
    modules = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import"
            modules.add(node.module)
    return {module.split(".")[0] for module in modules}


def bare(program: str, *path: Path) -> subprocess.CompletedProcess[str]:
    """Run a program with the standard library and these folders, without site-packages."""
    lines = [f"import sys; sys.path += {[str(folder) for folder in path]}", program]
    return subprocess.run(
        [sys.executable, "-I", "-S", "-c", "\n".join(lines)], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_the_package_imports_neither_harness_nor_backends(path):
    assert imports(path.read_text()).isdisjoint({"harness", "backends", "bilinear_bench_cli"})


def test_the_test_above_sees_an_import_inside_a_function():
    assert "harness" in imports("def f():\n    from harness.case import Case")


def test_importing_the_package_imports_no_framework():
    program = "import bilinear_bench, bilinear_bench.functional, bilinear_bench.order"
    ended = python(f"{program}\nimport sys\nprint('imported', *sorted({FRAMEWORKS} & set(sys.modules)))")
    assert ended.stdout == "imported\n", ended.stderr


@pytest.mark.parametrize("name", ["Bilinear", "functional.bilinear", "warm"])
def test_a_name_says_in_one_line_which_framework_is_missing(name):
    use = f"bilinear_bench.{name}" + "()" * (name == "warm")
    ended = bare(f"import bilinear_bench\n{use}", ROOT)
    assert ended.stderr.splitlines()[-1] == (
        f"ImportError: bilinear_bench.{name} needs torch and numba, not installed here: "
        "pip install 'torch>=2.6' 'numba>=0.60'"
    )


def test_a_framework_that_is_there_is_not_called_missing(tmp_path):
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").touch()
    ended = bare("from bilinear_bench import Bilinear", ROOT, tmp_path)
    assert ended.stderr.splitlines()[-1].endswith("needs numba, not installed here: pip install 'numba>=0.60'")


def test_the_requirements_named_are_those_of_the_extras():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    assert list(bilinear_bench.FRAMEWORKS.values()) == [extras["torch"][0], extras["numba"][0]]
    assert bilinear_bench.__version__ == project["version"]


def test_public_names_are_listed_before_they_are_imported():
    ended = bare("import bilinear_bench\nprint(dir(bilinear_bench), dir(bilinear_bench.functional))", ROOT)
    for name in ("Bilinear", "functional", "warm", "__version__", "bilinear"):
        assert f"'{name}'" in ended.stdout, ended.stderr


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'bilinear_bench' has no attribute 'Bilinaer'"):
        bilinear_bench.Bilinaer  # noqa: B018
    with pytest.raises(AttributeError, match=r"'bilinear_bench\.functional' has no attribute 'linear'"):
        bilinear_bench.functional.linear  # noqa: B018


def test_lazy_names_are_the_objects_of_their_modules():
    pytest.importorskip("torch", reason="torch is not installed")
    pytest.importorskip("numba", reason="numba is not installed")
    from bilinear_bench import layer, operator

    assert bilinear_bench.Bilinear is layer.Bilinear
    assert bilinear_bench.functional.bilinear is operator.bilinear


@pytest.mark.slow
def test_a_type_checker_sees_the_public_names(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "from bilinear_bench import Bilinear, functional, warm\n"
        "reveal_type(Bilinear(2, 3, 4))\nreveal_type(functional.bilinear)\nreveal_type(warm)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-m", "mypy", str(program)], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert ended.returncode == 0, ended.stdout
    for shown in ('"bilinear_bench.layer.Bilinear"', '"def (input1: Any', '"def (dtypes: '):
        assert shown in ended.stdout

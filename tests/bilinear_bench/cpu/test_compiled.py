"""Compiled code: Numba's cache keeps it under a name that changes with the code."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

numba = pytest.importorskip("numba", reason="numba is not installed")
from bilinear_bench.cpu import compiled, forward, grad_inputs, grad_weight  # noqa: E402, F401  # all kernels


def test_compiled_code_is_kept_under_a_name_that_changes_with_all_files(monkeypatch, tmp_path):
    code = Path(compiled.__file__).parent
    for path in code.rglob("*.py"):
        copy = tmp_path / path.relative_to(code)
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes(path.read_bytes())
    monkeypatch.setattr(compiled, "__file__", str(tmp_path / "compiled.py"))
    assert compiled._stamp() == compiled.STAMP
    (tmp_path / "tiles" / "emitter.py").write_text("# another tile")
    assert compiled._stamp() != compiled.STAMP


def test_every_compiled_function_has_the_stamp_in_its_name():
    modules = [module for name, module in sys.modules.items() if name.startswith("bilinear_bench.cpu.")]
    values = [value for module in modules for value in vars(module).values()]
    each = [one for value in values for one in (value if isinstance(value, tuple) else (value,))]
    functions = {one for one in each if isinstance(one, numba.core.dispatcher.Dispatcher)}
    assert len(functions) > 30
    for one in functions:
        assert one.py_func.__qualname__.endswith(compiled.STAMP)

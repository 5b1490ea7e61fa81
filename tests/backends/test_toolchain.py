"""A compiler that lacks something is reported before it compiles."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from backends import _toolchain
from backends.torch_compile import TorchCompile


@pytest.fixture
def header(tmp_path, monkeypatch):
    """Provide Triton, a compiler and the header; return the header."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(_toolchain.shutil, "which", {"gcc": "/usr/bin/gcc"}.get)
    monkeypatch.setattr(_toolchain.sysconfig, "get_paths", lambda: {"include": str(tmp_path)})
    (tmp_path / "Python.h").touch()
    return tmp_path / "Python.h"


def test_triton_compiles_with_a_compiler_and_the_header(header):
    assert _toolchain.for_triton().ok


def test_each_missing_thing_has_a_name_and_an_install_command(header, monkeypatch):
    header.unlink()
    assert _toolchain.for_triton().reason == f"compiling needs {header}: apt-get install python3-dev"
    monkeypatch.setattr(_toolchain.shutil, "which", lambda name: None)
    assert _toolchain.for_triton().reason == "Triton needs a C compiler: apt-get install gcc"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert _toolchain.for_triton().reason == "Triton is not installed: pip install triton"


@pytest.mark.parametrize("variable", ["TORCHDYNAMO_DISABLE", "TORCH_COMPILE_DISABLE"])
def test_torch_compile_that_is_switched_off_is_unavailable(monkeypatch, variable):
    monkeypatch.setenv(variable, "1")
    with torch._dynamo.config.patch(disable=variable == "TORCH_COMPILE_DISABLE"):  # it was read at import
        support = TorchCompile.available("cpu")
    assert (support.ok, variable in support.reason) == (False, True)

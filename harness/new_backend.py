"""Write a package with a backend: its module, its entry point and its test, each as short as it can be."""

from __future__ import annotations

import importlib.util
import keyword
import re
import string
from collections.abc import Container
from pathlib import Path
from typing import Final

from harness.catalog.registry import ALL, GROUP

#: Names that are a backend's, a distribution's and, with underscores, a module's.
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9]*([-_][A-Za-z0-9]+)*")
#: Longest name, in characters.
_LONGEST: Final = 64
#: Names that the templates use for something else.
_TAKEN: Final = ("Backend", "TorchFormula")

_PYPROJECT: Final = string.Template("""\
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "$name"
version = "0.1"
dependencies = ["bilinear-bench", "$framework"]

[project.entry-points."$group"]
$name = "$module:$label"

[tool.setuptools]
py-modules = ["$module"]
""")
_NUMPY: Final = string.Template('''\
"""$name: a way to compute torch.nn.Bilinear, in NumPy."""

import numpy as np
from harness.backend import Backend


class $label(Backend):
    """One einsum; replace it by your own technique."""

    name = "$name"

    def prepare_forward(self, case, weight, bias):
        """Return the kernel; what is done outside of it, such as packing the weight, is not timed with it."""

        def kernel(input1, input2):  # (b, i), (b, j) -> (b, o), with the weight (o, i, j)
            output = np.einsum("bi,oij,bj->bo", input1, weight, input2, optimize=True)
            return output if bias is None else output + bias

        return kernel
''')
_TORCH: Final = string.Template('''\
"""$name: a way to compute torch.nn.Bilinear, as a formula in PyTorch."""

import torch
from backends import TorchFormula


class $label(TorchFormula):
    """One einsum; replace it by your own formula, autograd makes the gradients."""

    name = "$name"

    def output(self, input1, input2, weight, bias):
        """Return (b, o) of (b, i), (b, j), (o, i, j) and (o,) or None."""
        output = torch.einsum("bi,oij,bj->bo", input1, weight, input2)
        return output if bias is None else output + bias
''')
_TEST: Final = string.Template('''\
"""Each promise of a backend is a test: run `pytest $name`."""

from harness.conformance import parametrize_with_checks

from $module import $label


@parametrize_with_checks($label, require=True)
def test_${module}_conforms(backend, check):
    """Check one promise."""
    check(backend)
''')


class NewBackendError(ValueError):
    """A name that a new backend cannot have. The message says what was expected."""


def write(name: str, parent: Path, registered: Container[str], torch: bool = False) -> Path:
    """Write the package into a new folder, and return the folder.

    Args:
        name: Name of the backend and of the folder, as in ``my-kernel``.
        parent: Folder that the new one is made in.
        registered: Names of the backends that exist.
        torch: True for a formula in PyTorch, False for NumPy.

    Raises:
        NewBackendError: The name is malformed or taken, or the folder exists or cannot be made.
    """
    module, label = _module_and_class(name)
    folder = parent / name
    if folder.exists() or folder.is_symlink():
        raise NewBackendError(f"{name} exists in {parent}: choose another name, or remove it")
    if name in registered:
        raise NewBackendError(f"backend {name} is registered already: choose another name")
    if importlib.util.find_spec(module) is not None:
        raise NewBackendError(f"{name!r} would hide the module {module}, which exists: choose another name")
    words = {"name": name, "module": module, "label": label, "group": GROUP, "framework": "torch" if torch else "numpy"}
    try:
        folder.mkdir()
        (folder / "pyproject.toml").write_text(_PYPROJECT.substitute(words))
        (folder / f"{module}.py").write_text((_TORCH if torch else _NUMPY).substitute(words))
        (folder / f"test_{module}.py").write_text(_TEST.substitute(words))
    except OSError as error:
        raise NewBackendError(f"{name} cannot be written in {parent} ({error.strerror})") from None
    return folder


def _module_and_class(name: str) -> tuple[str, str]:
    """Return the names of the module and of the class."""
    if not _NAME.fullmatch(name) or len(name) > _LONGEST:
        raise NewBackendError(
            f"{name!r} is no name of a backend, expected a letter, then letters and digits with single - or _ between, "
            f"as in my-kernel, at most {_LONGEST} characters"
        )
    module = name.replace("-", "_").lower()
    label = "".join(word[:1].upper() + word[1:] for word in re.split("[-_]", name))
    if keyword.iskeyword(module) or label in _TAKEN or name == ALL:
        raise NewBackendError(f"{name!r} is a word that Python or the package needs: choose another name")
    return module, label

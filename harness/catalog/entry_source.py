"""Read what an entry point leads to from its source file, without importing it.

Importing a backend would import its framework, which takes seconds. The source shows the class and its docstring, and
whether there is such a module at all.
"""

from __future__ import annotations

import ast
import importlib.machinery
import importlib.util
from pathlib import Path
from typing import Final

#: Names in a module that may define others: by an import of everything, or at run time.
_DYNAMIC: Final = ("*", "__getattr__", "globals", "setattr", "exec")


class LeadsNowhereError(Exception):
    """An entry point without a module, a readable source, or the attribute. The message says which."""


def class_of(target: str) -> ast.ClassDef | None:
    """Return the class that an entry point leads to; None if the source does not show it, as for an imported name.

    Args:
        target: Import path, as in ``module:Class``.

    Raises:
        LeadsNowhereError: The module or the attribute does not exist, or the module is no Python.
    """
    module, _, attribute = target.partition(":")
    file = _source_file(module)
    if file is None:
        return None
    try:
        tree = ast.parse(file.read_bytes(), filename=file.name)
    except OSError:
        return None
    except (SyntaxError, ValueError) as error:  # ValueError: null bytes
        line = f" in line {error.lineno}" if isinstance(error, SyntaxError) else ""
        reason = error.msg if isinstance(error, SyntaxError) else str(error)
        raise LeadsNowhereError(f"{file.name} is not valid Python: {reason}{line}") from None
    if not _may_have(tree, attribute.partition(".")[0]):
        raise LeadsNowhereError(f"entry point leads to no {attribute!r}: {file.name} does not define it")
    found = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == attribute)
    return next(found, None)


def sentence_of(target: str) -> str:
    """Return the first sentence of the docstring of an entry point's class; its target where there is none.

    Raises:
        LeadsNowhereError: The entry point leads nowhere.
    """
    found = class_of(target)
    words = " ".join(((ast.get_docstring(found) if found else None) or "").split())
    return f"{words.partition('. ')[0].rstrip('.')}." if words else target


def devices_of(target: str) -> tuple[str, ...]:
    """Return the devices that an entry point's class writes down; none where its source does not show them.

    Of a conditional expression the last branch counts, which is the usual one.

    Raises:
        LeadsNowhereError: The entry point leads nowhere.
    """
    found = class_of(target)
    for node in found.body if found else ():
        match node:
            case (
                ast.Assign(targets=[ast.Name(id="devices")], value=ast.expr() as value)
                | ast.AnnAssign(target=ast.Name(id="devices"), value=ast.expr() as value)
            ):
                value = value.orelse if isinstance(value, ast.IfExp) else value
                return tuple(str(part.value) for part in ast.walk(value) if isinstance(part, ast.Constant))
    return ()


def _source_file(module: str) -> Path | None:
    """Return the source file of a module; None if it has none, as a compiled one."""
    first, *deeper = module.split(".")
    try:
        spec = importlib.util.find_spec(first)
    except (ImportError, ValueError):
        spec = None
    # Deeper modules are looked up in their folders: `importlib.util.find_spec` would import the packages around them.
    for part in deeper:
        folders = list(spec.submodule_search_locations or ()) if spec else []
        spec = importlib.machinery.PathFinder.find_spec(part, folders) if folders else None
    if spec is None:
        raise LeadsNowhereError(f"entry point leads to no module {module!r}")
    return Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None


def _may_have(tree: ast.Module, name: str) -> bool:
    """True if a module may define a name: some statement binds it, or the module is too dynamic to tell."""
    bound = set[str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            bound.add(node.name)
        elif isinstance(node, ast.alias):
            bound.add(node.asname or node.name)
        elif isinstance(node, ast.Name):
            bound.add(node.id)
    return not bound.isdisjoint({name, *_DYNAMIC})

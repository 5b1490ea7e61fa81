"""The table of mutants by kind, read from the tests without importing them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

#: Where the kinds, and the mutants that the gate does not catch yet, are stated.
_KINDS: Final = ("tests/mutants/mutants_by_kind.py", "TITLES")
_PASSING: Final = ("tests/test_mutants_by_kind.py", "PASSING")


def mutant_table(root: Path) -> str:
    """Return a Markdown table: each mutant of a kind in a sentence, and whether the gate catches it.

    Args:
        root: Root of the repository.
    """
    titles, passing = (_literal(root / file, name) for file, name in (_KINDS, _PASSING))
    lines = ["| kind | mutant | the gate |", "|---|---|---|"]
    for kind, title in titles.items():
        for path in sorted((root / "tests" / "mutants").glob(f"mutants_kind{kind}_*.py")):
            for attributes, sentence in _mutants(path):
                lines.append(f"| {kind}. {title} | {sentence} | {_outcome(attributes, passing)} |")
    return "".join(f"{line}\n" for line in lines)


def _outcome(attributes: dict[str, object], passing: dict[str, tuple[str, ...]]) -> str:
    modes = passing.get(str(attributes["name"]), ())
    if modes:
        return f"**times it** in {' and '.join(f'`{mode}`' for mode in modes)}"
    if "harmless" in attributes:
        return f"times it: {attributes['harmless']}"
    return f"flags it, `{attributes['flag']}`" if "flag" in attributes else "rejects it"


def _mutants(path: Path) -> Iterator[tuple[dict[str, object], str]]:
    """Yield the literal attributes of each class with a name, and the first line of its docstring."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef):
            attributes = dict(_assigned(node.body))
            if "name" in attributes:
                yield attributes, (ast.get_docstring(node) or "").splitlines()[0]


def _literal(path: Path, name: str) -> Any:
    return dict(_assigned(ast.parse(path.read_text(encoding="utf-8")).body))[name]


def _assigned(body: list[ast.stmt]) -> Iterator[tuple[str, Any]]:
    """Yield the names that statements assign literals to, with the values."""
    for node in body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            try:
                value = ast.literal_eval(node.value)
            except ValueError:
                continue
            if isinstance(target, ast.Name):
                yield target.id, value

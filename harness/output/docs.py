"""Rewrite the generated blocks of README.md and docs/, from committed runs and from the code.

    python -m harness.output.docs

A block stands between ``<!-- generated: NAME ARGUMENTS -->`` and ``<!-- end -->``. Paths are relative to the root of
the repository. Figures are drawn again, as the commands in the pages say.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

from rich.text import Text

from harness.catalog.core import core
from harness.catalog.entry_source import sentence_of
from harness.catalog.registry import DISTRIBUTION, entries
from harness.catalog.suites import SUITES
from harness.output import figures, header, store
from harness.output.answer import answer
from harness.output.case_labels import labels_of
from harness.output.dictionary import columns_table, meanings
from harness.output.group_line import group_line
from harness.output.layout import Lines, plain
from harness.output.mutant_table import mutant_table
from harness.output.remarks import not_here_at_all, reached
from harness.output.report import chosen, one_case
from harness.output.tables import HEADINGS, case_table, groups, hidden_headings, title
from harness.output.welcome import welcome
from harness.record import FLAG_MEANING, RELATION_MEANING, STATUS_MEANING, Record, Sample

ROOT: Final = Path(__file__).parent.parent.parent
#: Width of the tables in the pages, in characters.
WIDTH: Final = 100
_BLOCK: Final = re.compile(r"(<!-- generated: (.+?) -->\n).*?(<!-- end -->)", re.DOTALL)
#: The command of a page that draws a figure of it: the run, and the figure's file.
_DRAW: Final = re.compile(r"`bilinear-bench report (\S+) --plot (docs/figures/\S+)`")


class DocsError(ValueError):
    """A marker that names no block. The message says what was expected."""


def pages(root: Path = ROOT) -> list[Path]:
    """Return the pages that may have generated blocks."""
    return [root / "README.md", *sorted((root / "docs").glob("*.md"))]


def rewritten(text: str, root: Path = ROOT) -> str:
    """Return a page with every generated block rendered again.

    Raises:
        DocsError: A marker is unknown, or has the wrong number of arguments.
        StoreError: A folder is no run.
    """
    return _BLOCK.sub(lambda match: f"{match[1]}{render_block(match[2], root)}{match[3]}", text)


def render_block(marker: str, root: Path = ROOT) -> str:
    """Return the text of one block, as in ``answer results/reference/nvidia-h200/warm``.

    Raises:
        DocsError: The marker is unknown, or has the wrong number of arguments.
        StoreError: A folder is no run.
    """
    name, *arguments = marker.split()
    if name not in _BLOCKS:
        raise DocsError(f"block {name!r} is unknown, expected one of: {', '.join(_BLOCKS)}")
    try:
        return _BLOCKS[name](root, *arguments)
    except TypeError as error:
        raise DocsError(f"block {marker!r} has the wrong arguments ({error})") from None


def figures_of(root: Path = ROOT) -> dict[Path, Path]:
    """Return the figures of the pages with the folders of their runs, relative to the root."""
    texts = (page.read_text(encoding="utf-8") for page in pages(root))
    return {Path(file): Path(run) for text in texts for run, file in _DRAW.findall(text)}


def draw_figure(run: Path, path: Path) -> None:
    """Draw the figure of a committed run.

    Args:
        run: Folder of the run.
        path: File to write.
    """
    figures.draw(chosen(run, None, ()), store.environment(run), path)


def _answer(root: Path, folder: str) -> str:
    records = reached(store.read(root / folder / store.RECORDS))
    return _fenced(answer(records, labels_of(records), store.environment(root / folder), store.LATEST, WIDTH))


def _welcome(root: Path, folder: str) -> str:
    """Return the screen of the bare command on the machine of a run, with the backends that the run had."""
    records, environment = store.read(root / folder / store.RECORDS), store.environment(root / folder)
    absent = records[not_here_at_all(records)].drop_duplicates("backend")
    missing = {str(name): str(reason) for name, reason in zip(absent["backend"], absent["reason"], strict=True)}
    processors = f"{header.machine(environment, 'cpu')}, {header.machine(environment, 'cuda') or 'no GPU'}"
    ready = records["backend"].nunique() - len(missing)
    return _fenced(welcome(environment["versions"][DISTRIBUTION], processors, ready, missing, {}, WIDTH))


def _bars(root: Path, folder: str, case: str, mode: str) -> str:
    """Return the screen of one case, as ``report --case`` prints it."""
    return _fenced(one_case(root / folder, case, [mode], WIDTH))


def _group_lines(root: Path, folder: str, count: str) -> str:
    """Return the lines of a run's first groups, as they come while it runs."""
    each = [rows for _, rows in groups(store.read(root / folder / store.RECORDS))]
    lines = (group_line(rows, labels_of(rows)) for rows in each[: int(count)])
    return _fenced([Text(f"[{number}/{len(each)}] {line}") for number, line in enumerate(lines, start=1)])


def _case(root: Path, folder: str, case: str, mode: str) -> str:
    records = store.read(root / folder / store.RECORDS)
    chosen = records[(records["case"] == case) & (records["mode"] == mode)]
    if chosen.empty:
        raise DocsError(f"{folder} has no row of {case} in mode {mode}")
    lines = Lines()
    for (device, *_), rows in groups(chosen):
        table = case_table(rows, WIDTH)
        lines += [title(labels_of(rows), case, mode, device), *table.lines(hidden_headings([table], WIDTH))]
    return _fenced(lines)


def _columns(root: Path, file: str) -> str:
    return columns_table({"records": Record, "samples": Sample}[file])


def _backends(root: Path) -> str:
    """List the backends of this project with the first sentence of their class, read without importing it."""
    ours = {name: entry for name, entry in entries().items() if entry.is_ours}
    return meanings("backend", {name: sentence_of(entry.target) for name, entry in ours.items()})


def _protocols(root: Path) -> str:
    """List how each suite is measured: what a method section has to say."""
    lines = [
        "| suite | fresh processes, at most | equivalence band | target | seconds for a case |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| `{one.name}` | {one.processes} | {100 * one.band:g} % | {100 * one.target:g} % | {one.budget_seconds:g} |"
        for one in SUITES.values()
    ]
    return "".join(f"{line}\n" for line in lines)


def _fenced(lines: Lines) -> str:
    return f"```text\n{plain(lines).strip()}\n```\n"


_BLOCKS: Final[dict[str, Callable[..., str]]] = {
    "answer": _answer,
    "case": _case,
    "welcome": _welcome,
    "bars": _bars,
    "group-lines": _group_lines,
    "columns": _columns,
    "flags": lambda root: meanings("flag", FLAG_MEANING),
    "statuses": lambda root: meanings("status", STATUS_MEANING),
    "comparisons": lambda root: meanings("comparison", RELATION_MEANING),
    "headings": lambda root: meanings("heading", HEADINGS),
    "backends": _backends,
    "core": lambda root: meanings("backend", core(("cuda",))),
    "protocols": _protocols,
    "mutants": mutant_table,
}


if __name__ == "__main__":
    for page in pages():
        page.write_text(rewritten(page.read_text(encoding="utf-8")), encoding="utf-8")
    for file, run in figures_of().items():
        draw_figure(ROOT / run, ROOT / file)

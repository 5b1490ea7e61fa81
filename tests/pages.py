"""What tests read in a page of Markdown: its code, commands, links and sentences."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import typer.main
from command_line import ROOT

from harness import cli
from harness.catalog.case_names import case_of
from harness.catalog.selection import choose
from harness.catalog.suites import suite
from harness.run.plan import BASELINE

README = ROOT / "README.md"
DOCS = sorted((ROOT / "docs").glob("*.md"))
#: Backends of the pages' own readers.
NOT_OURS = ("outside-matmul", "my-kernel")

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`((?:bilinear-bench|make) [^`]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
BLOCK = re.compile(r"<!-- \w+: .*? -->\n.*?<!-- end -->", re.DOTALL)


def fences(text: str, language: str) -> list[str]:
    """Return the code blocks of a language."""
    return [body for kind, body in FENCE.findall(text) if kind == language]


def commands(text: str) -> list[str]:
    """Return every command line of a page, from blocks and from the text."""
    lines = [line for body in fences(text, "sh") for line in body.splitlines() if line.strip()]
    return lines + SPAN.findall(FENCE.sub("", text))


def parsed(arguments: list[str]) -> dict[str, object]:
    """Return a command's options as the command line reads them, without running it."""
    group = typer.main.get_command(cli.app)
    if arguments and arguments[0].startswith("-"):
        return group.make_context("bilinear-bench", arguments, resilient_parsing=True).params
    name, *rest = arguments
    return group.commands[name].make_context(name, rest).params  # type: ignore[attr-defined]


def check_command(line: str) -> None:
    """Raise unless a command line can be started as it stands."""
    words = shlex.split(line, comments=True)
    while re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words.pop(0)
    program, *arguments = words
    if program == "make":
        makefile = (ROOT / "Makefile").read_text()
        for word in arguments:
            name, given, _ = word.partition("=")
            pattern = rf"^{name} \??=" if given else rf"^{name}:.*## "
            assert re.search(pattern, makefile, re.MULTILINE), f"make knows no {name}"
    elif program == "bilinear-bench":
        if "--help" in arguments:
            arguments.remove("--help")
        params = parsed(arguments)
        if params.get("suite"):
            suite(params["suite"])
        names = [name for name in params.get("backends") or () if name not in NOT_OURS]
        choose(names, params.get("skip") or (), always=BASELINE)
        for text in (*(params.get("cases") or ()), *([params["layer"]] if params.get("layer") else [])):
            case_of(text)
    elif program in ("python", "pytest"):
        file = next(word for word in arguments if not word.startswith("-"))
        assert (ROOT / file).exists(), file
    else:
        raise AssertionError(f"an unknown program: {program}")


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(page: Path, text: str) -> list[str]:
    """Return the relative links of a page that lead nowhere."""
    broken = []
    for target in LINK.findall(FENCE.sub("", text)):
        if target.startswith(("https:", "http:")):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    return broken


def sentences(text: str) -> Iterator[str]:
    """Yield the sentences of a page: no code, no tables, nothing generated."""
    text = BLOCK.sub("", FENCE.sub("", text))
    for paragraph in re.split(r"\n\s*\n|\n(?=\s*(?:[*#|]|\d+\.) ?)", text):
        if paragraph.lstrip().startswith(("|", "#", "<!--", "    ")):
            continue
        plain = re.sub(r"\]\([^)]*\)", "]", paragraph)
        yield from re.split(r"(?<=[.?!:;])[*_]*\s+", plain.replace("\n", " "))

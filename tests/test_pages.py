"""Every page: its commands, code, links and summaries are true, and its words are plain."""

from __future__ import annotations

import ast
import importlib
import re

import pytest
from command_line import ROOT, python
from pages import BLOCK, DOCS, FENCE, README, broken_links, check_command, commands, fences, sentences

PAGES = [README, ROOT / "CONTRIBUTING.md", *DOCS]
MOST_WORDS = 25
OUTSIDE = ROOT / "tests" / "third_party"
#: Words of the project's former dialect.
OLD_WORDS = re.compile(
    r"\b(entrant|sitting|contestant|referee|surveyor|examin\w*|so many|so much|so long|anew|whoever|nobody|everybody"
    r"|beside|besides|meanwhile|shall|laid|lies|lie)\b",
    re.IGNORECASE,
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
class TestAnyPage:
    def test_every_command_can_be_started_as_it_stands(self, page):
        for line in commands(page.read_text()):
            check_command(line)

    def test_every_python_block_compiles(self, page):
        for body in fences(page.read_text(), "python"):
            compile(body, str(page), "exec")

    def test_every_link_leads_to_a_file_and_a_heading(self, page):
        assert broken_links(page, page.read_text()) == []

    def test_a_page_uses_none_of_the_old_words(self, page):
        text = re.sub(r"`[^`\n]*`", "", BLOCK.sub("", FENCE.sub("", page.read_text())))
        assert OLD_WORDS.findall(text) == []

    def test_no_sentence_is_longer_than_25_words(self, page):
        assert [sentence for sentence in sentences(page.read_text()) if len(sentence.split()) > MOST_WORDS] == []


@pytest.mark.parametrize(
    "line",
    [
        *(
            "make everything",
            "make bench SIZE=3",
            "bilinear-bench run --sweet quick",
            "bilinear-bench run --suite quack",
        ),
        *("bilinear-bench run --backend numpy-lop", "bilinear-bench run --case 3x4", "python studies/none.py"),
        "rm -rf /",
    ],
)
def test_a_command_that_cannot_be_started_is_noticed(line):
    with pytest.raises(Exception):  # noqa: B017, PT011  # whichever of the readers notices it
        check_command(line)


@pytest.mark.parametrize("target", ["docs/none.md", "docs/evidence.md#none", "#none"])
def test_a_broken_link_is_noticed(target):
    assert broken_links(README, f"[x]({target})") == [target]


@pytest.mark.parametrize("name", ["bilinear_outside.py", "pyproject.toml", "test_bilinear_outside.py"])
def test_write_a_backend_shows_the_outside_package_verbatim(name):
    assert (OUTSIDE / name).read_text().strip() in (ROOT / "docs" / "write-a-backend.md").read_text()


@pytest.fixture
def summaries(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "studies")
    return importlib.import_module("summaries")


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.stem)
def test_every_summary_is_what_its_committed_file_says(page, summaries):
    text = page.read_text()
    assert summaries.current(text) == text, "make docs rewrites it"
    assert len(summaries.BLOCK.findall(text)) == text.count("<!-- summary:")


def test_a_summary_that_was_edited_by_hand_is_noticed(summaries):
    text = (ROOT / "docs" / "evidence.md").read_text()
    assert summaries.current(text.replace("0 false alarms", "1 false alarms")) == text


def test_every_study_still_imports():
    pytest.importorskip("torch", reason="torch is not installed")
    lines = []
    for path in sorted((ROOT / "studies").glob("*.py")):
        nodes = [
            node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Import | ast.ImportFrom)
        ]
        lines += [ast.unparse(node) for node in nodes if getattr(node, "module", "") != "__future__"]
        lines.append(f"import {path.stem}")
    ended = python("\n".join(lines), PYTHONPATH=str(ROOT / "studies"))
    assert ended.returncode == 0, ended.stderr

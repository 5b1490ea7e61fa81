"""The pages say what is so: commands, code, links, committed figures, and plain words."""

from __future__ import annotations

import ast
import importlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import typer.main
from command_line import ROOT, command, environment

from harness import cli
from harness.catalog.case_names import case_of
from harness.catalog.selection import choose
from harness.catalog.suites import suite
from harness.run.plan import BASELINE

README = ROOT / "README.md"
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [README, ROOT / "CONTRIBUTING.md", *DOCS]
#: A README is read in one go up to this number of lines.
MOST_LINES = 150
MOST_WORDS = 25
OUTSIDE = ROOT / "tests" / "third_party"
#: Backends of the pages' own readers.
NOT_OURS = ("outside-matmul", "my-kernel")
RUN = "results/reference/intel-emerald-rapids-2cpu/quick"

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`((?:bilinear-bench|make) [^`]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
BLOCK = re.compile(r"<!-- \w+: .*? -->\n.*?<!-- end -->", re.DOTALL)
#: The words of a dialect that this project has given up.
OLD_WORDS = re.compile(
    r"\b(entrant|sitting|contestant|referee|surveyor|examin\w*|so many|so much|so long|anew|whoever|nobody|everybody"
    r"|beside|besides|meanwhile|shall|laid|lies|lie)\b",
    re.IGNORECASE,
)


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


def test_the_readme_has_at_most_150_lines():
    assert len(README.read_text().splitlines()) <= MOST_LINES


def test_the_readme_lists_every_page_of_the_docs():
    index = README.read_text().partition("## Documentation")[2]
    assert {f"docs/{page.name}" for page in DOCS} <= set(LINK.findall(index))


@pytest.fixture
def elsewhere(tmp_path, monkeypatch) -> Path:
    """A working directory whose latest run is a committed one."""
    (tmp_path / "results").mkdir()
    shutil.copytree(ROOT / RUN, tmp_path / "results" / "20261127T091658Z-8e7e")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "printed"), [("list", "numba-fused"), ("report latest", "128x20x30x40"), ("explain", "128")]
)
def test_a_command_of_the_readme_that_needs_no_machine_runs(elsewhere, name, printed):
    if name == "explain":
        pytest.importorskip("torch", reason="torch is not installed")
    (line,) = [line for line in commands(README.read_text()) if line.startswith(f"bilinear-bench {name} ")]
    arguments = shlex.split(line, comments=True)[1:]
    ended = subprocess.run(
        command(*arguments), cwd=elsewhere, env=environment(), capture_output=True, text=True, check=False, timeout=300
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert printed in ended.stdout


def python_block(first: str) -> dict[str, object]:
    """Execute the README's block that begins with a line; return its names."""
    (body,) = [body for body in fences(README.read_text(), "python") if body.startswith(first)]
    names: dict[str, object] = {"__name__": "readme"}
    exec(compile(body, "README.md", "exec"), names)  # noqa: S102  # the code is the README's
    return names


def test_the_readmes_layer_computes_what_nn_bilinear_does():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    pytest.importorskip("numba", reason="numba is not installed")
    layer = python_block("from bilinear_bench import Bilinear")["layer"]
    assert isinstance(layer, torch.nn.Bilinear)
    input1, input2 = torch.ones(3, 20), torch.ones(3, 30)
    expected = torch.nn.functional.bilinear(input1, input2, layer.weight, layer.bias)
    torch.testing.assert_close(layer(input1, input2), expected)


def test_the_readmes_backend_conforms():
    pytest.importorskip("torch", reason="torch is not installed")
    from harness import conformance

    backend = python_block("import torch")["MyKernel"]
    for check in conformance.checks(modes=("forward_backward",), dtypes=("float32",)):
        check(backend)


def test_the_readmes_code_loads_the_rows_of_a_run(elsewhere, capsys):
    python_block("from pathlib")
    assert "numba-fused" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("claimed", "shown"),
    [
        ("0 of 140,000 answers", "140,000 answers of 7 backends were judged, 0 were rejected"),
        ("0.09 % too long", "| 0.002 | 0.0020019 | +0.09 % |"),
        ("0 false alarms in 303 runs", "0 false alarms in 303 runs"),
        ("59 of 59 runs", "0 of 59 differences of 3 % missed"),
    ],
)
def test_a_figure_of_the_readme_is_in_the_evidence(claimed, shown):
    assert claimed in README.read_text()
    assert shown in (ROOT / "docs" / "evidence.md").read_text()


def test_the_readmes_words_about_the_answer_hold_in_its_run():
    records = pd.read_csv(ROOT / RUN / "records.csv")
    fused = records[records["backend"] == "numba-fused"]
    assert fused["rank"].tolist() == [1] * 12  # "among the fastest on all twelve rows"
    steps = records[(records["mode"] == "forward_backward") & (records["rank"] == 1)]
    assert steps.groupby("case")["speedup"].max().min() > 10  # "nn.Bilinear's training step is what to avoid"


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


@pytest.mark.parametrize("path", sorted((ROOT / "studies").glob("*.py")), ids=lambda path: path.stem)
def test_every_study_still_imports(path):
    pytest.importorskip("torch", reason="torch is not installed")
    tree = ast.parse(path.read_text())
    imports = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    code = "\n".join((*sorted(imports, key=lambda line: "__future__" not in line), f"import {path.stem}"))
    variables = os.environ | {"PYTHONPATH": os.pathsep.join((str(ROOT), str(path.parent)))}
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=variables)
    assert ended.returncode == 0, ended.stderr

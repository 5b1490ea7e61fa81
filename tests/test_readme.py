"""The README: its length, its commands and code, and its figures."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from command_line import ROOT, command, environment
from pages import DOCS, LINK, README, commands, fences

#: Most lines of the README.
MOST_LINES = 150
RUN = "results/reference/intel-emerald-rapids-2cpu/quick"


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
    line = next(line for line in commands(README.read_text()) if line.startswith(f"bilinear-bench {name} "))
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

"""The examples run, and print what their text says."""

from __future__ import annotations

import importlib
import re

import pytest
from command_line import ROOT

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("numba", reason="numba is not installed")


def test_deep_graph_infomax_learns_the_same_with_both_modules(capsys, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "examples")
    example = importlib.import_module("deep_graph_infomax")
    example.main(example.Sizes(nodes=60, edges=100, words=30, words_of_a_node=4, hidden=16), epochs=4)
    said = capsys.readouterr().out
    losses = re.findall(r"^ +\d+ +([\d.]+) +([\d.]+) ", said, re.MULTILINE)
    assert len(losses) == 4
    assert losses[0] != losses[-1]
    assert float(re.search(r"losses differ by (\S+) at most", said)[1]) < 1e-4


def test_the_biaffine_labeler_learns_the_same_with_both_modules(capsys, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "examples")
    example = importlib.import_module("biaffine_labeler")
    example.main(example.Sizes(tokens=50, features=20, hidden=16, labels=5), steps=6)
    said = capsys.readouterr().out
    (first, last), ours = re.findall(r"^(?:nn.Bilinear|fused) +([\d.]+) +([\d.]+) ", said, re.MULTILINE)
    assert (first, last) == ours
    assert float(last) < float(first)
    assert float(re.search(r"losses differ by (\S+) at most", said)[1]) < 1e-4

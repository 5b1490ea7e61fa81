"""The ranks of every committed run, held to its committed samples."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest

from harness.output import store
from harness.timing.estimates import UNPROVEN

RUNS = sorted(path.parent for path in (Path(__file__).parent.parent / "results" / "reference").rglob(store.RECORDS))


@pytest.fixture
def study(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent.parent / "studies")
    return importlib.import_module("committed_ranks")


def fastest_of(rows, seconds):
    """Return the row with the lowest median of its own samples."""
    return min(rows, key=lambda row: np.median(list(seconds[row["backend"]].values())))


def ratios(own, fastest):
    """Return the time of a call divided by the fastest backend's, in each common block."""
    return [own[block] / fastest[block] for block in set(own) & set(fastest)]


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_no_backend_of_rank_1_is_far_slower_in_every_block(run, study):
    for rows, seconds, *_ in study.groups(run):
        fastest = fastest_of(rows, seconds)
        assert fastest["rank"] == "1"
        for row in (row for row in rows if row["rank"] == "1" and row is not fastest):
            common = ratios(seconds[row["backend"]], seconds[fastest["backend"]])
            assert not common or min(common) < UNPROVEN, (row["case"], row["mode"], row["backend"])


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_backend_outside_rank_1_is_slower_by_more_than_the_band(run, study):
    for rows, seconds, _, band in study.groups(run):
        fastest = seconds[fastest_of(rows, seconds)["backend"]]
        for row in (row for row in rows if row["rank"] != "1"):
            common = ratios(seconds[row["backend"]], fastest)
            assert not common or np.exp(np.mean(np.log(common))) > 1 + band / 2, (row["case"], row["backend"])


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_committed_ranks_are_those_of_the_rule_in_use(run, study):
    ranks = study.ranks(run)
    rows = store.rows(run / store.RECORDS, earlier=True)
    committed = {
        (row["case"], row["mode"], row["device"], row["backend"]): int(row["rank"]) for row in rows if row["rank"]
    }
    assert committed == ranks

"""The ranks of every committed run, held to its committed samples."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest

from harness.output import store
from harness.record import Relation
from harness.run.plan import BASELINE
from harness.timing.estimates import tie

RUNS = sorted(path.parent for path in (Path(__file__).parent.parent / "results" / "reference").rglob(store.RECORDS))


@pytest.fixture
def study(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent.parent / "studies")
    return importlib.import_module("committed_ranks")


def fastest_of(rows, seconds):
    """Return the row with the lowest median of its own samples."""
    return min(rows, key=lambda row: np.median(list(seconds[row["backend"]].values())))


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_rank_1_has_what_the_samples_do_not_show_slower_than_the_fastest(run, study):
    for rows, seconds, processes, band in study.groups(run):
        fastest = seconds[fastest_of(rows, seconds)["backend"]]
        for row in rows:
            own = seconds[row["backend"]]
            may_be_fastest = own is fastest or tie(fastest, own, processes, band)
            assert (row["rank"] == "1") == may_be_fastest, (row["case"], row["mode"], row["backend"])


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_nn_bilinear_is_in_rank_1_where_the_fastest_is_not_faster(run, study):
    for rows, seconds, *_ in study.groups(run):
        fastest = fastest_of(rows, seconds)
        # Without an interval the word is `ambiguous`, however large the factor.
        if fastest["speedup_low"] and fastest["comparison"] in (Relation.AMBIGUOUS, Relation.EQUIVALENT):
            baseline = [row["rank"] for row in rows if row["backend"] == BASELINE]
            assert baseline in ([], ["1"]), (fastest["case"], fastest["mode"])


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_committed_ranks_are_those_of_the_rule_in_use(run, study):
    ranks = study.ranks(run)
    rows = store.rows(run / store.RECORDS, earlier=True)
    committed = {
        (row["case"], row["mode"], row["device"], row["backend"]): int(row["rank"]) for row in rows if row["rank"]
    }
    assert committed == ranks

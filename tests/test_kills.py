"""Runs that are struck at a random instant lose nothing, as in ``studies/kills.py``."""

from __future__ import annotations

import secrets
import sys
from pathlib import Path

import pytest

#: Number of instants of each kind.
INSTANTS = {"SIGKILL": 4, "SIGTERM": 1, "SIGINT": 1, "SIGHUP": 1, "full disk": 1, "worker": 2}


@pytest.fixture(scope="module")
def kills():
    """The study, and the time of a run that nothing strikes."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "studies"))
    import kills

    return kills, kills.unbroken_seconds()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="that the kernel ends orphans is promised for Linux only")
@pytest.mark.parametrize(
    "number", [pytest.param(number, id=f"kills: {number}") for number in range(sum(INSTANTS.values()))]
)
def test_a_struck_run_loses_nothing(kills, number):
    study, within_seconds = kills
    kind = [kind for kind, count in INSTANTS.items() for _ in range(count)][number]
    if kind == "full disk" and not study.can_mount():
        pytest.skip("mounting a small disk takes root")
    seed = secrets.randbelow(10**6)
    assert study.one_row(number, kind, within_seconds, seed)["lost"] == "", f"seed {seed}"

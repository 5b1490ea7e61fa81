"""The gate against backends that are wrong, or cheat, on purpose: each ends exactly as it states, or the gate leaks."""

from __future__ import annotations

import csv
import importlib
import os
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import pytest
from command_line import ROOT, command

MUTANTS = Path(__file__).parent / "mutants"
THREADS = min(2, len(os.sched_getaffinity(0)))
#: What each run measures, and on how many CPUs. `late` takes all blocks, since what it has is caught in any of them.
RUNS = {
    "numpy": ("--case", "64x40x24x16", "--budget", "1", "--threads", "1"),
    "late": ("--case", "48x32x32x16", "--budget", "60", "--threads", "1"),
    "float64": ("--case", "64x40x24x16:float64", "--budget", "1", "--threads", str(THREADS)),
    "frameworks": ("--case", "64x40x24x16", "--budget", "1", "--threads", "1"),
}
MODES = ("forward", "forward_backward")


def registered() -> dict[str, str]:
    """Names and targets of all mutants, from their entry points."""
    parser = ConfigParser()
    parser.read(MUTANTS / "mutants-1.0.dist-info" / "entry_points.txt")
    return dict(parser["bilinear_bench.backends"])


def load() -> dict[str, Any]:
    """Import the classes of all mutants, by name."""
    sys.path.insert(0, str(MUTANTS))
    try:
        targets = {name: target.split(":") for name, target in registered().items()}
        return {name: getattr(importlib.import_module(module), label) for name, (module, label) in targets.items()}
    finally:
        sys.path.remove(str(MUTANTS))


CLASSES = load()
CAUGHT = {name: mutant.caught for name, mutant in CLASSES.items() if getattr(mutant, "ineffective", None) is None}
INEFFECTIVE = {name: mutant.ineffective for name, mutant in CLASSES.items() if name not in CAUGHT}


class Results:
    """The rows of all runs; each run is made when one of its rows is first asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows: dict[str, dict[tuple[str, str], dict[str, str]]] = {}

    def row(self, name: str, mode: str) -> dict[str, str]:
        """The row of a mutant."""
        run = CLASSES[name].run
        if run not in self.rows:
            self.rows[run] = self.make(run)
        return self.rows[run][name, mode]

    def make(self, run: str) -> dict[tuple[str, str], dict[str, str]]:
        """Run the command line on all mutants of a run, in both modes."""
        chosen = [option for name, mutant in CLASSES.items() if mutant.run == run for option in ("--backend", name)]
        ended = subprocess.run(
            command("run", *RUNS[run], "--time-limit", "60", "--out", run, *chosen),
            cwd=self.folder,
            env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{MUTANTS}"},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        path = self.folder / run / "records.csv"
        assert path.is_file(), ended.stdout + ended.stderr
        with path.open() as file:
            return {(row["backend"], row["mode"]): row for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return Results(tmp_path_factory.mktemp("mutants"))


def ending(row: dict[str, str]) -> tuple[str, str, str]:
    """Status, phase and, of a rejected row, the probe that its reason begins with."""
    return row["status"], row["phase"], row["reason"].partition(":")[0] if row["status"] == "rejected" else ""


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", CAUGHT)
def test_a_mutant_ends_with_the_status_phase_and_probe_that_it_states(results, name, mode):
    if name == "mutant-race" and THREADS == 1:
        pytest.skip("a race needs two CPUs")
    stated, row = CAUGHT[name], results.row(name, mode)
    if mode not in stated.modes:
        assert row["status"] == "timed", row["reason"]
        return
    assert ending(row) == (stated.status, stated.phase, stated.probe), row["reason"]
    assert stated.reason in row["reason"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", INEFFECTIVE)
def test_a_backend_whose_fault_is_none_is_timed_and_flagged_where_there_is_something_to_say(results, name, mode):
    stated, row = INEFFECTIVE[name], results.row(name, mode)
    assert row["status"] == "timed", row["reason"]
    assert stated.flag in row["flags"]


def test_there_are_at_least_forty_mutants_and_ten_are_wrong_in_a_gradient_alone():
    assert len(CAUGHT) >= 40
    assert sum(stated.modes == ("forward_backward",) for stated in CAUGHT.values()) >= 10


def test_every_class_that_states_something_is_registered_under_its_own_name_and_is_in_a_run():
    stating = {
        member.name
        for module in {mutant.__module__ for mutant in CLASSES.values()}
        for member in vars(sys.modules[module]).values()
        if isinstance(member, type) and member.__module__ == module and isinstance(getattr(member, "name", None), str)
    }
    assert stating == set(CLASSES) == set(CAUGHT) | set(INEFFECTIVE)
    assert {mutant.name: mutant.run for mutant in CLASSES.values()} == {name: CLASSES[name].run for name in CLASSES}
    assert {mutant.run for mutant in CLASSES.values()} == set(RUNS)

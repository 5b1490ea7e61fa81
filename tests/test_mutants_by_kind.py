"""Test the gate with mutants of eight kinds that were timed once: each is rejected, flagged, or gains nothing."""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import pytest
from command_line import mutant_rows

TESTS = Path(__file__).parent
MUTANTS = TESTS / "mutants"
#: Options of each run; a run without timing goes through the gate and takes few samples.
RUNS = {
    "gate": ("--case", "64x24x20x12", "--budget", "0.3", "--threads", "1"),
    "float64": ("--case", "64x12x10x6:float64", "--budget", "0.3", "--threads", "1"),
    "timed": ("--case", "64x40x24x16", "--budget", "3", "--threads", "1"),
    "tiny": ("--case", "8x6x5x3", "--budget", "1", "--threads", "1"),
}
MODES = ("forward", "forward_backward")


def load() -> dict[str, Any]:
    """Import all classes of the entry points, by name."""
    parser = ConfigParser()
    parser.read(MUTANTS / "mutants_by_kind-1.0.dist-info" / "entry_points.txt")
    sys.path.insert(0, str(MUTANTS))
    try:
        targets = {name: target.split(":") for name, target in parser["bilinear_bench.backends"].items()}
        return {name: getattr(importlib.import_module(module), label) for name, (module, label) in targets.items()}
    finally:
        sys.path.remove(str(MUTANTS))


CLASSES = load()
BY_KIND = importlib.import_module("mutants_by_kind")
HONEST = {name: backend for name, backend in CLASSES.items() if name not in BY_KIND.KINDS}
#: Mutants that the gate does not catch yet, by name, with the modes in which it does not.
PASSING: dict[str, tuple[str, ...]] = {"kind8-right-in-held-calls": ("forward", "forward_backward")}


def part_of(name: str) -> str:
    """Return the name of the run that a backend shares with others."""
    return f"{CLASSES[name].run}/{BY_KIND.KINDS[name]}" if name in BY_KIND.KINDS else "honest"


def parameters() -> list[Any]:
    """Return name and mode of each test; pytest-xdist sends those of a part to one process."""
    made = []
    for name in BY_KIND.KINDS:
        for mode in CLASSES[name].modes:
            marks = [pytest.mark.slow]
            if mode in PASSING.get(name, ()):
                marks.append(pytest.mark.xfail(strict=True, reason="the gate does not catch it yet"))
            made.append(pytest.param(name, mode, id=f"{part_of(name)}: {name}-{mode}", marks=marks))
    return made


@pytest.fixture(scope="module")
def row_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], dict[str, str]]:
    """Return the row of a backend in a mode; the first request of a part measures all its backends."""
    folder = tmp_path_factory.mktemp("mutants")
    measured = functools.cache(functools.partial(measure, folder=folder))

    return lambda name, mode: measured(part_of(name))[name, mode]


def measure(part: str, folder: Path) -> dict[tuple[str, str], dict[str, str]]:
    """Run the command line on the backends of a part, in both modes; return their rows by backend and mode."""
    options = RUNS[part.partition("/")[0] if part != "honest" else "gate"]
    names = [name for name in CLASSES if part_of(name) == part]
    return mutant_rows(options, names, folder / part.replace("/", "-"), timeout_seconds=900)


@pytest.mark.parametrize(("name", "mode"), parameters())
def test_mutant_is_rejected_or_flagged_or_gains_nothing_as_it_states(row_of, name, mode):
    row, mutant = row_of(name, mode), CLASSES[name]
    told = bool(mutant.flag) and mutant.flag in row["flags"]
    assert row["status"] == "rejected" or (row["status"] == "timed" and (told or mutant.harmless)), row["reason"]


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", [pytest.param(name, id=f"honest: {name}") for name in HONEST])
def test_honest_backend_of_an_unusual_technique_is_timed(row_of, name, mode):
    row = row_of(name, mode)
    assert row["status"] == "timed", row["reason"]


def test_each_kind_has_four_mutants_and_each_mutant_a_sentence():
    kinds = list(BY_KIND.KINDS.values())
    assert set(kinds) == set(BY_KIND.TITLES)
    assert min(map(kinds.count, BY_KIND.TITLES)) >= 4
    assert all(CLASSES[name].__doc__.splitlines()[0].endswith(".") for name in BY_KIND.KINDS)


def test_every_mutant_and_unusual_backend_is_registered():
    assert set(BY_KIND.KINDS) | set(HONEST) == set(CLASSES)
    assert len(HONEST) >= 8

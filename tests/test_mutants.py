"""The gate with backends that are wrong, or cheat, on purpose: each ends exactly as it states."""

from __future__ import annotations

import functools
import importlib
import os
import sys
from collections.abc import Callable, Iterable
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import pytest
from command_line import mutant_rows

TESTS = Path(__file__).parent
MUTANTS = TESTS / "mutants"
CPUS = min(2, len(os.sched_getaffinity(0)))
#: Options of each run. The run `late` takes all blocks, since its mutants are caught in any of them.
RUNS = {
    "numpy": ("--case", "64x40x24x16", "--budget", "1", "--threads", "1"),
    "late": ("--case", "48x32x32x16", "--budget", "60", "--threads", "1"),
    "float64": ("--case", "16x12x10x6:float64", "--budget", "1", "--threads", str(CPUS)),
    "frameworks": ("--case", "64x40x24x16", "--budget", "1", "--threads", "1"),
}
#: Number of parts of the longest run; the first, which `make test` measures, has every so many-th mutant.
NUMPY_PARTS, EVERY = 6, 16
#: Parts for `make slow`: float64, mutants that import frameworks or fail late, and all but one part of the others.
SLOW_PARTS = ("late", "float64", "frameworks", *(f"numpy/{part}" for part in range(1, NUMPY_PARTS)))
MODES = ("forward", "forward_backward")


def registered() -> dict[str, str]:
    """Return names and targets of all mutants, from their entry points."""
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


def parts() -> dict[str, list[str]]:
    """Return the names of the mutants that are measured together, by part."""
    names = {run: [name for name, mutant in CLASSES.items() if mutant.run == run] for run in RUNS}
    whole = names.pop("numpy")
    first = whole[::EVERY]
    others = [name for name in whole if name not in first]
    most = NUMPY_PARTS - 1
    return {"numpy/0": first} | {f"numpy/{part + 1}": others[part::most] for part in range(most)} | names


PARTS = parts()
PART_OF = {name: part for part, members in PARTS.items() for name in members}


def each(names: Iterable[str]) -> list[Any]:
    """Return parameters for tests; pytest-xdist sends those of a part to one process, which measures them once."""
    return [
        pytest.param(
            name, id=f"{PART_OF[name]}: {name}", marks=[pytest.mark.slow] if PART_OF[name] in SLOW_PARTS else []
        )
        for name in names
    ]


@pytest.fixture(scope="module")
def row_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], dict[str, str]]:
    """Return the row of a mutant in a mode; the first request of a part measures all its mutants."""
    folder = tmp_path_factory.mktemp("mutants")
    measured = functools.cache(functools.partial(measure, folder=folder))

    return lambda name, mode: measured(PART_OF[name])[name, mode]


def measure(part: str, folder: Path) -> dict[tuple[str, str], dict[str, str]]:
    """Run the command line on the mutants of a part, in both modes; return their rows by backend and mode."""
    options = RUNS[part.partition("/")[0]]
    return mutant_rows(options, PARTS[part], folder / part.replace("/", "-"), timeout_seconds=600)


def ending(row: dict[str, str]) -> tuple[str, str, str]:
    """Return status, phase and, of a rejected row, the probe that its reason begins with."""
    return row["status"], row["phase"], row["reason"].partition(":")[0] if row["status"] == "rejected" else ""


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", each(CAUGHT))
def test_mutant_ends_with_the_status_phase_and_probe_that_it_states(row_of, name, mode):
    if name == "mutant-race" and CPUS == 1:
        pytest.skip("a race needs two CPUs")
    stated, row = CAUGHT[name], row_of(name, mode)
    if mode not in stated.modes:
        assert row["status"] == stated.otherwise, row["reason"]
        return
    status, phase, probe = ending(row)
    assert (status, probe) == (stated.status, stated.probe), row["reason"]
    assert phase in stated.phase.split(), row["reason"]
    assert stated.reason in row["reason"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", each(INEFFECTIVE))
def test_mutant_without_effect_is_timed_and_flagged_as_it_states(row_of, name, mode):
    stated, row = INEFFECTIVE[name], row_of(name, mode)
    assert row["status"] == "timed", row["reason"]
    assert stated.flag in row["flags"]


def test_forty_mutants_are_caught_and_ten_are_wrong_in_a_gradient_alone():
    assert len(CAUGHT) >= 40
    assert sum(stated.modes == ("forward_backward",) for stated in CAUGHT.values()) >= 10


def test_every_mutant_is_registered_under_its_name_and_is_in_a_run():
    stating = {
        member.name
        for module in {mutant.__module__ for mutant in CLASSES.values()}
        for member in vars(sys.modules[module]).values()
        if isinstance(member, type) and member.__module__ == module and "name" in vars(member)
    }
    assert stating == set(CLASSES) == set(CAUGHT) | set(INEFFECTIVE)
    assert {mutant.name: mutant.run for mutant in CLASSES.values()} == {name: CLASSES[name].run for name in CLASSES}
    assert {mutant.run for mutant in CLASSES.values()} == set(RUNS)

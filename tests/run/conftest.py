"""Run a plan with fake workers and a fake clock: no process starts, and no time passes."""

from __future__ import annotations

import dataclasses
import itertools
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from fakes import CASE, GIB, QUIET, FakePool, Faults

from harness.case import Case
from harness.catalog.registry import Entry
from harness.machine.activity import State
from harness.record import Record, Sample
from harness.run import sample
from harness.run.context import RunContext
from harness.run.plan import BASELINE, Plan
from harness.run.session import Runner
from harness.timing import roofline


@dataclasses.dataclass(frozen=True)
class Measured:
    """The records of a run in order, its samples, its workers, and its runner."""

    records: list[Record]
    samples: list[Sample]
    workers: FakePool
    runner: Runner

    def row(self, backend: str, case: Case = CASE) -> Record:
        """Return the record of a cell."""
        (row,) = [row for row in self.records if (row.case, row.mode, row.backend) == (case.name, case.mode, backend)]
        return row

    def of(self, backend: str, *kinds: str) -> list[Sample]:
        """Return the samples of a backend: of these kinds, or of all."""
        return [s for s in self.samples if s.backend == backend and (not kinds or s.kind in kinds)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """The machine of a run: its memory, its rooflines, its activity and its spot peak."""

    free_bytes: int = 64 * GIB
    device_bytes: int | None = None
    peaks: Iterable[roofline.Peaks] = ()
    states: Iterable[State] = dataclasses.field(default_factory=lambda: itertools.repeat(QUIET))
    spot_peak: Callable[[str, float], float | None] = lambda dtype, seconds: None


@pytest.fixture(autouse=True)
def no_long_samples(monkeypatch, request):
    """Have all samples of a backend be of one length, except where a test is about the long ones."""
    if "long" not in request.node.name:
        monkeypatch.setattr(sample, "LONG_SECONDS", 0.0)


@pytest.fixture
def measure(tmp_path):
    """Return a function that runs a plan: cases, faults by worker, fields of ``Setting`` and of ``Plan``."""

    def run(*cases: Case, faults: dict[str, Faults] | None = None, backends: Any = None, **fields: Any) -> Measured:
        faults = faults or {}
        setting = Setting(**{name: fields.pop(name) for name in list(fields) if name in Setting.__dataclass_fields__})
        further = [name for name in faults if name.isalpha() and name not in ("other", "reference")]
        device = fields.pop("device", "cpu")
        plan = Plan(
            run_id="run",
            suite="suite",
            cases=cases or (CASE,),
            backends={name: Entry(name, "m:C", (), "test 1") for name in backends or [BASELINE, "other", *further]},
            devices=(device,),
            threads=1,
            **{"budget_seconds": 1000.0, "processes": 1} | fields,
        )
        workers, samples = FakePool(Path(tempfile.mkdtemp(dir=tmp_path)), faults), []
        states, peaks = iter(setting.states), iter(setting.peaks)
        context = RunContext(
            plan,
            workers,
            keep_sample=samples.append,
            now=lambda: workers.clock.now,
            look=lambda: next(states),
            spot_peak=setting.spot_peak,
        )
        first = next(peaks, None)
        known = {} if first is None else {device: first}
        runner = Runner(
            context, lambda: setting.free_bytes, known, lambda _: next(peaks), lambda _: setting.device_bytes
        )
        records = list(runner.run())
        planned = [cell for case, device in plan.groups() for cell in plan.cells(case, device)]
        assert [record.cell for record in records] == planned, "one row for every planned cell, whatever happens"
        return Measured(records, samples, workers, runner)

    return run


@pytest.fixture
def measure_on_gpu(measure):
    """Return ``measure`` for backends whose arrays are on a GPU."""

    def run(*cases: Case, faults: dict[str, Faults] | None = None, **fields: Any) -> Measured:
        faults = faults or {}
        names = [BASELINE, "other", "edge cases of torch-bilinear", "edge cases of other"]
        on_gpu = {name: dataclasses.replace(faults.get(name, Faults()), device="cuda") for name in names}
        return measure(*cases, faults=faults | on_gpu, device="cuda", **fields)

    return run

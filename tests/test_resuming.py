"""A run is resumed by one process at a time, where it began."""

from __future__ import annotations

import csv
import os
import shutil
from pathlib import Path

from harness.machine.environment import describe
from harness.output import store
from harness.process import machine_lock
from harness.run.options import PlanOptions, RunOptions
from harness.run.plan import make_plan
from harness.run.stored_plan import stored


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / store.RECORDS).open() as file:
        return list(csv.DictReader(file))


def interrupted_run(tmp_path: Path, **changes: object) -> Path:
    """Leave a run of one case without a row, in an environment that differs from this one by some values."""
    options = PlanOptions(cases=["3x2x2x2"], modes=["forward"], backends=["numpy-loop"], threads=1, seed=0)
    plan, how = make_plan("one", options), RunOptions(roofline=False)
    store.Store.create(
        tmp_path / "run", {"run_id": "one", **describe(), "plan": stored(plan, how), **changes}
    ).__exit__()
    return tmp_path / "run"


def test_a_run_is_not_resumed_on_another_machine_unless_that_is_allowed(bilinear_bench, tmp_path):
    folder = interrupted_run(tmp_path, cpu_model="Another CPU 9000", peaks={"cpu": "its peaks"})
    refused = bilinear_bench("run", "--resume", "run")
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "cpu_model was Another CPU 9000, is " in refused.stderr
    assert refused.stderr.endswith("go on here with --allow-different\n")
    assert not rows(folder)
    ended = bilinear_bench("run", "--resume", "run", "--allow-different")
    assert ended.returncode == 0, ended.stderr
    assert "cpu_model was Another CPU 9000" in " ".join(ended.stdout.split())
    kept = store.environment(folder)
    assert kept["cpu_model"] == describe()["cpu_model"]
    assert kept["earlier_environments"][0]["peaks"] == {"cpu": "its peaks"}


def test_a_run_that_another_process_writes_to_is_not_resumed(bilinear_bench, tmp_path):
    folder = interrupted_run(tmp_path)
    with machine_lock.one_process(folder):
        ended = bilinear_bench("run", "--resume", "run", "--no-lock")
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)
    assert f"process {os.getpid()} of " in ended.stderr
    assert not rows(folder)


def test_a_run_with_more_threads_than_are_here_names_both_counts(bilinear_bench, tmp_path):
    plan = store.environment(interrupted_run(tmp_path))["plan"]
    shutil.rmtree(tmp_path / "run")
    interrupted_run(tmp_path, plan=plan | {"threads": 4096})
    ended = bilinear_bench("run", "--resume", "run")
    assert ended.returncode == 2
    assert "threads of a worker were 4096, are at most " in ended.stderr

"""Kept findings of edge cases count until something changes that they depend on, and a row says that they were kept."""

from __future__ import annotations

import dataclasses
import os
import time

import pytest
from fakes import CASE, STEP, FakePool

from harness.case import Case
from harness.catalog.registry import Entry
from harness.correctness.verdict import passed, refused
from harness.process.protocol import LoadedFiles, RunEdgeCase
from harness.run import kept_findings
from harness.run.context import RunContext
from harness.run.edge_case_questions import EdgeCaseFindings
from harness.run.kept_findings import KeptFindings
from harness.run.plan import Plan
from harness.run.session import Runner

ENTRY = Entry("mine", "mine:Mine", ("numpy>=1",), "mine 1")
KIND = Case(1, 1, 1, 1, seed=5)
FOUND = EdgeCaseFindings(
    {
        "primes": dataclasses.replace(passed("edge_cases"), promise="primes"),
        "subnormal": passed("edge_cases", "flushes_subnormals"),
    },
    wide_range=True,
)


@pytest.fixture(autouse=True)
def outside_of_ci(monkeypatch):
    monkeypatch.delenv("CI", raising=False)


@pytest.fixture
def source(tmp_path):
    """Return a file of the backend that has not changed for an hour."""
    path = tmp_path / "mine.py"
    path.write_text("one")
    os.utime(path, (time.time() - 3600,) * 2)
    return path


@pytest.fixture
def kept(tmp_path, source):
    """Return the folder of findings, with those of one backend."""
    folder = tmp_path / "edge_cases"
    KeptFindings(folder, 2).keep(ENTRY, "cpu", KIND, FOUND, [str(source)], time.time())
    assert KeptFindings(folder, 2).find(ENTRY, "cpu", KIND) is not None
    return folder


def test_right_findings_are_found_again_for_any_seed(kept):
    found = KeptFindings(kept, 2).find(ENTRY, "cpu", dataclasses.replace(KIND, seed=6))
    assert found == dataclasses.replace(FOUND, kept=True)


def test_findings_are_forgotten_when_a_file_changes_or_goes(kept, source):
    state = source.stat()
    source.write_text("two")
    os.utime(source, ns=(state.st_atime_ns, state.st_mtime_ns))  # of the same size and age
    assert KeptFindings(kept, 2).find(ENTRY, "cpu", KIND) is None
    source.write_text("one")
    assert KeptFindings(kept, 2).find(ENTRY, "cpu", KIND) is not None
    source.unlink()
    assert KeptFindings(kept, 2).find(ENTRY, "cpu", KIND) is None


def test_installed_files_count_by_size_and_age(tmp_path):
    path = tmp_path / "site-packages" / "framework.py"
    path.parent.mkdir()
    path.write_text("one")
    os.utime(path, (1, 1))
    keeper = KeptFindings(tmp_path / "edge_cases", 2)
    keeper.keep(ENTRY, "cpu", KIND, FOUND, [str(path)], time.time())
    assert keeper.find(ENTRY, "cpu", KIND) is not None
    os.utime(path, (2, 2))
    assert keeper.find(ENTRY, "cpu", KIND) is None


def test_another_setting_has_findings_of_its_own(kept, monkeypatch):
    keeper = KeptFindings(kept, 2)
    for entry, device, kind in (
        (dataclasses.replace(ENTRY, target="mine:Other"), "cpu", KIND),
        (dataclasses.replace(ENTRY, distribution="mine 2"), "cpu", KIND),
        (ENTRY, "cuda", KIND),
        (ENTRY, "cpu", dataclasses.replace(KIND, dtype="float64")),
        (ENTRY, "cpu", KIND.with_mode("forward_backward")),
    ):
        assert keeper.find(entry, device, kind) is None
    assert KeptFindings(kept, 1).find(ENTRY, "cpu", KIND) is None
    for name, value in (("version", lambda name: "9"), ("_source_hash", lambda: "another gate")):
        with monkeypatch.context() as changed:
            changed.setattr(kept_findings, name, value)
            assert keeper.find(ENTRY, "cpu", KIND) is None
    monkeypatch.setenv("NUMBA_ENABLE_AVX", "0")
    assert keeper.find(ENTRY, "cpu", KIND) is None


def test_ci_and_recheck_find_none(kept, monkeypatch):
    assert KeptFindings(kept, 2, recheck=True).find(ENTRY, "cpu", KIND) is None
    monkeypatch.setenv("CI", "true")
    assert KeptFindings(kept, 2).find(ENTRY, "cpu", KIND) is None
    assert KeptFindings(None, 2).find(ENTRY, "cpu", KIND) is None


def test_file_that_was_cut_off_is_no_finding(kept):
    (file,) = kept.iterdir()
    for text in ("", file.read_text()[:-9], "[]", '{"files": {}}'):
        file.write_text(text)
        assert KeptFindings(kept, 2).find(ENTRY, "cpu", KIND) is None


def test_refused_findings_and_just_changed_files_are_not_kept(tmp_path, source):
    keeper = KeptFindings(tmp_path / "edge_cases", 2)
    wrong = dataclasses.replace(FOUND, verdicts={"primes": refused("edge_cases", "wrong")})
    keeper.keep(ENTRY, "cpu", KIND, wrong, [str(source)], time.time())
    os.utime(source)
    keeper.keep(ENTRY, "cpu", KIND, FOUND, [str(source)], time.time())
    keeper.keep(ENTRY, "cpu", KIND, FOUND, [str(source), str(tmp_path / "gone.py")], time.time())
    assert keeper.find(ENTRY, "cpu", KIND) is None


def test_second_run_asks_no_edge_case_and_its_row_says_kept(tmp_path):
    def rows():
        workers = FakePool(tmp_path / str(time.time_ns()))
        workers.findings = tmp_path / "edge_cases"
        plan = Plan(
            run_id="run",
            suite="suite",
            cases=(CASE, STEP),
            backends={"other": Entry("other", "m:C", (), "test 1")},
            devices=("cpu",),
            threads=1,
            timing=False,
        )
        found = list(Runner(RunContext(plan, workers, now=lambda: workers.clock.now)).run())
        return found, workers.asked("edge cases of other")

    (first, asked), (second, asked_again) = rows(), rows()
    assert RunEdgeCase in asked
    assert asked_again == []
    for before, after in zip(first, second, strict=True):
        assert before.probes.startswith("edge_cases=ok;")
        assert after.probes == before.probes.replace("edge_cases=ok", "edge_cases=kept")
        assert (before.status, before.flags) == (after.status, after.flags)


def test_worker_names_the_files_of_its_backend_and_not_the_harness():
    from harness.worker.source import loaded_files

    files = LoadedFiles(loaded_files()).paths
    assert __file__ in files
    assert any("numpy" in file and file.endswith(".py") for file in files)
    assert not [file for file in files if file.endswith(("harness/case.py", "dataclasses.py"))]

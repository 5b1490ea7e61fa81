"""A run: its groups in order without the finished ones, and what its workers report of themselves."""

from __future__ import annotations

from fakes import CASE, LARGER, OVERHEAD_SECONDS, TICK_SECONDS, FakePool, Faults

from harness.catalog.registry import Entry
from harness.process.protocol import Load, Loaded
from harness.run.context import RunContext
from harness.run.plan import BASELINE, Plan
from harness.run.session import Runner
from harness.run.summary import interrupted


def plan(*cases, names=(BASELINE, "other")):
    return Plan(
        run_id="run",
        suite="suite",
        cases=cases,
        backends={name: Entry(name, "m:C", (), "test 1") for name in names},
        devices=("cpu",),
        threads=1,
        timing=False,
    )


class Groups:
    """A progress callback that notes the groups."""

    def __init__(self):
        self.seen = []
        self.ended = []

    def group(self, number, total, case, device):
        self.seen.append((number, total, case.name, device))

    def stage(self, text):
        assert text

    def finished(self, number, total, records, once_seconds):
        assert once_seconds >= 0
        self.ended.append((number, total, [record.backend for record in records]))


def test_finished_groups_are_left_out_and_the_others_keep_their_number(tmp_path):
    progress = Groups()
    workers = FakePool(tmp_path)
    runner = Runner(RunContext(plan(CASE, LARGER), workers, progress, now=lambda: workers.clock.now))
    rows = list(runner.run(frozenset({(CASE.name, CASE.mode, "cpu")})))
    assert progress.seen == [(2, 2, LARGER.name, "cpu")]
    assert progress.ended == [(2, 2, [BASELINE, "other"])]
    assert {row.case for row in rows} == {LARGER.name}


def test_check_starts_no_baseline_that_was_not_asked_for(tmp_path):
    workers = FakePool(tmp_path)
    rows = list(Runner(RunContext(plan(CASE, names=("other",)), workers, now=lambda: workers.clock.now)).run())
    assert [(row.backend, row.status) for row in rows] == [("other", "checked")]
    assert set(workers.discarded) == {"edge cases of other"}
    assert {name for name, _ in workers.log} == {"other", "edge cases of other", "reference"}


def test_each_worker_is_reported_as_it_describes_itself(measure):
    gone = Faults(instead={Load: Loaded(available=False, reason="no such package")})
    reports = measure(faults={"third": gone}).runner.worker_reports
    assert set(reports) == {f"{BASELINE} on cpu", "other on cpu"}
    report = reports["other on cpu"]
    assert (report["version"], report["tick_seconds"], report["overhead_seconds"]) == (
        "fake 1",
        TICK_SECONDS,
        OVERHEAD_SECONDS,
    )
    assert report["threads"]["affinity"] == [0]
    assert report["busy"] == {"threads": 1, "runnable": 1.0}


def test_time_of_the_edge_cases_is_reported_by_backend(measure):
    assert set(measure().runner.edge_case_seconds) == {f"{BASELINE} on cpu", "other on cpu"}


def test_workers_with_empty_caches_end_with_their_group(tmp_path):
    workers = FakePool(tmp_path)
    workers.empty_caches = True
    rows = list(Runner(RunContext(plan(CASE, LARGER), workers, now=lambda: workers.clock.now)).run())
    assert {row.compile_cache for row in rows} == {"empty"}
    assert workers.asked("other").count(Load) == 2


def test_interrupted_rows_fill_what_is_missing_and_no_more():
    done = frozenset({(CASE.name, "forward", BASELINE, "cpu")})
    rows = list(interrupted(plan(CASE), done))
    assert [(row.backend, row.status) for row in rows] == [("other", "interrupted")]

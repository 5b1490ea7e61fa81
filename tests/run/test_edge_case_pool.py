"""Edge-case workers run at the same time, one for each CPU, and all end when the run does."""

from __future__ import annotations

import signal
import threading
import time
from types import SimpleNamespace

import pytest
from fakes import FakePool

from harness.case import Case
from harness.catalog.registry import Entry
from harness.process.handle import WorkerError
from harness.process.protocol import Loaded
from harness.record import Status
from harness.run.cell import Cell
from harness.run.edge_case_pool import EdgeCaseFindings, EdgeCasePool, EdgeCaseQuestions

CASE = Case(4, 3, 2, 5)
NAMES = ("one", "two", "three")


class Pool(FakePool):
    """A pool whose edge-case workers call ``load``; it notes which thread started each."""

    def __init__(self, folder, load):
        super().__init__(folder)
        self.load, self.started = load, []

    def edge_case_worker(self, name, device):
        self.started.append((name, threading.current_thread().name))

        def request(request, limit):
            self.load(request.name)
            return Loaded(available=True)

        return SimpleNamespace(request=request, alive=True)


@pytest.fixture
def ask(monkeypatch, tmp_path):
    """Return a function that asks three backends under a thread budget; it returns their cells and the pool."""
    monkeypatch.setattr(EdgeCaseQuestions, "findings", lambda self: EdgeCaseFindings({}, True))

    def run(load, threads=2, pool=Pool):
        plan = SimpleNamespace(
            threads=threads,
            cases=(CASE, CASE.with_mode("forward_backward")),
            time_limit_seconds=1.0,
            backends={name: Entry(name, f"module:{name}", (), "test 1") for name in NAMES},
            recheck=False,
        )
        workers = pool(tmp_path, load)
        context = SimpleNamespace(plan=plan, workers=workers, now=lambda: 0.0)
        cells = [Cell(name) for name in NAMES]
        EdgeCasePool(context, SimpleNamespace(start=lambda: None)).judge(cells, CASE, "cpu")
        return cells, workers

    return run


def test_one_worker_runs_for_each_cpu_and_ends_where_it_was_started(ask):
    met = threading.Barrier(3, timeout=10)
    cells, workers = ask(lambda name: met.wait(), threads=3)
    assert [cell.going for cell in cells] == [True] * 3
    assert "MainThread" not in {thread for _, thread in workers.started}
    assert sorted(workers.discarded) == [f"edge cases of {name}" for name in sorted(NAMES)]


def test_with_one_cpu_one_worker_runs_at_a_time(ask):
    at_work = []

    def load(name):
        assert not at_work
        at_work.append(name)
        at_work.remove(name)

    assert [cell.going for cell in ask(load, threads=1)[0]] == [True] * 3


def test_worker_that_dies_ends_its_own_cell(ask):
    def load(name):
        if name == "two":
            raise WorkerError(Status.FAILED, "injected")

    cells, _ = ask(load)
    assert [cell.going for cell in cells] == [True, False, True]
    assert cells[1].reason == "in the edge cases: injected"


def test_ctrl_c_ends_every_edge_case_worker_and_starts_no_other(ask):
    met, ended = threading.Barrier(2, timeout=10), threading.Event()
    pools = []

    class Ending(Pool):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            pools.append(self)

        def discard_edge_case_worker(self, name, device):
            ended.set()  # a request to a worker that is killed ends
            super().discard_edge_case_worker(name, device)

    def load(name):
        if met.wait() == 0:
            time.sleep(0.2)  # the main thread must wait already: it would see an earlier signal only after its wait
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        ended.wait(10)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job of a shell ignores SIGINT
    try:
        with pytest.raises(KeyboardInterrupt):
            ask(load, pool=Ending)
    finally:
        signal.signal(signal.SIGINT, before)
    (pool,) = pools
    assert {f"edge cases of {name}" for name in NAMES} <= set(pool.discarded)
    assert sorted(name for name, _ in pool.started) == ["one", "two"], "each for its first kind only"

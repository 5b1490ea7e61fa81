"""EdgeCasePool work side by side, and all end when the run does."""

from __future__ import annotations

import signal
import threading
import time
from types import SimpleNamespace

import pytest

from harness.case import Case
from harness.process.handle import WorkerError
from harness.record import Status
from harness.run import edge_case_pool
from harness.run.cell import Cell
from harness.run.checker import EdgeCaseFindings
from harness.run.edge_case_pool import EdgeCasePool

CASE = Case(4, 3, 2, 5)
NAMES = ("one", "two", "three")


class WorkerPool:
    """Starts edge_case_pool that answer as ``load`` does, and notes who started and ended which."""

    def __init__(self, load=lambda name: None):
        self.load, self.started, self.discarded = load, [], []

    def edge_case_worker(self, name, device):
        self.started.append((name, threading.current_thread().name))
        return SimpleNamespace(request=lambda do, limit, **fields: self.load(name))

    def discard_edge_case_worker(self, name, device):
        self.discarded.append(name)


@pytest.fixture
def ask(monkeypatch):
    """Have three backends examined with so many threads; return their cells."""
    monkeypatch.setattr(edge_case_pool, "ask_edge_cases", lambda *_: EdgeCaseFindings({}, True))

    def run(workers, threads=2):
        plan = SimpleNamespace(
            threads=threads,
            cases=(CASE, CASE.with_mode("forward_backward")),
            time_limit_seconds=1.0,
            backends={name: SimpleNamespace(target=f"module:{name}") for name in NAMES},
        )
        context = SimpleNamespace(plan=plan, workers=workers, now=lambda: 0.0)
        cells = [Cell(name) for name in NAMES]
        EdgeCasePool(context, SimpleNamespace(start=lambda: None)).answer(cells, CASE, "cpu")
        return cells

    return run


def test_there_is_one_at_work_for_each_cpu_and_each_ends_where_it_was_started(ask):
    met = threading.Barrier(3, timeout=10)
    workers = WorkerPool(lambda name: met.wait())
    assert [cell.going for cell in ask(workers, threads=3)] == [True] * 3
    assert "MainThread" not in {thread for _, thread in workers.started}
    assert sorted(workers.discarded) == sorted(NAMES)


def test_with_one_cpu_there_is_one_at_a_time(ask):
    at_work = []

    def load(name):
        assert not at_work
        at_work.append(name)
        at_work.remove(name)

    assert [cell.going for cell in ask(WorkerPool(load), threads=1)] == [True] * 3


def test_one_that_dies_ends_its_own_cell(ask):
    def load(name):
        if name == "two":
            raise WorkerError(Status.FAILED, "planted")

    cells = ask(WorkerPool(load))
    assert [cell.going for cell in cells] == [True, False, True]
    assert cells[1].reason == "in the structure probe: planted"


def test_ctrl_c_ends_every_examiner_and_none_is_started_after_it(ask):
    met, ended = threading.Barrier(2, timeout=10), threading.Event()

    def load(name):
        if met.wait() == 0:
            time.sleep(0.2)  # until the main thread waits: a signal just before that is seen only after it
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        ended.wait(10)

    workers = WorkerPool(load)
    real = workers.discard_edge_case_worker

    def discard(name, device):
        ended.set()  # a request to a worker that is killed ends
        real(name, device)

    workers.discard_edge_case_worker = discard
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    try:
        with pytest.raises(KeyboardInterrupt):
            ask(workers)
    finally:
        signal.signal(signal.SIGINT, before)
    assert set(NAMES) <= set(workers.discarded)
    assert sorted(name for name, _ in workers.started) == ["one", "two"], "each for its first kind only"

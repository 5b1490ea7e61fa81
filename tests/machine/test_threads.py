"""The thread budget: which CPUs a worker gets, and whether its pools keep to it."""

from __future__ import annotations

import os

import pytest

from harness.machine import threads


@pytest.fixture
def four_cpus(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {9, 3, 5, 7}, raising=False)
    monkeypatch.setattr(threads.cgroup, "cpus", lambda: None)


def report(affinity=(0, 1), pools=(), **more):
    return threads.ThreadReport(affinity=affinity, pools=tuple(pools), **more)


def pool(api, count):
    return threads.Pool("blas", api, None, None, count)


@pytest.mark.usefixtures("four_cpus")
@pytest.mark.parametrize("asked", [0, -1, 5])
def test_budget_outside_the_available_threads_is_refused(asked):
    with pytest.raises(threads.BudgetError, match=f"--threads is {asked}, expected 1 to 4 "):
        threads.budget(asked)


@pytest.mark.usefixtures("four_cpus")
def test_budget_is_the_requested_number_or_all_threads():
    assert [threads.budget(asked) for asked in (1, 4, None)] == [1, 4, 4]


@pytest.mark.usefixtures("four_cpus")
@pytest.mark.parametrize(("quota", "available"), [(None, 4), (8.0, 4), (2.9, 2), (0.5, 1)])
def test_cgroup_cuts_what_affinity_allows_and_leaves_one(monkeypatch, quota, available):
    monkeypatch.setattr(threads.cgroup, "cpus", lambda: quota)
    assert threads.available_threads() == available


@pytest.mark.usefixtures("four_cpus")
def test_worker_gets_as_many_cpus_as_threads():
    assert threads.cpus(2) == [3, 5]
    assert set(threads.pool_environment(2).values()) == {"2"}
    assert {"OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"} <= set(threads.pool_environment(2))


def test_worker_without_affinity_is_not_bound_and_is_flagged(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert threads.cpus(2) is None
    threads.bind(None)
    assert threads.read_back().affinity is None
    assert threads.fault(threads.read_back(), 2) == "threads_unverified"


def test_pools_that_keep_to_the_budget_are_no_fault():
    pools = [pool("openblas", 2), pool("openmp", 2), pool("unknown", None)]
    assert threads.fault(report(pools=pools, torch_threads=2, numba_threads=2), 2) is None


@pytest.mark.parametrize(
    ("reported", "fault"),
    [
        (report(affinity=(0, 1, 2)), "threads_differ(affinity=3)"),
        (report(torch_threads=1), "threads_differ(torch=1)"),
        (report(numba_threads=8), "threads_differ(numba=8)"),
        (report(pools=[pool("openblas", 64)]), "threads_differ(openblas=64)"),
        # NumPy and SciPy each bring an OpenBLAS of their own.
        (report(pools=[pool("openblas", 64), pool("openblas", 2)]), "threads_differ(openblas=64)"),
        (report(affinity=(0,), pools=[pool("openmp", 1)]), "threads_differ(affinity=1,openmp=1)"),
    ],
)
def test_pool_that_differs_is_named_with_its_count(reported, fault):
    assert threads.fault(reported, 2) == fault


def test_report_of_this_process_agrees_with_the_system():
    read_back = threads.read_back()
    assert read_back.affinity == tuple(sorted(os.sched_getaffinity(0)))
    assert all(one.internal_api for one in read_back.pools)

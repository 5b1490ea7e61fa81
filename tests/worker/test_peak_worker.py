"""The peak_worker: its loops do the work that is counted, and what is not there is an answer."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest

from harness.machine import threads
from harness.process.handle import WorkerError
from harness.process.supervisor import Supervisor
from harness.worker import peak_worker


@pytest.fixture
def loops():
    pytest.importorskip("numba", reason="the loops are compiled by Numba")
    return peak_worker.kernels()


@pytest.fixture
def quick(monkeypatch):
    """A peak_worker whose measurements are short and mean nothing."""
    for name in ("CHAIN_SECONDS", "READ_SECONDS"):
        monkeypatch.setattr(peak_worker, name, 1e-4)
    monkeypatch.setattr(peak_worker, "PRODUCT_SIZES", {"float32": 24, "float64": 24})
    return peak_worker.PeakWorker()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("count", [0, 1, 7])
def test_the_chain_runs_the_recurrence_in_each_lane_as_often_as_asked(loops, dtype, count):
    kind = np.dtype(dtype).type
    # Multiples of 1/4, each another one: exact in both dtypes for a few steps, so that NumPy rounds nothing either.
    state = (np.arange(loops.vector.chains * loops.vector.size_bytes // kind().itemsize) / 4).astype(dtype)
    expected = state.copy()
    for _ in range(count):
        expected = expected * kind(0.75) + kind(0.25)
    loops.chain(state, kind(0.75), kind(0.25), count)
    np.testing.assert_array_equal(state, expected)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_chains_multiplicand_leads_neither_to_infinity_nor_to_subnormals(loops, dtype):
    kind = np.dtype(dtype).type
    state = np.linspace(1, 3, loops.vector.chains * loops.vector.size_bytes // kind().itemsize, dtype=dtype)
    loops.chain(state, kind(peak_worker.FACTOR), kind(peak_worker.ADDEND), 100_000)
    np.testing.assert_array_equal(state, 2)


@pytest.mark.parametrize("blocks", [1, 5])
@pytest.mark.parametrize("passes", [1, 3])
def test_the_reading_loop_reads_every_element_in_every_pass(loops, blocks, passes):
    buffer = peak_worker.aligned(blocks * peak_worker.SUMS * loops.vector.size_bytes)
    assert buffer.ctypes.data % peak_worker.LINE_BYTES == 0
    buffer[:] = np.random.default_rng(blocks).integers(-(2**40), 2**40, len(buffer))
    expected = passes * sum(int(element) for element in buffer)
    assert loops.total(buffer, passes) == expected
    assert peak_worker._numpy_total(buffer, passes) == expected % 2**64


def test_a_team_has_one_thread_on_each_cpu_and_leaves_the_others_alone():
    if threads.affinity() is None:
        pytest.skip("this system has no affinity")
    before = os.sched_getaffinity(0)
    with peak_worker.Team() as team:
        seats = team.together(lambda _: os.sched_getaffinity(0), [None] * team.size)
    assert sorted(min(seat) for seat in seats) == sorted(before)
    assert all(len(seat) == 1 for seat in seats)
    assert os.sched_getaffinity(0) == before


def test_a_rate_is_work_over_time_of_all_threads_together_and_the_best_repetition(monkeypatch):
    seconds_per_round = iter([1.0] * 3 + [1.0, 0.25, 0.5])
    monkeypatch.setattr(threads, "affinity", lambda: [min(os.sched_getaffinity(0))])
    monkeypatch.setattr(peak_worker, "_seconds", lambda run, count: count * next(seconds_per_round))
    with peak_worker.Team() as team:
        assert team.best_rate([lambda count: None], 12.0, 5.0, 3, first=1) == 12.0 / 0.25


def test_a_pace_is_that_of_the_moment_and_not_the_best_one(loops, monkeypatch):
    # Three to find out how many rounds take as long as wanted; then for each spot_peak one that wakes up, and its own.
    seconds_per_round = iter([1e-6] * 3 + [1e-5, 2e-6] + [1e-6, 1e-6])
    counts = []
    monkeypatch.setattr(threads, "affinity", lambda: [min(os.sched_getaffinity(0))])
    monkeypatch.setattr(
        peak_worker, "_seconds", lambda run, count: counts.append(count) or count * next(seconds_per_round)
    )
    asked = peak_worker.PeakWorker()
    slow, fast = (asked.spot_peak("float32", seconds) for seconds in (0.004, 0.008))
    assert fast["flop_per_second"] == pytest.approx(2 * slow["flop_per_second"])
    assert fast["source"].startswith("FMA chains")
    # A spot_peak has as many rounds as take its time at the rate of waking up; so has the next waking.
    assert counts[-4:] == [1000, 400, 100, 8000]


def test_every_rate_of_an_installed_library_is_positive(quick):
    pytest.importorskip("numba", reason="the loops are compiled by Numba")
    for dtype in ("float32", "float64"):
        assert quick.arithmetic(dtype)["flop_per_second"] > 0
        assert quick.spot_peak(dtype, 0.004)["flop_per_second"] > 0
        assert quick.product("numpy", dtype)["flop_per_second"] > 0
    assert quick.bandwidth(2**14)["bytes_per_second"] > 0
    assert "NumPy" in quick.bandwidth(2**14, "numpy")["source"]


@pytest.mark.parametrize(("library", "package"), [("torch.mm", "torch"), ("torch oneDNN", "torch"), ("jax", "jax")])
def test_a_framework_that_is_not_installed_is_an_answer(quick, monkeypatch, library, package):
    monkeypatch.setitem(sys.modules, package, None)
    assert quick.product(library, "float32") == {"flop_per_second": None, "detail": f"{package} is not installed"}


def test_without_numba_there_is_no_peak_and_no_bandwidth_but_an_answer(quick, monkeypatch):
    monkeypatch.setitem(sys.modules, "numba", None)
    peak_worker.kernels.cache_clear()
    assert quick.arithmetic("float32") == {"flop_per_second": None, "source": "Numba is not installed"}
    assert quick.bandwidth(2**14) == {"bytes_per_second": None, "source": "Numba is not installed"}


def test_onednn_answers_that_it_has_no_float64(quick):
    pytest.importorskip("torch", reason="oneDNN comes with PyTorch")
    said = quick.product("torch oneDNN", "float64")
    assert said["flop_per_second"] is None
    assert "oneDNN" in said["detail"]


def test_a_wrong_product_has_no_rate(quick, monkeypatch):
    def wrong(left, right):
        return peak_worker.Multiplication(lambda: left * right, np.asarray, "element by element")

    monkeypatch.setitem(peak_worker.PRODUCTS, "numpy", wrong)
    with pytest.raises(RuntimeError, match="numpy multiplied wrongly"):
        quick.product("numpy", "float32")


def test_a_surveyor_measures_in_a_process_of_its_own_that_sees_its_variables_and_the_compile_caches(tmp_path):
    with Supervisor(1, tmp_path / "cache") as workers:
        worker = workers.peak_worker("numpy", variables={"OPENBLAS_CORETYPE": "Haswell"})
        environment = Path(f"/proc/{worker.pid}/environ").read_text().split("\0")
        assert "OPENBLAS_CORETYPE=Haswell" in environment
        assert any(line.startswith(f"NUMBA_CACHE_DIR={tmp_path}") for line in environment)
        assert "CUDA_VISIBLE_DEVICES=" in environment
        assert worker.request("product", 60.0, library="numpy", dtype="float64")["flop_per_second"] > 0
        with pytest.raises(WorkerError, match="KeyError"):
            worker.request("product", 60.0, library="no such library", dtype="float64")
        assert worker.alive


def test_each_surveyor_is_new_and_none_survives_the_supervisor(tmp_path):
    with Supervisor(1, tmp_path / "cache") as workers:
        first, second = workers.peak_worker("numpy"), workers.peak_worker("numpy")
        assert not psutil.pid_exists(first.pid)
        workers.discard_peak_worker("numpy")
        assert not psutil.pid_exists(second.pid)
        third = workers.peak_worker("numpy")
    assert not psutil.pid_exists(third.pid)


def test_what_a_surveyor_compiles_leaves_a_contestants_cache_empty(faulty_path, tmp_path):
    with Supervisor(1, tmp_path / "cache") as workers:
        if workers.peak_worker("numba").request("arithmetic", 60.0, dtype="float32")["flop_per_second"] is None:
            pytest.skip("Numba is not installed")
        assert list((tmp_path / "cache").rglob("*.nbi"))  # compiled once, loaded by the next run
        assert workers.worker("faulty-honest", "cpu")[1]

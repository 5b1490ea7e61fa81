"""The peak worker: its loops do the work that is counted, and an absent library is a reply."""

from __future__ import annotations

import os
import sys

import numpy as np
import psutil
import pytest

from harness.machine import threads
from harness.process.handle import WorkerError
from harness.process.protocol import (
    MeasureArithmetic,
    MeasureBandwidth,
    MeasuredRate,
    MeasureProduct,
    MeasureSpotPeak,
)
from harness.process.supervisor import Supervisor
from harness.worker import peak_kernels, peak_products, peak_timing, peak_worker


@pytest.fixture
def loops():
    pytest.importorskip("numba", reason="the loops are compiled by Numba")
    return peak_kernels.kernels()


@pytest.fixture
def quick(monkeypatch):
    """Return a peak worker whose repetitions are too short for its rates to mean anything."""
    for name in ("CHAIN_SECONDS", "READ_SECONDS"):
        monkeypatch.setattr(peak_worker, name, 1e-4)
    monkeypatch.setattr(peak_worker, "PRODUCT_SIZES", {"float32": 24, "float64": 24})
    return peak_worker.PeakWorker()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("count", [0, 1, 7])
def test_chain_runs_the_recurrence_in_each_lane(loops, dtype, count):
    kind = np.dtype(dtype).type
    # Distinct multiples of 1/4 stay exact in both dtypes for these steps, so NumPy rounds nothing either.
    state = (np.arange(loops.vector.chains * loops.vector.size_bytes // kind().itemsize) / 4).astype(dtype)
    expected = state.copy()
    for _ in range(count):
        expected = expected * kind(0.75) + kind(0.25)
    loops.chain(state, kind(0.75), kind(0.25), count)
    np.testing.assert_array_equal(state, expected)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_chain_converges_to_a_normal_number(loops, dtype):
    kind = np.dtype(dtype).type
    state = np.linspace(1, 3, loops.vector.chains * loops.vector.size_bytes // kind().itemsize, dtype=dtype)
    loops.chain(state, kind(peak_worker.FACTOR), kind(peak_worker.ADDEND), 100_000)
    np.testing.assert_array_equal(state, 2)


@pytest.mark.parametrize("blocks", [1, 5])
@pytest.mark.parametrize("passes", [1, 3])
def test_reading_loop_sums_every_element_in_every_pass(loops, blocks, passes):
    buffer = peak_kernels.aligned(blocks * peak_kernels.SUMS * loops.vector.size_bytes)
    assert buffer.ctypes.data % peak_kernels.LINE_BYTES == 0
    buffer[:] = np.random.default_rng(blocks).integers(-(2**40), 2**40, len(buffer))
    expected = passes * sum(int(element) for element in buffer)
    assert loops.total(buffer, passes) == expected
    assert peak_kernels.numpy_total(buffer, passes) == expected % 2**64


def test_team_binds_one_thread_to_each_cpu():
    if threads.affinity() is None:
        pytest.skip("this system has no affinity")
    before = os.sched_getaffinity(0)
    with peak_timing.Team() as team:
        bound = team.together(lambda _: os.sched_getaffinity(0), [None] * team.size)
    assert sorted(min(cpus) for cpus in bound) == sorted(before)
    assert all(len(cpus) == 1 for cpus in bound)
    assert os.sched_getaffinity(0) == before, "the main thread keeps its CPUs"


def test_best_rate_is_that_of_the_fastest_repetition(monkeypatch):
    seconds_per_round = iter([1.0] * 3 + [1.0, 0.25, 0.5])
    monkeypatch.setattr(threads, "affinity", lambda: [min(os.sched_getaffinity(0))])
    monkeypatch.setattr(peak_timing, "_seconds", lambda run, count: count * next(seconds_per_round))
    with peak_timing.Team() as team:
        assert team.best_rate([lambda count: None], 12.0, 5.0, 3, first=1) == 12.0 / 0.25


def test_spot_peak_is_that_of_the_moment_and_not_the_best(loops, monkeypatch):
    # Three calls find the count of rounds; then each spot peak has one call to wake the CPUs, and one that counts.
    seconds_per_round = iter([1e-6] * 3 + [1e-5, 2e-6] + [1e-6, 1e-6])
    counts = []
    monkeypatch.setattr(threads, "affinity", lambda: [min(os.sched_getaffinity(0))])
    monkeypatch.setattr(
        peak_timing, "_seconds", lambda run, count: counts.append(count) or count * next(seconds_per_round)
    )
    worker = peak_worker.PeakWorker()
    slow, fast = (worker.spot_peak(MeasureSpotPeak("float32", seconds)) for seconds in (0.004, 0.008))
    assert fast.per_second == pytest.approx(2 * slow.per_second)
    assert fast.source.startswith("FMA chains")
    # The count of rounds follows the rate of the waking call; the next waking call follows it too.
    assert counts[-4:] == [1000, 400, 100, 8000]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rates_of_installed_libraries_are_positive(quick, dtype):
    pytest.importorskip("numba", reason="the loops are compiled by Numba")
    assert quick.arithmetic(MeasureArithmetic(dtype)).per_second > 0
    assert quick.spot_peak(MeasureSpotPeak(dtype, 0.004)).per_second > 0
    assert quick.product(MeasureProduct("numpy", dtype)).per_second > 0


def test_bandwidths_of_installed_libraries_are_positive(quick):
    pytest.importorskip("numba", reason="the loops are compiled by Numba")
    assert quick.bandwidth(MeasureBandwidth(2**14)).per_second > 0
    reply = quick.bandwidth(MeasureBandwidth(2**14, "numpy"))
    assert reply.per_second > 0
    assert "NumPy" in reply.source


@pytest.mark.parametrize(("library", "package"), [("torch.mm", "torch"), ("torch oneDNN", "torch"), ("jax", "jax")])
def test_absent_framework_is_a_reply_without_a_rate(quick, monkeypatch, library, package):
    monkeypatch.setitem(sys.modules, package, None)
    assert quick.product(MeasureProduct(library, "float32")) == MeasuredRate(None, f"{package} is not installed")


def test_without_numba_no_peak_and_no_bandwidth_is_measured(quick, monkeypatch):
    monkeypatch.setitem(sys.modules, "numba", None)
    peak_kernels.kernels.cache_clear()
    absent = MeasuredRate(None, "Numba is not installed")
    assert quick.arithmetic(MeasureArithmetic("float32")) == absent
    assert quick.spot_peak(MeasureSpotPeak("float32", 0.004)) == absent
    assert quick.bandwidth(MeasureBandwidth(2**14)) == absent


def test_onednn_has_no_float64_product(quick):
    pytest.importorskip("torch", reason="oneDNN comes with PyTorch")
    reply = quick.product(MeasureProduct("torch oneDNN", "float64"))
    assert reply.per_second is None
    assert "oneDNN" in reply.source


def test_wrong_product_raises(quick, monkeypatch):
    def elementwise(left, right):
        return peak_products.Multiplication(lambda: left * right, np.asarray, "element by element")

    monkeypatch.setitem(peak_products.PRODUCTS, "numpy", elementwise)
    with pytest.raises(RuntimeError, match="numpy multiplied wrongly"):
        quick.product(MeasureProduct("numpy", "float32"))


def test_peak_worker_has_its_variables_and_compile_caches(tmp_path):
    with Supervisor(1, tmp_path / "cache") as workers:
        worker = workers.peak_worker("numpy", variables={"OPENBLAS_CORETYPE": "Haswell"})
        environment: dict[str, str] = {}
        while not environment:  # a process has none until its program begins
            environment = psutil.Process(worker.pid).environ()
        assert environment["OPENBLAS_CORETYPE"] == "Haswell"
        assert environment["NUMBA_CACHE_DIR"].startswith(str(tmp_path))
        assert environment["CUDA_VISIBLE_DEVICES"] == ""


def test_peak_worker_survives_an_unknown_library(tmp_path):
    with Supervisor(1, tmp_path / "cache") as workers:
        worker = workers.peak_worker("numpy")
        with pytest.raises(WorkerError, match="KeyError"):
            worker.request(MeasureProduct("no such library", "float64"), 60.0)
        assert worker.request(MeasureProduct("numpy", "float64"), 60.0).per_second > 0


def test_each_peak_worker_is_new_and_ends_with_the_supervisor(tmp_path):
    with Supervisor(1, tmp_path / "cache") as workers:
        first, second = workers.peak_worker("numpy"), workers.peak_worker("numpy")
        assert not psutil.pid_exists(first.pid)
        workers.discard_peak_worker("numpy")
        assert not psutil.pid_exists(second.pid)
        third = workers.peak_worker("numpy")
    assert not psutil.pid_exists(third.pid)


def test_peak_worker_leaves_a_backends_compile_cache_empty(faulty_path, tmp_path):
    with Supervisor(1, tmp_path / "cache") as workers:
        if workers.peak_worker("numba").request(MeasureArithmetic("float32"), 60.0).per_second is None:
            pytest.skip("Numba is not installed")
        assert list((tmp_path / "cache").rglob("*.nbi"))  # the next run loads what was compiled here
        assert workers.worker("faulty-honest", "cpu")[1]

"""The machine's peaks, measured through fake peak workers on a machine with known caches."""

from __future__ import annotations

import pytest
from fake_peak_workers import DEVICE_L2, DEVICE_MEMORY, NO_NUMBA, FakeWorkers

from harness.machine import environment
from harness.machine.environment import Cache
from harness.process.handle import WorkerError
from harness.process.protocol import (
    DescribeDevice,
    DeviceDescription,
    MeasureArithmetic,
    MeasureBandwidth,
    MeasureDeviceProduct,
    MeasuredRate,
    MeasureProduct,
    MeasureSpotPeak,
)
from harness.record import Status
from harness.survey import peaks

KIB, MIB, GIB = 2**10, 2**20, 2**30
#: Two cores with private caches below a shared one.
CACHES = [
    *(Cache("L1", 32 * KIB, frozenset({cpu})) for cpu in (0, 1)),
    *(Cache("L2", MIB, frozenset({cpu})) for cpu in (0, 1)),
    Cache("L3", 32 * MIB, frozenset({0, 1})),
]


@pytest.fixture
def workers(monkeypatch):
    monkeypatch.setattr(environment, "caches", lambda: CACHES)
    monkeypatch.setattr(environment, "available_bytes", lambda: 100 * GIB)
    monkeypatch.setattr(peaks.budget, "cpus", lambda threads: list(range(threads)))
    return FakeWorkers()


def test_each_library_is_measured_in_its_own_process(workers):
    measured = peaks.measure(workers, 2, 60.0)
    assert [name for name, *_ in workers.started] == ["numba", "numpy", "torch", "jax"]
    assert workers.running == {}
    assert {dtype: rate.source for dtype, rate in measured.arithmetic.items()} == dict.fromkeys(
        ("float32", "float64"), "FMA chains"
    )
    assert len(measured.products) == 8
    assert [(level.name, level.capacity_bytes) for level in measured.levels] == [
        *(("L1", 64 * KIB), ("L2", 2 * MIB), ("L3", 32 * MIB), ("memory", None))
    ]
    assert measured.missing == ()


@pytest.mark.parametrize(
    ("dtypes", "measured"),
    [({"float32"}, {"float32"}), ({"float64", "tf32"}, {"float64"}), ({"bfloat16"}, {"float32", "float64"})],
)
def test_peaks_are_those_of_the_dtypes_that_are_asked_for(workers, dtypes, measured):
    found = peaks.measure(workers, 2, 60.0, dtypes)
    assert set(found.arithmetic) == measured
    assert {product.dtype for product in found.products} == measured


def test_best_gemm_and_numpy_sums_replace_numba(workers):
    workers.answers[MeasureArithmetic] = lambda request: NO_NUMBA
    workers.answer_if(MeasureBandwidth, lambda request: request.library == "numba", NO_NUMBA)
    measured = peaks.measure(workers, 2, 60.0)
    rate = measured.arithmetic["float32"]
    assert (rate.flop_per_second, rate.source) == (90.0, "best GEMM (torch oneDNN) stands in: Numba is not installed")
    assert [level.name for level in measured.levels] == ["memory"]
    assert "FMA peak in float32: Numba is not installed" in measured.missing
    assert any("memory" in line and "numpy" in line for line in measured.missing)


def test_without_any_library_the_reasons_remain(workers):
    workers.refused = ("numba", "numpy", "torch", "jax")
    measured = peaks.measure(workers, 2, 60.0)
    assert (measured.arithmetic, measured.products, measured.levels) == ({}, (), ())
    for name in workers.refused:
        assert any(f"{name} did not start" in line for line in measured.missing)


def test_dead_peak_worker_costs_its_own_library_only(workers):
    requests = []
    usual = workers.answers[MeasureProduct]

    def die_in_torch(request):
        requests.append(request.library)
        died = WorkerError(Status.FAILED, "died of it")
        return died if request.library == "torch.mm" else usual(request)

    workers.answers[MeasureProduct] = die_in_torch
    measured = peaks.measure(workers, 2, 60.0)
    assert {product.library for product in measured.products} == {"numpy", "jax"}
    assert [line for line in measured.missing if "died of it" not in line] == []
    assert len(measured.missing) == 4  # torch.mm and oneDNN, each in both dtypes
    assert requests == ["numpy", "numpy", "torch.mm", "jax", "jax"]  # a dead worker gets no further request
    assert workers.running == {}


def test_failed_product_leaves_one_line_of_reason(workers):
    failed = WorkerError(Status.FAILED, "cannot\na page of advice")
    workers.answer_if(MeasureProduct, lambda request: request == MeasureProduct("torch.mm", "float32"), failed)
    measured = peaks.measure(workers, 2, 60.0)
    assert len(measured.products) == 7
    assert measured.missing == ("torch.mm in float32: cannot",)


def test_interrupt_ends_the_peak_workers(workers):
    def interrupt(request):
        raise KeyboardInterrupt

    workers.answers[MeasureProduct] = interrupt
    with pytest.raises(KeyboardInterrupt):
        peaks.measure(workers, 2, 60.0)
    assert workers.running == {}


def test_gemm_faster_than_the_chains_is_the_peak(workers):
    workers.answers[MeasureArithmetic] = lambda request: MeasuredRate(85.0, "FMA chains")
    rate = peaks.measure(workers, 2, 60.0).arithmetic["float32"]
    assert rate.flop_per_second == 90.0
    assert "torch oneDNN" in rate.source
    assert rate.chains == 85.0, "the rate of the chains is kept"


def test_no_level_is_measured_beyond_one_that_fails(workers):
    failed = WorkerError(Status.TIMEOUT, "no answer")
    workers.answer_if(MeasureBandwidth, lambda request: request.bytes_per_thread == 512 * KIB, failed)
    measured = peaks.measure(workers, 2, 60.0)
    assert [level.name for level in measured.levels] == ["L1"]
    assert measured.missing == ("bandwidth of L2: no answer",)


@pytest.mark.parametrize(
    ("cpus", "capacities"),
    [
        ([0, 1], [64 * KIB, 2 * MIB, 32 * MIB]),  # the private caches of both threads, the shared one once
        ([1], [32 * KIB, MIB, 32 * MIB]),
        ([7], []),
        (None, []),
    ],
)
def test_capacities_count_each_reached_cache_once(cpus, capacities):
    threads = len(cpus or [0])
    *levels, memory = peaks.reading_bytes(CACHES, cpus, threads, 100 * GIB)
    assert [capacity for _, capacity, _ in levels] == capacities
    assert all(2 * threads * per_thread == capacity for _, capacity, per_thread in levels)
    assert memory == ("memory", None, 256 * MIB // threads)


def test_threads_on_one_core_share_its_cache():
    (_, capacity, per_thread), _ = peaks.reading_bytes([Cache("L1", 32 * KIB, frozenset({0, 1}))], [0, 1], 2, GIB)
    assert (capacity, per_thread) == (32 * KIB, 8 * KIB)


def test_memory_buffers_are_four_times_the_last_cache():
    large = [Cache("L3", 256 * MIB, frozenset({0}))]
    assert peaks.reading_bytes(large, [0], 1, 100 * GIB)[-1][2] == GIB
    assert peaks.reading_bytes(CACHES, [0, 1], 2, 100 * GIB)[-1][2] == 128 * MIB


def test_memory_buffers_take_a_quarter_of_free_memory_at_most():
    large = [Cache("L3", 256 * MIB, frozenset({0}))]
    assert peaks.reading_bytes(large, [0], 1, 2 * GIB)[-1][2] == GIB // 2


def test_caches_are_listed_once_without_instruction_caches(tmp_path):
    for cpu in (0, 1):
        for index, texts in enumerate(
            [("1", "Data", "48K", str(cpu)), ("1", "Instruction", "32K", str(cpu)), ("3", "Unified", "32M", "0-1,4")]
        ):
            folder = tmp_path / f"cpu{cpu}" / "cache" / f"index{index}"
            folder.mkdir(parents=True)
            for name, text in zip(("level", "type", "size", "shared_cpu_list"), texts, strict=True):
                (folder / name).write_text(f"{text}\n")
    (tmp_path / "cpu1" / "cache" / "index9").mkdir()  # an empty folder
    assert environment.caches(tmp_path) == [
        Cache("L1", 48 * KIB, frozenset({0})),
        Cache("L1", 48 * KIB, frozenset({1})),
        Cache("L3", 32 * MIB, frozenset({0, 1, 4})),
    ]
    assert environment.caches(tmp_path / "nowhere") == []


def test_unknown_caches_leave_memory_as_the_only_level(workers, monkeypatch):
    monkeypatch.setattr(environment, "caches", list)
    measured = peaks.measure(workers, 2, 60.0)
    assert [level.name for level in measured.levels] == ["memory"]


def test_measured_peaks_survive_json(workers):
    measured = peaks.measure(workers, 2, 60.0)
    assert type(measured).from_json(measured.as_json()) == measured


def test_products_are_measured_under_given_variables(workers):
    variables = {"OPENBLAS_CORETYPE": "SKYLAKEX"}
    products = peaks.products_with(workers, "numpy", variables, 60.0)
    assert [(product.library, product.dtype) for product in products] == [
        ("numpy with OPENBLAS_CORETYPE=SKYLAKEX", "float32"),
        ("numpy with OPENBLAS_CORETYPE=SKYLAKEX", "float64"),
    ]
    assert workers.started == [("numpy", "cpu", variables)]
    assert workers.running == {}


def test_spot_peak_uses_one_process(workers):
    rates = iter([100.0, 50.0])
    workers.answers[MeasureSpotPeak] = lambda request: MeasuredRate(next(rates) * request.seconds, "FMA chains")
    spot_peak = peaks.SpotPeak(workers, 60.0)
    assert workers.started == [], "no process before the first request"
    assert [spot_peak.now("float32", seconds) for seconds in (1.0, 2.0)] == [100.0, 100.0]
    assert [name for name, *_ in workers.started] == [peaks.SPOT_PEAK]


def test_spot_peak_exists_for_float32_and_float64_only(workers):
    spot_peak = peaks.SpotPeak(workers, 60.0)
    assert [spot_peak.now(dtype, 1.0) for dtype in ("tf32", "bfloat16")] == [None, None]
    assert workers.started == []


@pytest.mark.parametrize("reply", [MeasuredRate(None, "no Numba"), WorkerError(Status.TIMEOUT, "died")])
def test_failed_spot_peak_is_not_requested_again(workers, reply):
    workers.answers[MeasureSpotPeak] = lambda request: reply
    spot_peak = peaks.SpotPeak(workers, 60.0)
    assert [spot_peak.now("float32", 1.0) for _ in range(3)] == [None] * 3
    assert workers.running[peaks.SPOT_PEAK].requests == [MeasureSpotPeak("float32", 1.0)]


def test_spot_peak_is_none_if_its_process_does_not_start(workers):
    workers.refused = (peaks.SPOT_PEAK,)
    assert peaks.SpotPeak(workers, 60.0).now("float64", 1.0) is None


def test_device_has_rates_by_precision_and_two_levels(workers):
    measured = peaks.measure_device(workers, "cuda", 60.0)
    rates = {name: rate.flop_per_second for name, rate in measured.arithmetic.items()}
    assert rates == {"float32": 50.0, "float64": 25.0, "float16": 800.0, "bfloat16": 800.0, "tf32": 400.0}
    assert [(level.name, level.capacity_bytes, level.bytes_per_second) for level in measured.levels] == [
        ("L2", 40 * MIB, DEVICE_L2),
        ("memory", None, DEVICE_MEMORY),
    ]
    assert measured.missing == ()
    assert [device for _, device, _ in workers.started] == ["cuda"]
    assert workers.running == {}


def test_missing_device_rates_have_their_reasons(workers):
    workers.answers[DescribeDevice] = lambda request: DeviceDescription("a GPU", None)
    failed = WorkerError(Status.OUT_OF_MEMORY, "no room")
    workers.answer_if(MeasureDeviceProduct, lambda request: request.dtype == "float64", failed)
    measured = peaks.measure_device(workers, "cuda", 60.0)
    assert "float64" not in measured.arithmetic
    assert measured.missing == ("size of the cache of cuda: a GPU", "GEMM in float64: no room")
    assert [level.name for level in measured.levels] == ["memory"]
    assert workers.running == {}

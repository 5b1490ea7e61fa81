"""The survey of a machine with peak_workers that are told what to answer, and with caches that are told what to be."""

from __future__ import annotations

import pytest

from harness.machine import environment
from harness.machine.environment import Cache
from harness.process.handle import WorkerError
from harness.record import Status
from harness.survey import peaks

KIB, MIB, GIB = 2**10, 2**20, 2**30
#: Two cores with private caches below a shared one.
CACHES = [
    *(Cache("L1", 32 * KIB, frozenset({cpu})) for cpu in (0, 1)),
    *(Cache("L2", MIB, frozenset({cpu})) for cpu in (0, 1)),
    Cache("L3", 32 * MIB, frozenset({0, 1})),
]
GEMMS = {"numpy": 80.0, "torch.mm": 70.0, "torch oneDNN": 90.0, "jax": 60.0}


class FakeSurveyor:
    def __init__(self, answers):
        self._answers = answers
        self.alive = True
        self.asked = []

    def request(self, do, time_limit_seconds, **fields):
        self.asked.append((do, fields))
        answer = self._answers[do](**fields)
        if isinstance(answer, Exception):
            self.alive = "died" not in str(answer)
            raise answer
        return answer


class FakeWorkers:
    """All peak_workers of a run; ``answers`` is changed by the test."""

    def __init__(self):
        self.answers = {
            "arithmetic": lambda dtype: {"flop_per_second": 100.0, "source": "FMA chains"},
            "bandwidth": lambda bytes_per_thread, library="numba": {"bytes_per_second": 10.0, "source": library},
            "product": lambda library, dtype: {"flop_per_second": GEMMS[library], "detail": "a BLAS"},
            "device": lambda device: {"name": "a GPU", "cache_bytes": 40 * MIB},
            "device_product": lambda device, dtype, precision: {
                "flop_per_second": {"float32": 50.0, "float64": 25.0}.get(dtype, 800.0)
                * (8 if precision == "tf32" else 1),
                "detail": "a GEMM",
            },
            "device_bandwidth": lambda device, size_bytes: {
                "bytes_per_second": 5.0 if size_bytes < 40 * MIB else 3.0,
                "source": "copies",
            },
        }
        self.refused = ()
        self.running = {}
        self.started = []

    def peak_worker(self, name, device="cpu", variables=None):
        if device != "cpu":
            name = f"{device}: {name}"
        assert not self.running, "one at a time"
        if name in self.refused:
            raise WorkerError(Status.FAILED, f"{name} did not start")
        self.running[name] = FakeSurveyor(self.answers)
        self.started.append((name, self.running[name]))
        return self.running[name]

    def discard_peak_worker(self, name):
        self.running.pop(f"cuda: {name}", None)
        self.running.pop(name, None)


@pytest.fixture
def workers(monkeypatch):
    monkeypatch.setattr(environment, "caches", lambda: CACHES)
    monkeypatch.setattr(environment, "available_bytes", lambda: 100 * GIB)
    monkeypatch.setattr(peaks.budget, "cpus", lambda threads: list(range(threads)))
    return FakeWorkers()


def without_numba(**_):
    return {"flop_per_second": None, "bytes_per_second": None, "source": "Numba is not installed"}


def test_every_rate_is_measured_once_by_a_process_of_its_library_that_is_ended_afterwards(workers):
    found = peaks.measure(workers, 2, 60.0)
    assert [name for name, _ in workers.started] == ["numba", "numpy", "torch", "jax"]
    assert workers.running == {}
    assert {dtype: rate.source for dtype, rate in found.arithmetic.items()} == dict.fromkeys(
        ("float32", "float64"), "FMA chains"
    )
    assert len(found.products) == 8
    assert [(level.name, level.capacity_bytes) for level in found.levels] == [
        *(("L1", 64 * KIB), ("L2", 2 * MIB), ("L3", 32 * MIB), ("memory", None))
    ]
    assert found.missing == ()


def test_without_numba_the_best_gemm_stands_in_and_says_so_and_numpy_reads_the_memory(workers):
    ours = workers.answers["bandwidth"]
    workers.answers["arithmetic"] = without_numba
    workers.answers["bandwidth"] = lambda library="numba", **fields: (
        without_numba() if library == "numba" else ours(library=library, **fields)
    )
    found = peaks.measure(workers, 2, 60.0)
    rate = found.arithmetic["float32"]
    assert (rate.flop_per_second, rate.source) == (
        90.0,
        "best GEMM (torch oneDNN) stands in: Numba is not installed",
    )
    assert [level.name for level in found.levels] == ["memory"]
    assert "FMA peak in float32: Numba is not installed" in found.missing
    assert any("memory" in line and "numpy" in line for line in found.missing)


def test_nothing_usable_leaves_it_empty_with_the_reasons(workers):
    workers.refused = ("numba", "numpy", "torch", "jax")
    found = peaks.measure(workers, 2, 60.0)
    assert (found.arithmetic, found.products, found.levels) == ({}, (), ())
    for name in workers.refused:
        assert any(f"{name} did not start" in line for line in found.missing)


def test_a_surveyor_that_dies_costs_its_own_library_only_and_is_not_asked_again(workers):
    ours = workers.answers["product"]
    workers.answers["product"] = lambda library, dtype: (
        WorkerError(Status.FAILED, "died of it") if library == "torch.mm" else ours(library, dtype)
    )
    found = peaks.measure(workers, 2, 60.0)
    assert {product.library for product in found.products} == {"numpy", "jax"}
    assert [line for line in found.missing if "died of it" not in line] == []
    assert len(found.missing) == 4  # torch.mm and oneDNN, each in both dtypes
    assert len(dict(workers.started)["torch"].asked) == 1
    assert workers.running == {}


def test_a_product_that_raises_costs_itself_only_and_the_first_line_is_kept(workers):
    ours = workers.answers["product"]
    workers.answers["product"] = lambda library, dtype: (
        WorkerError(Status.FAILED, "cannot\na page of advice")
        if (library, dtype) == ("torch.mm", "float32")
        else ours(library, dtype)
    )
    found = peaks.measure(workers, 2, 60.0)
    assert len(found.products) == 7
    assert found.missing == ("torch.mm in float32: cannot",)


def test_surveyors_are_ended_when_the_survey_is_interrupted(workers):
    def interrupt(**_):
        raise KeyboardInterrupt

    workers.answers["product"] = interrupt
    with pytest.raises(KeyboardInterrupt):
        peaks.measure(workers, 2, 60.0)
    assert workers.running == {}


def test_a_gemm_that_is_faster_than_the_chains_is_the_peak(workers):
    workers.answers["arithmetic"] = lambda dtype: {"flop_per_second": 85.0, "source": "FMA chains"}
    rate = peaks.measure(workers, 2, 60.0).arithmetic["float32"]
    assert rate.flop_per_second == 90.0
    assert "torch oneDNN" in rate.source
    assert rate.chains == 85.0, "what they did is known all the same"


def test_beyond_a_level_that_fails_none_is_measured_so_that_no_slower_one_stands_for_it(workers):
    ours = workers.answers["bandwidth"]
    workers.answers["bandwidth"] = lambda bytes_per_thread: (
        WorkerError(Status.TIMEOUT, "no answer") if bytes_per_thread == 512 * KIB else ours(bytes_per_thread)
    )
    found = peaks.measure(workers, 2, 60.0)
    assert [level.name for level in found.levels] == ["L1"]
    assert found.missing == ("bandwidth of L2: no answer",)


@pytest.mark.parametrize(
    ("cpus", "capacities"),
    [
        ([0, 1], [64 * KIB, 2 * MIB, 32 * MIB]),  # private ones for each thread, the shared one once
        ([1], [32 * KIB, MIB, 32 * MIB]),
        ([7], []),
        (None, []),
    ],
)
def test_capacities_are_those_of_the_caches_that_the_threads_reach(cpus, capacities):
    threads = len(cpus or [0])
    *levels, memory = peaks.reading_bytes(CACHES, cpus, threads, 100 * GIB)
    assert [capacity for _, capacity, _ in levels] == capacities
    assert all(2 * threads * per_thread == capacity for _, capacity, per_thread in levels)
    assert memory == ("memory", None, 256 * MIB // threads)


def test_threads_that_share_a_core_share_its_cache_and_the_halves_are_of_what_each_has():
    (_, capacity, per_thread), _ = peaks.reading_bytes([Cache("L1", 32 * KIB, frozenset({0, 1}))], [0, 1], 2, GIB)
    assert (capacity, per_thread) == (32 * KIB, 8 * KIB)


def test_memory_is_read_from_four_times_the_last_cache_but_never_from_more_than_a_quarter_of_what_is_free():
    large = [Cache("L3", 256 * MIB, frozenset({0}))]
    assert peaks.reading_bytes(large, [0], 1, 100 * GIB)[-1][2] == GIB
    assert peaks.reading_bytes(large, [0], 1, 2 * GIB)[-1][2] == GIB // 2
    assert peaks.reading_bytes(CACHES, [0, 1], 2, 100 * GIB)[-1][2] == 128 * MIB


def test_the_machines_caches_are_read_once_each_without_those_for_instructions(tmp_path):
    for cpu in (0, 1):
        for index, said in enumerate(
            [("1", "Data", "48K", str(cpu)), ("1", "Instruction", "32K", str(cpu)), ("3", "Unified", "32M", "0-1,4")]
        ):
            folder = tmp_path / f"cpu{cpu}" / "cache" / f"index{index}"
            folder.mkdir(parents=True)
            for name, text in zip(("level", "type", "size", "shared_cpu_list"), said, strict=True):
                (folder / name).write_text(f"{text}\n")
    (tmp_path / "cpu1" / "cache" / "index9").mkdir()  # says nothing
    assert environment.caches(tmp_path) == [
        Cache("L1", 48 * KIB, frozenset({0})),
        Cache("L1", 48 * KIB, frozenset({1})),
        Cache("L3", 32 * MIB, frozenset({0, 1, 4})),
    ]
    assert environment.caches(tmp_path / "nowhere") == []


def test_a_system_that_says_nothing_of_its_caches_has_its_memory_measured_alone(workers, monkeypatch):
    monkeypatch.setattr(environment, "caches", list)
    found = peaks.measure(workers, 2, 60.0)
    assert [level.name for level in found.levels] == ["memory"]


def test_peaks_of_a_survey_can_be_kept(workers):
    found = peaks.measure(workers, 2, 60.0)
    assert type(found).from_json(found.as_json()) == found


def test_the_pace_is_asked_again_and_again_of_one_process(workers):
    rates = iter([100.0, 50.0])
    workers.answers["spot_peak"] = lambda dtype, seconds: {
        "flop_per_second": next(rates) * seconds,
        "source": "FMA chains",
    }
    spot_peak = peaks.SpotPeak(workers, 60.0)
    assert workers.started == [], "none is started for a run that asks for none"
    assert [spot_peak.now("float32", seconds) for seconds in (1.0, 2.0)] == [100.0, 100.0]
    assert [name for name, _ in workers.started] == [peaks.SPOT_PEAK]
    assert [spot_peak.now(dtype, 1.0) for dtype in ("tf32", "bfloat16")] == [None, None], (
        "no chain says anything of these"
    )


@pytest.mark.parametrize("said", [{"flop_per_second": None, "source": "no Numba"}, WorkerError(Status.TIMEOUT, "died")])
def test_a_pace_that_cannot_be_measured_is_not_asked_for_again(workers, said):
    workers.answers["spot_peak"] = lambda dtype, seconds: said
    spot_peak = peaks.SpotPeak(workers, 60.0)
    assert [spot_peak.now("float32", 1.0) for _ in range(3)] == [None] * 3
    assert len(workers.started[0][1].asked) == 1


def test_a_pace_whose_process_does_not_start_is_none(workers):
    workers.refused = (peaks.SPOT_PEAK,)
    assert peaks.SpotPeak(workers, 60.0).now("float64", 1.0) is None


def test_a_device_has_a_rate_for_each_precision_and_a_bandwidth_for_its_cache_and_its_memory(workers):
    found = peaks.measure_device(workers, "cuda", 60.0)
    rates = {name: rate.flop_per_second for name, rate in found.arithmetic.items()}
    assert rates == {"float32": 50.0, "float64": 25.0, "float16": 800.0, "bfloat16": 800.0, "tf32": 400.0}
    assert [(level.name, level.capacity_bytes, level.bytes_per_second) for level in found.levels] == [
        ("L2", 40 * MIB, 5.0),
        ("memory", None, 3.0),
    ]
    assert found.missing == ()
    assert workers.running == {}


def test_what_cannot_be_measured_on_a_device_is_left_out_with_its_reason(workers):
    workers.answers["device"] = lambda device: {"name": "a GPU", "cache_bytes": None}
    ours = workers.answers["device_product"]
    workers.answers["device_product"] = lambda device, dtype, precision: (
        WorkerError(Status.OUT_OF_MEMORY, "no room") if dtype == "float64" else ours(device, dtype, precision)
    )
    found = peaks.measure_device(workers, "cuda", 60.0)
    assert "float64" not in found.arithmetic
    assert found.missing == ("size of the cache of cuda: a GPU", "GEMM in float64: no room")
    assert [level.name for level in found.levels] == ["memory"]
    assert workers.running == {}

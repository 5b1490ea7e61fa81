"""The machine's peaks under a thread budget, measured in processes of their own: arithmetic, GEMMs, memory levels."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final

from harness.machine import environment
from harness.machine import threads as budget
from harness.process.handle import WorkerError, WorkerHandle
from harness.process.protocol import (
    DescribeDevice,
    MeasureArithmetic,
    MeasureBandwidth,
    MeasureDeviceBandwidth,
    MeasureDeviceProduct,
    MeasureProduct,
    MeasureSpotPeak,
)
from harness.process.supervisor import WorkerPool
from harness.survey.peak_process import PeakProcess
from harness.timing.roofline import ROOFLINE_DTYPES, Level, Peaks, Product, Rate

#: Products by the library whose process they share.
LIBRARIES: Final = {"numpy": ("numpy",), "torch": ("torch.mm", "torch oneDNN"), "jax": ("jax",)}
#: Name of the process that measures multiply-adds and bandwidths.
INSTRUMENT: Final = "numba"
#: Name of the process that measures spot peaks.
SPOT_PEAK: Final = "spot peak"
#: Name of the process that measures a GPU.
DEVICE_INSTRUMENT: Final = "device"
#: Dtype and precision of each measured GEMM of a device, by its name in the peaks.
DEVICE_ARITHMETIC: Final = {
    **{name: (name, "ieee") for name in ("float32", "float64", "float16", "bfloat16")},
    "tf32": ("float32", "tf32"),
}
#: Size of each array of a copy in a device's memory, in bytes.
DEVICE_MEMORY_BYTES: Final = 2**30
#: Least ratio of the buffers that memory is read from, together, to the last cache.
MEMORY_TIMES: Final = 4
#: Least size of these buffers together, in bytes.
MEMORY_BYTES: Final = 256 * 2**20
#: The buffers take at most one part in ``MEMORY_SHARE`` of the free memory.
MEMORY_SHARE: Final = 4

#: Name, capacity in bytes (None for memory), and bytes that each thread reads, of a level.
Reading = tuple[str, int | None, int]


def measure(
    workers: WorkerPool, threads: int, limit_seconds: float, dtypes: Collection[str] = ROOFLINE_DTYPES
) -> Peaks:
    """Measure the CPU's peaks; each peak that cannot be measured leaves a line in ``missing``.

    Args:
        workers: Starts and ends the processes, one at a time.
        threads: Thread budget, which the workers are held to.
        limit_seconds: Time limit of each request, in seconds; the first one to a library imports it.
        dtypes: Arithmetic that is asked for; if none of it is in ``ROOFLINE_DTYPES``, all of these are measured.
    """
    asked = [dtype for dtype in ROOFLINE_DTYPES if dtype in dtypes] or list(ROOFLINE_DTYPES)
    readings = reading_bytes(environment.caches(), budget.cpus(threads), threads, environment.available_bytes())
    with PeakProcess(workers, INSTRUMENT, limit_seconds) as process:
        rates, absent = _chains(process, asked)
        requests = [(name, size, MeasureBandwidth(per_thread)) for name, size, per_thread in readings]
        levels, missing = _levels(process, requests)
    missing = [f"FMA peak in {dtype}: {reason}" for dtype, reason in absent.items()] + missing

    products: list[Product] = []
    for library, names in LIBRARIES.items():
        with PeakProcess(workers, library, limit_seconds) as process:
            for request in (MeasureProduct(name, dtype) for name in names for dtype in asked):
                rate, source = process.rate(request)
                if rate is None:
                    missing.append(f"{request.library} in {request.dtype}: {source}")
                else:
                    products.append(Product(request.library, request.dtype, rate, source))
            if library == "numpy" and not levels:
                rate, source = process.rate(MeasureBandwidth(readings[-1][2], "numpy"))
                if rate is not None:
                    levels.append(Level("memory", None, rate))
                    missing.append(f"the bandwidth of memory is that of {source}, which may be less than it has")
    return Peaks(_arithmetic(rates, absent, products), tuple(products), tuple(levels), tuple(missing))


def measure_device(workers: WorkerPool, device: str, limit_seconds: float) -> Peaks:
    """Measure a GPU's GEMM in each precision, and its copies within cache and memory.

    Args:
        workers: Starts and ends the process.
        device: ``cuda``.
        limit_seconds: Time limit of each request, in seconds.
    """
    missing: list[str] = []
    rates: dict[str, Rate] = {}
    products: list[Product] = []
    with PeakProcess(workers, DEVICE_INSTRUMENT, limit_seconds, device=device) as process:
        reply = process.ask(DescribeDevice(device))
        cache, text = (None, reply) if isinstance(reply, str) else (reply.cache_bytes, reply.name)
        if cache is None:
            missing.append(f"size of the cache of {device}: {text}")
        for name, (dtype, precision) in DEVICE_ARITHMETIC.items():
            rate, source = process.rate(MeasureDeviceProduct(device, dtype, precision))
            if rate is None:
                missing.append(f"GEMM in {name}: {source}")
            else:
                rates[name] = Rate(rate, f"best GEMM ({source})")
                products.append(Product("torch.mm", name, rate, source))
        # Both arrays of a copy fill half of the cache; the larger ones exceed it.
        readings = [] if cache is None else [("L2", cache, cache // 4)]
        requests = [
            (name, capacity, MeasureDeviceBandwidth(device, size))
            for name, capacity, size in [*readings, ("memory", None, DEVICE_MEMORY_BYTES)]
        ]
        levels, missing_levels = _levels(process, requests)
    return Peaks(rates, tuple(products), tuple(levels), (*missing, *missing_levels))


def products_with(
    workers: WorkerPool, library: str, variables: Mapping[str, str], limit_seconds: float
) -> tuple[Product, ...]:
    """Measure a library's products under environment variables, which become part of the products' names."""
    settings = " ".join(f"{name}={value}" for name, value in variables.items())
    products = []
    with PeakProcess(workers, library, limit_seconds, variables=variables) as process:
        for dtype in ROOFLINE_DTYPES:
            rate, source = process.rate(MeasureProduct(library, dtype))
            if rate is not None:
                products.append(Product(f"{library} with {settings}", dtype, rate, source))
    return tuple(products)


def reading_bytes(
    caches: Sequence[environment.Cache], cpus: Sequence[int] | None, threads: int, available_bytes: int
) -> list[Reading]:
    """Return the reading of every level that these CPUs reach, smallest level first.

    A cache is read at half its capacity, so that it holds the buffers and all other data. Where the CPUs' caches are
    not known, memory is the only level.
    """
    reached = [cache for cache in caches if cache.cpus & set(cpus or ())]
    capacities: dict[str, int] = {}
    for cache in reached:  # each cache counts once, also where several threads share it
        capacities[cache.name] = capacities.get(cache.name, 0) + cache.size_bytes
    total = max(MEMORY_TIMES * max(capacities.values(), default=0), MEMORY_BYTES)
    memory = min(total, available_bytes // MEMORY_SHARE) // threads
    levels = [(name, capacity, capacity // (2 * threads)) for name, capacity in sorted(capacities.items())]
    return [*levels, ("memory", None, memory)]


class SpotPeak:
    """The multiply-add rate of the CPUs at this moment, for machines whose speed changes from minute to minute.

    A time over the roofline of the best peak also measures other tenants of the hardware. A time over that of the spot
    peak measures the backend, as far as both fall into like moments.

    Args:
        workers: Starts the process, which stays until the workers end.
        limit_seconds: Time limit of a request, in seconds; the first one compiles.
    """

    def __init__(self, workers: WorkerPool, limit_seconds: float) -> None:
        self._workers = workers
        self._limit_seconds = limit_seconds
        self._peak_worker: WorkerHandle | None = None
        self._absent: set[str] = set()

    def now(self, dtype: str, seconds: float) -> float | None:
        """Return the flop per second of all threads together; None, also from then on, if it cannot be measured.

        Args:
            dtype: Dtype of the multiply-adds.
            seconds: Approximate length of the measurement, in seconds.
        """
        if dtype not in ROOFLINE_DTYPES or dtype in self._absent:
            return None
        try:
            self._peak_worker = self._peak_worker or self._workers.peak_worker(SPOT_PEAK)
            rate = self._peak_worker.request(MeasureSpotPeak(dtype, seconds), self._limit_seconds).per_second
        except WorkerError:
            rate = None
        if rate is None:
            self._absent.add(dtype)
        return rate


def _chains(process: PeakProcess, dtypes: Sequence[str]) -> tuple[dict[str, Rate], dict[str, str]]:
    """Measure the multiply-add chains; return their rates, and the reason where there is none, by dtype."""
    rates: dict[str, Rate] = {}
    absent: dict[str, str] = {}
    for dtype in dtypes:
        rate, source = process.rate(MeasureArithmetic(dtype))
        if rate is None:
            absent[dtype] = source
        else:
            rates[dtype] = Rate(rate, source, chains=rate)
    return rates, absent


def _levels(
    process: PeakProcess, requests: Sequence[tuple[str, int | None, MeasureBandwidth | MeasureDeviceBandwidth]]
) -> tuple[list[Level], list[str]]:
    """Measure the levels in order, up to the first that fails; return them and the reasons for missing ones.

    Beyond a missing level none is measured: a slower one would stand in for it in the roofline.
    """
    levels: list[Level] = []
    for name, capacity, request in requests:
        rate, source = process.rate(request)
        if rate is None:
            return levels, [f"bandwidth of {name}: {source}"]
        levels.append(Level(name, capacity, rate))
    return levels, []


def _arithmetic(rates: Mapping[str, Rate], absent: Mapping[str, str], products: Sequence[Product]) -> dict[str, Rate]:
    """Return the peak of each dtype: the FMA chains, or the best GEMM where it is faster or where there are no chains.

    A GEMM is faster where the machine was disturbed, or has matrix units that vector code does not reach.
    """
    peaks = dict(rates)
    for dtype in ROOFLINE_DTYPES:
        best = max(
            (product for product in products if product.dtype == dtype),
            key=lambda product: product.flop_per_second,
            default=None,
        )
        if best is None:
            continue
        rate = rates.get(dtype)
        if rate is None:
            source = f"best GEMM ({best.library}) stands in: {absent[dtype]}"
            peaks[dtype] = Rate(best.flop_per_second, source)
        elif best.flop_per_second > rate.flop_per_second:
            source = f"best GEMM ({best.library}): it is faster than {rate.source}"
            peaks[dtype] = Rate(best.flop_per_second, source, chains=rate.flop_per_second)
    return peaks

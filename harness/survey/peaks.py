"""The machine's peaks under a thread budget, measured in processes of their own: arithmetic, GEMMs, memory levels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    MeasuredRate,
    MeasureProduct,
    MeasureSpotPeak,
    ReplyT,
    Request,
)
from harness.process.supervisor import WorkerPool
from harness.timing.roofline import ROOFLINE_DTYPES, Level, Peaks, Product, Rate

#: The GEMMs that are asked for, by the library whose process they share; and what the process for the peaks needs.
LIBRARIES: Final = {"numpy": ("numpy",), "torch": ("torch.mm", "torch oneDNN"), "jax": ("jax",)}
INSTRUMENT: Final = "numba"
#: What the process that measures the spot_peak is called.
SPOT_PEAK: Final = "the spot_peak"
#: What a device is measured through; the arithmetic that is asked for, as dtype and precision; the bytes of each array
#: of a copy in its memory.
DEVICE_INSTRUMENT: Final = "the device"
DEVICE_ARITHMETIC: Final = {
    **{name: (name, "ieee") for name in ("float32", "float64", "float16", "bfloat16")},
    "tf32": ("float32", "tf32"),
}
DEVICE_MEMORY_BYTES: Final = 2**30
#: Memory is read from buffers of so many times the last cache, together, and at least so many bytes.
MEMORY_TIMES, MEMORY_BYTES = 4, 256 * 2**20
#: The buffers take at most this part of the memory that is free.
MEMORY_SHARE: Final = 4
#: Longest reason that is kept, in characters.
REASON_LENGTH: Final = 200


def measure(workers: WorkerPool, threads: int, limit_seconds: float) -> Peaks:
    """Measure the peaks; what cannot be measured is left out, and a line says why.

    Args:
        workers: Starts and ends the processes; one is there at a time.
        threads: The thread budget, which the workers are held to.
        limit_seconds: Time limit of each request, in seconds; the first one to a library imports it.
    """
    sizes = reading_bytes(environment.caches(), budget.cpus(threads), threads, environment.available_bytes())
    missing: list[str] = []
    rates: dict[str, Rate] = {}
    absent: dict[str, str] = {}  # why there is no rate, by dtype
    levels: list[Level] = []
    with _Visit(workers, INSTRUMENT, limit_seconds) as visit:
        for dtype in ROOFLINE_DTYPES:
            value, text = visit.rate(MeasureArithmetic(dtype))
            if value is None:
                absent[dtype] = text
            else:
                rates[dtype] = Rate(value, text, chains=value)
        for name, capacity, per_thread in sizes:
            value, text = visit.rate(MeasureBandwidth(per_thread))
            if value is None:
                # Nor are the larger ones asked: without this one, a slower level would stand for what it holds.
                missing.append(f"bandwidth of {name}: {text}")
                break
            levels.append(Level(name, capacity, value))
    missing = [f"FMA peak in {dtype}: {text}" for dtype, text in absent.items()] + missing

    products: list[Product] = []
    for library, names in LIBRARIES.items():
        with _Visit(workers, library, limit_seconds) as visit:
            for name in names:
                for dtype in ROOFLINE_DTYPES:
                    value, text = visit.rate(MeasureProduct(name, dtype))
                    if value is None:
                        missing.append(f"{name} in {dtype}: {text}")
                    else:
                        products.append(Product(name, dtype, value, text))
            if library == "numpy" and not levels:
                _, capacity, per_thread = sizes[-1]
                value, text = visit.rate(MeasureBandwidth(per_thread, "numpy"))
                if value is not None:
                    levels.append(Level("memory", capacity, value))
                    missing.append(f"the bandwidth of memory is that of {text}, which may be less than it has")
    return Peaks(_arithmetic(rates, absent, products), tuple(products), tuple(levels), tuple(missing))


def measure_device(workers: WorkerPool, device: str, limit_seconds: float) -> Peaks:
    """Measure what a device other than the CPU can do: its GEMM in each precision, and copies within cache and memory.

    Args:
        workers: Starts and ends the process.
        device: ``cuda``.
        limit_seconds: Time limit of each request, in seconds.
    """
    missing: list[str] = []
    rates: dict[str, Rate] = {}
    products: list[Product] = []
    levels: list[Level] = []
    with _Visit(workers, DEVICE_INSTRUMENT, limit_seconds, device=device) as visit:
        described = visit.ask(DescribeDevice(device))
        cache, text = (None, described) if isinstance(described, str) else (described.cache_bytes, described.name)
        if cache is None:
            missing.append(f"size of the cache of {device}: {text}")
        for name, (dtype, precision) in DEVICE_ARITHMETIC.items():
            value, text = visit.rate(MeasureDeviceProduct(device, dtype, precision))
            if value is None:
                missing.append(f"GEMM in {name}: {text}")
            else:
                rates[name] = Rate(value, f"best GEMM ({text})")
                products.append(Product("torch.mm", name, value, text))
        # Both arrays of a copy lie in the cache, with room to spare; and beyond it, they lie in memory.
        sizes = [] if cache is None else [("L2", int(cache), int(cache) // 4)]
        for level, capacity, size in [*sizes, ("memory", None, DEVICE_MEMORY_BYTES)]:
            value, text = visit.rate(MeasureDeviceBandwidth(device, size))
            if value is None:
                missing.append(f"bandwidth of {level}: {text}")
                break  # as above: a slower level would stand for what this one holds
            levels.append(Level(level, capacity, value))
    return Peaks(rates, tuple(products), tuple(levels), tuple(missing))


def products_with(
    workers: WorkerPool, library: str, variables: Mapping[str, str], limit_seconds: float
) -> tuple[Product, ...]:
    """Measure a library's products under environment variables, which stand in the products' names."""
    told = " ".join(f"{name}={value}" for name, value in variables.items())
    found = []
    with _Visit(workers, library, limit_seconds, variables=variables) as visit:
        for dtype in ROOFLINE_DTYPES:
            value, text = visit.rate(MeasureProduct(library, dtype))
            if value is not None:
                found.append(Product(f"{library} with {told}", dtype, value, text))
    return tuple(found)


def reading_bytes(
    caches: Sequence[environment.Cache], cpus: Sequence[int] | None, threads: int, available_bytes: int
) -> list[tuple[str, int | None, int]]:
    """Name, capacity and the bytes that each thread reads, of every level that these CPUs reach, smallest first.

    A cache is read at half its capacity, so that it holds what is read beside all else. Only the memory's level is
    returned where the CPUs' caches are not known.
    """
    reached = [cache for cache in caches if cache.cpus & set(cpus or ())]
    capacities: dict[str, int] = {}
    for cache in reached:  # each one once, however many of the threads share it
        capacities[cache.name] = capacities.get(cache.name, 0) + cache.size_bytes
    total = max(MEMORY_TIMES * max(capacities.values(), default=0), MEMORY_BYTES)
    memory = min(total, available_bytes // MEMORY_SHARE) // threads
    levels = [(name, capacity, capacity // (2 * threads)) for name, capacity in sorted(capacities.items())]
    return [*levels, ("memory", None, memory)]


class SpotPeak:
    """What the CPUs multiply at the moment, for runs on machines whose speed changes from minute to minute.

    A peak is what they can do at best. A backend's time beside it also tells what else the machine did meanwhile, other
    tenants of the hardware included. Beside a spot_peak it tells of the backend, as far as that moment is like its own.

    Args:
        workers: Starts the process; it stays until the workers end.
        limit_seconds: Time limit of a request, in seconds; the first one compiles.
    """

    def __init__(self, workers: WorkerPool, limit_seconds: float) -> None:
        self._workers = workers
        self._limit_seconds = limit_seconds
        self._peak_worker: WorkerHandle | None = None
        self._absent: set[str] = set()

    def now(self, dtype: str, seconds: float) -> float | None:
        """Multiply-adds of all threads together, in flop per second; None, from then on, if it cannot be measured.

        Args:
            dtype: Of the numbers.
            seconds: For about so long.
        """
        if dtype not in ROOFLINE_DTYPES or dtype in self._absent:
            return None
        try:
            self._peak_worker = self._peak_worker or self._workers.peak_worker(SPOT_PEAK)
            answer = self._peak_worker.request(MeasureSpotPeak(dtype, seconds), self._limit_seconds)
            rate = answer.per_second
        except WorkerError:
            rate = None
        if rate is None:
            self._absent.add(dtype)
        return rate


class _Visit:
    """One peak_worker, from its start to its end; whatever goes wrong with it becomes a text. Use as a context manager."""

    def __init__(
        self,
        workers: WorkerPool,
        name: str,
        limit_seconds: float,
        device: str = "cpu",
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self._workers = workers
        self._name = name
        self._device = device
        self._variables = variables
        self._limit_seconds = limit_seconds
        self._peak_worker: WorkerHandle | None = None
        self._ended = ""

    def __enter__(self) -> _Visit:
        try:
            self._peak_worker = self._workers.peak_worker(self._name, self._device, self._variables)
        except WorkerError as error:
            self._ended = _first_line(error.reason)
        return self

    def __exit__(self, *_: object) -> None:
        self._workers.discard_peak_worker(self._name)

    def rate(self, request: Request[MeasuredRate]) -> tuple[float | None, str]:
        """Return a rate and its source; None, and why, where there is none."""
        answer = self.ask(request)
        return (None, answer) if isinstance(answer, str) else (answer.per_second, answer.source)

    def ask(self, request: Request[ReplyT]) -> ReplyT | str:
        """Return the reply, or why there is none."""
        if self._peak_worker is None:
            return self._ended
        try:
            return self._peak_worker.request(request, self._limit_seconds)
        except WorkerError as error:
            if not self._peak_worker.alive:  # the other questions to it have the same answer
                self._peak_worker, self._ended = None, _first_line(error.reason)
            return _first_line(error.reason)


def _first_line(reason: str) -> str:
    """What a library says first when it fails; some add a page of advice."""
    return reason.strip().partition("\n")[0][:REASON_LENGTH]


def _arithmetic(rates: Mapping[str, Rate], absent: Mapping[str, str], products: Sequence[Product]) -> dict[str, Rate]:
    """The peak of each dtype: the FMA chains, or the best GEMM where there are none, or where it is faster.

    Faster it can be where the machine was disturbed, or has matrix units that no vector code reaches.
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

"""The peak worker: the CPU's multiply-add rate, the bandwidth of each memory level, and each library's best GEMM.

One thread on each CPU of the budget runs a loop, and each thread is timed for itself. The best repetition counts: a
roofline below what a correct backend reaches is none. A library that is not installed, or that has no such product, is
a reply without a rate, with the reason as its source.
"""

from __future__ import annotations

import math
import re
from typing import Final

import numpy as np

from harness.process.protocol import (
    Handlers,
    MeasureArithmetic,
    MeasureBandwidth,
    MeasuredRate,
    MeasureProduct,
    MeasureSpotPeak,
)
from harness.worker.peak_kernels import LINE_BYTES, SUMS, Sum, aligned, kernels, numpy_total
from harness.worker.peak_products import PRODUCTS, NoProductError
from harness.worker.peak_timing import Run, Team, best_seconds

#: Length of a repetition of the multiply-add chains, in seconds.
CHAIN_SECONDS: Final = 0.03
#: Repetitions of the multiply-add chains.
CHAIN_REPETITIONS: Final = 10
#: Length of the repetition that wakes CPUs and threads before a spot peak, in seconds: short, as each sample has one.
WAKING_SECONDS: Final = 0.001
#: Length of a repetition of the reading loop, in seconds.
READ_SECONDS: Final = 0.02
#: Repetitions of the reading loop.
READ_REPETITIONS: Final = 5
#: Most repetitions of a product; the fewest are two.
PRODUCT_REPETITIONS: Final = 5
#: Time of a product's repetitions after which no other begins, in seconds.
PRODUCT_SECONDS: Final = 0.35
#: Rows and columns of the square GEMM: tens of milliseconds each, so that packing and edges do not count.
PRODUCT_SIZES: Final = {"float32": 2048, "float64": 1536}
#: x -> x * FACTOR + ADDEND converges to 2 from everywhere. It neither overflows nor becomes subnormal, which is slow on
#: some CPUs.
FACTOR: Final = 0.5
ADDEND: Final = 1.0
#: Rounds of the first call of the chains, which compiles them.
FIRST_ROUNDS: Final = 1000


class PeakWorker:
    """Measures one library's rates, in a process that no other library shares."""

    def __init__(self) -> None:
        self._chains: dict[str, _Chains] = {}
        self.handlers: Handlers = {
            MeasureArithmetic: self.arithmetic,
            MeasureSpotPeak: self.spot_peak,
            MeasureProduct: self.product,
            MeasureBandwidth: self.bandwidth,
        }

    def arithmetic(self, request: MeasureArithmetic) -> MeasuredRate:
        """Return the multiply-add rate of all threads together, two flop each."""
        with Team() as team:
            try:
                chains = _Chains(team, request.dtype)
            except ImportError as error:
                return MeasuredRate(None, _absent("Numba", error))
            rate = team.best_rate(chains.runs, chains.flop, CHAIN_SECONDS, CHAIN_REPETITIONS, FIRST_ROUNDS)
            return MeasuredRate(rate, chains.source)

    def spot_peak(self, request: MeasureSpotPeak) -> MeasuredRate:
        """Return the rate of ``arithmetic`` at this moment: one repetition, whatever disturbs it."""
        if request.dtype not in self._chains:
            try:
                self._chains[request.dtype] = _Chains(Team(), request.dtype)
            except ImportError as error:
                return MeasuredRate(None, _absent("Numba", error))
        chains = self._chains[request.dtype]
        return MeasuredRate(chains.spot_peak(request.seconds), chains.source)

    def bandwidth(self, request: MeasureBandwidth) -> MeasuredRate:
        """Return the bytes that all threads together read per second, each from its own buffer.

        NumPy's sums are near the bandwidth of memory. In a cache Python's calls dominate them.
        """
        if request.library == "numpy":
            total: Sum = numpy_total
            block_bytes, source = LINE_BYTES, "sums in NumPy"
        else:
            try:
                vector, _, total = kernels()
            except ImportError as error:
                return MeasuredRate(None, _absent("Numba", error))
            block_bytes, source = SUMS * vector.size_bytes, f"vector loads, {vector.name}"
        size_bytes = max(1, request.bytes_per_thread // block_bytes) * block_bytes

        def prepare(_: None) -> Run:
            buffer = aligned(size_bytes)  # the thread that reads the buffer fills it, so its pages are near that CPU
            return lambda passes: total(buffer, passes)

        with Team() as team:
            runs = team.together(prepare, [None] * team.size)
            rate = team.best_rate(runs, float(size_bytes), READ_SECONDS, READ_REPETITIONS, first=1)
            return MeasuredRate(rate, f"{source}, {_threads(team.size)}")

    def product(self, request: MeasureProduct) -> MeasuredRate:
        """Return the best rate of a library's square GEMM.

        Raises:
            RuntimeError: The product is wrong.
        """
        library, dtype = request.library, request.dtype
        size = PRODUCT_SIZES[dtype]
        generator = np.random.default_rng(0)
        left, right = generator.random((2, size, size), dtype=np.dtype(dtype).type)
        try:
            multiply, to_numpy, source = PRODUCTS[library](left, right)
        except NoProductError as error:
            return MeasuredRate(None, str(error))
        except ImportError as error:
            return MeasuredRate(None, _absent(re.split(r"\W", library)[0], error))
        seconds, result = best_seconds(multiply, PRODUCT_REPETITIONS, PRODUCT_SECONDS)
        row, column = size // 2, size // 3
        element, expected = float(to_numpy(result)[row, column]), float(left[row] @ right[:, column])
        if not math.isclose(element, expected, rel_tol=1e-3):
            raise RuntimeError(f"{library} multiplied wrongly: {element:.6g} where {expected:.6g} is right")
        return MeasuredRate(2.0 * size**3 / seconds, source)


class _Chains:
    """Multiply-add chains of a dtype on each thread of a team.

    Attributes:
        runs: Function of each thread that runs a number of rounds.
        flop: Floating-point operations in one round of one thread.
        source: Name of the measurement, with vector and threads.

    Raises:
        ImportError: Numba is not installed.
    """

    def __init__(self, team: Team, dtype: str) -> None:
        vector, chain, _ = kernels()
        factor, addend = np.dtype(dtype).type(FACTOR), np.dtype(dtype).type(ADDEND)
        elements = vector.chains * (vector.size_bytes // np.dtype(dtype).itemsize)

        def prepare(_: None) -> Run:
            state = np.linspace(1, 3, elements, dtype=dtype)
            return lambda count: chain(state, factor, addend, count)

        self._team = team
        self._waking_rounds = 0  # 0 until the first spot peak
        self.runs: list[Run] = team.together(prepare, [None] * team.size)
        self.flop = 2.0 * elements
        self.source = f"FMA chains, {vector.name}, {_threads(team.size)}"

    def spot_peak(self, seconds: float) -> float:
        """Return the flop per second of all threads together now, over about ``seconds``."""
        self._waking_rounds = self._waking_rounds or self._team.rounds(
            self.runs, self.flop, WAKING_SECONDS, FIRST_ROUNDS
        )
        rate = self._team.rate(self.runs, self.flop, self._waking_rounds)
        # The rate changes from moment to moment, so each waking call sets the number of rounds of the next two calls.
        rounds_per_second = rate / self._team.size / self.flop
        self._waking_rounds = max(1, round(rounds_per_second * WAKING_SECONDS))
        return self._team.rate(self.runs, self.flop, max(1, round(rounds_per_second * seconds)))


def _absent(library: str, error: Exception) -> str:
    """Return one line: the library is not installed, or why an installed one cannot be imported."""
    missing = isinstance(error, ModuleNotFoundError) and (error.name or "").lower() in (library.lower(), "llvmlite")
    return f"{library} is not installed" if missing else f"{library} cannot be imported: {error}"


def _threads(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"

"""What the peak_worker's worker can be asked: how fast this machine multiplies and reads, and each library's best GEMM.

Arithmetic and bandwidth are measured by loops that Numba compiles from hand-written vector code, one thread on each CPU
of the budget. A library that is not installed, or has no such product, is an answer: the rate is None, and why is said.
A limit that a right backend beats is none, so the best repetition counts, and each thread is timed for itself.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import math
import os
import re
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from harness.machine import threads
from harness.process.protocol import (
    MeasureArithmetic,
    MeasureBandwidth,
    MeasuredRate,
    MeasureProduct,
    MeasureSpotPeak,
    Request,
)

#: One repetition takes about so long, and the best of so many counts.
CHAIN_SECONDS, CHAIN_REPETITIONS = 0.03, 10
#: A spot_peak is one repetition, after one of about so long that wakes CPUs and threads up: short, as each sample has one.
WAKING_SECONDS: Final = 0.001
READ_SECONDS, READ_REPETITIONS = 0.02, 5
#: A product is repeated so often at most, and no more once so much time has gone; but at least twice.
PRODUCT_REPETITIONS, PRODUCT_SECONDS = 5, 0.35
#: Rows and columns of the square GEMM: large enough that packing and ends do not count, in tens of milliseconds.
PRODUCT_SIZES: Final = {"float32": 2048, "float64": 1536}
#: x -> x / 2 + 1 goes to 2 from everywhere: it neither overflows nor becomes subnormal, which some CPUs do slowly.
FACTOR, ADDEND = 0.5, 1.0
#: Vectors summed side by side while reading. An integer sum has a latency of one cycle and more ports than a
#: floating-point one, so that loads are the limit; and it is exact.
SUMS: Final = 8
#: What is behind a library that does not say it.
UNNAMED: Final = "a BLAS that does not say its name"
#: A cache line, and the longest vector there is, in bytes.
LINE_BYTES: Final = 64

Array = npt.NDArray[Any]
Run = Callable[[int], Any]
Chain = Callable[[Array, Any, Any, int], None]
Sum = Callable[[Array, int], int]

#: Set by ``kernels``. They are globals because Numba takes what a closure holds into the key of its cache on disk, and
#: an intrinsic is another one in every process.
_chain_loop: Any
_sum_loop: Any


class Vector(NamedTuple):
    """The host's widest vector, and how many multiply-add chains keep its units busy.

    Latency times units is 8 to 16 chains; they have to fit into the registers (16 with AVX2, else 32) beside the factor
    and the addend.
    """

    name: str
    size_bytes: int
    chains: int


class Kernels(NamedTuple):
    """The compiled loops; all release the GIL.

    Attributes:
        vector: What they are made of.
        chain: ``chain(state, factor, addend, count)``: ``count`` times ``state = fma(state, factor, addend)``, element
            by element; ``state`` holds ``vector.chains`` vectors.
        total: ``total(buffer, passes)``: sum of an int64 buffer, read ``passes`` times, modulo 2**64; its length must
            be a multiple of ``SUMS`` vectors.
    """

    vector: Vector
    chain: Chain
    total: Sum


class Multiplication(NamedTuple):
    """A product ready to be timed: what computes it, what makes a NumPy array of the result, and what is behind it."""

    multiply: Callable[[], Any]
    to_numpy: Callable[[Any], Array]
    detail: str


Handlers = dict[type[Request[Any]], Callable[[Any], object]]


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
        """Multiply-adds of all threads together, in flop per second (two each), and what has been run."""
        with Team() as team:
            try:
                chains = _Chains(team, request.dtype)
            except ImportError as error:
                return MeasuredRate(None, _absent("Numba", error))
            rate = team.best_rate(chains.runs, chains.flop, CHAIN_SECONDS, CHAIN_REPETITIONS, first=1000)
            return MeasuredRate(rate, chains.source)

    def spot_peak(self, request: MeasureSpotPeak) -> MeasuredRate:
        """As ``arithmetic``, at this moment: one repetition of about so long, whatever disturbs it."""
        if request.dtype not in self._chains:
            try:
                self._chains[request.dtype] = _Chains(Team(), request.dtype)
            except ImportError as error:
                return MeasuredRate(None, _absent("Numba", error))
        chains = self._chains[request.dtype]
        return MeasuredRate(chains.spot_peak(request.seconds), chains.source)

    def bandwidth(self, request: MeasureBandwidth) -> MeasuredRate:
        """Bytes that all threads together read per second, each from a buffer of its own, again and again.

        With ``library="numpy"`` NumPy sums them: no limit for a cache, where Python's calls count, but near memory's.
        """
        if request.library == "numpy":
            total: Sum = _numpy_total
            block = LINE_BYTES
        else:
            try:
                vector, _, total = kernels()
            except ImportError as error:
                return MeasuredRate(None, _absent("Numba", error))
            block = SUMS * vector.size_bytes
        size = max(1, request.bytes_per_thread // block) * block

        def prepare(_: Any) -> Callable[[int], int]:
            buffer = aligned(size)  # made and filled in the thread that reads it, for memory is near who touches it
            return lambda passes: total(buffer, passes)

        with Team() as team:
            runs = team.together(prepare, [None] * team.size)
            rate = team.best_rate(runs, float(size), READ_SECONDS, READ_REPETITIONS, first=1)
            source = "sums in NumPy" if request.library == "numpy" else f"vector loads, {vector.name}"
            return MeasuredRate(rate, f"{source}, {_counted(team.size)}")

    def product(self, request: MeasureProduct) -> MeasuredRate:
        """The best of a few square GEMMs of that library, in flop per second, and what multiplies behind it."""
        library, dtype = request.library, request.dtype
        size = PRODUCT_SIZES[dtype]
        generator = np.random.default_rng(0)
        left, right = generator.random((2, size, size), dtype=np.dtype(dtype).type)
        try:
            multiply, to_numpy, detail = PRODUCTS[library](left, right)
        except NoProductError as error:
            return MeasuredRate(None, str(error))
        except ImportError as error:
            return MeasuredRate(None, _absent(re.split(r"\W", library)[0], error))
        seconds, result = best_seconds(multiply, PRODUCT_REPETITIONS, PRODUCT_SECONDS)
        # A wrong product has no rate.
        got, expected = to_numpy(result)[size // 2, size // 3], left[size // 2] @ right[:, size // 3]
        if not math.isclose(float(got), float(expected), rel_tol=1e-3):
            raise RuntimeError(f"{library} multiplied wrongly: {float(got):.6g} where {float(expected):.6g} is right")
        return MeasuredRate(2.0 * size**3 / seconds, detail)


class NoProductError(Exception):
    """A library that is there and has no product of that dtype."""


class Team:
    """One thread on each CPU of the budget. Use as a context manager."""

    def __init__(self) -> None:
        cpus: Sequence[int | None] | None = threads.affinity()
        if cpus is None:  # no affinity on this system: the pools' own variable has the budget
            cpus = [None] * int(os.environ.get("OMP_NUM_THREADS", "1"))
        self.size = len(cpus)
        waiting = list(cpus)
        self._barrier = threading.Barrier(self.size)
        self._pool = ThreadPoolExecutor(self.size, initializer=lambda: _sit_down(waiting.pop()))

    def __enter__(self) -> Team:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def best_rate(
        self, runs: Sequence[Run], work: float, repetition_seconds: float, repetitions: int, first: int
    ) -> float:
        """Return work per second of all threads together, the best repetition.

        Args:
            runs: For each thread what runs a count of rounds.
            work: What one round of one thread counts.
            repetition_seconds: About how long a repetition takes.
            repetitions: How many there are.
            first: Rounds of the first call, which compiles.
        """
        count = self.rounds(runs, work, repetition_seconds, first)
        return max(self.rate(runs, work, count) for _ in range(repetitions))

    def rounds(self, runs: Sequence[Run], work: float, repetition_seconds: float, first: int) -> int:
        """Find the count of rounds that take about so long; the arguments are those of ``best_rate``."""
        count = first
        self.rate(runs, work, count)
        for _ in range(2):  # the second time from a longer run
            seconds = work * count / (self.rate(runs, work, count) / self.size)
            count = max(1, round(count * min(1000.0, repetition_seconds / seconds)))
        return count

    def rate(self, runs: Sequence[Run], work: float, count: int) -> float:
        """Return work per second of all threads together in one repetition, each timed for itself."""
        return sum(self.together(lambda run: work * count / _seconds(run, count), runs))

    def together(self, do: Callable[[Any], Any], given: Sequence[Any]) -> list[Any]:
        """Do it in all threads at once, each with its own; the barrier sees to it that no thread takes two."""

        def wait_and_do(own: Any) -> Any:
            self._barrier.wait()
            return do(own)

        return list(self._pool.map(wait_and_do, given))


class _Chains:
    """Multiply-add chains of a dtype on each thread of a team.

    Attributes:
        runs: For each thread what runs a count of rounds.
        flop: What one round of one thread counts.
        source: What this is, in words.

    Raises:
        ImportError: Numba is not installed.
    """

    def __init__(self, team: Team, dtype: str) -> None:
        vector, chain, _ = kernels()
        factor, addend = np.dtype(dtype).type(FACTOR), np.dtype(dtype).type(ADDEND)
        elements = vector.chains * (vector.size_bytes // np.dtype(dtype).itemsize)

        def prepare(_: Any) -> Run:
            state = np.linspace(1, 3, elements, dtype=dtype)
            return lambda count: chain(state, factor, addend, count)

        self._team = team
        self._waking = 0  # rounds; 0 before it is known
        self.runs: list[Run] = team.together(prepare, [None] * team.size)
        self.flop = 2.0 * elements
        self.source = f"FMA chains, {vector.name}, {_counted(team.size)}"

    def spot_peak(self, seconds: float) -> float:
        """Return the flop per second of all threads together at this moment, for about so long."""
        self._waking = self._waking or self._team.rounds(self.runs, self.flop, WAKING_SECONDS, first=1000)
        rate = self._team.rate(self.runs, self.flop, self._waking)
        # How many rounds take how long is another thing in the next moment.
        each = rate / self._team.size / self.flop
        self._waking = max(1, round(each * WAKING_SECONDS))
        return self._team.rate(self.runs, self.flop, max(1, round(each * seconds)))


@functools.cache
def kernels() -> Kernels:
    """Define the compiled loops; Numba compiles each at its first call, or loads it from its cache.

    Raises:
        ImportError: Numba is not installed.
    """
    import numba
    from llvmlite import ir
    from numba import types
    from numba.core import cgutils
    from numba.extending import intrinsic

    global _chain_loop, _sum_loop
    vector = _widest_vector()

    def vectors(context: Any, builder: Any, array_type: Any, array: Any) -> tuple[Any, Any, int, Callable[[Any], Any]]:
        """The vector type, a pointer to the array's first vector, its lanes; and what loads a vector unaligned."""
        scalar = context.get_data_type(array_type.dtype)
        itemsize = array_type.dtype.bitwidth // 8
        lanes = vector.size_bytes // itemsize
        kind = ir.VectorType(scalar, lanes)
        data = context.make_array(array_type)(context, builder, array).data

        def load(pointer: Any) -> Any:
            loaded = builder.load(pointer)
            loaded.align = itemsize
            return loaded

        return kind, builder.bitcast(data, kind.as_pointer()), lanes, load

    @intrinsic
    def _chain_loop(_: Any, state: Any, factor: Any, addend: Any, count: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            kind, first, lanes, load = vectors(context, builder, signature.args[0], arguments[0])
            name = f"llvm.fma.v{lanes}f{signature.args[0].dtype.bitwidth}"
            fma = cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [kind] * 3), name)
            scale, shift = (_splat(ir, builder, kind, scalar) for scalar in arguments[1:3])
            places = [builder.gep(first, [ir.Constant(ir.IntType(64), k)]) for k in range(vector.chains)]
            chains = [cgutils.alloca_once_value(builder, load(place)) for place in places]
            with cgutils.for_range(builder, arguments[3]):
                for chain in chains:
                    builder.store(builder.call(fma, [builder.load(chain), scale, shift]), chain)
            for chain, place in zip(chains, places, strict=True):
                builder.store(builder.load(chain), place).align = signature.args[0].dtype.bitwidth // 8
            return context.get_dummy_value()

        return types.void(state, factor, addend, types.intp), generate

    @intrinsic
    def _sum_loop(_: Any, buffer: Any, passes: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            kind, first, lanes, load = vectors(context, builder, signature.args[0], arguments[0])
            array = context.make_array(signature.args[0])(context, builder, arguments[0])
            vector_count = builder.sdiv(array.nitems, ir.Constant(ir.IntType(64), lanes))
            step = ir.Constant(ir.IntType(64), SUMS)
            sums = [cgutils.alloca_once_value(builder, ir.Constant(kind, [0] * lanes)) for _ in range(SUMS)]
            with (
                cgutils.for_range(builder, arguments[1]),
                cgutils.for_range_slice(builder, step.type(0), vector_count, step, step.type) as (at, _),
            ):
                for k, one in enumerate(sums):
                    place = builder.gep(first, [builder.add(at, step.type(k))])
                    builder.store(builder.add(builder.load(one), load(place)), one)
            total = functools.reduce(builder.add, [builder.load(one) for one in sums])
            lane_numbers = [ir.Constant(ir.IntType(32), lane) for lane in range(lanes)]
            return functools.reduce(builder.add, [builder.extract_element(total, lane) for lane in lane_numbers])

        return types.int64(buffer, types.intp), generate

    @numba.njit(nogil=True, cache=True)
    def chain(state: Array, factor: Any, addend: Any, count: int) -> None:
        _chain_loop(state, factor, addend, count)

    @numba.njit(nogil=True, cache=True)
    def total(buffer: Array, passes: int) -> int:
        return _sum_loop(buffer, passes)

    return Kernels(vector, chain, total)


def aligned(size_bytes: int) -> Array:
    """An int64 array of so many bytes, all ones, that starts at a cache line; every page has been written to."""
    spare = np.empty(size_bytes + LINE_BYTES, np.uint8)
    skipped = -spare.ctypes.data % LINE_BYTES
    buffer = spare[skipped : skipped + size_bytes].view(np.int64)
    buffer.fill(1)
    return buffer


def _widest_vector() -> Vector:
    from llvmlite import binding

    features = binding.get_host_cpu_features()
    if features.get("avx512f"):
        return Vector("AVX-512", 64, 24)
    if features.get("avx2") and features.get("fma"):
        return Vector("AVX2", 32, 12)
    return Vector("128-bit vectors", 16, 24)


def _splat(ir: Any, builder: Any, kind: Any, scalar: Any) -> Any:
    """A vector with the scalar in each lane."""
    number = ir.IntType(32)
    undefined = ir.Constant(kind, ir.Undefined)
    one = builder.insert_element(undefined, scalar, ir.Constant(number, 0))
    return builder.shuffle_vector(one, undefined, ir.Constant(ir.VectorType(number, kind.count), [0] * kind.count))


def _numpy_total(buffer: Array, passes: int) -> int:
    """As ``Kernels.total``; NumPy's sum releases the GIL, but does not load as fast as a small cache delivers."""
    return sum(int(buffer.sum()) for _ in range(passes)) % 2**64


def _sit_down(cpu: int | None) -> None:
    """Hold this thread, and no other, to one CPU."""
    if cpu is not None:
        with contextlib.suppress(OSError):  # not allowed: then the kernel places it
            os.sched_setaffinity(0, {cpu})


def _seconds(run: Callable[[int], Any], count: int) -> float:
    start = time.perf_counter()
    run(count)
    return time.perf_counter() - start


def best_seconds(work: Callable[[], Any], repetitions: int, enough_seconds: float) -> tuple[float, Any]:
    """The shortest of a few calls, after one that warms up; and the last one's result.

    Args:
        work: What is called.
        repetitions: Calls that count, at most; there are two at least.
        enough_seconds: Once they have taken so long, no more are begun.
    """
    work()
    seconds: list[float] = []
    while len(seconds) < 2 or (len(seconds) < repetitions and sum(seconds) < enough_seconds):
        start = time.perf_counter()
        result = work()
        seconds.append(time.perf_counter() - start)
    return min(seconds), result


def _numpy(left: Array, right: Array) -> Multiplication:
    out = np.empty_like(left)
    return Multiplication(lambda: np.matmul(left, right, out=out), np.asarray, _blas_behind_numpy())


def _torch_mm(left: Array, right: Array) -> Multiplication:
    import torch

    one, other = torch.from_numpy(left), torch.from_numpy(right)
    out = torch.empty_like(one)
    said = torch.__config__.show()
    mkl = re.search(r"Math Kernel Library Version (\S+?)[- ]", said)
    blas = re.search(r"BLAS_INFO=(\w+)", said)
    detail = f"MKL {mkl[1]}" if mkl else blas[1] if blas else UNNAMED
    return Multiplication(lambda: torch.mm(one, other, out=out), lambda result: result.numpy(), detail)


def _torch_onednn(left: Array, right: Array) -> Multiplication:
    import torch

    if not torch.backends.mkldnn.is_available():
        raise NoProductError("this PyTorch is built without oneDNN")
    if left.dtype != np.float32:
        raise NoProductError(f"oneDNN has no {left.dtype} product")
    # PyTorch gives a plain float32 product to its BLAS; with operands in oneDNN's own layout it has no choice.
    one, other = torch.from_numpy(left).to_mkldnn(), torch.from_numpy(right.T.copy()).to_mkldnn()
    version = re.search(r"(?:MKL-DNN|oneDNN) v([\d.]+)", torch.__config__.show())
    return Multiplication(
        lambda: torch.nn.functional.linear(one, other),
        lambda result: result.to_dense().numpy(),
        f"oneDNN {version[1]}" if version else "oneDNN",
    )


def _jax(left: Array, right: Array) -> Multiplication:
    import jax

    jax.config.update("jax_enable_x64", left.dtype == np.float64)
    one, other = jax.numpy.asarray(left), jax.numpy.asarray(right)
    dot = jax.jit(lambda a, b: jax.numpy.dot(a, b, precision=jax.lax.Precision.HIGHEST))
    detail = f"XLA of jaxlib {importlib.metadata.version('jaxlib')}"
    return Multiplication(lambda: dot(one, other).block_until_ready(), np.asarray, detail)


#: What multiplies two square matrices, by the product's name.
PRODUCTS: Final[dict[str, Callable[[Array, Array], Multiplication]]] = {
    "numpy": _numpy,
    "torch.mm": _torch_mm,
    "torch oneDNN": _torch_onednn,
    "jax": _jax,
}


def _blas_behind_numpy() -> str:
    import threadpoolctl

    names = {"openblas": "OpenBLAS", "mkl": "MKL", "blis": "BLIS"}
    for pool in threadpoolctl.threadpool_info():
        if pool["user_api"] == "blas":
            said = (names.get(pool["internal_api"], pool["internal_api"]), pool["version"], pool.get("architecture"))
            return " ".join(str(word) for word in said if word)
    return UNNAMED


def _absent(library: str, error: Exception) -> str:
    """One line: not installed, or installed and not importable for a reason of its own."""
    missing = isinstance(error, ModuleNotFoundError) and (error.name or "").lower() in (library.lower(), "llvmlite")
    return f"{library} is not installed" if missing else f"{library} cannot be imported: {error}"


def _counted(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"

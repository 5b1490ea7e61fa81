"""What a case costs at the least: a case in, floating-point operations and bytes out, and time on a machine. Pure."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

if TYPE_CHECKING:
    from harness.case import Case

Key = TypeVar("Key")
Value = TypeVar("Value")

#: Forward is one contraction. A step needs three: the output, both input gradients out of one pass over
#: dZ[b,i,j] = sum_o grad_output[b,o] weight[o,i,j], and the weight's gradient.
CONTRACTIONS: Final = {"forward": 1, "forward_backward": 3}

#: Sets of inputs that a backend holds during timing.
INPUT_SETS: Final = 2
#: What an interpreter with a framework in it takes before any array, BLAS buffers and compiling included, in bytes.
PROCESS_BYTES: Final = 650 * 2**20
#: Dtypes that have a limit on a CPU. Half-precision products may run on units whose rate is not measured.
ROOFLINE_DTYPES: Final = ("float32", "float64")


@dataclasses.dataclass(frozen=True, slots=True)
class Rate:
    """The most floating-point operations per second, and what was measured to say so.

    Attributes:
        flop_per_second: Of all threads together.
        source: In words.
        chains: What multiply-add chains did, which the spot_peak is measured with; None where that is not known.
    """

    flop_per_second: float
    source: str
    chains: float | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Product:
    """The best GEMM of one library.

    Attributes:
        library: ``numpy``, ``torch.mm``, ``torch oneDNN`` or ``jax``.
        dtype: Element type of both matrices and of their product.
        flop_per_second: 2 n**3 over the shortest time.
        detail: What multiplies behind the library, as it says itself: ``OpenBLAS 0.3.30 SkylakeX``.
    """

    library: str
    dtype: str
    flop_per_second: float
    detail: str


@dataclasses.dataclass(frozen=True, slots=True)
class Level:
    """One level of the memory, for all threads of the budget together.

    Attributes:
        name: ``L1``, ``L2``, ``L3`` or ``memory``.
        capacity_bytes: Of all the caches that the threads reach, each counted once; None for memory.
        bytes_per_second: What all threads together read.
    """

    name: str
    capacity_bytes: int | None
    bytes_per_second: float


@dataclasses.dataclass(frozen=True, slots=True)
class Peaks:
    """What a machine can do under the run's thread budget.

    Attributes:
        arithmetic: The arithmetic peak, by dtype and for tf32; what could not be measured is not there.
        products: Each library's best GEMM, for the dtypes it has.
        levels: The memory's levels, smallest first.
        missing: What could not be measured and why, a line each.
    """

    arithmetic: Mapping[str, Rate]
    products: tuple[Product, ...]
    levels: tuple[Level, ...]
    missing: tuple[str, ...] = ()

    def best(self, other: Peaks) -> Peaks:
        """The higher of each two rates, and what is missing in both: a machine disturbed once is no slower for it."""
        rates = [*self.arithmetic.items(), *other.arithmetic.items()]
        products = [((product.library, product.dtype), product) for product in (*self.products, *other.products)]
        levels = [(level.name, level) for level in (*self.levels, *other.levels)]
        memory_last = sorted(
            _best(levels, lambda level: level.bytes_per_second).values(),
            key=lambda level: math.inf if level.capacity_bytes is None else level.capacity_bytes,
        )
        return Peaks(
            _best(rates, lambda rate: rate.flop_per_second),
            tuple(_best(products, lambda product: product.flop_per_second).values()),
            tuple(memory_last),
            tuple(line for line in self.missing if line in other.missing),
        )

    def at_spot_peak(self, dtype: str, flop_per_second: float) -> Peaks:
        """The same machine at a moment in which its multiply-add chains in that dtype run at this rate."""
        arithmetic = {**self.arithmetic, dtype: Rate(flop_per_second, "spot_peak")}
        return dataclasses.replace(self, arithmetic=arithmetic)

    def as_json(self) -> dict[str, Any]:
        """As JSON can hold it; ``from_json`` reads it back."""
        return {
            "arithmetic": {dtype: dataclasses.asdict(rate) for dtype, rate in self.arithmetic.items()},
            "products": [dataclasses.asdict(product) for product in self.products],
            "levels": [dataclasses.asdict(level) for level in self.levels],
            "missing": list(self.missing),
        }

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> Self:
        """Read what ``as_json`` gave."""
        return cls(
            {dtype: Rate(**rate) for dtype, rate in said["arithmetic"].items()},
            tuple(Product(**product) for product in said["products"]),
            tuple(Level(**level) for level in said["levels"]),
            tuple(said["missing"]),
        )


def flop(case: Case) -> int:
    """Least number of floating-point operations: 2 batch in1 in2 out for each contraction."""
    size = case.batch * case.in1_features * case.in2_features * case.out_features
    return 2 * size * CONTRACTIONS[case.mode]


def array_bytes(case: Case) -> int:
    """Bytes of everything that goes in and comes out once, in the case's dtype."""
    shapes = [*case.shapes().values(), *case.result_shapes().values()]
    return sum(math.prod(shape) for shape in shapes) * case.itemsize


def roofline_seconds(case: Case, peaks: Peaks) -> float | None:
    """Least time in seconds that the case can take: for its arithmetic or for its bytes, whichever is more.

    Every level gives what it has room for at its own rate, the smaller levels first: call after call over the same
    bytes, a cache can keep as many of them as it holds, even if all are more. Where one of the two rates is unknown,
    the other one is the limit; None where both are, and for dtypes and precisions outside ``ROOFLINE_DTYPES`` whose
    arithmetic was not measured.
    """
    arithmetic = arithmetic_of(case)
    if arithmetic not in (*ROOFLINE_DTYPES, *peaks.arithmetic):
        return None
    parts = []
    if (rate := peaks.arithmetic.get(arithmetic)) is not None:
        parts.append(flop(case) / rate.flop_per_second)
    if (seconds := _reading_seconds(array_bytes(case), peaks.levels)) is not None:
        parts.append(seconds)
    return max(parts, default=None)


def arithmetic_of(case: Case) -> str:
    """What a case's products are made in, as ``Peaks.arithmetic`` has it: its dtype, or tf32."""
    return "tf32" if case.precision == "tf32" else case.dtype


def _best(found: Iterable[tuple[Key, Value]], rate: Callable[[Value], float]) -> dict[Key, Value]:
    """Of each key's values the one with the highest rate; keys in the order in which they are first met."""
    best: dict[Key, Value] = {}
    for key, value in found:
        if key not in best or rate(value) > rate(best[key]):
            best[key] = value
    return best


def _reading_seconds(size_bytes: int, levels: tuple[Level, ...]) -> float | None:
    """Least time to read so many bytes, in seconds; None where the levels that are known do not hold them all.

    Memory counts only beside caches: where none is known, the bytes may lie in one, and memory's rate is too low.
    """
    caches = [(level.capacity_bytes, level) for level in levels if level.capacity_bytes is not None]
    memory = next((level for level in levels if level.capacity_bytes is None), None)
    held, seconds = 0, 0.0
    for capacity, level in sorted(caches, key=lambda pair: pair[0]):
        more = max(0, min(capacity, size_bytes) - held)
        held, seconds = held + more, seconds + more / level.bytes_per_second
    if held == size_bytes:
        return seconds
    return seconds + (size_bytes - held) / memory.bytes_per_second if caches and memory is not None else None


def backend_bytes(case: Case, workspace_bytes: int) -> int:
    """Predicted memory of one worker while it holds the case, in bytes.

    The device's arrays, with ``INPUT_SETS`` input sets and two sets of results more than is returned (the clock holds
    the last result while the next is made, and one for the gate; the gate holds a second weight before); the float32
    host copies they are made from and compared through; the technique's workspace; the process.
    """
    host = array_bytes(case) // case.itemsize * (8 if case.dtype == "float64" else 4)
    return PROCESS_BYTES + (INPUT_SETS + 2) * array_bytes(case) + host + workspace_bytes


def reference_bytes(case: Case) -> int:
    """Predicted memory of the reference's worker: values, absolute values, results and scales, all in float64."""
    elements = array_bytes(case) // case.itemsize
    page = case.in1_features * case.in2_features + case.batch * (case.in1_features + 2 * case.in2_features)
    block = 16 * 2**20 if case.mode == "forward_backward" else 0
    return PROCESS_BYTES + 8 * (3 * elements + 3 * page + 2 * block)

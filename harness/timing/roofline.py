"""Compute the roofline of a case: its floating-point operations, bytes, and least time on a machine. Pure."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

if TYPE_CHECKING:
    from harness.case import Case

Key = TypeVar("Key")
Value = TypeVar("Value")

#: Number of contractions by mode. A step needs three: the output; both input gradients, in one pass over
#: dZ[b,i,j] = sum_o grad_output[b,o] weight[o,i,j]; and the weight's gradient.
CONTRACTIONS: Final = {"forward": 1, "forward_backward": 3}

#: Number of input sets that a backend holds during timing.
INPUT_SETS: Final = 2
#: Memory of an interpreter with a framework before any array, in bytes; includes BLAS buffers and compiling.
PROCESS_BYTES: Final = 650 * 2**20
#: Largest autograd temporaries of the reference, in bytes; ``correctness/reference.py`` uses autograd up to this size.
AUTOGRAD_BYTES: Final = 16 * 2**20
#: Dtypes that have a roofline on a CPU. Half-precision products may run on units whose rate is not measured.
ROOFLINE_DTYPES: Final = ("float32", "float64")


@dataclasses.dataclass(frozen=True, slots=True)
class Rate:
    """The peak rate of floating-point operations, and its source.

    Attributes:
        flop_per_second: Rate of all threads together, in flop per second.
        source: Description of the measurement.
        chains: Rate of multiply-add chains in flop per second, which the spot peak is measured with; None if unknown.
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
        flop_per_second: Rate in flop per second: 2 n**3 over the shortest time of matrices (n, n).
        detail: Name of the BLAS behind the library, as the library reports it: ``OpenBLAS 0.3.30 SkylakeX``.
    """

    library: str
    dtype: str
    flop_per_second: float
    detail: str


@dataclasses.dataclass(frozen=True, slots=True)
class Level:
    """One level of the memory hierarchy, for all threads of the budget together.

    Attributes:
        name: ``L1``, ``L2``, ``L3`` or ``memory``.
        capacity_bytes: Capacity in bytes of all caches that the threads reach, each counted once; None for memory.
        bytes_per_second: Read bandwidth of all threads together, in bytes per second.
    """

    name: str
    capacity_bytes: int | None
    bytes_per_second: float


@dataclasses.dataclass(frozen=True, slots=True)
class Peaks:
    """The peaks of a machine under the run's thread budget.

    Attributes:
        arithmetic: Arithmetic peak by dtype, and for ``tf32``; without those that could not be measured.
        products: Best GEMM of each library, for each of its dtypes.
        levels: Levels of the memory hierarchy, smallest first.
        missing: Lines that each name a peak that could not be measured, with the reason.
    """

    arithmetic: Mapping[str, Rate]
    products: tuple[Product, ...]
    levels: tuple[Level, ...]
    missing: tuple[str, ...] = ()

    def best(self, other: Peaks) -> Peaks:
        """Return the higher rate of each peak, and the lines missing in both.

        A disturbance lowers a measured peak, and never raises it.
        """
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
        """Return these peaks with the spot peak as the arithmetic peak of one dtype.

        Args:
            dtype: Key of ``arithmetic``.
            flop_per_second: Spot peak, in flop per second.
        """
        arithmetic = {**self.arithmetic, dtype: Rate(flop_per_second, "spot peak")}
        return dataclasses.replace(self, arithmetic=arithmetic)

    def as_json(self) -> dict[str, Any]:
        """Return the peaks as JSON can hold them; ``from_json`` reads them back."""
        return {
            "arithmetic": {dtype: dataclasses.asdict(rate) for dtype, rate in self.arithmetic.items()},
            "products": [dataclasses.asdict(product) for product in self.products],
            "levels": [dataclasses.asdict(level) for level in self.levels],
            "missing": list(self.missing),
        }

    @classmethod
    def from_json(cls, loaded: Mapping[str, Any]) -> Self:
        """Return the peaks that ``as_json`` wrote."""
        return cls(
            {dtype: Rate(**rate) for dtype, rate in loaded["arithmetic"].items()},
            tuple(Product(**product) for product in loaded["products"]),
            tuple(Level(**level) for level in loaded["levels"]),
            tuple(loaded["missing"]),
        )


def flop(case: Case) -> int:
    """Return the least number of floating-point operations: 2 batch in1 in2 out for each contraction."""
    size = case.batch * case.in1_features * case.in2_features * case.out_features
    return 2 * size * CONTRACTIONS[case.mode]


def array_bytes(case: Case) -> int:
    """Return the bytes of all inputs and results, each once, in the case's dtype."""
    shapes = [*case.shapes().values(), *case.result_shapes().values()]
    return sum(math.prod(shape) for shape in shapes) * case.itemsize


def roofline_seconds(case: Case, peaks: Peaks) -> float | None:
    """Return the roofline: the least time of the case in seconds, for its arithmetic or for its bytes.

    The smaller levels of the hierarchy are filled first, and each is read at its own bandwidth. Repeated calls read the
    same bytes, so a cache keeps a part of them even if all do not fit.

    Where one of the two rates is unknown, the other one is the roofline. It is None where both are unknown, and for a
    dtype or precision outside ``ROOFLINE_DTYPES`` whose arithmetic was not measured.

    Args:
        case: Case with its mode.
        peaks: Peaks of the machine under the run's thread budget.
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
    """Return the key of ``Peaks.arithmetic`` for a case's products: its dtype, or ``tf32``."""
    return "tf32" if case.precision == "tf32" else case.dtype


def _best(pairs: Iterable[tuple[Key, Value]], rate: Callable[[Value], float]) -> dict[Key, Value]:
    """Return each key's value with the highest rate; keys in the order of their first pair."""
    best: dict[Key, Value] = {}
    for key, value in pairs:
        if key not in best or rate(value) > rate(best[key]):
            best[key] = value
    return best


def _reading_seconds(size_bytes: int, levels: tuple[Level, ...]) -> float | None:
    """Return the least time to read ``size_bytes``, in seconds; None where the known levels do not hold them.

    Memory counts only if a cache is known. Otherwise the bytes may be in an unknown cache, which is faster than memory.
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
    """Predict the memory of one worker while it holds the case, in bytes.

    The sum has these terms:

    * the device's arrays: ``INPUT_SETS`` input sets and two more sets (during timing the last result while the next is
      computed, and a result kept for the gate; before timing the gate's second weight),
    * the host copies that the arrays are made from and compared through, in float64 for float64 and else in float32,
    * the backend's workspace,
    * the process.

    Args:
        case: Case with its mode.
        workspace_bytes: Workspace of one call in bytes, as ``Backend.workspace_bytes`` predicts it.
    """
    host = array_bytes(case) // case.itemsize * (8 if case.dtype == "float64" else 4)
    return PROCESS_BYTES + (INPUT_SETS + 2) * array_bytes(case) + host + workspace_bytes


def reference_bytes(case: Case) -> int:
    """Predict the memory of the reference's worker, in bytes.

    It holds values, absolute values, results and scales in float64, the temporaries of a page, and those of autograd.
    """
    elements = array_bytes(case) // case.itemsize
    page = case.in1_features * case.in2_features + case.batch * (case.in1_features + 2 * case.in2_features)
    autograd_bytes = AUTOGRAD_BYTES if case.mode == "forward_backward" else 0
    return PROCESS_BYTES + 8 * (3 * elements + 3 * page) + autograd_bytes

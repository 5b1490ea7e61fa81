"""What the kernels know about the CPU: vector registers, caches, and the cost of threads."""

from __future__ import annotations

import dataclasses
import platform
from pathlib import Path
from typing import Final

from llvmlite import binding
from numba.core import config

KIB: Final = 2**10
MIB: Final = 2**20
#: Vectors side by side in a strip, and in a register tile.
VECTORS: Final = 2


@dataclasses.dataclass(frozen=True)
class Cpu:
    """A CPU, as far as plans depend on it.

    Attributes:
        vector_bytes: Bytes of a vector register.
        registers: Number of vector registers.
        line_bytes: Bytes of a cache line.
        l1_bytes: Bytes of an L1 data cache, at least.
        l1_set_stride: L1 set stride in bytes: addresses this far apart map to the same set.
        l1_safe_ways: Lines of one set that a tile may use; L1 caches of x86 and ARM have about 8 ways.
        l2_bytes: Bytes of a core's L2 cache.
        private_bytes: Bytes of an array that stays in no cache of a single core.
        shared_bytes: Bytes of a weight that may not even stay in the cache that all cores share.
        packed_bytes: Bytes of inputs that are packed into strips at a time, at most.
        forward_tiles_bytes: Bytes of a forward's tiles that a step with few outputs stores for its backward, at most.
        parallel_flop: Work of a forward in flop; below it threads cost more than they bring.
        multiplies_bfloat16: Whether an instruction adds products of pairs of bfloat16 to float32 (AVX-512 with BF16).
        converts_float16: Whether instructions convert float16; without them LLVM calls functions that may be missing.
    """

    vector_bytes: int = 16
    registers: int = 16
    line_bytes: int = 64
    l1_bytes: int = 32 * KIB
    l1_set_stride: int = 4096
    l1_safe_ways: int = 4
    l2_bytes: int = 512 * KIB
    private_bytes: int = 1 * MIB
    shared_bytes: int = 16 * MIB
    packed_bytes: int = 16 * MIB
    forward_tiles_bytes: int = 16 * MIB
    parallel_flop: int = 1_000_000
    multiplies_bfloat16: bool = False
    converts_float16: bool = True

    @classmethod
    def host(cls) -> Cpu:
        """Return the CPU that Numba compiles for, with the caches of this one."""
        features = _features()
        vector_bytes = 64 if "avx512f" in features else 32 if "avx2" in features else 16
        registers = 32 if features & {"avx512f", "neon"} else 16
        pairs = vector_bytes == 64 and "avx512bf16" in features
        converts = "f16c" in features or platform.machine() not in ("x86_64", "AMD64")
        return cls(vector_bytes, registers, l2_bytes=_l2_bytes(), multiplies_bfloat16=pairs, converts_float16=converts)

    @property
    def rows(self) -> int:
        """Return the most rows of a register tile.

        Each step of a tile loads its vectors once and one number a row. With ``rows x VECTORS`` sums no multiply-add
        waits for a sum: latency times units is 8 to 10. Sums, vectors and one factor must fit into the registers.
        """
        return 12 if self.registers >= 32 else 6

    @property
    def block_bytes(self) -> int:
        """Return the bytes of a block of strips that stays in the L2 cache, together with a page's columns."""
        return min(3 * self.l2_bytes // 4, 768 * KIB)

    def lanes(self, itemsize: int) -> int:
        """Return how many numbers of ``itemsize`` bytes a vector holds."""
        return self.vector_bytes // itemsize

    def strip_width(self, itemsize: int) -> int:
        """Return how many rows of the batch a strip holds, for numbers of ``itemsize`` bytes."""
        return VECTORS * self.lanes(itemsize)


def _features() -> set[str]:
    """Return the features of the CPU that Numba compiles for; none if that is another CPU than this one."""
    if config.CPU_FEATURES is not None:
        return {word[1:] for word in config.CPU_FEATURES.split(",") if word.startswith("+")}
    if config.CPU_NAME not in (None, "host"):
        return set()
    return {name for name, present in binding.get_host_cpu_features().items() if present}


def _l2_bytes() -> int:
    """Return the size of a core's L2 cache where Linux reports it; else that of the smallest of today's."""
    try:
        size = Path("/sys/devices/system/cpu/cpu0/cache/index2/size").read_text()
        return int(size.strip().removesuffix("K")) * KIB
    except (OSError, ValueError):
        return Cpu.l2_bytes


HOST: Final = Cpu.host()

# Numba cannot read an object's attributes in compiled code, so these numbers of it have names of their own.
VECTOR_BYTES: Final = HOST.vector_bytes
ROWS: Final = HOST.rows
LINE_BYTES: Final = HOST.line_bytes
PRIVATE_BYTES: Final = HOST.private_bytes

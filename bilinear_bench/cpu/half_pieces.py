"""What the plans for half types share: pieces of a weight, and conversions from and to float32.

Axes: ``b`` batch, ``i`` in1_features, ``j`` in2_features, ``o`` out_features (pages of the weight).
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator
from typing import Any, Final

import numba
import numpy as np
import numpy.typing as npt

from bilinear_bench.cpu import threads as division
from bilinear_bench.cpu.compiled import serial_and_parallel
from bilinear_bench.cpu.cpu import HOST, MIB, Cpu
from bilinear_bench.cpu.packing import Array
from bilinear_bench.cpu.sizes import Sizes
from bilinear_bench.cpu.tiles.abi import address
from bilinear_bench.cpu.tiles.half_types import ROUND, WIDEN, Conversion, Interleave, interleave
from bilinear_bench.cpu.tiles.intrinsics import at, call
from bilinear_bench.order import pieces

#: Numbers of 16 bits, float16 or bfloat16.
Bits = npt.NDArray[np.uint16]

#: Bytes of a piece of the weight as float32: it stays in the caches, and is much work for each call of a kernel.
PIECE_BYTES: Final = 1 * MIB
#: Rows ``i`` that a piece has at least: as many as a tile of the input gradients.
LEAST_ROWS: Final = 3
#: Numbers that a thread converts at a time.
CHUNK: Final = 16384


@dataclasses.dataclass(frozen=True)
class HalfPlan:
    """What the three plans share.

    Attributes:
        sizes: Sizes of the call, with a half type.
        threads: Number of threads, at least 1.
        workers: Number of threads that convert; with 1 no piece has more, for it is less work than the whole.
        cpu: The CPU.
        widen: Address of the tile of that name.
        round: Address of the tile of that name.
    """

    sizes: Sizes
    threads: int
    workers: int
    cpu: Cpu
    widen: int
    round: int

    @classmethod
    def of(cls, sizes: Sizes, threads: int, cpu: Cpu = HOST) -> Any:
        """Divide a call among at most ``threads`` threads."""
        tiles = (address(kinds[sizes.dtype], "float32") for kinds in (WIDEN, ROUND))
        return cls(sizes, threads, division.workers(sizes, threads, cpu), cpu, *tiles)

    @property
    def multiplies_pairs(self) -> bool:
        """Return whether pairs of bfloat16 are multiplied."""
        return self.cpu.multiplies_bfloat16 and self.sizes.dtype == "bfloat16"

    @property
    def is_one_piece(self) -> bool:
        """Return whether the weight is a single piece."""
        return self.wide_sizes.weight_bytes <= PIECE_BYTES

    @functools.cached_property
    def wide_sizes(self) -> Sizes:
        """Return the sizes with float32."""
        return self.sizes._replace(dtype="float32")

    def of_page_pieces(self) -> Iterator[tuple[slice, slice]]:
        """Yield pages and rows of them, piece by piece: a page for each thread at least, and all rows if they fit."""
        row = max(1, 4 * self.sizes.in2)
        for pages in pieces(self.sizes.out, max(self.workers, PIECE_BYTES // (row * max(1, self.sizes.in1)))):
            for rows in pieces(self.sizes.in1, max(LEAST_ROWS, PIECE_BYTES // (row * (pages.stop - pages.start)))):
                yield pages, rows

    def of_row_pieces(self) -> Iterator[tuple[slice, slice]]:
        """Yield all pages and some rows of each, piece by piece."""
        row = max(1, 4 * self.sizes.in2 * self.sizes.out)
        for rows in pieces(self.sizes.in1, max(LEAST_ROWS, PIECE_BYTES // row)):
            yield slice(0, self.sizes.out), rows

    def piece_sizes(self, pages: slice, rows: slice) -> Sizes:
        """Return the sizes of a piece's call."""
        return self.wide_sizes._replace(in1=rows.stop - rows.start, out=pages.stop - pages.start)

    def wide(self, source: Bits) -> Array:
        """Return an array (m, n) as float32."""
        wide = np.empty(source.shape, np.float32)
        self.widen_into(wide, source, 0)
        return wide

    def widen_into(self, wide: Array, source: Bits, begin: int) -> None:
        """Write columns of source (m, n) from ``begin`` on into wide (m, n')."""
        _convert[self.workers > 1](self.widen, wide, source, begin)

    def round_into(self, target: Bits, wide: Array, begin: int) -> None:
        """Round wide (m, n') into the columns of target (m, n) from ``begin`` on."""
        _convert[self.workers > 1](self.round, wide, target, begin)

    def memory(self, divided: list[tuple[slice, slice]], *, pairs: bool = False) -> Array:
        """Return memory for the weight of the largest piece, or for its pairs of pages."""
        sizes = (self.piece_sizes(*piece) for piece in divided)
        pages = ((one, (one.out + 1) // 2 if pairs else one.out) for one in sizes)
        return np.empty(max((count * one.in1 * one.in2 for one, count in pages), default=0), np.float32)

    def paired_weight(self, weight: Bits, rows: slice, memory: Array) -> Array:
        """Return rows of the weight (o, i, j) as pairs of pages (o / 2, i', j), at the beginning of ``memory``."""
        _, in1, in2 = weight.shape
        shape = (len(weight) + 1) // 2, rows.stop - rows.start, in2
        pairs = memory[: math.prod(shape)].reshape(shape[0], shape[1] * in2)
        tile = address(interleave, "float32")
        _pair_pages[self.workers > 1](tile, weight.reshape(len(weight), in1 * in2), rows.start * in2, pairs)
        return pairs.reshape(shape)

    def wide_weight(self, weight: Bits, pages: slice, rows: slice, memory: Array) -> Array:
        """Return a piece of the weight (o, i, j) as float32 (o', i', j), at the beginning of ``memory``."""
        _, in1, in2 = weight.shape
        shape = pages.stop - pages.start, rows.stop - rows.start, in2
        piece = memory[: math.prod(shape)].reshape(shape[0], shape[1] * in2)
        self.widen_into(piece, weight.reshape(len(weight), in1 * in2)[pages], rows.start * in2)
        return piece.reshape(shape)


@serial_and_parallel
def _convert(conversion: int, wide: Array, narrow: Bits, begin: int) -> None:
    """Convert wide (m, n') from, or to, the columns of narrow (m, n) from ``begin`` on."""
    columns = wide.shape[1]
    chunks = (columns + CHUNK - 1) // CHUNK
    for task in numba.prange(len(wide) * chunks):
        row, first = task // chunks, task % chunks * CHUNK
        call(conversion, Conversion(
            wide=at(wide, row * columns + first), narrow=at(narrow, row * narrow.shape[1] + begin + first),
            count=min(CHUNK, columns - first),
        ))  # fmt: skip


@serial_and_parallel
def _pair_pages(interleave: int, weight: Bits, begin: int, pairs: Array) -> None:
    """Store columns of weight (o, i j) from ``begin`` on as pairs of pages, (o / 2, i' j); an odd page gets zeros."""
    columns = pairs.shape[1]
    chunks = (columns + CHUNK - 1) // CHUNK
    for task in numba.prange(len(pairs) * chunks):
        pair, first = task // chunks, task % chunks * CHUNK
        start = 2 * pair * weight.shape[1] + begin + first
        call(interleave, Interleave(
            pairs=at(pairs, pair * columns + first), first=at(weight, start),
            second=at(weight, start + weight.shape[1]) if 2 * pair + 1 < len(weight) else 0,
            count=min(CHUNK, columns - first),
        ))  # fmt: skip

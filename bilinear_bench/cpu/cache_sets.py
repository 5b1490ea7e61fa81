"""Which strides of the weight the caches take: rows of all pages, and columns of a page."""

from __future__ import annotations

import math

from bilinear_bench.cpu.cpu import VECTORS, Cpu
from bilinear_bench.cpu.sizes import Sizes
from bilinear_bench.cpu.tiles.both_gradients import SEVERAL_ROWS


def tile_rows(sizes: Sizes, cpu: Cpu) -> int:
    """Return the rows ``i`` of a tile: several where the caches have room for them, else 1.

    The L1 cache holds the lines that a tile reads, and a third of the L2 block these rows of all pages.
    """
    line_bytes = SEVERAL_ROWS * cpu.line_bytes + VECTORS * cpu.vector_bytes
    rows_bytes = sizes.out * SEVERAL_ROWS * sizes.in2 * sizes.itemsize
    fits = sizes.out * line_bytes <= cpu.l1_bytes and rows_bytes <= cpu.block_bytes // 3
    return SEVERAL_ROWS if fits else 1


def pages_clash(sizes: Sizes, tile_rows: int, cpu: Cpu) -> bool:
    """True if the rows that a tile reads of all pages map to too few sets of the L1 cache."""
    rows, row_bytes = min(tile_rows, sizes.in1), sizes.in2 * sizes.itemsize
    stride = cpu.l1_set_stride
    page_apart = math.gcd(sizes.page_bytes, stride)
    rows_apart = rows * math.gcd(sizes.page_bytes, row_bytes * (rows > 1), stride)
    return sizes.out * max(page_apart, rows_apart) > cpu.l1_safe_ways * stride


def columns_clash(sizes: Sizes, cpu: Cpu) -> bool:
    """True if a page's columns map to too few sets of the L1 cache, and a copy of the weight has room."""
    stride = math.gcd(sizes.in2 * sizes.itemsize, cpu.l1_set_stride)
    return sizes.weight_bytes <= cpu.packed_bytes and sizes.in1 * stride > cpu.l1_safe_ways * cpu.l1_set_stride

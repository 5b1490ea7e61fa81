"""Predict the memory of a call."""

from __future__ import annotations

from bilinear_bench.cpu.cache_sets import tile_rows
from bilinear_bench.cpu.cpu import HOST, VECTORS, Cpu
from bilinear_bench.cpu.forward import RESULT_BYTES
from bilinear_bench.cpu.packing import PANEL_ROWS
from bilinear_bench.cpu.sizes import Sizes


def workspace_bytes(sizes: Sizes, threads: int, cpu: Cpu = HOST) -> int:
    """Return an upper figure for the bytes of a call on top of inputs, parameters and results.

    These are strips, a copy of a weight with few outputs, and the tiles of a forward. Each thread adds the results of a
    block, packed rows of the weight and a panel. The rows that grad_weight packs take the place of the strips.
    """
    rows_bytes = tile_rows(sizes, cpu) * sizes.in2 * sizes.itemsize + cpu.vector_bytes
    panel_bytes = PANEL_ROWS * VECTORS * cpu.vector_bytes + sizes.out * rows_bytes
    return 2 * cpu.packed_bytes + cpu.forward_tiles_bytes + threads * (2 * RESULT_BYTES + panel_bytes)

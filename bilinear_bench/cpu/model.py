"""The forward's tiling in NumPy: what ``forward.py`` computes, in its order. A test holds the kernel to it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from bilinear_bench.cpu.cpu import ROWS
from bilinear_bench.cpu.forward import contracts_input1
from bilinear_bench.cpu.packing import Array
from bilinear_bench.cpu.threads import Blocks, part_of


def tasks(blocks: Blocks, strips: int, along: int) -> Iterator[tuple[range, range]]:
    """Yield the strips of each block, and the pages (or the rows of a page) that it meets in one task."""
    packed = strips if blocks.parts == 1 else blocks.strips * blocks.count
    for begin in range(0, strips, max(1, packed)):
        here = min(packed, strips - begin)
        count = blocks.count if blocks.parts == 1 else min(blocks.count, here)
        for part in range(blocks.parts):
            for number in range(count):
                low, high = part_of(number, count, here)
                yield range(begin + low, begin + high), range(*part_of(part, blocks.parts, along))


def forward(
    blocks: Blocks, width: int, input1: Array, input2: Array, weight: Array, bias: Array, rows_of_tile: int = ROWS
) -> Array:
    """Return output (b, o): strip by strip of ``width`` rows, page by page, tile by tile."""
    over1 = contracts_input1(*weight.shape[1:])
    inner, outer = (input1, input2) if over1 else (input2, input1)
    pages = weight if over1 else weight.transpose(0, 2, 1)  # (o, contracted, rows)
    count, rows = pages.shape[1:]
    tiles = -(-rows // rows_of_tile)
    output = np.empty((len(input1), len(weight)), input1.dtype)
    for strips, numbers in tasks(blocks, -(-len(input1) // width), len(weight)):
        b = slice(strips.start * width, strips.stop * width)
        for page in numbers:
            output[b, page] = bias[page]
            for tile in range(tiles):
                top, bottom = part_of(tile, tiles, rows)
                acc = np.zeros((len(output[b]), bottom - top), input1.dtype)
                for c in range(count):
                    acc = multiply_add(inner[b, c, None], pages[page, c, top:bottom], acc)
                total = np.zeros(len(acc), input1.dtype)
                for r in range(bottom - top):
                    total = multiply_add(acc[:, r], outer[b, top + r], total)
                output[b, page] += total
    return output


def multiply_add(one: Array, other: Array, addend: Array) -> Array:
    """Return ``one * other + addend`` of float32, rounded once if float64 holds it exactly."""
    return (one.astype(np.float64) * other + addend).astype(addend.dtype)

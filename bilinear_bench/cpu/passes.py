"""A pass for one input gradient over the weight of a layer with few outputs; and the gradient that takes none."""

from __future__ import annotations

from bilinear_bench.cpu.compiled import compiled
from bilinear_bench.cpu.cpu import LINE_BYTES, ROWS, VECTORS
from bilinear_bench.cpu.packing import Array, squares, strip_width
from bilinear_bench.cpu.tiles.intrinsics import at, call, copy, lanes
from bilinear_bench.cpu.tiles.register_tile import UNROLLED
from bilinear_bench.cpu.tiles.scale import Scale
from bilinear_bench.cpu.tiles.transpose import TransposeSum


@compiled
def add_passes(
    swapped: Array, scale: int, pass1: bool, pass2: bool, results1: int, results2: int, strips1: Array, strips2: Array,
    factors: Array, low: int, high: int, whole: int, weight: Array, begin: int, end: int, sums1: Array, sums2: Array,
) -> None:  # fmt: skip
    """Add the gradients of strips ``low`` to ``high`` from rows ``begin`` to ``end`` of every page to the sums.

    Strips from number ``whole`` on have one vector. ``results1`` and ``results2`` are the addresses where the gradients
    will be stored, or 0: the last pass prefetches that memory.

    Length: both passes share their loops over rows, pages and strips.
    """
    pages, in1, in2 = weight.shape
    width = strip_width(weight)
    stride_c, stride_r = (1, in1) if len(swapped) else (in2, 1)
    for strip, last, vectors in ((low, min(high, whole), VECTORS), (max(low, whole), high, 1)):
        times = last - strip
        size1, size2 = times * width * in1 * weight.itemsize, times * width * in2 * weight.itemsize
        upcoming1 = results1 + (strip - low) * width * in1 * weight.itemsize
        upcoming2 = results2 + (strip - low) * width * in2 * weight.itemsize
        for page in range(pages if times > 0 else 0):
            start = page * in1 * in2
            factor = at(factors, (strip * pages + page) * width)
            prefetching = results1 > 0 and page == pages - 1
            if pass1:
                tiles = (end - begin + ROWS - 1) // ROWS
                step = prefetch_step((size1 + size2) // tiles, times * in2) if prefetching and not pass2 else 0
                for tile in range(tiles):
                    top = begin + tile * ROWS
                    out = at(sums1, (strip * in1 + top) * width)
                    share = share_of_prefetch(tile, tiles, upcoming1, size1, upcoming2, size2) if step else out
                    call(scale, Scale(
                        rows=min(ROWS, end - top), a=at(weight, start + top * in2), a_stride_c=1, a_stride_r=in2,
                        b=at(strips2, strip * in2 * width), b_stride_c=width, count=in2,
                        times=times, vectors=vectors, b_stride_t=in2 * width, factor=factor,
                        factor_stride_t=pages * width, out=out, out_stride_t=in1 * width,
                        prefetch=share, prefetch_step=step,
                    ))  # fmt: skip
            if pass2:
                tiles = (in2 + ROWS - 1) // ROWS
                step = prefetch_step((size1 + size2) // tiles, times * (end - begin)) if prefetching else 0
                for tile in range(tiles):
                    left = tile * ROWS
                    out = at(sums2, (strip * in2 + left) * width)
                    source = at(weight, start + begin * in2 + left)
                    if len(swapped):
                        source = at(swapped, (page * in2 + left) * in1 + begin)
                    share = share_of_prefetch(tile, tiles, upcoming1, size1, upcoming2, size2) if step else out
                    call(scale, Scale(
                        rows=min(ROWS, in2 - left), a=source, a_stride_c=stride_c,
                        a_stride_r=stride_r, b=at(strips1, (strip * in1 + begin) * width), b_stride_c=width,
                        count=end - begin, times=times, vectors=vectors, b_stride_t=in1 * width, factor=factor,
                        factor_stride_t=pages * width, out=out, out_stride_t=in2 * width,
                        prefetch=share, prefetch_step=step,
                    ))  # fmt: skip


@compiled
def prefetch_step(size: int, steps: int) -> int:
    """Return the bytes from one prefetch to the next, at most a line: ``size`` bytes in ``steps`` steps of a tile."""
    return min(LINE_BYTES, (size * UNROLLED + steps - 1) // steps)


@compiled
def share_of_prefetch(tile: int, tiles: int, begin1: int, size1: int, begin2: int, size2: int) -> int:
    """Return where a tile's share of two pieces of memory begins; the second is taken to follow the first."""
    offset = tile * ((size1 + size2) // tiles)
    return begin1 + offset if offset < size1 else begin2 + offset - size1


@compiled
def unpack_tiles(
    transpose_sum: int, forward_tiles: Array, strip: int, strips: int, factors: Array, begin: int, square_room: Array,
    target: Array,
) -> None:  # fmt: skip
    """Store a strip of the forward's tiles, times grad_output and summed over pages, into target (b, f).

    ``forward_tiles`` is (o, strips, f, rows), and ``factors`` from ``begin`` on is this strip's (o, rows). Only the
    last strip of the batch uses ``square_room``, a vector's lanes squared: so all workers may share it.
    """
    batch, features = target.shape
    width, side = strip_width(target), lanes(target)
    page_size = strips * features * width
    pages = forward_tiles.size // page_size
    zero = target.dtype.type(0)
    for v in range(VECTORS):
        row, start, by = strip * width + v * side, strip * features * width + v * side, begin + v * side
        here = min(side, batch - row)
        full = squares(features, side) if here > 0 else 0
        # Where the batch ends within a vector, its last rows go to that room first.
        ends = here < side
        for square in range(full):
            f = min(square * side, features - side)
            into = row * features + f
            out, stride = (at(square_room, 0), side) if ends else (at(target, into), features)
            call(transpose_sum, TransposeSum(
                count=pages, source=at(forward_tiles, start + f * width), source_stride_c=page_size,
                source_stride_r=width, factor=at(factors, by), factor_stride_c=width, target=out,
                target_stride_r=stride,
            ))  # fmt: skip
            for r in range(here if ends else 0):
                copy(at(target, into + r * features), at(square_room, r * side), side * target.itemsize)
        for f in range(0 if full else features):
            for r in range(here):
                total = zero
                for page in range(pages):
                    total += forward_tiles[page * page_size + start + f * width + r] * factors[by + page * width + r]
                target[row + r, f] = total

"""Choose the tile of each Triton kernel: list the promising ones, then time them on scratch arrays."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import torch
import triton
from triton.compiler.errors import CompilationError
from triton.runtime.errors import OutOfResources, PTXASError

from bilinear_bench.gpu.launch import Arithmetic, Tile, forward, grad_input, grad_weight, interpreted, tiles_of

Tensor = Any

#: tl.dot needs at least this many rows, columns and terms.
LEAST_EDGE: Final = 16
#: Shapes to try, largest first: large tiles load less, small ones fill a chip with little work.
TILES: Final = (
    Tile(128, 128, 32, 8, 3),
    Tile(128, 128, 64, 8, 3),
    Tile(128, 64, 32, 4, 3),
    Tile(64, 128, 32, 4, 3),
    Tile(64, 64, 32, 4, 4),
    Tile(64, 32, 32, 4, 4),
    Tile(32, 64, 32, 4, 4),
    Tile(32, 32, 32, 2, 4),
    Tile(16, 64, 64, 4, 4),
    Tile(16, 32, 32, 2, 4),
    Tile(16, 16, 16, 1, 4),
)
#: Bytes of a tile's sums for each warp, at most: 64 registers a thread, a quarter of the registers that it may have.
WARP_BYTES: Final = 64 * 4 * 32
#: Sums of a tile for each warp, at least: 16 a thread.
WARP_SUMS: Final = 512
#: Tiles that are tried for each kernel, at most.
TRIED: Final = 7
#: Seconds after which no further tile of a kernel is compiled.
TRY_SECONDS: Final = 20.0
#: Tiles tried of the layout that is slower as a rule: copying for the faster layout may cost more than it gains.
TRIED_OF_OTHER_LAYOUT: Final = 2
#: A case of fewer floating-point operations is dominated by launching: the first tile that fits the device is taken.
TRIED_FLOP: Final = 10e6
#: Rounds of all tiles.
ROUNDS: Final = 5
#: Calls of a tile in a round.
ROUND_CALLS: Final = 4
#: Clock cycles for which the device waits before the calls of a round.
DELAY_CYCLES: Final = 2_000_000
#: Seconds for which the device runs before the first round.
WARM_UP_SECONDS: Final = 0.05
#: Errors that Triton raises for a tile that does not fit the device.
UNFIT: Final = (OutOfResources, PTXASError, CompilationError)


@dataclasses.dataclass(frozen=True, slots=True)
class Problem:
    """Sizes and types that the tiles are chosen for.

    Attributes:
        batch: Rows b of both inputs.
        in1: Columns i of input1.
        in2: Columns j of input2.
        out: Pages o of the weight.
        dtype: Name of the element type, as ``float32``.
        precision: Least precision of the products: ``ieee`` or ``tf32``.
        bias: True if there is a bias.
        training: True if the gradients' kernels are needed, too.
    """

    batch: int
    in1: int
    in2: int
    out: int
    dtype: str = "float32"
    precision: str = "ieee"
    bias: bool = True
    training: bool = False

    @property
    def itemsize(self) -> int:
        """Return the bytes of one element."""
        dtype: torch.dtype = getattr(torch, self.dtype)
        return dtype.itemsize


#: Sizes along a tile's rows, columns and depth, by the kernel of a step; forward: those of a tile not transposed.
KERNEL_SIZES: Final[dict[str, Callable[[Problem], tuple[int, int, int]]]] = {
    "forward": lambda problem: (problem.batch, problem.in2, problem.in1),
    "grad_input1": lambda problem: (problem.batch, problem.in1, problem.in2),
    "grad_input2": lambda problem: (problem.batch, problem.in2, problem.in1),
    "grad_weight": lambda problem: (problem.in1, problem.in2, problem.batch),
}
#: Kernels whose right operand has contiguous columns, if it is not transposed; that of the other has contiguous terms.
CONTIGUOUS_COLUMNS: Final = ("forward", "grad_input2", "grad_weight")


def candidates(sizes: tuple[int, int, int], itemsize: int) -> list[Tile]:
    """Return tiles for a product of these rows, columns and depth, the most promising first.

    A tile's promise is the share of its work that is not padding, times its reuse of what it loads.
    """
    edges = [max(LEAST_EDGE, triton.next_power_of_2(size)) for size in sizes]
    fitted = []
    for tile in TILES:
        rows, columns = min(tile.rows, edges[0]), min(tile.columns, edges[1])
        warps = min(tile.warps, max(1, rows * columns // WARP_SUMS))
        # The same bytes for every type, since what is in flight has to fit into shared memory; or the same terms.
        for depth in (tile.depth * 4 // itemsize, tile.depth):
            fitted.append(Tile(rows, columns, max(LEAST_EDGE, min(depth, edges[2])), warps, tile.stages))

    def promise(tile: Tile) -> float:
        useful = math.prod(
            size / (tiles_of(size, edge) * edge)
            for size, edge in zip(sizes, (tile.rows, tile.columns, tile.depth), strict=True)
        )
        reuse = tile.rows * tile.columns / (tile.rows + tile.columns)  # multiplications for each element that is loaded
        return useful * reuse / (reuse + LEAST_EDGE)

    # A larger tile that was cut down may have become another one.
    different = [
        tile for tile in dict.fromkeys(fitted) if tile.rows * tile.columns * itemsize <= WARP_BYTES * tile.warps
    ]
    return sorted(different, key=lambda tile: (-promise(tile), -tile.depth))[:TRIED]


def tiles_to_try(problem: Problem, kernel: str) -> list[Tile]:
    """Return tiles for a kernel of a problem, transposed ones among them, the most promising first.

    float32 is multiplied faster if the right operand has contiguous columns. tf32 is faster with contiguous terms: only
    then Hopper's matrix units take it from shared memory. bfloat16 is indifferent; float16 and float64 are treated
    alike, unmeasured. Forward, transposing costs nothing, and may need less padding.
    """
    rows, columns, depth = KERNEL_SIZES[kernel](problem)
    plain = candidates((rows, columns, depth), problem.itemsize)
    sizes = (rows, depth, columns) if kernel == "forward" else (rows, columns, depth)
    transposed = [dataclasses.replace(tile, transposed=True) for tile in candidates(sizes, problem.itemsize)]
    if problem.dtype == "float32":
        if (kernel in CONTIGUOUS_COLUMNS) == (problem.precision == "tf32"):
            return transposed + plain[:TRIED_OF_OTHER_LAYOUT]
        return plain + transposed[:TRIED_OF_OTHER_LAYOUT]
    if kernel != "forward":
        return plain
    return [tile for pair in itertools.zip_longest(plain, transposed) for tile in pair if tile]


@functools.cache
def tuned(problem: Problem, device: str) -> Mapping[str, Tile]:
    """Return the tile of each kernel: the fastest one on scratch arrays; in the interpreter the last of the list."""
    kernels = [kernel for kernel in KERNEL_SIZES if kernel == "forward" or problem.training]
    tiles = {kernel: tiles_to_try(problem, kernel) for kernel in kernels}
    if interpreted():
        return {kernel: listed[-1] for kernel, listed in tiles.items()}
    runs = _scratch_runs(problem, device)
    small = 2 * problem.batch * problem.in1 * problem.in2 * problem.out < TRIED_FLOP
    chosen = {kernel: fastest(runs[kernel], listed, 1 if small else len(listed)) for kernel, listed in tiles.items()}
    del runs
    torch.cuda.empty_cache()  # other processes need the memory of the scratch arrays
    return chosen


def _scratch_runs(problem: Problem, device: str) -> dict[str, Callable[[Tile], Tensor]]:
    """Return a function for each kernel that launches it with a tile, on arrays of the problem's sizes."""
    arithmetic = Arithmetic.of(problem.dtype, problem.precision)
    batch, in1, in2, out = problem.batch, problem.in1, problem.in2, problem.out

    def scratch(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=getattr(torch, problem.dtype), device=device)

    input1, input2, weight = scratch(batch, in1), scratch(batch, in2), scratch(out, in1, in2)
    bias = scratch(out) if problem.bias else None
    gradient = scratch(batch, out) if problem.training else None
    return {
        "forward": lambda tile: forward(input1, input2, weight, bias, tile, arithmetic),
        "grad_input1": lambda tile: grad_input(input2, gradient, weight, 1, tile, arithmetic),
        "grad_input2": lambda tile: grad_input(input1, gradient, weight, 2, tile, arithmetic),
        "grad_weight": lambda tile: grad_weight(input1, input2, gradient, tile, arithmetic),
    }


def fastest(run: Callable[[Tile], Tensor], tiles: Sequence[Tile], most: int) -> Tile:
    """Compile at most ``most`` tiles, then time them in turns; return the fastest.

    Raises:
        Exception: The device takes none of the tiles; the error of the last one.
    """
    ready: list[Tile] = []
    failure: Exception | None = None
    begin = time.monotonic()
    for tile in tiles:
        if ready and (len(ready) == most or time.monotonic() - begin > TRY_SECONDS):
            break
        try:
            run(tile)
        except UNFIT as error:  # it needs too much shared memory, for example
            failure = error
        else:
            ready.append(tile)
    if not ready:
        raise failure or RuntimeError("there is no tile to try")
    return ready[0] if len(ready) == 1 else _fastest_in_turns(run, ready)


def _fastest_in_turns(run: Callable[[Tile], Tensor], tiles: Sequence[Tile]) -> Tile:
    """Time compiled tiles in ``ROUNDS`` rounds; return the one of the least time."""
    begin = time.monotonic()
    while time.monotonic() - begin < WARM_UP_SECONDS:  # the device's clock has dropped during the compilation
        run(tiles[0])
        torch.cuda.synchronize()
    least = dict.fromkeys(tiles, math.inf)
    for _ in range(ROUNDS):
        for tile in tiles:
            least[tile] = min(least[tile], _milliseconds(functools.partial(run, tile)))
    return min(least, key=lambda tile: least[tile])


def _milliseconds(call: Callable[[], Tensor]) -> float:
    """Return the device's time for ``ROUND_CALLS`` calls, launched while the device waits: launching is not in it."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda._sleep(DELAY_CYCLES)
    start.record()
    for _ in range(ROUND_CALLS):
        call()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end))

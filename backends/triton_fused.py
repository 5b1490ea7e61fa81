"""Fused kernels for a GPU, in Triton: what lies between never leaves the chip.

Formula, forward, one program for a tile of rows and one output ``o``, or the same with the inputs swapped::

    T[b,j] = sum_i input1[b,i] weight[o,i,j]         a tile in registers, by tl.dot
    output[b,o] = sum_j T[b,j] input2[b,j] + bias[o]

Axes: ``b`` batch, ``i`` in1_features, ``j`` in2_features, ``o`` out_features.

* Backward, each by the same means: ``grad_input2[b,j] = sum_o grad_output[b,o] T[b,j]``, ``grad_input1`` with ``i`` and
  ``j`` swapped, and ``grad_weight[o,i,j] = sum_b (grad_output[b,o] input1[b,i]) input2[b,j]``, one product over the
  batch whose left operand is scaled as it is loaded.
* Work: 2 b i j o flop forward, 6 for the step: the least there is.
* Written between: for a gradient a copy of the weight, or of input2, with its axes swapped, where that is faster. If a
  case has too few tiles to fill the chip, each is cut into parts, and the sums of the parts, (parts, results) in the
  accumulator's type, are added up at the end (``PARTS_BYTES`` at most).
* Prepared outside the clock: the kernels are compiled for the case's features, and the tiles that promise most tried on
  scratch arrays of its size.
* Arithmetic: float32 is multiplied as float32 (``ieee``; Triton's own choice would be tf32), or as tf32 if the case
  says so; the half types go in as they are. Sums are float32, or float64. Rounded to a half type are the results, and
  for grad_weight the scaled input1; T is not, so half types come out closer than nn.Bilinear's.

Under Triton's interpreter (``TRITON_INTERPRET=1``) all of it runs on a CPU, to be checked there and not to be timed.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Final

import torch
import triton
import triton.language as tl
from triton.compiler.errors import CompilationError
from triton.runtime.errors import OutOfResources, PTXASError

from backends import toolchain
from backends.torch_tensor import TorchBackend
from backends.triton_kernels import (
    forward_kernel,
    forward_of_small_pages_kernel,
    grad_input_kernel,
    grad_weight_kernel,
    turn_kernel,
)
from harness.backend import Kernel, Support
from harness.case import Case

Tensor = Any
#: tl.dot wants at least this many rows, columns and terms.
LEAST_EDGE: Final = 16
#: Memory for the sums of parts, in bytes.
PARTS_BYTES: Final = 64 * 2**20
#: Programs for each multiprocessor below which a case is cut into parts: one to compute while another waits.
PROGRAMS: Final = 2
#: Rows and columns that are turned at a time.
TURN_EDGE: Final = 64
#: What the interpreter makes believe, so that small cases are cut there, too.
INTERPRETED_PROCESSORS: Final = 4


@dataclasses.dataclass(frozen=True, slots=True)
class Tile:
    """What one program computes at a time.

    Attributes:
        rows: Of the product's left operand.
        columns: Of its right operand.
        depth: Terms that are loaded together.
        warps: Warps of a program.
        stages: Loads in flight.
        turned: Whether the right operand has the other of its axes side by side in memory. Forward, input2 is then
            contracted first, and input1 multiplies what comes of it. For a gradient the operand (the weight, or for
            ``grad_weight`` input2) is copied, turned.
    """

    rows: int
    columns: int
    depth: int
    warps: int
    stages: int
    turned: bool = False

    def __str__(self) -> str:
        return f"{self.rows}x{self.columns}x{self.depth}/{self.warps}w{self.stages}s" + "/turned" * self.turned


#: Shapes that are worth a try, largest first: large tiles load less, small ones fill a chip with little work.
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
#: Of a tile's sums, for each warp: 64 registers a thread, a quarter of what it may have.
MOST_BYTES: Final = 64 * 4 * 32
#: A warp has at least so many sums: 16 a thread.
WARP_SUMS: Final = 512
#: For each kernel so many are tried, and no further one once so many seconds have gone: each is compiled.
TRIED, TRY_SECONDS = 7, 20.0
#: Of those that take float32 the other way round than is better as a rule: turning may cost more than it gains.
TRIED_OTHERWISE: Final = 2
#: A case of fewer floating-point operations is all launching: the first that fits the device will do.
TRIED_FLOP: Final = 10e6
#: Rounds of all tiles, calls of a tile in a round, what the device waits before them, and how long it runs in before.
ROUNDS, ROUND_CALLS, DELAY_CYCLES, WARM_UP_SECONDS = 5, 4, 2_000_000, 0.05
#: What Triton raises for a tile that is not for the device.
UNFIT: Final = (OutOfResources, PTXASError, CompilationError)


def interpreted() -> bool:
    """Whether Triton's interpreter runs the kernels, on a CPU; settled when Triton was imported."""
    return not isinstance(forward_kernel, triton.JITFunction)


class TritonFused(TorchBackend):
    """One kernel forward, three backward."""

    name = "triton-fused"
    devices: ClassVar[tuple[str, ...]] = ("cuda", "cpu") if interpreted() else ("cuda",)

    @classmethod
    def available(cls, device: str) -> Support:
        """Whether PyTorch sees the device, or the interpreter stands in for one."""
        if device == "cuda" and interpreted():
            return Support(False, "Triton's interpreter runs on a CPU: unset TRITON_INTERPRET for the GPU")
        found = super().available(device)
        return found if interpreted() or not found.ok else toolchain.for_triton()

    @classmethod
    def timeable(cls, device: str) -> Support:
        """Not in the interpreter, where a tile takes as long as NumPy needs for it."""
        if interpreted():
            return Support(False, "Triton's interpreter shows what is computed, not how fast: unset TRITON_INTERPRET")
        return Support(True)

    def supports(self, case: Case) -> Support:
        """All dtypes; tf32 on a GPU."""
        if case.dtype == "bfloat16" and interpreted():
            return Support(False, "Triton's interpreter multiplies the bits of bfloat16 as integers")
        return super().supports(case)

    def workspace_bytes(self, case: Case) -> int:
        """The sums of parts, turned copies, and all arrays once more while tiles are tried; an upper figure."""
        given = case.shapes()
        shapes = [*given.values(), *case.result_shapes().values(), given["weight"], given["input2"]]
        return 4 * PARTS_BYTES + case.itemsize * sum(math.prod(shape) for shape in shapes)

    def version(self) -> str:
        """Versions of PyTorch and Triton."""
        return f"{super().version()}, triton {triton.__version__}" + (", interpreted" if interpreted() else "")

    def tuning(self, case: Case) -> str:
        """The tiles of each kernel: rows x columns x depth / warps, stages."""
        return ", ".join(f"{job} {tile}" for job, tile in tuned(case, self.device).items())

    def prepare_forward(self, case: Case, weight: Tensor, bias: Tensor | None) -> Kernel:
        """Try the tiles."""
        arithmetic, tile = Arithmetic.of(case), tuned(case, self.device)["forward"]

        def kernel(input1: Tensor, input2: Tensor) -> Tensor:
            return forward(input1, input2, weight, bias, tile, arithmetic)

        return kernel

    def prepare_forward_backward(self, case: Case) -> FusedStep:  # type: ignore[override]  # no autograd in it
        """Try the tiles of all kernels."""
        return FusedStep(tuned(case, self.device), Arithmetic.of(case))


class FusedStep:
    """A training step.

    Args:
        tiles: By the name of the job.
        arithmetic: Of the products.
    """

    def __init__(self, tiles: Mapping[str, Tile], arithmetic: Arithmetic) -> None:
        self._tiles = tiles
        self._arithmetic = arithmetic
        self._saved: tuple[Tensor, Tensor, Tensor, Tensor | None] | None = None

    def forward(self, input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return output (b, o)."""
        self._saved = input1, input2, weight, bias
        return forward(input1, input2, weight, bias, self._tiles["forward"], self._arithmetic)

    def backward(self, grad_output: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Return the gradients of input1 (b, i), input2 (b, j), weight (o, i, j), bias (o,) or None."""
        if self._saved is None:
            raise RuntimeError("backward without a forward: call forward first")
        (input1, input2, weight, bias), self._saved = self._saved, None
        found = (
            grad_input(input2, grad_output, weight, 1, self._tiles["grad_input1"], self._arithmetic),
            grad_input(input1, grad_output, weight, 2, self._tiles["grad_input2"], self._arithmetic),
            grad_weight(input1, input2, grad_output, self._tiles["grad_weight"], self._arithmetic),
        )
        return *found, None if bias is None else grad_output.sum(0)


@dataclasses.dataclass(frozen=True, slots=True)
class Arithmetic:
    """How products are computed.

    Attributes:
        precision: What tl.dot does with float32: ``ieee`` or ``tf32``.
        accumulator: The type of sums.
        total: The same, as PyTorch calls it.
    """

    precision: str
    accumulator: Any
    total: torch.dtype

    @classmethod
    def of(cls, case: Case) -> Arithmetic:
        """Return what a case asks for."""
        double = case.dtype == "float64"
        return cls(case.precision, tl.float64 if double else tl.float32, torch.float64 if double else torch.float32)


def forward(
    input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None, tile: Tile, arithmetic: Arithmetic
) -> Tensor:
    """Return output (b, o) of input1 (b, i), input2 (b, j), weight (o, i, j) and bias (o,) or None."""
    out, in2 = len(weight), input2.shape[1]
    first, other = (input2, input1) if tile.turned else (input1, input2)
    strides = (1, in2) if tile.turned else (in2, 1)
    (batch, contracted), kept = first.shape, other.shape[1]
    row_tiles, column_tiles = _tiles(batch, tile.rows), _tiles(kept, tile.columns)
    term_tiles = _tiles(contracted, tile.depth)
    target = input1.new_empty((batch, out))
    given = (first, other, weight, weight if bias is None else bias)
    meta = _meta(tile, arithmetic) | {"HAS_BIAS": bias is not None}
    if term_tiles == column_tiles == 1:
        outs_each = _each(out, -(-PROGRAMS * _processors(input1.device) // row_tiles))
        if target.numel():
            forward_of_small_pages_kernel[(row_tiles * _tiles(out, outs_each),)](
                *given, target, batch, out, outs_each, contracted, kept, *strides, **meta
            )
        return target
    programs = row_tiles * out
    most = _most_parts(input1, programs, batch * out, arithmetic)
    columns_each = _each(column_tiles, most)
    column_parts = _tiles(column_tiles, columns_each)
    terms_each = _each(term_tiles, most // column_parts)
    parts = column_parts * _tiles(term_tiles, terms_each)

    def launch(target: Tensor) -> None:
        forward_kernel[(programs * parts,)](
            *(*given, target, batch, out, column_parts, columns_each, terms_each, contracted, kept, *strides), **meta
        )

    return _summed(launch, target, parts, arithmetic)


def grad_input(
    other: Tensor, grad_output: Tensor, weight: Tensor, which: int, tile: Tile, arithmetic: Arithmetic
) -> Tensor:
    """Return the gradient of input1 (``which`` 1) or input2 (2), from the other input."""
    out, in1, in2 = weight.shape
    (batch, contracted), kept = other.shape, in1 if which == 1 else in2
    if tile.turned:
        weight = turned_copy(weight)
    strides = (kept, 1) if (which == 2) != tile.turned else (1, contracted)
    programs = _tiles(batch, tile.rows) * _tiles(kept, tile.columns)
    outs_each = _each(out, _most_parts(other, programs, batch * kept, arithmetic))
    parts = _tiles(out, outs_each)

    def launch(target: Tensor) -> None:
        grad_input_kernel[(programs * parts,)](
            *(other, grad_output, weight, target),
            *(batch, out, outs_each, contracted, kept, *strides),
            **_meta(tile, arithmetic),
            ONE_TILE=contracted <= tile.depth,
        )

    return _summed(launch, other.new_empty((batch, kept)), parts, arithmetic)


def grad_weight(input1: Tensor, input2: Tensor, grad_output: Tensor, tile: Tile, arithmetic: Arithmetic) -> Tensor:
    """Return the gradient of the weight (o, i, j)."""
    (batch, in1), in2, out = input1.shape, input2.shape[1], grad_output.shape[1]
    programs = _tiles(in1, tile.rows) * _tiles(in2, tile.columns) * out
    if tile.turned:
        input2 = turned_copy(input2)
    row_tiles = _tiles(batch, tile.depth)
    rows_each = _each(row_tiles, _most_parts(input1, programs, out * in1 * in2, arithmetic))
    parts = _tiles(row_tiles, rows_each)

    def launch(target: Tensor) -> None:
        grad_weight_kernel[(programs * parts,)](
            *(input1, input2, grad_output, target),
            *(batch, out, rows_each, in1, in2),
            **_meta(tile, arithmetic),
            TURNED=tile.turned,
        )

    return _summed(launch, input1.new_empty((out, in1, in2)), parts, arithmetic)


def turned_copy(pages: Tensor) -> Tensor:
    """Return a copy of pages (..., r, c) with their last two axes swapped, (..., c, r)."""
    *_, rows, columns = pages.shape
    target = pages.new_empty((*pages.shape[:-2], columns, rows))
    if target.numel():
        programs = pages.shape[:-2].numel() * _tiles(rows, TURN_EDGE) * _tiles(columns, TURN_EDGE)
        turn_kernel[(programs,)](pages, target, rows, columns, EDGE=TURN_EDGE)
    return target


def _summed(launch: Callable[[Tensor], None], target: Tensor, parts: int, arithmetic: Arithmetic) -> Tensor:
    """Launch into the result itself, or with parts into sums that are added up; return the result."""
    if target.numel() == 0:
        return target
    if parts == 1:
        launch(target)
        return target
    sums = target.new_empty((parts, *target.shape), dtype=arithmetic.total)
    launch(sums)
    return sums.sum(0).to(target.dtype)


def _meta(tile: Tile, arithmetic: Arithmetic) -> dict[str, Any]:
    """What a kernel is compiled for."""
    return {
        "ROWS": tile.rows,
        "COLUMNS": tile.columns,
        "DEPTH": tile.depth,
        "ACCUMULATOR": arithmetic.accumulator,
        "PRECISION": arithmetic.precision,
        "num_warps": tile.warps,
        "num_stages": tile.stages,
    }


def _tiles(size: int, edge: int) -> int:
    """How many tiles cover a size; one where there is nothing, so that zeros are written."""
    return max(1, -(-size // edge))


def _each(tiles: int, parts: int) -> int:
    """How many tiles each part has, if there shall be at most so many parts."""
    return max(1, -(-tiles // max(1, parts)))


def _most_parts(like: Tensor, programs: int, results: int, arithmetic: Arithmetic) -> int:
    """Into how many parts each program's work may be cut: enough to fill the chip, within ``PARTS_BYTES``."""
    wanted = PROGRAMS * _processors(like.device) // max(1, programs)
    return max(1, min(wanted, PARTS_BYTES // max(1, results * arithmetic.total.itemsize)))


@functools.cache
def _processors(device: torch.device) -> int:
    if device.type != "cuda":
        return INTERPRETED_PROCESSORS
    count: int = torch.cuda.get_device_properties(device).multi_processor_count
    return count


#: The kernels of a step, by the sizes that a tile's rows, columns and depth lie along; forward, of one not turned.
JOBS: Final[dict[str, Callable[[Case], tuple[int, int, int]]]] = {
    "forward": lambda case: (case.batch, case.in2_features, case.in1_features),
    "grad_input1": lambda case: (case.batch, case.in1_features, case.in2_features),
    "grad_input2": lambda case: (case.batch, case.in2_features, case.in1_features),
    "grad_weight": lambda case: (case.in1_features, case.in2_features, case.batch),
}
#: Those whose right operand has its columns side by side, if it is not turned; the other one has its terms so.
WITH_COLUMNS: Final = ("forward", "grad_input2", "grad_weight")


def candidates(sizes: tuple[int, int, int], itemsize: int) -> list[Tile]:
    """Tiles for a product of these rows, columns and depth, the most promising first.

    What a tile promises is the share of its work that is not padding, times how often it uses what it loads.
    """
    edges = [max(LEAST_EDGE, triton.next_power_of_2(size)) for size in sizes]
    fitted = []
    for tile in TILES:
        rows, columns = min(tile.rows, edges[0]), min(tile.columns, edges[1])
        warps = min(tile.warps, max(1, rows * columns // WARP_SUMS))
        # As many bytes whatever the type, for what is in flight has to fit into shared memory; or as many terms.
        for depth in (tile.depth * 4 // itemsize, tile.depth):
            fitted.append(Tile(rows, columns, max(LEAST_EDGE, min(depth, edges[2])), warps, tile.stages))

    def promise(tile: Tile) -> float:
        useful = math.prod(
            size / (_tiles(size, edge) * edge)
            for size, edge in zip(sizes, (tile.rows, tile.columns, tile.depth), strict=True)
        )
        reuse = tile.rows * tile.columns / (tile.rows + tile.columns)  # multiplications for each element that is loaded
        return useful * reuse / (reuse + LEAST_EDGE)

    # A larger tile that was cut down may have become another one.
    unlike = [tile for tile in dict.fromkeys(fitted) if tile.rows * tile.columns * itemsize <= MOST_BYTES * tile.warps]
    return sorted(unlike, key=lambda tile: (-promise(tile), -tile.depth))[:TRIED]


def tried(case: Case, job: str) -> list[Tile]:
    """Tiles for a kernel of a case, turned ones among them, the most promising first.

    On an H200 float32 is multiplied up to 2.4 times as fast with the right operand's columns side by side, and as tf32
    up to 2.6 times with its terms, for which alone Hopper's matrix units take tf32 from shared memory. To bfloat16 it
    is all the same (float16 and float64 are taken to be like it, unmeasured): forward, where turning costs nothing, the
    other way round may need less padding.
    """
    rows, columns, depth = JOBS[job](case)
    plain = candidates((rows, columns, depth), case.itemsize)
    sizes = (rows, depth, columns) if job == "forward" else (rows, columns, depth)
    turned = [dataclasses.replace(tile, turned=True) for tile in candidates(sizes, case.itemsize)]
    if case.dtype == "float32":
        turn = (job in WITH_COLUMNS) == (case.precision == "tf32")
        return turned + plain[:TRIED_OTHERWISE] if turn else plain + turned[:TRIED_OTHERWISE]
    if job != "forward":
        return plain
    return [tile for pair in itertools.zip_longest(plain, turned) for tile in pair if tile]


@functools.cache
def tuned(case: Case, device: str) -> Mapping[str, Tile]:
    """The tile of each kernel that a case needs: the fastest one on scratch arrays; in the interpreter the last."""
    jobs = [job for job in JOBS if job == "forward" or case.mode == "forward_backward"]
    tiles = {job: tried(case, job) for job in jobs}
    if interpreted():
        return {job: listed[-1] for job, listed in tiles.items()}
    runs = _scratch_runs(case, device)
    little = 2 * math.prod(case.sizes) < TRIED_FLOP
    chosen = {job: _fastest(runs[job], listed, 1 if little else len(listed)) for job, listed in tiles.items()}
    del runs
    torch.cuda.empty_cache()  # others need what the scratch arrays took
    return chosen


def _scratch_runs(case: Case, device: str) -> dict[str, Callable[[Tile], Tensor]]:
    """What launches each kernel with a tile, on arrays of the case's sizes."""
    arithmetic, dtype = Arithmetic.of(case), getattr(torch, case.dtype)
    made = {name: torch.randn(shape, dtype=dtype, device=device) for name, shape in case.shapes().items()}
    one, two, weight, bias = (made.get(name) for name in ("input1", "input2", "weight", "bias"))
    gradient = made.get("grad_output")
    return {
        "forward": lambda tile: forward(one, two, weight, bias, tile, arithmetic),
        "grad_input1": lambda tile: grad_input(two, gradient, weight, 1, tile, arithmetic),
        "grad_input2": lambda tile: grad_input(one, gradient, weight, 2, tile, arithmetic),
        "grad_weight": lambda tile: grad_weight(one, two, gradient, tile, arithmetic),
    }


def _fastest(run: Callable[[Tile], Tensor], tiles: Sequence[Tile], most: int) -> Tile:
    """Compile at most so many tiles, then time them in turns.

    Raises:
        Exception: What was wrong with the last one, if the device takes none.
    """
    ready: list[Tile] = []
    failure: Exception | None = None
    begin = time.monotonic()
    for tile in tiles:
        if ready and (len(ready) == most or time.monotonic() - begin > TRY_SECONDS):
            break
        try:
            run(tile)
        except UNFIT as error:  # too much shared memory, say
            failure = error
        else:
            ready.append(tile)
    if not ready:
        raise failure or RuntimeError("there is no tile to try")
    if len(ready) == 1:
        return ready[0]
    begin = time.monotonic()
    while time.monotonic() - begin < WARM_UP_SECONDS:  # while it compiled, the device's clock has fallen
        run(ready[0])
        torch.cuda.synchronize()
    taken = dict.fromkeys(ready, math.inf)
    for _ in range(ROUNDS):
        for tile in ready:
            taken[tile] = min(taken[tile], _milliseconds(functools.partial(run, tile)))
    return min(taken, key=lambda tile: taken[tile])


def _milliseconds(call: Callable[[], Tensor]) -> float:
    """A few calls on the device, launched while it was kept busy, so that launching is not in it."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda._sleep(DELAY_CYCLES)
    start.record()
    for _ in range(ROUND_CALLS):
        call()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end))

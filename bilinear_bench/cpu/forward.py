"""The fused kernel: what a GEMM would write between the two contractions stays in vector registers (Numba, LLVM).

Formula, for a strip of rows ``b`` side by side in the lanes of vectors, and one page ``o``::

    tile[j, b]   = sum_i weight[o, i, j] * input1[b, i]            a few j at a time, in registers
    output[b, o] = sum_j tile[j, b] * input2[b, j] + bias[o]       einsum: bi,oij,bj->bo

and for the gradients of both inputs, from one tile::

    tile[j, b]          = sum_o weight[o, i, j] * grad_output[b, o]
    grad_input1[b, i] += sum_j tile[j, b] * input2[b, j]
    grad_input2[b, j] += tile[j, b] * input1[b, i]

Axes: ``b`` batch, ``i`` in1_features, ``j`` in2_features, ``o`` out_features.

* Work: 2 b i j o flop forward; 6 b i j o a step, the least there is (two for the output, two for both input gradients,
  two for ``grad_weight``). Below ``FEW_PAGES`` outputs a tile over ``o`` is short: there one input gradient has a pass
  of its own, and the other is what the forward's tiles held, times grad_output.
* Written between: inputs in strips ``[feature][row]``, at most ``PACKED_BYTES``, and results of a block in that order.
  Nothing of size b i j, b o j or b o i, but for a step of few outputs: it keeps those tiles, up to ``KEPT_BYTES``.
  A step whose tiles are more than that goes the way of one with many outputs, unless it has fewer than
  ``FEWEST_PAGES``: then each gradient has a pass, 8 b i j o in all.
* Prepared outside the clock: how to divide the work. The weight is read where it lies, one number for all lanes; only a
  backward copies it, where what it contracts over lies at distances that share too few places of a cache.
* Order of the loops: a block of strips that fits into the second-level cache meets page after page. Rows of a batch
  that fill little of a vector lie in the tile's rows instead, and the lanes run over ``j``.
* ``grad_weight[o]`` is one product over the batch: tiles of ``input1`` meet columns of ``input2``, both packed for all
  pages, with ``grad_output[:, o]`` multiplied into a column before it meets the tiles; into its vectors in each tile
  anew, where there are few tiles. Of a small batch several pages are one: it has the rows (o, i), and grad_output is
  multiplied into ``input1``, a few thousand numbers at a time.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numba
import numpy as np
import numpy.typing as npt

from backends import numba_tiles
from backends.numba_tiles import (
    FEW_ROWS,
    LINE_BYTES,
    ROWS,
    ROWS_BESIDE,
    SHARED_ROWS,
    UNROLLED,
    VECTOR_BYTES,
    VECTORS,
    at,
    call,
    copy,
    prefetch,
    spread,
    take,
)
from harness.backend import Backend, Kernel
from harness.case import Case

Array = npt.NDArray[np.floating]


def _second_level_bytes() -> int:
    """What a core's second-level cache holds, where Linux says so; else what the smallest of today hold."""
    try:
        size = Path("/sys/devices/system/cpu/cpu0/cache/index2/size").read_text()
        return int(size.strip().removesuffix("K")) * 2**10
    except (OSError, ValueError):
        return 512 * 2**10


#: Inputs of a block of strips: with a page's column they stay in the second-level cache. Of 2 MiB twice as much made
#: a forward of few outputs 5 % slower.
BLOCK_BYTES: Final = min(3 * _second_level_bytes() // 4, 768 * 2**10)
#: Inputs in strips at a time.
PACKED_BYTES: Final = 16 * 2**20
#: Results of a block, before they are laid out as the caller has them.
RESULT_BYTES: Final = 256 * 2**10
#: Rows of the batch that a tile of ``grad_weight`` sums up, of two vectors each: they stay in the first-level cache.
#: Tiles beside them, which stay in the second-level one.
PANEL_ROWS, PANEL_TILES = 256, 64
#: Rows of the batch that are packed at a time: not in more pages of memory than a core knows the places of.
PACKED_ROWS: Final = 64
#: From so many in1_features on, columns of input2 are scaled before they meet the tiles; below, in each tile anew.
SCALED_ROWS: Final = 48
#: Up to so many rows of the batch pages of ``grad_weight`` are taken together: for so many numbers of input1 times
#: grad_output at a time, if these are enough for so many pages (and with threads, each has so many); and for so many
#: bytes, but for a single page of more, since it is written column by column.
TOGETHER_ROWS, TOGETHER_NUMBERS, TOGETHER_PAGES, TOGETHER_BYTES = 32, 4096, 4, 512 * 2**10
#: Each thread packs all rows for ``grad_weight`` itself, if it then has so many products for a number: to pack it again
#: takes less than to wait for all threads, and to fetch what another core has just written.
PACKED_PRODUCTS: Final = 8
#: Below so many outputs each input gradient is made on its own, if what a step's forward has in tiles is little enough
#: to be kept (for a few rows, whose tiles hold sums over lanes, nothing is: there it is just as well); below so many in
#: any case.
FEW_PAGES: Final = 8
FEWEST_PAGES: Final = 3
#: Where each is made on its own, a weight is copied for more strips than these.
FEW_STRIPS: Final = 4
#: There tiles with a small batch in their rows are worth their calls from so many outputs times lanes.
FEW_SUMS: Final = 48
#: With few outputs a step keeps up to so much of what its forward had in tiles; it is one of the input gradients, but
#: for a factor.
KEPT_BYTES: Final = 16 * 2**20
#: Over so many features a tile takes long enough to hide its epilogue.
LONG: Final = 160
#: Latency of a multiply-add, in cycles, times the units that do them, on CPUs of today: 8 to 10.
BUSY_ROWS: Final = 8
#: Below so much work threads cost more than they bring (some microseconds).
PARALLEL_FLOP: Final = 1e6
#: Lines of memory so far apart share a place in a first-level cache, which has some 8 of each (x86 and ARM alike).
WAY_BYTES: Final = 4096
SHARED_WAYS: Final = 4
#: What a first-level cache holds, at least.
FIRST_LEVEL_BYTES: Final = 32 * 2**10
#: Rows of all pages that tiles of both input gradients share: they stay in the second-level cache, beside a block.
SHARED_BYTES: Final = BLOCK_BYTES // 3
#: About so many are asked for at a time, or one tile's share: a core has room for some twenty that are on their way.
LINES_AT_ONCE: Final = 8
#: What has more bytes does not stay in any cache that a thread has for itself.
LARGE_BYTES: Final = 2**20
#: A weight of more bytes may not even stay in one that all threads share.
MEMORY_BYTES: Final = 16 * 2**20
#: Shares of a forward and of ``grad_weight`` for each thread, where they can be divided so far: who is done sooner
#: takes more of them.
SHARES: Final = 8
#: Such a share is worth its start, of some microseconds, from so much work on.
SHARE_FLOP: Final = 2_000_000
#: Threads that take fewer pages each write to the same lines of the output.
SHARED_PAGES: Final = 4
#: A block of fewer strips reads the weight too often for what it does with it.
SHARED_STRIPS: Final = 4
#: Parts of a page of ``grad_weight`` with fewer tiles read its columns too often.
SHARED_TILES: Final = 4
#: Threads share each strip, instead of the batch, only if their parts are then so much more alike.
EVEN: Final = 1.1


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """How a case is divided.

    Attributes:
        parallel: Whether threads share it.
        workers: How many do.
        few: Whether the batch lies in the tile's rows.
        lanes: Of a vector.
        block: Strips that are worked on together, at most.
        blocks: Blocks that are packed at a time; where there is one part, all there are, for each thread packs its own.
        parts: Parts that the pages (forward) or the rows of a page (backward) are divided into; a forward's may be more
            than there are threads, which take one after the other.
        weight_parts: Parts that the tiles of a page of ``grad_weight`` are divided into.
        weight_rows: Rows of the batch that it is summed up over at a time.
        apiece: Whether each thread packs them for itself, all of them.
        groups: Groups of pages of ``grad_weight``, each of which is taken as one, for a small batch; the three before
            do not count then. 0 if page follows page.
        panelled: Whether the weight is copied, where it would clash in a cache: some rows of every page next to each
            other before they are contracted over the pages; where each input gradient is made on its own, all of it
            with its last two axes swapped.
        kept: How many numbers a step's forward keeps for its backward: all that its tiles held, or none.
        transpose: Address of that function of ``numba_tiles``; the same below. 0 for those not needed.
    """

    parallel: bool
    workers: int
    few: bool
    lanes: int
    block: int
    blocks: int
    parts: int
    weight_parts: int
    weight_rows: int
    apiece: bool
    groups: int
    panelled: bool
    kept: int = 0
    transpose: int = 0
    contract: int = 0
    share: int = 0
    scale: int = 0
    multiply: int = 0
    accumulate: int = 0
    accumulate_scaled: int = 0
    transpose_sum: int = 0
    weigh: int = 0
    share_few: int = 0


def plan(case: Case, threads: int) -> Plan:
    """Divide a case for so many threads, evenly."""
    stepping = case.mode == "forward_backward"
    separate = stepping and _separate(case)
    in1, in2, pages = case.in1_features, case.in2_features, case.out_features
    lanes = VECTOR_BYTES // case.itemsize
    strips = max(1, math.ceil(case.batch / (VECTORS * lanes)))
    parallel = threads > 1 and 2 * case.batch * in1 * in2 * pages >= PARALLEL_FLOP
    workers = threads if parallel else 1
    along = max(1, in1 if stepping else pages)
    few = _few(case)
    # Each thread has strips of its own, unless these are too few or the weight comes from memory, which is better read
    # by one thread than by all.
    evenness = (strips - _narrow(case.batch, lanes) / 2) / (workers * math.ceil(strips / workers))
    uneven = EVEN * evenness < along / (workers * math.ceil(along / workers))
    if separate:
        uneven = False  # each part would need sums of its own for little work
    divided = few or strips < workers or uneven or in1 * in2 * pages * case.itemsize > MEMORY_BYTES
    parts = max(1, min(workers, along)) if divided else 1
    if parts == workers > 1 and not stepping and not few:
        parts = _shares_of_pages(case, workers)
    # A step's backward has the inputs, their gradients and grad_output in strips; each part of the rows of a page has a
    # grad_input2 of its own. Some rows of every page need them all, but of input1 and its gradient only these rows;
    # where each gradient is made on its own page follows page, and each needs all.
    row_bytes = VECTORS * lanes * case.itemsize
    strip_bytes = row_bytes * (2 * in1 + (1 + parts) * in2 + pages if stepping else in1 + in2)
    used_bytes = row_bytes * (2 * in2 + pages) if stepping and not separate else strip_bytes
    # Blocks that are worked on at the same time: where all threads share one, that one.
    beside = math.ceil(workers / parts)
    most = max(1, min(BLOCK_BYTES // used_bytes, PACKED_BYTES // (strip_bytes * beside)))
    blocks = math.ceil(strips / most)
    if parts < workers:
        rounds = math.ceil(blocks / workers)
        if parts == 1 and workers > 1 and not stepping:  # a step copies rows of the weight for each block
            rounds = max(rounds, min(SHARES, strips // (workers * SHARED_STRIPS)))
        blocks = min(strips, rounds * workers)
    block = math.ceil(strips / blocks)
    if parts > 1:
        blocks = min(blocks, max(1, PACKED_BYTES // (strip_bytes * block * beside)) * beside)
    kept = _keepable(case)
    strips_only = not few and not _few(case.with_mode("forward"))
    keeps = separate and strips_only and kept * case.itemsize <= KEPT_BYTES
    worth_copying = not separate or (strips > FEW_STRIPS and not (keeps and _contracts_input1(in1, in2)))
    return Plan(
        parallel=parallel,
        workers=workers,
        few=few,
        lanes=lanes,
        block=block,
        blocks=blocks,
        parts=parts,
        weight_parts=_parts_of_a_page(pages, math.ceil(in1 / ROWS), workers),
        weight_rows=_weight_rows_at_a_time(case),
        apiece=_apiece(case, workers),
        groups=_groups(case, workers),
        panelled=stepping and worth_copying and _clashes(case),
        kept=kept if keeps else 0,
        **{tile.__name__: numba_tiles.compiled(tile, case.dtype).address for tile in _needed(case, few)},
    )


def _shares_of_pages(case: Case, workers: int) -> int:
    """Parts of a forward's pages, as many for each thread, to take one after the other; one where that is little work.

    A backward has no more parts than threads, since each of them has a grad_input2 of its own.
    """
    flop = 2 * case.batch * case.in1_features * case.in2_features * case.out_features
    shares = min(SHARES, flop // (workers * SHARE_FLOP), case.out_features // (workers * SHARED_PAGES))
    return workers * max(1, shares)


def _parts_of_a_page(pages: int, tiles: int, workers: int) -> int:
    """Parts of each page's tiles for ``grad_weight``: as many as give every thread as much to do, or nearly.

    Or more, as shares for threads to take one after the other, if each part still has some tiles.
    """
    if workers == 1 or pages >= workers * SHARES:
        return 1
    even = min(tiles, workers // math.gcd(workers, max(1, pages)))
    more = min(tiles // SHARED_TILES, math.ceil(workers * SHARES / max(1, pages)))
    return max(1, even, more // max(1, even) * even)


def _keepable(case: Case) -> int:
    """How many numbers the tiles of a forward hold, in whole strips."""
    apart = VECTORS * VECTOR_BYTES // case.itemsize
    over1 = _contracts_input1(case.in1_features, case.in2_features)
    strips = max(1, math.ceil(case.batch / apart))
    return case.out_features * strips * apart * (case.in2_features if over1 else case.in1_features)


def _separate(case: Case) -> bool:
    """Whether a step makes each input gradient on its own.

    Of what its forward has kept one is made at once. Otherwise it is a pass more, which is worth it only where a tile
    over ``o`` is very short, or where there are so few rows that the other way would have them in its tiles' rows.
    """
    kept = _keepable(case) * case.itemsize <= KEPT_BYTES
    return case.out_features < (FEW_PAGES if kept else FEWEST_PAGES)


def _few(case: Case) -> bool:
    """Whether the batch lies in the tile's rows; else it lies in the lanes, which it then fills at least in part.

    Of a vector that is filled by three quarters the lanes are the better place, if there are rows enough to keep the
    multiply-add units busy with one vector each.
    """
    lanes = VECTOR_BYTES // case.itemsize
    if case.mode == "forward":
        return case.batch <= (3 * lanes // 4 if ROWS >= BUSY_ROWS else lanes)
    if _separate(case):
        return case.batch <= FEW_ROWS and case.out_features * lanes >= FEW_SUMS
    return case.batch <= 3 * lanes // 4


def _clashes(case: Case) -> bool:
    """Whether what a backward contracts over lies at distances that share too few places of a cache."""
    row_bytes, page_bytes = case.in2_features * case.itemsize, case.in1_features * case.in2_features * case.itemsize
    if _separate(case):
        if case.out_features * page_bytes > PACKED_BYTES:
            return False  # no room for another one
        return case.in1_features * math.gcd(row_bytes, WAY_BYTES) > SHARED_WAYS * WAY_BYTES
    rows = min(int(_shared_rows(case.out_features, row_bytes)), case.in1_features)
    shared_bytes = max(math.gcd(page_bytes, WAY_BYTES), rows * math.gcd(page_bytes, row_bytes * (rows > 1), WAY_BYTES))
    return case.out_features * shared_bytes > SHARED_WAYS * WAY_BYTES


def _groups(case: Case, workers: int) -> int:
    """Of how many groups of pages each is one page of ``grad_weight``; 0 where ``_weight`` takes page by page.

    With a batch and rows so small most of a page's work is to begin.
    """
    pages = case.out_features
    if not 0 < case.batch <= TOGETHER_ROWS or pages < (2 if workers == 1 else workers * TOGETHER_PAGES):
        return 0
    most = TOGETHER_NUMBERS // (case.batch * case.in1_features)
    if most < TOGETHER_PAGES:
        return 0
    most = max(1, min(most, TOGETHER_BYTES // (case.in1_features * case.in2_features * case.itemsize)))
    return min(pages, workers * math.ceil(pages / (workers * most)))


def _apiece(case: Case, workers: int) -> bool:
    """Whether each thread packs the rows for ``grad_weight`` for itself; else each packs some of them for all."""
    in1, in2, pages = case.in1_features, case.in2_features, case.out_features
    packed_bytes = workers * min(case.batch, _weight_rows_at_a_time(case)) * _packed_row_bytes(case)
    pays = workers * (in1 + in2 + pages) * PACKED_PRODUCTS <= in1 * in2 * pages
    return workers > 1 and pays and packed_bytes <= PACKED_BYTES


def _packed_row_bytes(case: Case) -> int:
    """What a row of the batch takes when it is packed for ``grad_weight``."""
    lanes = VECTOR_BYTES // case.itemsize
    tiles, columns = math.ceil(case.in1_features / ROWS), math.ceil(case.in2_features / (VECTORS * lanes))
    return (tiles * _tile_room(lanes) + columns * VECTORS * lanes + case.out_features) * case.itemsize


def _weight_rows_at_a_time(case: Case) -> int:
    """How many rows of both inputs and of grad_output are packed for ``grad_weight``, to stay in a core's cache.

    A panel at least, even if that does not stay there; less only where it does not fit into ``PACKED_BYTES``.
    """
    row_bytes = _packed_row_bytes(case)
    most = max(1, BLOCK_BYTES // (PANEL_ROWS * row_bytes)) * PANEL_ROWS
    return max(1, min(most, PACKED_BYTES // row_bytes))


def _needed(case: Case, few: bool) -> list[Callable[..., None]]:
    """The tiles of a forward, or of a step's backward."""
    if case.mode == "forward":
        return [numba_tiles.weigh] if few else [numba_tiles.transpose, numba_tiles.contract]
    scaled_before = case.in1_features >= SCALED_ROWS or case.out_features == 1 or _groups(case, 1) > 0
    accumulate = numba_tiles.accumulate if scaled_before else numba_tiles.accumulate_scaled
    inputs: list[Callable[..., None]] = [numba_tiles.share]
    if few:
        inputs = [numba_tiles.share_few]
    elif _separate(case):
        inputs = [numba_tiles.scale, numba_tiles.transpose_sum]
    return [numba_tiles.transpose, numba_tiles.multiply, accumulate, *inputs]


class NumbaFused(Backend):
    """Fused tiles in vector code; float32 and float64."""

    name = "numba-fused"

    def workspace_bytes(self, case: Case) -> int:
        """Strips, a weight of few pages once more, what is kept; results of a block and copied rows on each thread.

        An upper figure: what is packed for the gradient of the weight takes the place of the strips.
        """
        threads = int(numba.get_num_threads())
        row_bytes = case.in2_features * case.itemsize
        rows_bytes = _shared_rows(case.out_features, row_bytes) * row_bytes + VECTOR_BYTES
        panel = PANEL_ROWS * VECTORS * VECTOR_BYTES + case.out_features * rows_bytes
        return 2 * PACKED_BYTES + KEPT_BYTES + threads * (2 * RESULT_BYTES + panel)

    def version(self) -> str:
        """Version of Numba."""
        return f"numba {numba.__version__}"

    def prepare_forward(self, case: Case, weight: Array, bias: Array | None) -> Kernel:
        """Divide the case; return the kernel over this weight."""
        divided = plan(case.with_mode("forward"), int(numba.get_num_threads()))
        addend = bias_or_zeros(weight, bias)

        def kernel(input1: Array, input2: Array) -> Array:
            return forward(divided, input1, input2, weight, addend)

        return kernel

    def prepare_forward_backward(self, case: Case) -> FusedStep:
        """Divide the case."""
        threads = int(numba.get_num_threads())
        return FusedStep(plan(case.with_mode("forward"), threads), plan(case, threads))


class FusedStep:
    """The kernel, one pass for both input gradients, and one product for the gradient of the weight.

    Args:
        ahead: How the forward is divided.
        back: How the backward is.
    """

    def __init__(self, ahead: Plan, back: Plan) -> None:
        self._ahead, self._back = ahead, back
        self._saved: tuple[Array, Array, Array, Array, bool] | None = None

    def forward(self, input1: Array, input2: Array, weight: Array, bias: Array | None) -> Array:
        """Return output (b, o)."""
        kept = _aligned(self._back.kept, weight)
        self._saved = input1, input2, weight, kept, bias is not None
        return forward(self._ahead, input1, input2, weight, bias_or_zeros(weight, bias), kept)

    def backward(self, grad_output: Array) -> tuple[Array, Array, Array, Array | None]:
        """Return the gradients."""
        if self._saved is None:
            raise RuntimeError("backward without a forward: call forward first")
        (input1, input2, weight, kept, has_bias), self._saved = self._saved, None
        grad_input1, grad_input2 = input_gradients(self._back, input1, input2, weight, grad_output, kept)
        grad_weight = weight_gradient(self._back, input1, input2, grad_output)
        return grad_input1, grad_input2, grad_weight, column_sums(grad_output) if has_bias else None


def forward(
    divided: Plan, input1: Array, input2: Array, weight: Array, bias: Array, kept: Array | None = None
) -> Array:
    """Return output (b, o) of input1 (b, i), input2 (b, j), weight (o, i, j) and bias (o,).

    Args:
        divided: The plan of a forward.
        input1: (b, i).
        input2: (b, j).
        weight: (o, i, j).
        bias: (o,).
        kept: Room for what ``input_gradients`` uses again: as many numbers as the plan of the step says, or none.
    """
    output = np.empty((input1.shape[0], weight.shape[0]), input1.dtype)
    given = input1, input2, weight, bias, output, divided.lanes
    if divided.few:
        _forward_few[divided.parallel](divided.weigh, *given, divided.parts)
    else:
        tiles = divided.transpose, divided.contract
        blocks = divided.workers, divided.block, divided.blocks, divided.parts
        _forward[divided.parallel](*tiles, *given, *blocks, np.empty(0, weight.dtype) if kept is None else kept)
    return output


def input_gradients(
    divided: Plan, input1: Array, input2: Array, weight: Array, grad_output: Array, kept: Array
) -> tuple[Array, Array]:
    """Return grad_input1 (b, i) and grad_input2 (b, j).

    Args:
        divided: The plan of the step.
        input1: (b, i).
        input2: (b, j).
        weight: (o, i, j).
        grad_output: (b, o).
        kept: What ``forward`` has put there; empty if it kept nothing.
    """
    given, lanes = (input1, input2, weight, grad_output), divided.lanes
    grad_input1 = _room(input1.shape, input1)
    if divided.few:
        sums = np.zeros((divided.parts, *input2.shape), input2.dtype)
        _backward_few[divided.parallel](divided.share_few, *given, lanes, grad_input1, sums)
        return grad_input1, sums[0] if divided.parts == 1 else sums.sum(0)
    grad_input2 = _room(input2.shape, input2)
    tiles = divided.transpose, divided.share, divided.scale, divided.transpose_sum
    blocks = divided.workers, divided.block, divided.blocks, divided.parts, divided.panelled
    _backward[divided.parallel](*tiles, *given, grad_input1, grad_input2, lanes, *blocks, kept)
    return grad_input1, grad_input2


def weight_gradient(divided: Plan, input1: Array, input2: Array, grad_output: Array) -> Array:
    """Return grad_weight (o, i, j)."""
    shape = grad_output.shape[1], input1.shape[1], input2.shape[1]
    grad_weight = _room(shape, input1) if len(input1) else np.zeros(shape, input1.dtype)
    given = input1, input2, grad_output, grad_weight, divided.lanes
    if divided.groups:
        _weight_few[divided.parallel](divided.multiply, divided.accumulate, *given, divided.groups)
    else:
        tiles = divided.transpose, divided.multiply, divided.accumulate or divided.accumulate_scaled
        rows = divided.workers, divided.weight_parts, divided.weight_rows, divided.apiece
        _weight[divided.parallel](*tiles, bool(divided.accumulate), *given, *rows)
    return grad_weight


def _room(shape: tuple[int, ...], like: Array) -> Array:
    """Room for a gradient of like's dtype: a large one begins with a line of memory, a small one as NumPy has it."""
    size = math.prod(shape)
    if size * like.itemsize <= LARGE_BYTES:
        return np.empty(shape, like.dtype)
    room = np.empty(size + LINE_BYTES // like.itemsize, like.dtype)  # NumPy's own: it asks for huge pages
    begin = -room.ctypes.data % LINE_BYTES // like.itemsize
    return room[begin : begin + size].reshape(shape)


def bias_or_zeros(weight: Array, bias: Array | None) -> Array:
    """A bias (o,) in any case: the loops then need one compiled version, not two."""
    return np.zeros(weight.shape[0], dtype=weight.dtype) if bias is None else bias


# From here on all is compiled. What a thread does is a function of its own; the loops around it, which are shared out,
# come as a pair: for one thread, and for all. Where a thread has strips or pages of its own, it takes the next ones
# when it is done, for threads are not alike: some cores are faster than others, and some have other work.


#: Numba's cache on disk knows a function by its name and the age of its file, and does not see that intrinsics of
#: ``numba_tiles`` are part of it: so they are part of its name.
_STAMP: Final = hashlib.sha256(Path(numba_tiles.__file__).read_bytes()).hexdigest()[:8]


def _compiled(function: Callable[..., Any], **options: bool) -> Callable[..., Any]:
    """Compile a function when it is first called, or load it from the cache."""
    function.__qualname__ = f"{function.__name__}_{_STAMP}"
    return numba.njit(cache=True, nogil=True, **options)(function)


def _for_one_and_for_all(loops: Callable[..., None]) -> tuple[Callable[..., None], Callable[..., None]]:
    """Compile loops without threads, and once more with ``prange`` shared out; ``Plan.parallel`` chooses."""
    shared_out = types.FunctionType(loops.__code__, loops.__globals__, f"{loops.__name__}_parallel")
    return _compiled(loops), _compiled(shared_out, parallel=True)


@_compiled
def _aligned(size: int, like: Array) -> Array:
    """Room for so many numbers of like's dtype, from the beginning of a line of memory.

    A vector that lies in two lines takes two accesses: with AVX-512, whose vectors are a line long, each one would.
    """
    room = np.empty(size + LINE_BYTES // like.itemsize, like.dtype)
    begin = -at(room, 0) % LINE_BYTES // like.itemsize
    return room[begin : begin + size]


@_compiled
def _filled(value: int, dtype: Any) -> Array:
    """An array of one number. In a function of its own: where Numba shares out loops, it shares out filling, too."""
    return np.full(1, value, dtype)


@_compiled
def _squares(features: int, lanes: int) -> int:
    """How many squares to transpose so many features in, of which the last may overlap; 0 if they do not fill one."""
    return (features + lanes - 1) // lanes if features >= lanes else 0


@_compiled
def _pack(transpose: int, source: Array, first: int, lanes: int, strips: Array, begin: int) -> None:
    """Lay rows from ``first`` of source (b, f) into a strip (f, rows); rows beyond the batch are 0."""
    batch, features = source.shape
    apart = VECTORS * lanes
    zero = source.dtype.type(0)
    for v in range(VECTORS):
        row, start = first + v * lanes, begin + v * lanes
        squares = _squares(features, lanes) if row + lanes <= batch else 0
        for square in range(squares):
            f = min(square * lanes, features - lanes)
            call(transpose, (at(source, row * features + f), features, at(strips, start + f * apart), apart))
        for f in range(0 if squares else features):
            for r in range(lanes):
                strips[start + f * apart + r] = source[row + r, f] if row + r < batch else zero


@_compiled
def _packed(transpose: int, source: Array, first: int, lanes: int, count: int) -> Array:
    """So many strips of source (b, f), the rows from ``first``."""
    size = source.shape[1] * VECTORS * lanes
    strips = _aligned(count * size, source)
    for strip in range(count):
        _pack(transpose, source, first + strip * VECTORS * lanes, lanes, strips, strip * size)
    return strips


@_compiled
def _unpack(
    transpose: int, strips: Array, begin: int, lanes: int, target: Array, first: int, left: int, features: int
) -> None:
    """Lay a strip (f, rows) of so many features into target (b, ...): rows from ``first``, columns from ``left``."""
    batch, width = target.shape
    apart = VECTORS * lanes
    for v in range(VECTORS):
        row, start = first + v * lanes, begin + v * lanes
        squares = _squares(features, lanes) if row + lanes <= batch else 0
        for square in range(squares):
            f = min(square * lanes, features - lanes)
            call(transpose, (at(strips, start + f * apart), apart, at(target, row * width + left + f), width))
        for f in range(0 if squares else features):
            for r in range(min(lanes, batch - row)):
                target[row + r, left + f] = strips[start + f * apart + r]


@_compiled
def _unpack_kept(
    transpose_sum: int,
    kept: Array,
    strip: int,
    strips: int,
    gradients: Array,
    begin: int,
    lanes: int,
    target: Array,
) -> None:
    """Lay what a forward kept of a strip, times grad_output, into target (b, f): a sum over pages.

    ``kept`` is (o, strips, f, rows), and what ``gradients`` has from ``begin`` on is this strip's (o, rows).
    """
    batch, width = target.shape
    apart = VECTORS * lanes
    page_size = strips * width * apart
    pages = kept.size // page_size
    zero = kept.dtype.type(0)
    for v in range(VECTORS):
        row, start, by = strip * apart + v * lanes, strip * width * apart + v * lanes, begin + v * lanes
        here = min(lanes, batch - row)
        squares = _squares(width, lanes) if here > 0 else 0
        # Where the batch ends within a vector, its last rows are transposed beside, and then copied.
        beside = np.empty(lanes * lanes if squares > 0 and here < lanes else 0, kept.dtype)
        for square in range(squares):
            f = min(square * lanes, width - lanes)
            into = row * width + f
            goal, along = (at(beside, 0), lanes) if len(beside) else (at(target, into), width)
            call(transpose_sum, (
                pages, at(kept, start + f * apart), page_size, apart, at(gradients, by), apart, goal, along,
            ))  # fmt: skip
            for r in range(here if len(beside) else 0):
                copy(at(target, into + r * width), at(beside, r * lanes), lanes * target.itemsize)
        for f in range(0 if squares else width):
            for r in range(here):
                total = zero
                for page in range(pages):
                    total += kept[page * page_size + start + f * apart + r] * gradients[by + page * apart + r]
                target[row + r, f] = total


@_compiled
def _turn(
    transpose: int, source: Array, page: int, left: int, lanes: int, turned: Array, begin: int, apart: int
) -> None:
    """Lay a vector's width of columns of a page of source (o, i, j) into turned, from ``begin`` on as (o, j, apart)."""
    rows, columns = source.shape[1:]
    squares = _squares(rows, lanes) if columns >= lanes else 0
    j = min(left, columns - lanes)
    for square in range(squares):
        i = min(square * lanes, rows - lanes)
        target = at(turned, begin + (page * columns + j) * apart + i)
        call(transpose, (at(source, (page * rows + i) * columns + j), columns, target, apart))
    for i in range(0 if squares else rows):
        for j in range(left, min(left + lanes, columns)):
            turned[begin + (page * columns + j) * apart + i] = source[page, i, j]


@_compiled
def _narrow(batch: int, lanes: int) -> int:
    """Whether the rows of the last strip fill one vector at most, 0 or 1: the second is then left out."""
    return int((batch - 1) % (VECTORS * lanes) < lanes)


@_compiled
def _contracts_input1(in1: int, in2: int) -> bool:
    """Whether the tiles of a forward contract over ``i``, and its epilogue over ``j``.

    The longer axis is contracted in the tile, the shorter one in its epilogue. Not if they are much alike, or if the
    shorter one is long enough to hide its epilogue: along j a tile reads rows of the weight, along i columns, which lie
    pages of memory apart.
    """
    return bool(in1 > 2 * in2 and in2 < LONG)


@_compiled
def _forward_block(
    transpose: int,
    contract: int,
    strips1: Array,
    strips2: Array,
    low: int,
    high: int,
    weight: Array,
    bias: Array,
    begin: int,
    end: int,
    lanes: int,
    output: Array,
    first: int,
    kept: Array,
) -> None:
    """Output of strips ``low`` to ``high``, whose first row is ``first``, for pages ``begin`` to ``end``."""
    in1, in2 = weight.shape[1:]
    apart = VECTORS * lanes
    over1 = _contracts_input1(in1, in2)
    count, rows = (in1, in2) if over1 else (in2, in1)
    along_c, along_r = (in2, 1) if over1 else (1, in2)
    inner, outer = (strips1, strips2) if over1 else (strips2, strips1)
    tiles = (rows + ROWS - 1) // ROWS
    far = weight.size * weight.itemsize > LARGE_BYTES
    most = max(1, RESULT_BYTES // ((high - low) * apart * weight.itemsize))
    results = _aligned(min(most, end - begin) * (high - low) * apart, weight)
    narrow = _narrow(len(output), lanes) if first + (high - low) * apart >= len(output) else 0
    whole = high - low - narrow
    for start in range(begin, end, most):
        pages = min(most, end - start)
        for strip in range(high - low):
            for page in range(pages):
                spread(results, (strip * pages + page) * apart, bias[start + page])
        for page in range(pages):
            for tile in range(tiles):
                top, bottom = tile * rows // tiles, (tile + 1) * rows // tiles
                root = (start + page) * in1 * in2
                # What is read next, if the weight is far: the rows that follow; or this tile's share of the next page,
                # for tiles of columns have lines of memory in common.
                soon = root + (rows + top if over1 else bottom) * count
                above = ((start + page) * ((len(output) + apart - 1) // apart) + first // apart) * rows + top
                for skip, times, vectors in ((0, whole, VECTORS), (whole, narrow, 1)):
                    if times == 0:
                        continue
                    strip = low + skip
                    keep = at(kept, (above + skip * rows) * apart) if len(kept) else 0
                    # As many bytes as a tile has, in count / UNROLLED requests for each strip, of a line at most.
                    ahead = (bottom - top) * UNROLLED * weight.itemsize
                    ahead = min(LINE_BYTES, (ahead + times - 1) // times) if far else 0
                    call(contract, (
                        bottom - top, at(weight, root + top * along_r), along_c, along_r,
                        at(inner, strip * count * apart), apart, count, times, vectors, count * apart,
                        at(outer, (strip * rows + top) * apart), rows * apart,
                        at(results, (skip * pages + page) * apart), pages * apart, keep, rows * apart,
                        at(weight, soon), ahead,
                    ))  # fmt: skip
        for strip in range(high - low):
            _unpack(transpose, results, strip * pages * apart, lanes, output, first + strip * apart, start, pages)


@_for_one_and_for_all
def _forward(
    transpose: int,
    contract: int,
    input1: Array,
    input2: Array,
    weight: Array,
    bias: Array,
    output: Array,
    lanes: int,
    workers: int,
    block: int,
    blocks: int,
    parts: int,
    kept: Array,
) -> None:
    pages, in1, in2 = weight.shape
    apart = VECTORS * lanes
    strips = (input1.shape[0] + apart - 1) // apart
    if parts == 1:
        following = _filled(workers, np.int64)
        for worker in numba.prange(min(workers, blocks)):
            task = np.int64(worker)
            while task < blocks:
                low, high = task * strips // blocks, (task + 1) * strips // blocks
                first, here = low * apart, high - low
                mine1 = _packed(transpose, input1, first, lanes, here)
                mine2 = _packed(transpose, input2, first, lanes, here)
                _forward_block(
                    transpose, contract, mine1, mine2, 0, here, weight, bias, 0, pages, lanes, output, first, kept
                )
                task = take(following)
        return
    strips1 = _aligned(block * blocks * in1 * apart, input1)
    strips2 = _aligned(block * blocks * in2 * apart, input1)
    for begin in range(0, strips, block * blocks):
        here = min(block * blocks, strips - begin)
        for strip in numba.prange(here):
            _pack(transpose, input1, (begin + strip) * apart, lanes, strips1, strip * in1 * apart)
            _pack(transpose, input2, (begin + strip) * apart, lanes, strips2, strip * in2 * apart)
        count = min(blocks, here)
        # A task is a part of the pages with all blocks: then it is read once. With fewer parts than threads it is one
        # block only.
        groups = 1 if parts >= workers else count
        following = _filled(workers, np.int64)
        for worker in numba.prange(min(workers, parts * groups)):
            task = np.int64(worker)
            while task < parts * groups:
                part, group = task // groups, task % groups
                first, last = part * pages // parts, (part + 1) * pages // parts
                for number in range(group * count // groups, (group + 1) * count // groups):
                    low, high = number * here // count, (number + 1) * here // count
                    _forward_block(
                        transpose, contract, strips1, strips2, low, high, weight, bias, first, last, lanes, output,
                        (begin + low) * apart, kept,
                    )  # fmt: skip
                task = take(following)


@_compiled
def _forward_few_pages(
    weigh: int,
    input1: Array,
    input2: Array,
    weight: Array,
    bias: Array,
    begin: int,
    end: int,
    lanes: int,
    output: Array,
) -> None:
    """Output of a small batch for pages ``begin`` to ``end``; its rows are the tile's, the lanes run over ``j``."""
    batch, in1 = input1.shape
    pages, in2 = weight.shape[0], weight.shape[2]
    for page in range(begin, end):
        for row in range(batch):
            output[row, page] = bias[page]
        for j in range(0, in2, VECTORS * lanes):
            for row in range(0, batch, FEW_ROWS):
                call(weigh, (
                    min(FEW_ROWS, batch - row), at(input1, row * in1), 1, in1, at(weight, page * in1 * in2 + j), in2,
                    in1, at(input2, row * in2 + j), in2, in2 - j, at(output, row * pages + page), pages,
                ))  # fmt: skip


@_for_one_and_for_all
def _forward_few(
    weigh: int, input1: Array, input2: Array, weight: Array, bias: Array, output: Array, lanes: int, parts: int
) -> None:
    pages = weight.shape[0]
    for part in numba.prange(parts):
        begin, end = part * pages // parts, (part + 1) * pages // parts
        _forward_few_pages(weigh, input1, input2, weight, bias, begin, end, lanes, output)


@_compiled
def _shared_rows(pages: int, row_bytes: int) -> int:
    """Of how many rows of a page a tile of both input gradients has columns: several, where caches have the room.

    The first-level one for the lines that a tile reads, the second-level one for these rows of all pages.
    """
    line_bytes = SHARED_ROWS * LINE_BYTES + VECTORS * VECTOR_BYTES
    fits = pages * line_bytes <= FIRST_LEVEL_BYTES and pages * SHARED_ROWS * row_bytes <= SHARED_BYTES
    return SHARED_ROWS if fits else 1


@_compiled
def _backward_block(
    panelled: bool,
    share: int,
    strips1: Array,
    strips2: Array,
    gradients: Array,
    low: int,
    high: int,
    whole: int,
    weight: Array,
    begin: int,
    end: int,
    lanes: int,
    sums1: Array,
    sums2: Array,
) -> None:
    """Input gradients of strips ``low`` to ``high`` from rows ``begin`` to ``end`` of every page, added to the sums.

    Strips from number ``whole`` on have one vector.
    """
    pages, in1, in2 = weight.shape
    apart = VECTORS * lanes
    most = min(_shared_rows(pages, in2 * weight.itemsize), end - begin)
    columns = ROWS_BESIDE if most > 1 else ROWS
    tiles = (in2 + columns - 1) // columns
    short, taller = in2 // tiles, in2 % tiles
    far = weight.size * weight.itemsize > LARGE_BYTES
    groups = (end - begin + most - 1) // most
    panel = _aligned(pages * (most * in2 + lanes) if panelled else 1, weight)
    for group in range(groups):
        i, following = begin + group * (end - begin) // groups, begin + (group + 1) * (end - begin) // groups
        after = begin + (group + 2) * (end - begin) // groups
        count = following - i
        # These rows of every page side by side, and a vector apart: as they are, they may all be so far from each
        # other that they share the same few places of a cache.
        gap = count * in2 + lanes if panelled else in1 * in2
        if panelled:
            for page in range(pages):
                copy(at(panel, page * gap), at(weight, (page * in1 + i) * in2), count * in2 * weight.itemsize)
        source = at(panel, 0) if panelled else at(weight, i * in2)
        # The rows that follow are on their way while these are contracted, unless the weight stays in a cache anyway.
        wanted = (after - following) * in2 * weight.itemsize if far and following < end else 0
        ahead = (wanted + LINE_BYTES - 1) // LINE_BYTES
        lines = ahead * pages
        at_once = max(1, LINES_AT_ONCE * tiles * (high - low) // lines) if lines else tiles
        fetched = done = line = 0
        asked = at(weight, following * in2)
        for strip in range(low, high):
            mine1 = (strip * in1 + i) * apart
            vectors = VECTORS if strip < whole else 1
            tile = 0
            while tile < tiles:
                # Tiles of one height at a time, the taller ones first.
                rows, last = (short + 1, taller) if tile < taller else (short, tiles)
                times = min(at_once, last - tile)
                done += times
                while fetched * tiles * (high - low) < done * lines:
                    prefetch(asked + line * LINE_BYTES)
                    fetched, line = fetched + 1, line + 1
                    if line == ahead:  # on to the next page
                        asked, line = asked + in1 * in2 * weight.itemsize, 0
                left = tile * short + min(tile, taller)
                mine2 = (strip * in2 + left) * apart
                call(share, (
                    ROWS * (count - 1) + rows, source + left * weight.itemsize, gap, 1,
                    at(gradients, strip * pages * apart), apart, pages, times, vectors, in2, at(strips2, mine2),
                    at(sums1, mine1), at(strips1, mine1), at(sums2, mine2),
                ))  # fmt: skip
                tile += times


@_compiled
def _onward(size: int, steps: int) -> int:
    """Bytes from one request of a tile to its next, at most a line: it asks for so many, one in ``UNROLLED`` steps."""
    return min(LINE_BYTES, (size * UNROLLED + steps - 1) // steps)


@_compiled
def _soon(tile: int, tiles: int, begin1: int, size1: int, begin2: int, size2: int) -> int:
    """Where a tile's share of two pieces of memory begins; the second is taken to follow the first."""
    away = tile * ((size1 + size2) // tiles)
    return begin1 + away if away < size1 else begin2 + away - size1


@_compiled
def _backward_block_of_few_pages(
    turned: Array,
    scale: int,
    makes1: bool,
    makes2: bool,
    soon1: int,
    soon2: int,
    strips1: Array,
    strips2: Array,
    gradients: Array,
    low: int,
    high: int,
    whole: int,
    weight: Array,
    begin: int,
    end: int,
    lanes: int,
    sums1: Array,
    sums2: Array,
) -> None:
    """As ``_backward_block`` where there are few outputs: each gradient has a pass of its own, if it is made here.

    ``turned`` is the weight as (o, j, i), or empty. ``soon1`` and ``soon2`` say where the gradients will be written, or
    are 0: the last pass asks for that memory.
    """
    pages, in1, in2 = weight.shape
    apart = VECTORS * lanes
    along_c, along_r = (1, in1) if len(turned) else (in2, 1)
    for strip, last, vectors in ((low, min(high, whole), VECTORS), (max(low, whole), high, 1)):
        times = last - strip
        size1, size2 = times * apart * in1 * weight.itemsize, times * apart * in2 * weight.itemsize
        ahead1 = soon1 + (strip - low) * apart * in1 * weight.itemsize
        ahead2 = soon2 + (strip - low) * apart * in2 * weight.itemsize
        for page in range(pages if times > 0 else 0):
            start = page * in1 * in2
            factors = at(gradients, (strip * pages + page) * apart)
            asking = soon1 > 0 and page == pages - 1
            if makes1:
                tiles = (end - begin + ROWS - 1) // ROWS
                onward = _onward((size1 + size2) // tiles, times * in2) if asking and not makes2 else 0
                for tile in range(tiles):
                    top = begin + tile * ROWS
                    into = at(sums1, (strip * in1 + top) * apart)
                    call(scale, (
                        min(ROWS, end - top), at(weight, start + top * in2), 1, in2, at(strips2, strip * in2 * apart),
                        apart, in2, times, vectors, in2 * apart, factors, pages * apart, into, in1 * apart,
                        _soon(tile, tiles, ahead1, size1, ahead2, size2) if onward else into, onward,
                    ))  # fmt: skip
            if makes2:
                tiles = (in2 + ROWS - 1) // ROWS
                onward = _onward((size1 + size2) // tiles, times * (end - begin)) if asking else 0
                for tile in range(tiles):
                    left = tile * ROWS
                    into = at(sums2, (strip * in2 + left) * apart)
                    source = (
                        at(turned, (page * in2 + left) * in1 + begin)
                        if len(turned)
                        else at(weight, start + begin * in2 + left)
                    )
                    call(scale, (
                        min(ROWS, in2 - left), source, along_c, along_r, at(strips1, (strip * in1 + begin) * apart),
                        apart, end - begin, times, vectors, in1 * apart, factors, pages * apart, into, in2 * apart,
                        _soon(tile, tiles, ahead1, size1, ahead2, size2) if onward else into, onward,
                    ))  # fmt: skip


@_compiled
def _sum_block(
    turned: Array,
    panelled: bool,
    share: int,
    scale: int,
    makes1: bool,
    makes2: bool,
    soon1: int,
    soon2: int,
    *given: Any,
) -> None:
    """Add a block's input gradients to the sums; ``given`` is what both ways to do it take alike."""
    if scale:
        _backward_block_of_few_pages(turned, scale, makes1, makes2, soon1, soon2, *given)
    else:
        _backward_block(panelled, share, *given)


@_for_one_and_for_all
def _backward(
    transpose: int,
    share: int,
    scale: int,
    transpose_sum: int,
    input1: Array,
    input2: Array,
    weight: Array,
    grad_output: Array,
    grad_input1: Array,
    grad_input2: Array,
    lanes: int,
    workers: int,
    block: int,
    blocks: int,
    parts: int,
    panelled: bool,
    kept: Array,
) -> None:
    pages, in1, in2 = weight.shape
    apart = VECTORS * lanes
    strips = (input1.shape[0] + apart - 1) // apart
    whole = strips - _narrow(input1.shape[0], lanes)
    # What was kept is one of the gradients, but for a factor; for the other one the other input alone is needed.
    over1 = _contracts_input1(in1, in2)
    makes1, makes2 = not len(kept) or over1, not len(kept) or not over1
    far = (input1.size + input2.size) * input1.itemsize > LARGE_BYTES
    turned = np.empty(weight.size if panelled and scale else 0, weight.dtype)
    if len(turned):
        groups = (in2 + lanes - 1) // lanes
        for task in numba.prange(pages * groups):
            _turn(transpose, weight, task // groups, task % groups * lanes, lanes, turned, 0, in1)
    if parts == 1:
        following = _filled(workers, np.int64)
        for worker in numba.prange(min(workers, blocks)):
            task = np.int64(worker)
            while task < blocks:
                low, high = task * strips // blocks, (task + 1) * strips // blocks
                first, here = low * apart, high - low
                mine1 = _packed(transpose, input1, first, lanes, here if makes2 else 0)
                mine2 = _packed(transpose, input2, first, lanes, here if makes1 else 0)
                factors = _packed(transpose, grad_output, first, lanes, here)
                sum1 = _aligned(here * in1 * apart if makes1 else 0, input1)
                sum2 = _aligned(here * in2 * apart if makes2 else 0, input1)
                sum1[:], sum2[:] = 0, 0
                _sum_block(
                    turned, panelled, share, scale, makes1, makes2, at(grad_input1, first * in1) if far else 0,
                    at(grad_input2, first * in2) if far else 0, mine1, mine2, factors, 0, here, whole - low, weight, 0,
                    in1, lanes, sum1, sum2,
                )  # fmt: skip
                for strip in range(here):
                    row = first + strip * apart
                    if makes1:
                        _unpack(transpose, sum1, strip * in1 * apart, lanes, grad_input1, row, 0, in1)
                    if makes2:
                        _unpack(transpose, sum2, strip * in2 * apart, lanes, grad_input2, row, 0, in2)
                    if len(kept):
                        other, by = grad_input2 if over1 else grad_input1, strip * pages * apart
                        _unpack_kept(transpose_sum, kept, low + strip, strips, factors, by, lanes, other)
                task = take(following)
        return
    room = block * blocks
    strips1 = _aligned(room * in1 * apart, input1)
    strips2 = _aligned(room * in2 * apart, input1)
    gradients = _aligned(room * pages * apart, input1)
    sums1 = _aligned(room * in1 * apart, input1)
    # Every part of the rows of a page adds to all of grad_input2: each has sums of its own.
    sums2 = _aligned(parts * room * in2 * apart, input1).reshape(parts, room * in2 * apart)
    for begin in range(0, strips, room):
        here = min(room, strips - begin)
        for strip in numba.prange(here):
            first = (begin + strip) * apart
            _pack(transpose, grad_output, first, lanes, gradients, strip * pages * apart)
            if makes1:
                _pack(transpose, input2, first, lanes, strips2, strip * in2 * apart)
                sums1[strip * in1 * apart : (strip + 1) * in1 * apart] = 0
            if makes2:
                _pack(transpose, input1, first, lanes, strips1, strip * in1 * apart)
                sums2[:, strip * in2 * apart : (strip + 1) * in2 * apart] = 0
        count = min(blocks, here)
        for task in numba.prange(count * parts):
            # A thread's tasks follow each other: it meets its part of the weight with block after block.
            part, number = task // count, task % count
            low, high = number * here // count, (number + 1) * here // count
            top, bottom = part * in1 // parts, (part + 1) * in1 // parts
            _sum_block(
                turned, panelled, share, scale, makes1, makes2, 0, 0, strips1, strips2, gradients, low, high,
                whole - begin, weight, top, bottom, lanes, sums1, sums2[part],
            )  # fmt: skip
        for strip in numba.prange(here):
            row = (begin + strip) * apart
            if makes1:
                _unpack(transpose, sums1, strip * in1 * apart, lanes, grad_input1, row, 0, in1)
            if makes2:
                mine = sums2[0, strip * in2 * apart : (strip + 1) * in2 * apart]
                for part in range(1, parts):
                    mine += sums2[part, strip * in2 * apart : (strip + 1) * in2 * apart]
                _unpack(transpose, mine, 0, lanes, grad_input2, row, 0, in2)
            if len(kept):
                other, by = grad_input2 if over1 else grad_input1, strip * pages * apart
                _unpack_kept(transpose_sum, kept, begin + strip, strips, gradients, by, lanes, other)


@_compiled
def _backward_few_rows(
    share_few: int,
    input1: Array,
    input2: Array,
    weight: Array,
    grad_output: Array,
    begin: int,
    end: int,
    lanes: int,
    grad_input1: Array,
    grad_input2: Array,
) -> None:
    """Input gradients of a small batch from rows ``begin`` to ``end`` of every page; added to grad_input2."""
    batch, in1 = input1.shape
    pages, in2 = weight.shape[0], weight.shape[2]
    grad_input1[:, begin:end] = 0
    for i in range(begin, end):
        for j in range(0, in2, VECTORS * lanes):
            for row in range(0, batch, FEW_ROWS):
                call(share_few, (
                    min(FEW_ROWS, batch - row), at(grad_output, row * pages), 1, pages, at(weight, i * in2 + j),
                    in1 * in2, pages, at(input2, row * in2 + j), in2, in2 - j, at(grad_input1, row * in1 + i), in1,
                    at(input1, row * in1 + i), in1, at(grad_input2, row * in2 + j),
                ))  # fmt: skip


@_for_one_and_for_all
def _backward_few(
    share_few: int,
    input1: Array,
    input2: Array,
    weight: Array,
    grad_output: Array,
    lanes: int,
    grad_input1: Array,
    sums: Array,
) -> None:
    """As ``_backward_few_rows`` for all rows, a part on each thread; each has a grad_input2 of its own in ``sums``."""
    in1, parts = input1.shape[1], sums.shape[0]
    for part in numba.prange(parts):
        begin, end = part * in1 // parts, (part + 1) * in1 // parts
        _backward_few_rows(share_few, input1, input2, weight, grad_output, begin, end, lanes, grad_input1, sums[part])


@_compiled
def _tile_room(lanes: int) -> int:
    """Numbers between two rows of the batch in a packed tile: whole vectors, so that none lies in two lines."""
    return (ROWS + lanes - 1) // lanes * lanes


@_compiled
def _weight_tiles(
    multiply: int,
    accumulate: int,
    scaling: bool,
    tiles1: Array,
    columns2: Array,
    factors: Array,
    rows: int,
    begins: bool,
    page: int,
    begin: int,
    end: int,
    lanes: int,
    grad_weight: Array,
) -> None:
    """Tiles ``begin`` to ``end`` of a page of grad_weight: a sum over packed rows of the batch, panel by panel.

    ``scaling``: whether columns are scaled here, before the tiles. ``begins``: whether these rows are the first.
    """
    in1, in2 = grad_weight.shape[1:]
    apart, room = VECTORS * lanes, _tile_room(lanes)
    tiles = (in1 + ROWS - 1) // ROWS
    short, taller = in1 // tiles, in1 % tiles
    far = int(grad_weight.size * grad_weight.itemsize > LARGE_BYTES)
    scaled = _aligned(PANEL_ROWS * apart if scaling else 1, tiles1)
    for first in range(0, rows, PANEL_ROWS):
        count = min(PANEL_ROWS, rows - first)
        by = at(factors, page * rows + first)
        for j in range(0, in2, apart):
            column = at(columns2, j * rows + first * apart)
            if scaling:
                call(multiply, (count, column, apart, by, 1, in2 - j, at(scaled, 0), apart))
                column = at(scaled, 0)
            # Tiles of one height at a time, the taller ones first.
            for height, low, high in ((short + 1, begin, min(taller, end)), (short, max(taller, begin), end)):
                if low < high:
                    top = low * short + min(low, taller)
                    call(accumulate, (
                        height, at(tiles1, (low * rows + first) * room), room, 1, column, apart, count, by, high - low,
                        rows * room, at(grad_weight, (page * in1 + top) * in2 + j), in2, in2 - j,
                        int(begins and first == 0), far,
                    ))  # fmt: skip


@_compiled
def _pack_rows(
    transpose: int,
    multiply: int,
    input1: Array,
    input2: Array,
    grad_output: Array,
    chunk: int,
    rows: int,
    begin: int,
    end: int,
    lanes: int,
    one: Array,
    tiles1: Array,
    columns2: Array,
    factors: Array,
) -> None:
    """Pack groups of the ``rows`` from ``chunk`` on: tiles of input1, columns of input2, and what to scale these by."""
    in1, in2, pages = input1.shape[1], input2.shape[1], grad_output.shape[1]
    apart, room = VECTORS * lanes, _tile_room(lanes)
    tiles = (in1 + ROWS - 1) // ROWS
    short, taller = in1 // tiles, in1 % tiles
    for first in range(begin * PACKED_ROWS, min(end * PACKED_ROWS, rows), PACKED_ROWS):
        count, row = min(PACKED_ROWS, rows - first), chunk + first
        for tile in range(tiles):
            top, height = tile * short + min(tile, taller), short + int(tile < taller)
            for beside in range(0, height, apart):
                call(multiply, (
                    count, at(input1, row * in1 + top + beside), in1, at(one, 0), 0, height - beside,
                    at(tiles1, (tile * rows + first) * room + beside), room,
                ))  # fmt: skip
        # A single page's columns can be scaled at once.
        by, by_r = (at(grad_output, row), 1) if pages == 1 else (at(one, 0), 0)
        given = grad_output[row : row + count].reshape(1, count, pages)
        for left in range(0, pages if pages > 1 else 0, lanes):
            _turn(transpose, given, 0, left, lanes, factors, first, rows)
        for j in range(0, in2, apart):
            call(multiply, (
                count, at(input2, row * in2 + j), in2, by, by_r, in2 - j, at(columns2, j * rows + first * apart), apart,
            ))  # fmt: skip


@_compiled
def _room_for_rows(rows: int, input1: Array, input2: Array, pages: int, lanes: int) -> tuple[Array, Array, Array]:
    """Where so many rows are packed: tiles of input1, columns of input2, and factors of all pages."""
    apart, room = VECTORS * lanes, _tile_room(lanes)
    tiles, columns = (input1.shape[1] + ROWS - 1) // ROWS, (input2.shape[1] + apart - 1) // apart
    factors = np.empty(rows * pages, input1.dtype)
    return _aligned(rows * tiles * room, input1), _aligned(rows * columns * apart, input2), factors


@_compiled
def _weight_shares(
    multiply: int,
    accumulate: int,
    scaling: bool,
    tiles1: Array,
    columns2: Array,
    factors: Array,
    rows: int,
    begins: bool,
    share: int,
    following: Array,
    workers: int,
    parts: int,
    lanes: int,
    grad_weight: Array,
) -> None:
    """Share after share of grad_weight, as far as the packed rows go; this one first, then what is ``following``."""
    pages, in1 = grad_weight.shape[:2]
    tiles = (in1 + ROWS - 1) // ROWS
    shares = min(pages * parts, workers * SHARES)
    while share < shares:
        for task in range(share * pages * parts // shares, (share + 1) * pages * parts // shares):
            page, part = task // parts, task % parts
            begin, end = part * tiles // parts, (part + 1) * tiles // parts
            pieces = (end - begin + PANEL_TILES - 1) // PANEL_TILES
            for piece in range(pieces):
                _weight_tiles(
                    multiply, accumulate, scaling, tiles1, columns2, factors, rows, begins, page,
                    begin + piece * (end - begin) // pieces, begin + (piece + 1) * (end - begin) // pieces, lanes,
                    grad_weight,
                )  # fmt: skip
        share = take(following)


@_for_one_and_for_all
def _weight(
    transpose: int,
    multiply: int,
    accumulate: int,
    scaled_before: bool,
    input1: Array,
    input2: Array,
    grad_output: Array,
    grad_weight: Array,
    lanes: int,
    workers: int,
    parts: int,
    most: int,
    apiece: bool,
) -> None:
    batch, pages = grad_output.shape
    # All that a page reads is packed for all pages: along a column of the arrays themselves lie as many lines of memory
    # as rows, often at distances that put them all into the same few places of a cache.
    one = _filled(1, input1.dtype)
    scaling = scaled_before and pages > 1
    tiles1, columns2, factors = _room_for_rows(0 if apiece else min(batch, most), input1, input2, pages, lanes)
    for chunk in range(0, batch, most):
        rows = min(most, batch - chunk)
        groups = (rows + PACKED_ROWS - 1) // PACKED_ROWS
        if not apiece:
            for part in numba.prange(workers):
                begin, end = part * groups // workers, (part + 1) * groups // workers
                _pack_rows(
                    transpose, multiply, input1, input2, grad_output, chunk, rows, begin, end, lanes, one, tiles1,
                    columns2, factors,
                )  # fmt: skip
        following = _filled(workers, np.int64)
        for worker in numba.prange(min(workers, pages * parts)):
            if apiece:
                mine1, mine2, scales = _room_for_rows(rows, input1, input2, pages, lanes)
                _pack_rows(
                    transpose, multiply, input1, input2, grad_output, chunk, rows, 0, groups, lanes, one, mine1, mine2,
                    scales,
                )  # fmt: skip
                _weight_shares(
                    multiply, accumulate, scaling, mine1, mine2, scales, rows, chunk == 0, np.int64(worker), following,
                    workers, parts, lanes, grad_weight,
                )  # fmt: skip
            else:
                _weight_shares(
                    multiply, accumulate, scaling, tiles1, columns2, factors, rows, chunk == 0, np.int64(worker),
                    following, workers, parts, lanes, grad_weight,
                )  # fmt: skip


@_for_one_and_for_all
def _weight_few(
    multiply: int,
    accumulate: int,
    input1: Array,
    input2: Array,
    grad_output: Array,
    grad_weight: Array,
    lanes: int,
    groups: int,
) -> None:
    """As ``_weight`` for a batch so small that a page is little work: a group of pages is one tall page.

    Its rows are (o, i), and what meets columns of input2 is input1 times grad_output.
    """
    batch, in1 = input1.shape
    pages, in2 = grad_output.shape[1], input2.shape[1]
    apart = VECTORS * lanes
    far = int(grad_weight.size * grad_weight.itemsize > LARGE_BYTES)
    one = _filled(1, input1.dtype)
    for task in numba.prange(groups):
        group = np.int64(task)
        begin, end = group * pages // groups, (group + 1) * pages // groups
        rows = (end - begin) * in1
        scaled = np.empty((batch, rows), input1.dtype)
        for row in range(batch):
            for page in range(end - begin):
                factor = grad_output[row, begin + page]
                for i in range(in1):
                    scaled[row, page * in1 + i] = input1[row, i] * factor
        column = _aligned(batch * apart, input2)
        tiles = (rows + ROWS - 1) // ROWS
        short, taller = rows // tiles, rows % tiles
        for j in range(0, in2, apart):
            call(multiply, (batch, at(input2, j), in2, at(one, 0), 0, in2 - j, at(column, 0), apart))
            for height, low, high in ((short + 1, 0, taller), (short, taller, tiles)):
                if low < high:
                    top = low * short + min(low, taller)
                    call(accumulate, (
                        height, at(scaled, top), rows, 1, at(column, 0), apart, batch, at(one, 0), high - low, height,
                        at(grad_weight, (begin * in1 + top) * in2 + j), in2, in2 - j, 1, far,
                    ))  # fmt: skip


@_compiled
def column_sums(values: Array) -> Array:
    """Sum over the rows of values (b, o), a panel at a time: one long sum of float32 would lose digits."""
    total = np.zeros(values.shape[1], values.dtype)
    for first in range(0, values.shape[0], PANEL_ROWS):
        part = np.zeros(values.shape[1], values.dtype)
        for row in range(first, min(first + PANEL_ROWS, values.shape[0])):
            part += values[row]
        total += part
    return total

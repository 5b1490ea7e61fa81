"""In which order to contract, and in what pieces: a cost model that needs no framework.

Two of the three operands are contracted first. The intermediate has one of three shapes::

    "input2"  between[b, o, i] = sum_j input2[b, j] weight[o, i, j]     then the sum over i with input1
    "input1"  between[b, o, j] = sum_i input1[b, i] weight[o, i, j]     then the sum over j with input2
    "both"    between[b, i, j] = input1[b, i] input2[b, j]              then the sum over i and j with weight

Axes: ``b`` batch, ``i`` in1_features, ``j`` in2_features, ``o`` out_features.

"input2" and "both" are one plain GEMM over the weight as stored. "input1" needs the weight's last two axes swapped;
then it is "input2" with the inputs exchanged. The backward of "both" has two GEMMs, 4 b i j o flop, the minimum. The
backward of the others recomputes the intermediate: 6 b i j o flop.

Computed piece by piece, the intermediate stays in cache, and its size does not depend on the case.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Final, Literal

#: The operand that is contracted first; "both" multiplies the inputs with each other first.
Order = Literal["input1", "input2", "both"]

#: Rows of the batch in a piece, at most: more do not make the GEMM faster, but leave less room for the other axis.
PIECE_ROWS: Final = 1024


@dataclasses.dataclass(frozen=True, slots=True)
class Rates:
    """The cost of a framework's other work, in flop of its GEMM that take as long.

    Attributes:
        contracted: Writing and reading one element of an intermediate that a GEMM makes, in flop.
        multiplied: Writing and reading one element of the product of both inputs, in flop.
        narrow: Columns that a GEMM lacks: with n columns it costs 1 + narrow / n times its flop.
        swapped: Copying one element of the weight to swap its axes, in flop.
    """

    contracted: float
    multiplied: float
    narrow: float
    swapped: float


def costs(sizes: tuple[int, int, int, int], *, backward: bool, packed: bool, rates: Rates) -> dict[Order, float]:
    """Return the cost of each order, in flop of a large GEMM.

    Args:
        sizes: batch, in1_features, in2_features, out_features.
        backward: True for the gradients, False for the output. The backward reuses nothing of the forward.
        packed: True if the weight has been copied for the order already.
        rates: Rates of the framework.
    """
    batch, in1, in2, out = (max(1, size) for size in sizes)
    flop = 2 * batch * in1 * in2 * out
    # A backward writes the intermediate and its gradient, and reads one of them twice.
    passes = 2.5 if backward else 1.0
    # A backward reads the weight and writes its gradient.
    swaps = 0 if packed else (2 if backward else 1)

    def contracted(inner: int, outer: int) -> float:
        # Two of a backward's three products have only ``inner`` columns.
        products = 1 + 2 * (1 + rates.narrow / inner) if backward else 1
        return products * flop + passes * rates.contracted * batch * out * outer

    multiplied = passes * rates.multiplied * batch * in1 * in2
    return {
        "input1": contracted(in1, in2) + swaps * rates.swapped * in1 * in2 * out,
        "input2": contracted(in2, in1),
        "both": (2 if backward else 1) * (1 + rates.narrow / out) * flop + multiplied,
    }


def cheapest(sizes: tuple[int, int, int, int], *, backward: bool, packed: bool, rates: Rates) -> Order:
    """Return the order of the least cost; arguments as for ``costs``."""
    cost = costs(sizes, backward=backward, packed=packed, rates=rates)
    return min(cost, key=cost.__getitem__)


def pieces(total: int, most: int) -> Iterator[slice]:
    """Divide an axis of ``total`` elements evenly into pieces of at most ``most`` elements (at least one)."""
    count = math.ceil(total / max(1, most))
    for number in range(count):
        yield slice(total * number // count, total * (number + 1) // count)

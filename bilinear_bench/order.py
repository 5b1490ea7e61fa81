"""What the ``-contract`` backends share: in which order to contract, and in what pieces.

Two of the three operands are contracted first; what comes between has one of three shapes::

    "input2"  between[b, o, i] = sum_j input2[b, j] weight[o, i, j]     then the sum over i with input1
    "input1"  between[b, o, j] = sum_i input1[b, i] weight[o, i, j]     then the sum over j with input2
    "both"    between[b, i, j] = input1[b, i] input2[b, j]              then the sum over i and j with weight

Each is one plain GEMM over the weight as it lies in memory, but "input1", which needs its last two axes swapped and is
then "input2" with the inputs changed over. Backward, "both" has two GEMMs, 4 b i j o flop, the least there is; the
others have to contract anew for a gradient: 6 b i j o.

Piece by piece, ``between`` stays in cache, and its size does not depend on the case.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Final, Literal

First = Literal["input1", "input2", "both"]

#: Most rows of the batch in a piece: more do not make the GEMM faster, but leave less room for the other axis.
PIECE_ROWS: Final = 1024


@dataclasses.dataclass(frozen=True, slots=True)
class Rates:
    """What a framework does besides multiplying, measured in the flop of its GEMM that take as long.

    Attributes:
        contracted: To write an element of what comes between and to read it back, where a GEMM makes it.
        multiplied: The same where it is the product of both inputs.
        narrow: A GEMM whose result has n columns costs 1 + narrow / n times what it should.
        swapped: To copy an element of the weight to another place.
    """

    contracted: float
    multiplied: float
    narrow: float
    swapped: float


def costs(sizes: tuple[int, int, int, int], *, backward: bool, packed: bool, rates: Rates) -> dict[First, float]:
    """What each order costs, in flop of a good GEMM.

    Args:
        sizes: batch, in1_features, in2_features, out_features.
        backward: Whether for the gradients; else for the output. Nothing is kept from one to the other.
        packed: Whether the weight has been laid out for the order already.
        rates: Of the framework.
    """
    batch, in1, in2, out = (max(1, size) for size in sizes)
    flop = 2 * batch * in1 * in2 * out
    # A backward writes ``between`` and its gradient, and reads one of them twice.
    passes = 2.5 if backward else 1.0
    # It reads the weight and writes its gradient.
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


def first(sizes: tuple[int, int, int, int], *, backward: bool, packed: bool, rates: Rates) -> First:
    """The order that costs least."""
    found = costs(sizes, backward=backward, packed=packed, rates=rates)
    return min(found, key=found.__getitem__)


def pieces(total: int, most: int) -> Iterator[slice]:
    """Divide an axis evenly into pieces of at most so many (at least one)."""
    count = math.ceil(total / max(1, most))
    for number in range(count):
        yield slice(total * number // count, total * (number + 1) // count)

"""The sizes of a bilinear layer and its batch."""

from __future__ import annotations

from typing import Final, NamedTuple

#: Dtypes of 16 bits.
HALF_TYPES: Final = ("float16", "bfloat16")


class Sizes(NamedTuple):
    """Sizes and dtype of one call.

    Attributes:
        batch: Rows ``b`` of both inputs.
        in1: Features ``i`` of input1.
        in2: Features ``j`` of input2.
        out: Outputs ``o``, which are the pages of the weight.
        dtype: "float32", "float64", "float16" or "bfloat16".
    """

    batch: int
    in1: int
    in2: int
    out: int
    dtype: str = "float32"

    @property
    def itemsize(self) -> int:
        """Return the bytes of a number."""
        return 2 if self.dtype in HALF_TYPES else 8 if self.dtype == "float64" else 4

    @property
    def flop(self) -> int:
        """Return the floating-point operations of a forward."""
        return 2 * self.batch * self.in1 * self.in2 * self.out

    @property
    def page_bytes(self) -> int:
        """Return the bytes of a page (i, j) of the weight."""
        return self.in1 * self.in2 * self.itemsize

    @property
    def weight_bytes(self) -> int:
        """Return the bytes of the weight (o, i, j)."""
        return self.out * self.page_bytes

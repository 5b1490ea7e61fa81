"""The bound probe: every element within the textbook bound, which no technique that sums the terms can exceed.

For an element with reference value r that sums n terms, and whose terms sum to S when each is taken positive::

    error <= ((1 + gamma_n) (1 + u_in)^k - 1) S + u_out |r| + tiny

* ``gamma_n = n u / (1 - n u)`` bounds rounding in a sum of n products added up in *any* order, with or without fused
  multiply-add (Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., section 3.1 and 3.4). ``u`` is the unit
  roundoff of the accumulation: 2^-24 in float32, and for half-precision cases, whose products are accumulated in
  float32; 2^-53 in float64, twice, since the float64 reference rounds as well.
* n is the number of terms, and three more: a second product in each term, the bias, the last rounding. A technique that
  contracts one index after the other rounds less often; n covers it.
* ``u_in`` and k: how often a factor or a stored intermediate is rounded to something coarser than the accumulation. For
  tf32 (2^-11) that is the two operands of two products, k = 4. For float16 (2^-11) and bfloat16 (2^-8) an intermediate
  is stored (1), a sum of pages is stored after each page (nn.Bilinear adds up the gradients of the inputs in that way),
  the bias is added to a rounded sum (1), and the result is stored (1).
* ``u_out |r|`` is the rounding of the result to its dtype; ``tiny`` the smallest normal number, for underflow.

The bound is sure but wide: with 1024 terms it lets tf32 pass in float32. Which arithmetic it was is for
``precision.py``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from harness.case import Case

#: Elements of a piece: half a megabyte of float64.
PIECE: Final = 2**16
UNIT_ROUNDOFF: Final = {
    "float64": 2.0**-53,
    "float32": 2.0**-24,
    "tf32": 2.0**-11,
    "float16": 2.0**-11,
    "bfloat16": 2.0**-8,
}
TINY: Final = {"float64": 2.0**-1022, "float32": 2.0**-126, "float16": 2.0**-14, "bfloat16": 2.0**-126}


def tolerance(
    case: Case, name: str, reference: npt.NDArray[np.floating], scale: npt.NDArray[np.floating]
) -> npt.NDArray[np.floating]:
    """Return the largest error that each element of the result ``name`` may have."""
    allowed: npt.NDArray[np.floating] = (
        relative_bound(case, name) * scale + UNIT_ROUNDOFF[case.dtype] * np.abs(reference) + TINY[case.dtype]
    )
    return allowed


def pieces(*arrays: npt.NDArray[np.floating]) -> Iterator[tuple[npt.NDArray[np.floating], ...]]:
    """Yield arrays of the same size piece by piece, flat: what is computed from a piece stays in the cache."""
    flat = [array.reshape(-1) for array in arrays]
    for start in range(0, flat[0].size, PIECE):
        yield tuple(array[start : start + PIECE] for array in flat)


def relative_bound(case: Case, name: str) -> float:
    """The factor before S."""
    wide = case.dtype == "float64"
    gamma = _gamma(terms(case, name) + 3, UNIT_ROUNDOFF["float64" if wide else "float32"]) * (2 if wide else 1)
    coarse = 1.0
    if case.precision == "tf32":
        coarse = (1 + UNIT_ROUNDOFF["tf32"]) ** 4
    elif case.dtype in ("float16", "bfloat16"):
        roundings = 3 + (case.out_features if name in ("grad_input1", "grad_input2") else 0)
        coarse = (1 + UNIT_ROUNDOFF[case.dtype]) ** roundings
    return (1 + gamma) * coarse - 1


def terms(case: Case, name: str) -> int:
    """How many products an element of the result sums up."""
    return {
        "output": case.in1_features * case.in2_features,
        "grad_input1": case.out_features * case.in2_features,
        "grad_input2": case.out_features * case.in1_features,
        "grad_weight": case.batch,
        "grad_bias": case.batch,
    }[name]


def _gamma(count: int, unit: float) -> float:
    return count * unit / (1 - count * unit) if count * unit < 1 else math.inf

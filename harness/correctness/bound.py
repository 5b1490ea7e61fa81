"""The bound probe: hold every element to the textbook bound, which no technique that sums the terms can exceed.

Let an element have the reference value r and n terms, and let S be the sum of their absolute values. Then::

    error <= ((1 + gamma_n) (1 + u_in)^k - 1) S + u_out |r| + tiny

* ``gamma_n = n u / (1 - n u)`` bounds rounding in a sum of n products added up in *any* order, with or without fused
  multiply-add (Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., section 3.1 and 3.4).
* ``u`` is the unit roundoff of the accumulation. It is 2^-24 in float32 and half-precision cases, which accumulate in
  float32. It is 2^-53 in float64, where gamma counts twice because the float64 reference rounds as well.
* The n in gamma_n is the number of terms plus three: a second product in each term, the bias, the last rounding. A
  technique that contracts one index after the other rounds less often, so n covers it.
* ``u_in`` is a unit roundoff coarser than the accumulation's; k counts the factors and intermediates rounded to it. For
  tf32 (2^-11) k = 4, the two operands of two products. For float16 (2^-11) and bfloat16 (2^-8) k = 3: a stored
  intermediate, the bias added to a rounded sum, the stored result. The gradients of the inputs add one rounding a page,
  because nn.Bilinear stores their sum after each page.
* ``u_out |r|`` is the rounding of the result to its dtype. ``tiny`` is the smallest normal number, for underflow.

The bound never rejects honest rounding, but it is wide: with 1024 terms it accepts tf32 in float32. ``precision.py``
finds the arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from harness.case import Case

#: Length of a piece in elements: half a mebibyte of float64.
PIECE: Final = 2**16
#: Unit roundoff of each dtype and of tf32.
UNIT_ROUNDOFF: Final = {
    "float64": 2.0**-53,
    "float32": 2.0**-24,
    "tf32": 2.0**-11,
    "float16": 2.0**-11,
    "bfloat16": 2.0**-8,
}
#: Smallest normal number of each dtype.
TINY: Final = {"float64": 2.0**-1022, "float32": 2.0**-126, "float16": 2.0**-14, "bfloat16": 2.0**-126}
#: Share of wrong elements in a result, and ratio of the worst to its bound, that show a fault of few elements. A coarse
#: arithmetic gives errors of a bell curve: where a tenth is beyond the bound, the worst of 1e9 is 3.7 times the bound.
FEW_SHARE: Final = 0.1
FAR_BEYOND: Final = 8.0


def few_are_wrong(share: float, worst: float) -> bool:
    """True if so few elements are wrong, given the worst ratio of an error to its bound, that no arithmetic does it."""
    return share < FEW_SHARE and worst > FAR_BEYOND


def tolerance(
    case: Case, name: str, reference: npt.NDArray[np.floating], scale: npt.NDArray[np.floating]
) -> npt.NDArray[np.floating]:
    """Return the largest error that each element of the result ``name`` may have."""
    allowed: npt.NDArray[np.floating] = (
        relative_bound(case, name) * scale + UNIT_ROUNDOFF[case.dtype] * np.abs(reference) + TINY[case.dtype]
    )
    return allowed


def pieces(*arrays: npt.NDArray[np.floating]) -> Iterator[tuple[npt.NDArray[np.floating], ...]]:
    """Yield arrays of equal size in flat pieces of ``PIECE`` elements, whose temporaries stay in the cache."""
    flat = [array.reshape(-1) for array in arrays]
    for start in range(0, flat[0].size, PIECE):
        yield tuple(array[start : start + PIECE] for array in flat)


def relative_bound(case: Case, name: str) -> float:
    """Return the bound of an element of the result ``name``, as a share of S."""
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
    """Return the number of products that an element of the result ``name`` sums."""
    return {
        "output": case.in1_features * case.in2_features,
        "grad_input1": case.out_features * case.in2_features,
        "grad_input2": case.out_features * case.in1_features,
        "grad_weight": case.batch,
        "grad_bias": case.batch,
    }[name]


def _gamma(count: int, unit: float) -> float:
    return count * unit / (1 - count * unit) if count * unit < 1 else math.inf

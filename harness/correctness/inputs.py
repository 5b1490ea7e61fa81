"""Turn a case and a seed into input arrays, rounded to the case's dtype.

Every worker makes its own arrays from the seed, so nothing large travels, and all of them see the same bits. NumPy has
no bfloat16, so outside a backend a half-precision array is float32 that holds only values its dtype has.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from harness.case import Case


def make_inputs(case: Case, variation: int = 0) -> dict[str, npt.NDArray[np.floating]]:
    """Return seeded arrays by the operator's own names, with the shapes of ``case.shapes()``.

    Inputs and ``grad_output`` are standard normal. Weight and bias are uniform in ±1/sqrt(in1_features), as nn.Bilinear
    initialises both (``Bilinear.reset_parameters``), so that magnitudes are those of a real layer.

    Args:
        case: Gives shapes, dtype and seed.
        variation: Tells the input sets of one case apart. Weight and bias are the same in all of them.
    """
    made: dict[str, npt.NDArray[np.floating]] = {}
    bound = 1 / math.sqrt(case.in1_features)
    for number, (name, shape) in enumerate(case.shapes().items()):
        parameter = name in ("weight", "bias")
        # A stream of its own for each array: adding a bias, say, does not change the weight.
        generator = np.random.default_rng([case.seed, number, len(name), 0 if parameter else variation])
        kind: type[np.float32] | type[np.float64] = np.float64 if case.dtype == "float64" else np.float32
        if parameter:
            values = (2 * generator.random(shape, dtype=kind) - 1) * kind(bound)
        else:
            values = generator.standard_normal(shape, dtype=kind)
        made[name] = round_to(values, case.dtype)
    return made


def round_to(values: npt.NDArray[np.floating], dtype: str) -> npt.NDArray[np.floating]:
    """Round to the nearest value that ``dtype`` has, ties to even; the array stays float32 (float64 for float64)."""
    if dtype == "float16":
        return values.astype(np.float16).astype(np.float32)
    if dtype == "bfloat16":
        # bfloat16 is the upper half of a float32: add just under half of the last kept bit, plus that bit, and cut.
        bits = values.astype(np.float32).view(np.uint32)
        rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) & np.uint32(0xFFFF0000)
        return rounded.view(np.float32)
    return values

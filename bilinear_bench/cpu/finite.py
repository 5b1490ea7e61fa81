"""Whether a result is finite."""

from __future__ import annotations

import numpy as np

from bilinear_bench.cpu.compiled import compiled
from bilinear_bench.cpu.packing import Array


@compiled
def all_finite(values: Array) -> bool:
    """Return whether no number of values (b, o) is infinite or NaN."""
    numbers = values.reshape(-1)
    finite = 0  # counting them all is vector code, and leaving at the first one would not be
    for n in range(len(numbers)):
        finite += np.isfinite(numbers[n])
    return finite == len(numbers)

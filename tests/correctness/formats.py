"""The formats that a case can ask for: the fields of the case, and rounding to the format."""

from __future__ import annotations

import numpy as np
from oracle import to_tf32

from harness.correctness.inputs import round_to

#: Fields of a case by the name of its format, best format first.
FORMATS = {
    "float64": {"dtype": "float64"},
    "float32": {"dtype": "float32"},
    "tf32": {"precision": "tf32"},
    "float16": {"dtype": "float16"},
    "bfloat16": {"dtype": "bfloat16"},
}


def to_float32(array):
    return array.astype(np.float32)


def to_half(dtype):
    return lambda array: round_to(to_float32(array), dtype)


def to_format(values, name):
    """Round to a format; float64 values are exact in it."""
    if name == "tf32":
        return to_tf32(to_float32(values))
    return round_to(values.astype(np.float64 if name == "float64" else np.float32), name)

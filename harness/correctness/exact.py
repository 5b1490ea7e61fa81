"""Draw small integers whose sum is the same in any order, and compare with tolerance zero.

An integer of at most p bits is exact in a format with p bits of precision. A sum of such integers is exact while no
partial sum leaves that range (Goldberg, What Every Computer Scientist Should Know About Floating-Point Arithmetic,
1991). A technique may sum in any order and store any intermediate in the case's own format. The inputs therefore keep
S, the sum of the absolute values of all terms of a result, below 2^p::

    float64, float32    p = 24    -2 to 2 everywhere (at most 8 a term) up to a million terms, else as for tf32
    tf32, float16       p = 11    -1 and 1 times weights of -2 to 2 (at most 2 a term), with zeros where needed
    bfloat16            p = 8     -1 and 1 times weights of -2 to 2 (at most 2 a term), with zeros where needed

This probe finds what the rounding probes cannot: a term that is missing, doubled or misplaced changes the sum by at
least 1. It cannot judge precision: products of small integers are exact in every format.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from harness.case import Case

#: Largest integer up to which all are exact in the stored format, by dtype, or by precision for tf32.
LIMITS: Final = {"float64": 2**24, "float32": 2**24, "tf32": 2**11, "float16": 2**11, "bfloat16": 2**8}


@dataclasses.dataclass(frozen=True, slots=True)
class Density:
    """The number of nonzero elements with which every sum is exact.

    Attributes:
        dense: True if all arrays may hold -2 to 2 everywhere; else inputs are -1, 0 or 1.
        in_row: Nonzero elements per row of ``input1``, ``input2`` and ``grad_output``.
        in_column: Nonzero elements per column of ``grad_output``.
    """

    dense: bool
    in_row: Mapping[str, int]
    in_column: int


def plan(case: Case) -> Density:
    """Return the largest density that the case's format allows.

    S stays below half of the limit: the probe of linearity adds two such inputs.
    """
    limit = LIMITS["tf32" if case.precision == "tf32" else case.dtype] // 2
    in_row = {"input1": case.in1_features, "input2": case.in2_features, "grad_output": case.out_features}
    summed = [("input1", "input2")]
    if case.mode == "forward_backward":
        summed += [("grad_output", "input1"), ("grad_output", "input2")]
    # A term is at most 2 * 2 * 2 where all arrays are dense, else 1 * 2 * 1. The bias is at most 2.
    dense = limit > 2**11 and all(8 * in_row[one] * in_row[other] <= limit - 2 for one, other in summed)
    terms = (limit - 2) // (8 if dense else 2)
    for pair in summed:
        while in_row[pair[0]] * in_row[pair[1]] > terms:
            larger = max(pair, key=lambda name: in_row[name])
            in_row[larger] = -(-in_row[larger] // 2)
    return Density(dense, in_row, terms)


def integers(
    generator: np.random.Generator, name: str, shape: tuple[int, ...], density: Density
) -> npt.NDArray[np.integer]:
    """Return the array ``name`` of ``shape``, integers from -2 to 2."""
    if name in ("weight", "bias") or density.dense:
        values = generator.integers(-2, 3, shape, dtype=np.int8)
    else:
        values = 2 * generator.integers(0, 2, shape, dtype=np.int8) - 1
    if name in density.in_row and density.in_row[name] < shape[1]:
        values[_beyond(generator.random(shape, dtype=np.float32), density.in_row[name], axis=1)] = 0
    if name == "grad_output" and density.in_column < shape[0]:
        values[_beyond(generator.random(shape, dtype=np.float32), density.in_column, axis=0)] = 0
    return values


def differences(expected: npt.NDArray[np.floating], actual: npt.NDArray[np.floating]) -> npt.NDArray[np.bool_] | None:
    """Return an array that is True where elements differ; None if none differs."""
    differ: npt.NDArray[np.bool_] = ~(expected == actual)  # NaN differs
    return differ if differ.any() else None


def _beyond(keys: npt.NDArray[np.floating], kept: int, axis: int) -> npt.NDArray[np.bool_]:
    """Mark all but the ``kept`` elements with the smallest keys along an axis."""
    return keys.argsort(axis=axis).argsort(axis=axis) >= kept

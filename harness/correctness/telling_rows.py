"""Real numbers at a case's own sizes of which some rows tell: edge cases are small, and large sizes may have a path.

Two kinds of inputs, made from those of ``normal``:

* ``telling rows``: most rows have a role. *Scaled* rows have input1 times a power of two of their own, and input2
  divided by it. *Graded* rows have input1 times such a power, and grad_output divided by it. *Large* rows have one
  input near the largest number, and a small other one. *Subnormal* rows have an input1 below the smallest normal
  number, and a large input2. Both have a grad_output of zeros. *Sparse* rows have one element in each array, so results
  are single terms. Rows of *zeros* are so in input1.
* ``nonfinite rows``: a NaN in one row of input1, and in another row an infinity in input2, where input1 is zero. Zero
  times infinity is NaN, and skipping zeros hides it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from harness.case import Case

    Arrays = dict[str, npt.NDArray[np.floating]]

#: The two kinds of inputs.
ROWS: Final = "telling rows"
NONFINITE: Final = "nonfinite rows"
#: Largest exponent of a large row, by dtype: sums of products with ordinary numbers stay in the format's range.
LARGEST: Final = {"float64": 1000, "float32": 110, "bfloat16": 110, "float16": 3}
#: Largest exponent of the other rows, either way. A product of two of their numbers may be divided by it, and flushed
#: where it is subnormal: what is lost is 2^-62 and 2^-30 of an ordinary term.
BOTH_WAYS: Final = {"float64": 960, "float32": 96, "bfloat16": 96, "float16": 3}
#: Exponents of input1 and input2 in a subnormal row; half-precision formats have too few bits there.
SUBNORMAL: Final = {"float64": (-1024, 1012), "float32": (-128, 115)}
#: Roles of rows, in turn.
ROLES: Final = ("scaled", "sparse", "graded", "subnormal", "large input1", "plain", "large input2", "zero")


def roles(case: Case) -> npt.NDArray[np.str_]:
    """Return the role of each row."""
    named = np.array(ROLES)[np.random.default_rng([case.seed, 53]).permutation(case.batch) % len(ROLES)]
    return named if case.dtype in SUBNORMAL else np.where(named == "subnormal", "plain", named)


def exponents(case: Case) -> dict[str, npt.NDArray[np.integer]]:
    """Return the exponents of the powers of two that rows are multiplied by, by the input's name."""
    role, largest, most = roles(case), LARGEST[case.dtype], BOTH_WAYS[case.dtype]
    drawn = np.random.default_rng([case.seed, 59]).integers(-most, most + 1, case.batch)
    scaled, graded, subnormal, large1, large2 = (
        role == name for name in ("scaled", "graded", "subnormal", "large input1", "large input2")
    )
    for rows in ends(role):
        drawn[rows] = (-most, most)[: len(rows)]  # both ends are asked, whatever is drawn
    first, second = (np.full(case.batch, exponent) for exponent in SUBNORMAL.get(case.dtype, (0, 0)))
    return {
        "input1": np.select([scaled | graded, subnormal, large1, large2], [drawn, first, largest, -most], 0),
        "input2": np.select([scaled, subnormal, large1, large2], [-drawn, second, -most, largest], 0),
        "grad_output": np.where(graded, -drawn, 0),
    }


def ends(role: npt.NDArray[np.str_]) -> list[npt.NDArray[np.integer]]:
    """Return the rows with the least and the largest exponent, of each role with exponents, given all roles."""
    return [np.flatnonzero(role == name)[:2] for name in ("scaled", "graded")]


def telling_rows(case: Case, normal: Arrays) -> Arrays:
    """Return the arrays of ``ROWS``, given those of ``normal``."""
    generator, role = np.random.default_rng([case.seed, 67]), roles(case)
    made, sparse = dict(normal), np.flatnonzero(role == "sparse")
    for name, exponent in exponents(case).items():
        if name in normal:
            made[name] = values = np.ldexp(normal[name], exponent[:, None])
            columns = generator.integers(values.shape[1], size=len(sparse))
            kept = values[sparse, columns]
            values[sparse] = 0
            values[sparse, columns] = kept
    made["input1"][role == "zero"] = 0
    if "grad_output" in made:
        # Neither flushing a subnormal row nor the size of a large one shows in grad_weight, which adds up all rows.
        made["grad_output"][np.isin(role, ("subnormal", "large input1", "large input2"))] = 0
    return made


def nonfinite_rows(case: Case, normal: Arrays) -> Arrays:
    """Return the arrays of ``NONFINITE``, given those of ``normal``."""
    made = normal | {name: np.array(normal[name]) for name in ("input1", "input2")}
    nan, infinity = nonfinite_places(case)
    if nan is not None:
        made["input1"][nan] = np.nan
    if infinity is not None:
        made["input1"][infinity[0]] = 0
        made["input2"][infinity] = np.inf
    return made


def nonfinite_places(case: Case) -> tuple[tuple[int, int] | None, tuple[int, int] | None]:
    """Return row and column of the NaN in input1, and of the infinity in input2; None where rows are too few."""
    generator = np.random.default_rng([case.seed, 61])
    rows = [int(row) for row in generator.permutation(case.batch)[:2]]
    columns = [int(generator.integers(width)) for width in (case.in1_features, case.in2_features)]
    nan, infinity, *_ = [*zip(rows, columns, strict=False), None, None]
    return nan, infinity


#: What makes each kind.
KINDS: Final[dict[str, Callable[[Case, Arrays], Arrays]]] = {ROWS: telling_rows, NONFINITE: nonfinite_rows}

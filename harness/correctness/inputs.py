"""Turn a case and a seed into input arrays, rounded to the case's dtype.

Every worker makes its own arrays from the seed. So nothing large travels, and all workers see the same bits. NumPy has
no bfloat16, so outside a backend a half-precision array is float32 and holds only values of its dtype.

The *kind* of the arrays is the rule that fills them. Each kind asks a kernel another question:

========================  =============================================================================================
``normal``                zero-mean random numbers: how large are the rounding errors? Timed calls take these.
``new weight``            ``normal``, with another weight and bias for each variation: a step must keep no earlier one
``integers``              small integers whose every partial sum is exact (``exact.py``): is it the right sum?
``other integers``        ``integers``, with another weight: does each kernel answer for its own weight?
``exchanged input1``      ``integers``, with the input1 of the next variation
``added input1``          ``integers``, with input1 the sum of two variations' input1: is the kernel linear?
``permuted rows``         ``integers``, with the rows of the batch in another order
``zero input1``           ``integers`` with an input1 of zeros: the output is the bias
``telling integers``      ``integers`` with structure; a variation changes one or two elements of the weight: do partial
                          looks, or paths for special rows, give wrong results? (``telling.py``)
``changed elements``      ``telling integers`` with one element of each input changed
``exchanged rows``        ``changed elements`` with two rows exchanged
``telling rows``          ``normal`` with scaled, sparse, subnormal and zero rows: is each row right next to others?
``nonfinite rows``        ``normal`` with one NaN in input1, and one infinity in input2 where input1 is zero
                          (``telling_rows.py``)
``positive``              1 and 2 everywhere: no result is zero, even without some of its terms
``one-hot``               row (i, j) of the batch picks weight[:, i, j]; all weights differ, as far as the dtype allows
``large ARRAY``           ``normal`` with that array scaled up: results come near the dtype's largest number
``small``                 ``normal`` with an input1 of about the root of the dtype's smallest normal number
``subnormal``             ``normal`` with an input1 below the dtype's smallest normal number
``nonfinite``             ``normal`` with one NaN in input1 and one infinity in input2, in different rows
========================  =============================================================================================
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Final

import numpy as np

from harness.correctness import exact, telling, telling_rows

if TYPE_CHECKING:
    import numpy.typing as npt

    from harness.case import Case

    Arrays = dict[str, npt.NDArray[np.floating]]

#: Binary exponents of each dtype's largest number and of its smallest normal one: 2^127 and 2^-126 in float32.
EXPONENTS: Final = {"float64": (1023, -1022), "float32": (127, -126), "float16": (15, -14), "bfloat16": (127, -126)}
#: Distance of ``large`` from the largest exponent, in powers of two: room for the sums of the edge cases.
LARGE_ROOM: Final = 10
#: Kinds whose results are judged by their precision.
PRECISE_KINDS: Final = ("normal", "new weight")
#: Kinds with one large array each.
LARGE_KINDS: Final = ("large input1", "large input2", "large weight", "large grad_output")
#: Row of input1 in which ``nonfinite`` has a NaN.
NAN_ROW: Final = 1
#: Row of input2 in which ``nonfinite`` has an infinity.
INFINITE_ROW: Final = 3


def make_inputs(case: Case, variation: int = 0, kind: str = "normal", only: Collection[str] | None = None) -> Arrays:
    """Return seeded arrays by the operator's own names, with the shapes of ``case.shapes()``.

    Args:
        case: Case with shapes, dtype and seed.
        variation: Number of the input set within the case, from 0. Weight and bias are the same in all variations,
            except in ``new weight`` and ``positive``.
        kind: Kind of the arrays; see the module's docstring.
        only: Names of the arrays to return; None for all. The values do not depend on it.

    Raises:
        KeyError: There is no such kind.
    """
    # Kinds with many variations skip the drawing of other arrays: weights can be large.
    if kind == "normal":
        arrays = _normal(case, variation, only=only)
    elif kind in telling.KINDS:
        arrays = telling.integers(case, variation, kind, only)
    elif kind in telling_rows.KINDS:
        needed = None if only is None else {"input1", "input2", "grad_output", *only}
        arrays = telling_rows.KINDS[kind](case, _normal(case, variation, only=needed))
    else:
        arrays = _KINDS[kind](case, variation)
    return {name: round_to(values, case.dtype) for name, values in arrays.items() if only is None or name in only}


def permutation(case: Case, variation: int) -> npt.NDArray[np.intp]:
    """Return the order, (b,), in which ``permuted rows`` has the rows of ``integers``."""
    return np.random.default_rng([case.seed, 99, variation]).permutation(case.batch)


def round_to(values: npt.NDArray[np.floating], dtype: str) -> npt.NDArray[np.floating]:
    """Round to the nearest value of ``dtype``, ties to even; the array stays float32 (float64 for float64)."""
    if dtype == "float16":
        return values.astype(np.float16).astype(np.float32)
    if dtype == "bfloat16":
        # bfloat16 is the upper half of a float32. Add just under half of the last kept bit, plus that bit, then cut.
        bits = values.astype(np.float32).view(np.uint32)
        rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) & np.uint32(0xFFFF0000)
        return rounded.view(np.float32)
    return values


def _normal(case: Case, variation: int, weights: int = 0, only: Collection[str] | None = None) -> Arrays:
    """Draw inputs and ``grad_output`` standard normal, weight and bias uniform in ±1/sqrt(in1_features).

    nn.Bilinear initialises weight and bias in this way (``Bilinear.reset_parameters``), so magnitudes are realistic.
    """
    arrays: Arrays = {}
    bound = 1 / math.sqrt(case.in1_features)
    float_type = _float_type(case)
    for number, (name, shape) in enumerate(case.shapes().items()):
        if only is not None and name not in only:
            continue
        parameter = name in ("weight", "bias")
        # Each array has its own random stream, so adding a bias does not change the weight.
        generator = np.random.default_rng([case.seed, number, len(name), weights if parameter else variation])
        if parameter:
            arrays[name] = (2 * generator.random(shape, dtype=float_type) - 1) * float_type(bound)
        else:
            arrays[name] = generator.standard_normal(shape, dtype=float_type)
    return arrays


def _new_weight(case: Case, variation: int) -> Arrays:
    return _normal(case, variation, weights=variation)


def _integers(case: Case, variation: int, weights: int = 0) -> Arrays:
    density = exact.plan(case)
    arrays: Arrays = {}
    for number, (name, shape) in enumerate(case.shapes().items()):
        parameter = name in ("weight", "bias")
        generator = np.random.default_rng([case.seed, number, len(name), weights if parameter else variation, 7])
        arrays[name] = exact.integers(generator, name, shape, density).astype(_float_type(case))
    return arrays


def _other_integers(case: Case, variation: int) -> Arrays:
    return _integers(case, variation, weights=1)


def _exchanged_input1(case: Case, variation: int) -> Arrays:
    return _integers(case, variation) | {"input1": _integers(case, variation + 1)["input1"]}


def _added_input1(case: Case, variation: int) -> Arrays:
    arrays = _integers(case, variation)
    return arrays | {"input1": arrays["input1"] + _integers(case, variation + 1)["input1"]}


def _permuted_rows(case: Case, variation: int) -> Arrays:
    arrays, order = _integers(case, variation), permutation(case, variation)
    rows = [name for name in ("input1", "input2", "grad_output") if name in arrays]
    return arrays | {name: np.ascontiguousarray(arrays[name][order]) for name in rows}


def _zero_input1(case: Case, variation: int) -> Arrays:
    arrays = _integers(case, variation)
    return arrays | {"input1": np.zeros_like(arrays["input1"])}


def _positive(case: Case, variation: int) -> Arrays:
    generator = np.random.default_rng([case.seed, variation, 11])
    return {name: generator.integers(1, 3, shape).astype(_float_type(case)) for name, shape in case.shapes().items()}


def _one_hot(case: Case, variation: int) -> Arrays:
    """Return one-hot rows and a weight of distinct integers about zero.

    The case has a batch of in1 x in2 rows and no bias.
    """
    in1, in2, out = case.in1_features, case.in2_features, case.out_features
    float_type = _float_type(case)
    rows = np.arange(case.batch)
    arrays: Arrays = {
        "input1": np.eye(in1)[rows // in2 % in1].astype(float_type),
        "input2": np.eye(in2)[rows % in2].astype(float_type),
        "weight": (np.arange(out * in1 * in2) - out * in1 * in2 // 2).reshape(out, in1, in2).astype(float_type),
    }
    if case.mode == "forward_backward":
        arrays["grad_output"] = np.eye(out)[rows % out].astype(float_type)
    return arrays


def _scaled(name: str, exponent: Callable[[str], int], case: Case, variation: int) -> Arrays:
    """Return ``normal`` with one array scaled by a power of two that depends on the dtype."""
    arrays = _normal(case, variation)
    return arrays | {name: np.ldexp(arrays[name], exponent(case.dtype))}


def _largest(dtype: str) -> int:
    return EXPONENTS[dtype][0] - LARGE_ROOM


def _smaller(dtype: str) -> int:
    return EXPONENTS[dtype][1] // 2


def _subnormal(case: Case, variation: int) -> Arrays:
    arrays = _normal(case, variation)
    return arrays | {"input1": np.ldexp(arrays["input1"], EXPONENTS[case.dtype][1] - 3)}


def _nonfinite(case: Case, variation: int) -> Arrays:
    arrays = _normal(case, variation)
    arrays["input1"][NAN_ROW, -1] = np.nan
    arrays["input2"][INFINITE_ROW, 0] = np.inf
    return arrays


def _float_type(case: Case) -> type[np.float32] | type[np.float64]:
    """Return the type of the arrays on the host: float64 for float64, float32 for every other dtype."""
    return np.float64 if case.dtype == "float64" else np.float32


_KINDS: Final[dict[str, Callable[[Case, int], Arrays]]] = {
    "normal": _normal,
    "new weight": _new_weight,
    "integers": _integers,
    "other integers": _other_integers,
    "exchanged input1": _exchanged_input1,
    "added input1": _added_input1,
    "permuted rows": _permuted_rows,
    "zero input1": _zero_input1,
    "one-hot": _one_hot,
    "positive": _positive,
    **{kind: functools.partial(_scaled, kind.removeprefix("large "), _largest) for kind in LARGE_KINDS},
    "small": functools.partial(_scaled, "input1", _smaller),
    "subnormal": _subnormal,
    "nonfinite": _nonfinite,
}

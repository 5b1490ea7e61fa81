"""What mistakes make of one factor of the right sum: an index, an order in memory, a rounding.

Axes: ``b`` batch, ``i`` in1, ``j`` in2, ``o`` out.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Final

import numpy as np

from harness.correctness.inputs import round_to

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[np.floating]
    Arrays = Mapping[str, Array]
    #: What is wrong, the likely cause, and the array; NaN stands for a value that nothing is known of.
    Change = tuple[str, str, Array]

#: Axes of each array.
AXES: Final = {
    "input1": "bi",
    "input2": "bj",
    "weight": "oij",
    "grad_output": "bo",
    "output": "bo",
    "grad_input1": "bi",
    "grad_input2": "bj",
    "grad_weight": "oij",
    "grad_bias": "o",
}
#: Axes in words.
WORDS: Final = {"b": "the batch", "i": "in1", "j": "in2", "o": "out"}


def changes(factor: str, inputs: Arrays) -> Iterator[Change]:
    """Yield what can be wrong with one factor: the change, its cause, and the array."""
    array = inputs[factor]
    yield f"without {factor}", "is it multiplied in", np.ones_like(array)
    for change, cause, function in _OF_A_FACTOR:
        yield change.format(factor), cause, function(array)
    if factor == "weight":
        yield from _stored_otherwise(array)
        yield from _strided(array)
    other = {"input1": "input2", "input2": "input1"}.get(factor)
    if other is not None and inputs[other].shape == array.shape:
        yield f"with {other} in place of {factor}", f"is {other} used twice", inputs[other]
    for axis, letter in enumerate(AXES[factor]):
        if array.shape[axis] < 2:
            continue
        along = f"along {WORDS[letter]}"
        for change, cause, moved in misplaced(array, axis):
            yield f"with {factor} {change} {along}", cause, moved
        yield f"with index 0 of {factor} {along} throughout", "does that index move on", repeated(array, axis)
        summed = np.broadcast_to(array.sum(axis, keepdims=True), array.shape)
        yield f"with {factor} summed {along} first", "are the indices of the factors the same", summed


def misplaced(array: Array, axis: int) -> Iterator[Change]:
    """Yield arrays whose index along an axis runs backwards, or is off by one."""
    yield "reversed", "does an index run backwards", np.flip(array, axis)
    for step in (1, -1):
        yield "shifted by one", "is an index off by one", np.roll(array, step, axis)


def repeated(array: Array, axis: int) -> Array:
    """Return an array that has the values at index 0 of an axis all along it."""
    return np.broadcast_to(np.take(array, [0], axis), array.shape)


def _stored_otherwise(weight: Array) -> Iterator[Change]:
    """Yield weights whose memory is read in another order than (out, in1, in2)."""
    if weight.shape[1] == weight.shape[2]:
        change = "with each page of the weight transposed, or input1 and input2 exchanged"
        yield change, "are in1 and in2 in order", weight.transpose(0, 2, 1)
        symmetric = (weight + weight.transpose(0, 2, 1)) / 2
        yield "with each page of the weight made symmetric", "is it taken for symmetric", symmetric
    for part, half in (("upper", np.triu(weight)), ("lower", np.tril(weight))):
        yield f"with only the {part} triangle of each page of the weight", "is it taken for triangular", half
    for order in orders(3):
        stored = ", ".join(WORDS["oij"[place]] for place in order)
        read = weight.reshape([weight.shape[place] for place in order]).transpose(np.argsort(order))
        yield f"with the weight read as ({stored})", "is it stored as (out, in1, in2)", read
        packed = weight.transpose(order).reshape(weight.shape)
        yield f"with a weight packed as ({stored}), read as (out, in1, in2)", "do the two orders agree", packed


def _strided(weight: Array) -> Iterator[Change]:
    """Yield weights whose memory is read with a wrong distance between pages, rows or columns."""
    outputs, in1, in2 = weight.shape
    if in1 == in2:
        return
    page = in1 * in2
    for what, strides in (
        ("rows of the weight in1 numbers apart", (page, in1, 1)),
        ("columns of the weight in2 numbers apart", (page, 1, in2)),
        ("pages of the weight in1 x in1 numbers apart", (in1 * in1, in2, 1)),
        ("pages of the weight in2 x in2 numbers apart", (in2 * in2, in2, 1)),
    ):
        o, i, j = np.ogrid[:outputs, :in1, :in2]
        places = o * strides[0] + i * strides[1] + j * strides[2]
        read = np.where(places < weight.size, weight.ravel()[np.minimum(places, weight.size - 1)], np.nan)
        yield f"with {what}", "is a stride wrong", read


def _in_bytes(array: Array) -> Array:
    """Return numbers rounded to 255 equal steps between their largest absolute value and its negative."""
    step = float(np.abs(array).max(initial=0.0)) / 127 or 1.0
    rounded: Array = np.rint(array / step) * step
    return rounded


def _rounded(dtype: str) -> Callable[[Array], Array]:
    return lambda array: round_to(array.astype(np.float32), dtype).astype(np.float64)


def orders(axes: int) -> list[tuple[int, ...]]:
    """Return all orders of axes but the usual one."""
    return list(itertools.permutations(range(axes)))[1:]


#: What one factor can become: the change, with a place for the factor's name; its cause; the function.
_OF_A_FACTOR: Final[tuple[tuple[str, str, Callable[[Array], Array]], ...]] = (
    ("with negative numbers of {} set to zero", "is there a ReLU", lambda array: np.maximum(array, 0)),
    ("with the absolute value of {}", "is a sign lost", np.abs),
    ("with {} cut to integers", "is it stored as an integer", np.trunc),
    ("with {} rounded to float16", "is it stored in float16", _rounded("float16")),
    ("with {} rounded to bfloat16", "is it stored in bfloat16", _rounded("bfloat16")),
    ("with {} rounded to 8 bits", "is it quantised", _in_bytes),
)

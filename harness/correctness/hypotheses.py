"""What mistakes in a kernel make of the right sum: candidates that wrong results are compared with.

Each candidate is computed in float64 from the inputs, with one mistake built in. Its text completes "It equals ...",
and ends with the likely cause as a question. ``factors.py`` has the mistakes in one factor of the sum.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Final

import numpy as np

from harness.correctness.factors import AXES, WORDS, changes, misplaced, orders, repeated

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[np.floating]
    Arrays = Mapping[str, Array]
    #: Text and values; NaN stands for a value that nothing is known of.
    Candidate = tuple[str, Array]

#: Factors of the terms that each result sums.
FACTORS: Final = {
    "output": ("input1", "weight", "input2"),
    "grad_input1": ("grad_output", "weight", "input2"),
    "grad_input2": ("grad_output", "weight", "input1"),
    "grad_weight": ("grad_output", "input1", "input2"),
    "grad_bias": ("grad_output",),
}
#: Longest axis along which every partial sum is tried.
MOST_TERMS: Final = 512

_FUNCTIONS: Final[tuple[tuple[str, Callable[[Array], Array]], ...]] = (
    ("the right answer with negative numbers set to zero: is there a ReLU?", lambda right: np.maximum(right, 0)),
    ("the absolute value of the right answer: is a sign lost?", np.abs),
    ("the hyperbolic tangent of the right answer: is there an activation?", np.tanh),
    ("the sigmoid of the right answer: is there an activation?", lambda right: 1 / (1 + np.exp(-right))),
    ("the right answer cut to integers: is it stored as an integer?", np.trunc),
    ("the right answer rounded to integers: is it stored as an integer?", np.rint),
)


def product(name: str, inputs: Arrays, kept: str = "") -> Array:
    """Return the sum of a result's terms, without the bias.

    Args:
        name: Name of the result.
        inputs: Arrays by the operator's names.
        kept: An axis that is not summed; it becomes the last one.
    """
    factors = FACTORS[name]
    subscripts = ",".join(AXES[factor] for factor in factors) + "->" + AXES[name] + kept
    summed: Array = np.einsum(subscripts, *(inputs[factor] for factor in factors), optimize=len(factors) > 2)
    return summed


def of_the_bias(name: str, inputs: Arrays) -> Iterator[Candidate]:
    """Yield outputs whose bias is left out, doubled or misplaced; none where the bias is absent or zero."""
    bias = inputs.get("bias")
    if name != "output" or bias is None or not bias.any():
        return
    summed = product(name, inputs)
    rows, outputs = summed.shape
    yield "the right answer without the bias: is the bias added?", summed
    yield "the right answer with the bias added twice: is it added in two places?", summed + 2 * bias
    yield "the right answer with the bias subtracted: is its sign right?", summed - bias
    yield "the sum times the bias: is the bias multiplied in, in place of added?", summed * bias
    yield "the bias alone: is the product computed?", np.broadcast_to(bias, summed.shape)
    by_row = bias[np.arange(rows) % outputs][:, None]
    yield "the right answer with the bias added by row: is it broadcast along the wrong axis?", summed + by_row
    yield "the right answer with the first bias for every output: does its index move on?", summed + bias[0]
    for step in (1, -1):
        shifted = np.roll(bias, step)
        yield "the right answer with the bias shifted by one output: is an index off by one?", summed + shifted
    yield "the right answer with the bias reversed: does an index run backwards?", summed + bias[::-1]
    for factor, axis in (("input1", "in1"), ("input2", "in2")):
        count = inputs[factor].shape[1]
        text = f"the right answer with the bias added {count} times: is it added inside the loop over {axis}?"
        yield text, summed + count * bias


def of_the_factors(name: str, inputs: Arrays) -> Iterator[Candidate]:
    """Yield results in which one factor is left out, exchanged, or read with a wrong index."""
    for factor in FACTORS[name]:
        for change, cause, array in changes(factor, inputs):
            yield f"the right answer {change}: {cause}?", whole(name, {**inputs, factor: array})
    for one, other in itertools.combinations(FACTORS[name], 2):
        text = f"the right answer with {one} + {other} in place of their product: are they added, or concatenated?"
        only_other = product(name, {**inputs, one: np.ones_like(inputs[one])})
        yield text, only_other + whole(name, {**inputs, other: np.ones_like(inputs[other])})


def of_the_sums(name: str, inputs: Arrays) -> Iterator[Candidate]:
    """Yield results in which only a part of the terms along one axis is summed."""
    bias = inputs.get("bias", 0.0) if name == "output" else 0.0
    letters = dict.fromkeys("".join(AXES[factor] for factor in FACTORS[name]))
    for axis in [letter for letter in letters if letter not in AXES[name]]:
        terms = product(name, inputs, axis)
        count = terms.shape[-1]
        if not 1 < count <= MOST_TERMS:
            continue
        sums = terms.cumsum(-1)
        total, along = sums[..., -1], f"of the {count} terms along {WORDS[axis]}"
        yield f"the sum of only the last {along}: is the sum overwritten in its loop?", terms[..., -1] + bias
        yield f"the sum of only the first {along}: does the loop end too early?", terms[..., 0] + bias
        for number in range(2, count):
            text = f"the sum of only the first {number} {along}: is the remainder of a tile left out?"
            yield text, sums[..., number - 1] + bias
        for number in range(1, count - 1):
            text = f"the sum without the first {number} {along}: does the loop start too late?"
            yield text, total - sums[..., number - 1] + bias
        for start in (0, 1):
            yield f"the sum of only every second {along}: is the loop's step 1?", terms[..., start::2].sum(-1) + bias
    if name == "output":
        last = inputs["input1"][:, -1:] * inputs["input2"][:, -1:] * inputs["weight"][:, -1, -1]
        yield (
            "the sum without its very last term: does the loop end one too early?",
            product(name, inputs) - last + bias,
        )
        yield "the sum over only the diagonal of each page: are in1 and in2 one index?", _diagonal(inputs) + bias


def of_the_layout(name: str, right: Array) -> Iterator[Candidate]:
    """Yield the right numbers in the wrong order in memory."""
    axes = AXES[name]
    for order in orders(right.ndim):
        stored = ", ".join(WORDS[axes[place]].removeprefix("the ") for place in order)
        text = f"the right answer stored as ({stored}): is it transposed, and only then reshaped?"
        yield text, right.transpose(order).reshape(right.shape)
    for axis, letter in enumerate(axes):
        if right.shape[axis] > 1:
            along = WORDS[letter]
            for change, cause, moved in misplaced(right, axis):
                yield f"the right answer {change} along {along}: {cause}?", moved
            text = f"the right answer at index 0 of {along}, repeated along it: does that index move on?"
            yield text, repeated(right, axis)


def of_other_results(name: str, expected: Arrays) -> Iterator[Candidate]:
    """Yield the right values of the other results of the same shape."""
    for other, values in expected.items():
        if other != name and values.shape == expected[name].shape:
            yield f"the right {other}: are the two results exchanged?", values


def of_functions(name: str, right: Array, bias: Array | None) -> Iterator[Candidate]:
    """Yield functions of the right result, and of an output before its bias is added."""
    for text, function in _FUNCTIONS:
        yield text, function(right)
        if name == "output" and bias is not None:
            what, _, cause = text.replace("right answer", "right sum").partition(":")
            yield f"{what}, plus the bias:{cause}", function(right - bias) + bias
    for axis, letter in enumerate(AXES[name]):
        powers = np.exp(right - right.max(axis, keepdims=True))
        softmax = powers / powers.sum(axis, keepdims=True)
        yield f"the softmax of the right answer along {WORDS[letter]}: is there an activation?", softmax


def whole(name: str, inputs: Arrays) -> Array:
    """Return a result by its definition, the bias included."""
    summed = product(name, inputs)
    return summed + inputs["bias"] if name == "output" and "bias" in inputs else summed


def _diagonal(inputs: Arrays) -> Array:
    """Return the sums over the diagonal of each page, as far as the shorter axis goes."""
    common = min(inputs["weight"].shape[1:])
    pairs = inputs["input1"][:, :common] * inputs["input2"][:, :common]  # (b, k)
    summed: Array = pairs @ np.diagonal(inputs["weight"], axis1=1, axis2=2).T  # (b, k) @ (k, o)
    return summed

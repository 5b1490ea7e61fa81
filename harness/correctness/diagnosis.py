"""Diagnose wrong results: which mistake makes such numbers.

``explain`` compares them with what they show by themselves (``symptoms.py``), and with the right sum with one mistake
built in (``hypotheses.py``). It is called only after a refusal, so a right backend does not wait for it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from harness.checked import Elements
from harness.correctness import hypotheses, symptoms
from harness.correctness.places import where
from harness.correctness.symptoms import Wrong

if TYPE_CHECKING:
    import numpy.typing as npt

    from harness.case import Case
    from harness.correctness.verdict import Facts

    Array = npt.NDArray[np.floating]
    Arrays = Mapping[str, Array]
    Mask = npt.NDArray[np.bool_]

#: Largest number of terms, b x i x j x o, for which candidates are computed from the inputs.
MOST_TERMS: Final = 2**25
#: Wrong integers that a candidate must meet: fewer agree by chance.
FEWEST_INTEGERS: Final = 6
#: Other wrong numbers that a candidate must meet.
FEWEST_NUMBERS: Final = 2
#: Likely cause of a result that is None.
NOTHING: Final = "Nothing came back: is there a return?"
#: Arrays that a kernel may keep.
PARAMETERS: Final = frozenset({"weight", "bias"})
#: Other calls whose results may have been added.
MOST_CALLS: Final = 3


@dataclasses.dataclass(frozen=True, slots=True)
class Other:
    """Another call that was answered rightly.

    Attributes:
        inputs: What it was given.
        results: What it returned.
        before: True if it came before the wrong one.
    """

    inputs: Arrays
    results: Arrays
    before: bool = True


def elements(name: str, expected: Array, actual: Array, wrong: Mask) -> Elements:
    """Return the wrong elements of a result, the first of them with both values."""
    first = tuple(int(axis) for axis in np.unravel_index(int(np.argmax(wrong)), wrong.shape))
    return Elements(
        result=name,
        index=first,
        actual=f"{actual[first]:.9g}",
        expected=f"{expected[first]:.9g}",
        wrong=int(np.count_nonzero(wrong)),
        size=wrong.size,
        where=where(name, wrong),
    )


def explain(case: Case, inputs: Arrays, expected: Arrays, actual: Arrays, others: Sequence[Other] = ()) -> str:
    """Return what the first wrong result fits, in one sentence; empty if nothing fits.

    Args:
        case: Case of the results.
        inputs: What the call was given.
        expected: Right results.
        actual: The backend's results, with the shapes of the right ones.
        others: Other calls of the same case that were answered rightly.
    """
    with np.errstate(all="ignore"):  # candidates may overflow
        return _explained(case, _wide(inputs), _wide(expected), _wide(actual), others)


def _explained(case: Case, inputs: Arrays, expected: Arrays, actual: Arrays, others: Sequence[Other]) -> str:
    for name, right in expected.items():
        if not np.isfinite(right).all():
            return ""
        if not np.isfinite(actual[name]).all():
            return symptoms.not_finite(right, actual[name], inputs)
        wrong = Wrong.of(case, name, right, actual[name])
        if wrong.mask.any() and (found := _best(_fitting(case, wrong, inputs, expected, others))):
            return found
    return ""


def of_arithmetic(case: Case, placed: str | None) -> str:
    """Return the likely cause of results that were computed in too coarse an arithmetic.

    Args:
        case: The case.
        placed: Precision class of the results; None if worse than all.
    """
    if case.dtype == "float64":
        return "Its errors are those of narrower numbers: does a float32 array or constant take part?"
    if placed in ("tf32", "float16"):
        return "Its errors are those of 11 bits: is it float16, or tf32 (torch.backends.cuda.matmul.allow_tf32)?"
    return "Its errors are those of 8 bits: does it multiply in bfloat16?" if placed == "bfloat16" else ""


def of_form(case: Case, name: str, fact: Facts) -> str:
    """Return the likely cause of a result that is no array, or has a wrong dtype or shape; empty if none is likely."""
    shapes, shape = case.result_shapes(), fact.shape
    right = shapes[name]
    if fact.type == "builtins.NoneType":
        return NOTHING
    if shape is None or shape == right:
        doubled = fact.dtype == "float64" != case.dtype
        return "NumPy makes float64 by default: does a float64 array or constant take part?" if doubled else ""
    other = {"grad_input1": "grad_input2", "grad_input2": "grad_input1"}.get(name)
    if other is not None and shape == shapes[other]:
        return f"That is the shape of {other}: are the two gradients exchanged?"
    if shape in (others := {size: result for result, size in shapes.items() if result != name}):
        return f"That is the shape of {others[shape]}: are the results in another order?"
    if sorted(shape) == sorted(right):
        return "Its axes are in another order: is a transpose missing?"
    if math.prod(shape) == math.prod(right):
        return "It has the right number of elements: is a reshape missing?"
    if len(shape) > len(right):
        return "It has an axis too many: is a sum over it missing?"
    return (
        "An axis is missing: is it summed, or squeezed out?"
        if len(shape) < len(right)
        else _of_size(case, shape, right)
    )


def _of_size(case: Case, shape: Sequence[int], right: Sequence[int]) -> str:
    """Return the likely cause of a shape with the right number of axes; empty if none is likely."""
    named = dict(zip(reversed(case.sizes), ("out_features", "in2_features", "in1_features", "batch"), strict=True))
    differ = [(size, expected) for size, expected in zip(shape, right, strict=True) if size != expected]
    if len(differ) == 1 and (size := differ[0][0]) > 1 and size in named:
        return f"{size} is {named[size]}: is a sum along another axis?"
    if all(size > expected for size, expected in differ):
        return "It is too large: is padding cut off?"
    return "It is too small: is a remainder left out?" if all(size < expected for size, expected in differ) else ""


def _wide(arrays: Arrays) -> Arrays:
    return {name: np.asarray(array, dtype=np.float64) for name, array in arrays.items()}


def _best(sentences: Iterator[str]) -> str:
    """Return the first sentence that holds for the whole result, else the first; empty if there is none."""
    first = ""
    for sentence in sentences:
        if sentence.startswith("It "):
            return sentence
        first = first or sentence
    return first


def _fitting(case: Case, wrong: Wrong, inputs: Arrays, expected: Arrays, others: Sequence[Other]) -> Iterator[str]:
    """Yield the sentences of all that fits, the most likely first."""
    values = wrong.actual[wrong.mask]
    fewest = FEWEST_INTEGERS if (values == np.rint(values)).all() else FEWEST_NUMBERS
    if values.size < fewest:
        yield from symptoms.never_written(case, wrong)
        return
    if values[0] and (values == values[0]).all():  # many candidates meet a single number by chance
        yield from symptoms.never_written(case, wrong)
        yield from symptoms.clipped(wrong)
        return
    small = math.prod(case.sizes) <= MOST_TERMS
    yield from _of_others(wrong, inputs, others)
    if not all(inputs[name].any() for name in ("input1", "input2", "weight")):
        return  # every product is zero, so most mistakes look alike
    if small:
        yield from _equal(wrong, hypotheses.of_the_bias(wrong.name, inputs))
    yield from symptoms.never_written(case, wrong)
    yield from symptoms.scaled(case, wrong, inputs.get("bias"))
    yield from _equal(wrong, hypotheses.of_functions(wrong.name, wrong.right, inputs.get("bias")))
    yield from symptoms.off_by_a_constant(case, wrong)
    yield from symptoms.clipped(wrong)
    yield from _equal(wrong, hypotheses.of_other_results(wrong.name, expected))
    yield from _equal(wrong, hypotheses.of_the_layout(wrong.name, wrong.right))
    yield from symptoms.reordered(wrong)
    if small:
        yield from _equal(wrong, hypotheses.of_the_factors(wrong.name, inputs))
        yield from _equal(wrong, hypotheses.of_the_sums(wrong.name, inputs))
    yield from symptoms.rounded(case, wrong)


def _equal(wrong: Wrong, candidates: Iterator[hypotheses.Candidate]) -> Iterator[str]:
    return (wrong.equals(text, candidate) for text, candidate in candidates if wrong.fits(candidate))


def _of_others(wrong: Wrong, inputs: Arrays, others: Sequence[Other]) -> Iterator[str]:
    """Yield that another answer came back or was added, or that a part of another call was used."""
    for call in others:
        given, results = _wide(call.inputs), _wide(call.results)
        changed = {name for name, array in inputs.items() if not np.array_equal(array, given[name])}
        answer = results[wrong.name]
        packed = "is a packed weight kept, or shared between kernels?"
        if changed and changed <= PARAMETERS and wrong.fits(answer):
            yield wrong.equals(f"the answer for the weight of another kernel: {packed}", answer)
        elif changed and call.before and wrong.fits(answer):
            yield wrong.equals("the answer to an earlier call: is an answer kept, and returned again?", answer)
        for times in range(1, MOST_CALLS + 1) if call.before and answer.any() else ():
            added = wrong.right + times * answer
            if wrong.fits(added):
                it = wrong.it(added)
                yield f"{it} is the right answer plus earlier ones: is the result set to zero at each call?"
        for name in sorted(changed.intersection(hypotheses.FACTORS[wrong.name])):
            mixed = hypotheses.whole(wrong.name, {**inputs, name: given[name]})
            parameters = hypotheses.whole(wrong.name, {**inputs, **{key: given[key] for key in changed & PARAMETERS}})
            if name == "weight" and (wrong.fits(mixed) or wrong.fits(parameters)):
                fitting = mixed if wrong.fits(mixed) else parameters
                yield wrong.equals(f"the right answer with the weight of another kernel: {packed}", fitting)
            elif call.before and wrong.fits(mixed):
                yield wrong.equals(f"the right answer with {name} of an earlier call: is {name} kept?", mixed)

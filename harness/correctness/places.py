"""Say in words where the wrong elements of a result are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Mask = npt.NDArray[np.bool_]
    Indices = npt.NDArray[np.intp]

#: What an index along each axis of a result is called; a gradient's last axes are the features of an input.
_NOUNS: Final = {
    "output": ("row", "output"),
    "grad_input1": ("row", "feature"),
    "grad_input2": ("row", "feature"),
    "grad_weight": ("page", "row", "column"),
    "grad_bias": ("output",),
}
_ORDINALS: Final = {2: "second", 3: "third", 4: "fourth", 5: "fifth", 6: "sixth", 7: "seventh", 8: "eighth"}


def where(name: str, wrong: Mask) -> str:
    """Return where the wrong elements are, as in ``all in the last 4 rows``; empty if all are wrong.

    Args:
        name: Name of the result.
        wrong: True at each wrong element; at least one is.
    """
    count = int(np.count_nonzero(wrong))
    if count == wrong.size:
        return ""
    if count == 1:
        place = int(np.argmax(wrong))
        return {0: "the first one", wrong.size - 1: "the last one"}.get(place, "just this one")
    axes = range(wrong.ndim)
    along = [np.flatnonzero(wrong.any(tuple(other for other in axes if other != axis))) for axis in axes]
    phrases = [
        phrase
        for noun, indices, size in zip(_NOUNS[name], along, wrong.shape, strict=True)
        if (phrase := _phrase(noun, indices, size))
    ]
    whole = count == np.prod([len(indices) for indices in along])
    if phrases and whole:
        return f"all of {', '.join(phrases)}"
    if flat := _flat(wrong):
        return flat
    if phrases:
        return f"all in {', '.join(phrases)}"
    if diagonal := _diagonal(wrong):
        return diagonal
    noun, indices, size = _NOUNS[name][0], along[0], wrong.shape[0]
    return f"in every {noun}" if len(indices) == size else f"in {len(indices)} of {size} {noun}s"


def _phrase(noun: str, indices: Indices, size: int) -> str:
    """Return a set of indices along an axis in words; empty if it is the whole axis, or follows no rule."""
    count, first, last = len(indices), int(indices[0]), int(indices[-1])
    if count == size:
        return ""
    if count == 1:
        return f"the last {noun}" if first == size - 1 and size > 1 else f"{noun} {first}"
    steps = set(np.diff(indices).tolist())
    if steps == {1} and last == size - 1:
        return f"the last {count} {noun}s"
    if steps == {1} and first == 0:
        return f"the first {count} {noun}s"
    if count == 2:
        return f"{noun}s {first} and {last}"
    if steps == {1}:
        return f"{noun}s {first} to {last}"
    if len(steps) == 1 and first - (step := steps.pop()) < 0 and last + step >= size and count > 2:
        return f"every {_ORDINALS.get(step, f'{step}th')} {noun}"
    return ""


def _flat(wrong: Mask) -> str:
    """Return whether the wrong elements are the first or the last ones in memory."""
    places = np.flatnonzero(wrong)
    count = len(places)
    if places[-1] - places[0] != count - 1:
        steps = set(np.diff(places).tolist())
        if len(steps) == 1 and count > 3 and places[0] < (step := steps.pop()) and places[-1] + step >= wrong.size:
            return f"every {_ORDINALS.get(step, f'{step}th')} element in memory"
        return ""
    if places[-1] == wrong.size - 1:
        return f"the last {count} in memory"
    return f"the first {count} in memory" if places[0] == 0 else ""


def _diagonal(wrong: Mask) -> str:
    """Return whether the last two axes are wrong on their diagonal alone, or everywhere else."""
    if wrong.ndim < 2:
        return ""
    diagonal = np.broadcast_to(np.eye(*wrong.shape[-2:]) == 1, wrong.shape)
    if not (wrong & ~diagonal).any():
        return "all on the diagonal"
    return "all off the diagonal" if (wrong == ~diagonal).all() else ""

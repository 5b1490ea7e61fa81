"""The colour, mark and dash of each backend: the same in every figure, and told apart without colour.

The colours are those of Okabe and Ito (Color Universal Design, 2008), without yellow, which is too pale for a line on
white, and two of Paul Tol's scheme "muted". Backends of a family share a colour or two; dash and mark then differ.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from typing import Final, NamedTuple

BLACK: Final = "#000000"
BLUE: Final = "#0072b2"
SKY: Final = "#56b4e9"
GREEN: Final = "#009e73"
ORANGE: Final = "#e69f00"
VERMILLION: Final = "#d55e00"
PINK: Final = "#cc79a7"
WINE: Final = "#882255"
OLIVE: Final = "#999933"
COLOURS: Final = (BLACK, BLUE, SKY, GREEN, ORANGE, VERMILLION, PINK, WINE, OLIVE)
#: The roofline and other lines that are no backend.
GREY: Final = "#777777"


class Look(NamedTuple):
    """How a backend is drawn, in Matplotlib's words.

    Attributes:
        colour: Colour of its line and its mark.
        mark: Shape of its mark; one that can be filled.
        dash: Style of its line.
    """

    colour: str
    mark: str
    dash: str


_KNOWN: Final = {
    "torch-bilinear": Look(BLACK, "s", "-"),
    "torch-fused": Look(BLUE, "o", "-"),
    "torch-contract": Look(BLUE, "^", "--"),
    "torch-einsum": Look(SKY, "D", "-"),
    "torch-compile": Look(SKY, "v", "--"),
    "numba-fused": Look(VERMILLION, "o", "-"),
    "numba-loop": Look(VERMILLION, "X", "--"),
    "numpy-contract": Look(GREEN, "^", "-"),
    "numpy-einsum": Look(GREEN, "D", "--"),
    "numpy-loop": Look(OLIVE, "X", "-"),
    "opt-einsum": Look(ORANGE, "P", "--"),
    "cupy-einsum": Look(ORANGE, "D", "-"),
    "jax-contract": Look(PINK, "^", "-"),
    "jax-jit": Look(PINK, "v", "--"),
    "triton-fused": Look(WINE, "o", "-"),
    "flaggems": Look(WINE, "P", "--"),
}
#: The looks of other backends: dashes and marks that no known one has, in every colour.
_FREE: Final = tuple(Look(colour, *rest) for rest in ((("p"), ":"), (("*"), "-.")) for colour in COLOURS)


def looks(names: Iterable[str]) -> dict[str, Look]:
    """Return the look of each backend of a figure.

    A backend of another package has a look that follows from its name. Where two such names have the same one, the
    later in the alphabet takes the next that is free.

    Args:
        names: Names of backends, as in the rows of a run.
    """
    found = {}
    others = []
    for name in dict.fromkeys(names):
        if name in _KNOWN:
            found[name] = _KNOWN[name]
        else:
            others.append(name)
    for name in sorted(others):
        start = zlib.crc32(name.encode()) % len(_FREE)
        turn = (*_FREE[start:], *_FREE[:start])
        found[name] = next((look for look in turn if look not in found.values()), turn[0])
    return found

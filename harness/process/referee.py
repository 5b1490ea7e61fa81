"""What the reference's worker can be asked: the right answer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np

from harness.case import Case
from harness.correctness.inputs import LARGE_KINDS, PRECISE_KINDS, make_inputs

#: Kinds of inputs whose results are judged on the scale of their elements; the others have the tolerance zero.
ROUNDED_KINDS: Final = (*PRECISE_KINDS, *LARGE_KINDS, "small", "subnormal")


class Referee:
    """The reference, in a process that no contestant shares."""

    def __init__(self) -> None:
        self.answers: dict[str, Callable[..., dict[str, Any]]] = {"expect": self.expect}

    def expect(self, case: dict[str, Any], variation: int, kind: str, directory: str) -> dict[str, Any]:
        """Leave the right results in ``directory`` as NAME.npy, and what judging their rounding takes.

        That is NAME.scale.npy where the inputs are random, and for float64 cases NAME.positions.npy and NAME.wide.npy.
        """
        # Not at the top: importing torch may fail or take long, and only a request has a time limit and an answer.
        from harness.correctness import reference

        asked, folder = Case(**case), Path(directory)
        inputs = make_inputs(asked, variation, kind)
        for name, value in reference.expected(asked, inputs).items():
            np.save(folder / f"{name}.npy", value.numpy(), allow_pickle=False)
        if kind not in ROUNDED_KINDS:
            return {"quadratics": {}}
        for name, scale in reference.scales(asked, inputs).items():
            np.save(folder / f"{name}.scale.npy", scale.numpy(), allow_pickle=False)
        if kind in PRECISE_KINDS and asked.dtype == "float64":
            for name, (positions, values) in reference.wide_samples(asked, inputs).items():
                np.save(folder / f"{name}.positions.npy", positions, allow_pickle=False)
                np.save(folder / f"{name}.wide.npy", values, allow_pickle=False)
        return {"quadratics": reference.quadratics(asked, inputs) if kind in PRECISE_KINDS else {}}

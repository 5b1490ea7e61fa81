"""What the reference's worker can be asked: the right answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from harness.case import Case
from harness.correctness.inputs import make_inputs


class Referee:
    """The reference, in a process that no contestant shares."""

    def __init__(self) -> None:
        self.answers = {"expect": self.expect}

    def expect(self, case: dict[str, Any], variation: int, directory: str) -> dict[str, Any]:
        """Leave the right results and their scales in ``directory``, as NAME.npy and NAME.scale.npy."""
        # Not at the top: importing torch may fail or take long, and only a request has a time limit and an answer.
        from harness.correctness import reference

        asked = Case(**case)
        values, scales = reference.expected(asked, make_inputs(asked, variation))
        for name, value in values.items():
            np.save(Path(directory) / f"{name}.npy", value.numpy(), allow_pickle=False)
            np.save(Path(directory) / f"{name}.scale.npy", scales[name].numpy(), allow_pickle=False)
        return {}

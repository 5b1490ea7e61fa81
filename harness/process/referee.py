"""What the reference's worker can be asked: load, and expect."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from harness.case import Case
from harness.correctness.inputs import make_inputs


class Referee:
    """The reference, in a process that no contestant shares."""

    def __init__(self) -> None:
        self.answers = {"load": self.load, "expect": self.expect}

    def load(self) -> dict[str, Any]:
        """Import the reference and what it is made of."""
        import torch

        from harness.correctness import reference

        return {"version": f"torch {torch.__version__}", "file": Path(reference.__file__).name}

    def expect(self, case: dict[str, Any], variation: int, directory: str) -> dict[str, Any]:
        """Leave the right results and their scales in ``directory``, as NAME.npy and NAME.scale.npy."""
        from harness.correctness import reference

        start = time.perf_counter()
        asked = Case(**case)
        values, scales = reference.expected(asked, make_inputs(asked, variation))
        for name, value in values.items():
            np.save(Path(directory) / f"{name}.npy", value.numpy(), allow_pickle=False)
            np.save(Path(directory) / f"{name}.scale.npy", scales[name].numpy(), allow_pickle=False)
        return {"seconds": time.perf_counter() - start}

"""The reference's worker: it computes the right results."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from harness.case import Case
from harness.correctness import telling_rows
from harness.correctness.inputs import LARGE_KINDS, PRECISE_KINDS, make_inputs
from harness.machine import memory
from harness.process.protocol import Expect, Handlers, ReferenceReply

#: Kinds of inputs whose results are judged on the scale of their elements; the others have the tolerance zero.
ROUNDED_KINDS: Final = (*PRECISE_KINDS, *LARGE_KINDS, "small", "subnormal", telling_rows.ROWS)


class ReferenceWorker:
    """Computes the reference, in a process that no backend shares."""

    def __init__(self) -> None:
        self.handlers: Handlers = {Expect: self.expect}

    def expect(self, request: Expect) -> ReferenceReply:
        """Write the right results into the folder as NAME.npy, and the files that judging their rounding takes.

        Random inputs also give NAME.scale.npy; those of float64 cases NAME.positions.npy and NAME.wide.npy. The CPU
        computes float64 cases, cases that do not fit on the GPU, and all cases where PyTorch sees no GPU.
        """
        # Not at the top: importing torch may fail or take long, and only a request has a time limit and a reply.
        from harness.correctness import reference

        case, kind, folder = request.case, request.kind, request.directory
        inputs = make_inputs(case, request.variation, kind)
        device = "cpu" if case.dtype == "float64" or not reference.sees(request.device) else request.device
        rounded = kind in ROUNDED_KINDS
        try:
            values, scales = self._computed(case, inputs, device, rounded)
        except RuntimeError as error:
            if device == "cpu" or not memory.ran_out(error):
                raise
            values, scales = self._computed(case, inputs, "cpu", rounded)
        if device != "cpu":
            memory.trim()  # while this worker is stopped, other workers need what it has freed
        for name, value in values.items():
            np.save(folder / f"{name}.npy", value.numpy(), allow_pickle=False)
        if not rounded:
            return ReferenceReply({})
        for name, scale in scales.items():
            np.save(folder / f"{name}.scale.npy", scale.numpy(), allow_pickle=False)
        if kind in PRECISE_KINDS and case.dtype == "float64":
            for name, (positions, wide) in reference.wide_samples(case, inputs).items():
                np.save(folder / f"{name}.positions.npy", positions, allow_pickle=False)
                np.save(folder / f"{name}.wide.npy", wide, allow_pickle=False)
        return ReferenceReply(reference.quadratics(case, inputs) if kind in PRECISE_KINDS else {})

    @staticmethod
    def _computed(case: Case, inputs: Any, device: str, rounded: bool) -> list[dict[str, Any]]:
        """Return results on the host, and their scales if they are rounded; a GPU's are compared with the CPU's."""
        from harness.correctness import reference

        values = reference.expected(case, inputs, device)
        scales = reference.scales(case, inputs, device) if rounded else {}
        if device != "cpu" and rounded:
            reference.spot_check(case, inputs, values, scales)
        return [{name: tensor.cpu() for name, tensor in tensors.items()} for tensors in (values, scales)]

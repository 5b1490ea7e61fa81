"""The reference's worker: it computes the right results."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np

from harness.case import Case
from harness.correctness import telling_rows
from harness.correctness.drawn import Part, few_rows, parts
from harness.correctness.inputs import LARGE_KINDS, PRECISE_KINDS, make_inputs
from harness.machine import memory
from harness.process.protocol import Expect, Handlers, ReferenceReply

#: Kinds of inputs whose results are judged on the scale of their elements; the others have the tolerance zero.
ROUNDED_KINDS: Final = (*PRECISE_KINDS, *LARGE_KINDS, "small", "subnormal", telling_rows.ROWS)
#: Kind of the edge case with NaN and infinity.
NONFINITE: Final = "nonfinite"


class ReferenceWorker:
    """Computes the reference, in a process that no backend shares."""

    def __init__(self) -> None:
        self.handlers: Handlers = {Expect: self.expect}
        #: Cases whose matrix products have been held against nn.Bilinear.
        self._held: set[Case] = set()

    def expect(self, request: Expect) -> ReferenceReply:
        """Write the right results into the folder as NAME.npy, and the files that judging their rounding takes.

        Random inputs also give NAME.scale.npy; those of float64 cases NAME.positions.npy and NAME.wide.npy. The CPU
        computes float64 cases, cases that do not fit on the GPU, and all cases where PyTorch sees no GPU.
        """
        # Not at the top: importing torch may fail or take long, and only a request has a time limit and a reply.
        from harness.correctness import reference

        case, kind, folder = request.case, request.kind, request.directory
        first, precise = case not in self._held, kind in PRECISE_KINDS
        quadratics: dict[str, float] = {}
        for part in parts(case, make_inputs(case, request.variation, kind), request.drawn):
            self._write(part, kind, request.device, folder, first)
            if precise and case.dtype == "float64":
                for name, (positions, wide) in reference.wide_samples(part.case, part.inputs, part.names).items():
                    np.save(folder / f"{name}.positions.npy", positions, allow_pickle=False)
                    np.save(folder / f"{name}.wide.npy", wide, allow_pickle=False)
            if precise:
                of_part = reference.quadratics(part.case, part.inputs)
                quadratics |= {name: of_part[name] for name in part.names}
        if kind != NONFINITE:
            self._held.add(case)
        return ReferenceReply(quadratics)

    def _write(self, part: Part, kind: str, wanted: str, folder: Path, first: bool) -> None:
        """Write results, and their scales if they are rounded; a case's first ones are held against nn.Bilinear."""
        from harness.correctness import reference

        device = "cpu" if part.case.dtype == "float64" or not reference.sees(wanted) else wanted
        try:
            values, scales = self._computed(part, kind, device, first)
        except RuntimeError as error:
            if device == "cpu" or not memory.ran_out(error):
                raise
            values, scales = self._computed(part, kind, "cpu", first)
        if device != "cpu":
            memory.trim()  # while this worker is stopped, other workers need what it has freed
        for name, value in values.items():
            np.save(folder / f"{name}.npy", value.numpy(), allow_pickle=False)
        for name, scale in scales.items() if kind in ROUNDED_KINDS else ():
            np.save(folder / f"{name}.scale.npy", scale.numpy(), allow_pickle=False)

    @staticmethod
    def _computed(part: Part, kind: str, device: str, first: bool) -> list[dict[str, Any]]:
        """Return results and scales on the host; a GPU's are compared with the CPU's.

        NaN and infinity come out where they do in nn.Bilinear, so it computes that edge case itself.
        """
        from harness.correctness import reference

        case, inputs, names = part.case, part.inputs, part.names
        if kind == NONFINITE:
            return [{name: tensor.cpu() for name, tensor in reference.nn_bilinear(case, inputs, device).items()}, {}]
        rounded = kind in ROUNDED_KINDS
        values = reference.expected(case, inputs, device, names)
        scales = reference.scales(case, inputs, device, names) if rounded or first else {}
        if first:
            few, rows = few_rows(part)
            own = reference.nn_bilinear(few.case, few.inputs, device)
            compared = (
                [values, scales] if rows is None else [{"output": each["output"][rows]} for each in (values, scales)]
            )
            reference.hold(own, *compared)
        if device != "cpu" and rounded:
            reference.spot_check(case, inputs, values, scales)
        return [{name: tensor.cpu() for name, tensor in tensors.items()} for tensors in (values, scales)]

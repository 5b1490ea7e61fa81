"""Backends of known speed, for studies of the harness itself. The studies put this folder on the import path."""

import os
import time

import numpy as np

from backends.torch_bilinear import TorchBilinear
from harness.backend import Backend

#: The share of its own time by which ``torch-delayed`` is slower.
DELAY = "BILINEAR_BENCH_DELAY"
#: The seconds that a call of ``numpy-lasting`` takes.
LASTING = "BILINEAR_BENCH_LASTING"


class TorchDelayed(TorchBilinear):
    """Slow nn.Bilinear down: each call waits for a share of the time that it has just taken.

    The delay is a share, not a constant, so it stays the same slowdown on a machine whose speed wanders.
    """

    name = "torch-delayed"

    def prepare_forward(self, case, weight, bias):
        """Return nn.Bilinear with its delay."""
        right = super().prepare_forward(case, weight, bias)
        longer = 1 + float(os.environ[DELAY])
        now = time.perf_counter

        def kernel(input1, input2):
            start = now()
            output = right(input1, input2)
            end = start + longer * (now() - start)
            while now() < end:
                pass
            return output

        return kernel


class NumpyLasting(Backend):
    """Return the right result, but not before a given time has passed."""

    name = "numpy-lasting"

    def prepare_forward(self, case, weight, bias):
        """Return a batched product that waits."""
        lasting = float(os.environ[LASTING])
        now = time.perf_counter

        def kernel(input1, input2):
            end = now() + lasting
            output = ((input1 @ weight) * input2).sum(2).T + (0 if bias is None else bias)
            output = np.ascontiguousarray(output)
            while now() < end:
                pass
            return output

        return kernel

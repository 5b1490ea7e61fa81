"""Backends for the tests of workers, which run in the tests' process so that tests see their arrays."""

from __future__ import annotations

import numpy as np

from harness import Backend
from harness.case import Case
from harness.process.protocol import Prepare
from harness.worker.backend_worker import BackendWorker

CASE = Case(128, 20, 30, 40)
MIB = 2**20


class Plain(Backend):
    """The operator by one einsum, with a workspace that is touched and freed."""

    name = "numpy-plain"
    workspace_bytes_touched = 0

    def prepare_forward(self, case, weight, bias):
        def kernel(input1, input2):
            np.ones(self.workspace_bytes_touched, np.uint8)
            return np.einsum("bi,oij,bj->bo", input1, weight, input2, dtype=np.float32) + bias

        kernel.weight = weight
        return kernel


class Hungry(Plain):
    """Touches a workspace of 64 MiB."""

    workspace_bytes_touched = 64 * MIB


class Interrupted(Plain):
    """Takes five times as long at each third call, by a clock of its own."""

    def __init__(self, device):
        super().__init__(device)
        self.calls, self.seconds = 0, 0.0

    def prepare_forward(self, case, weight, bias):
        kernel = super().prepare_forward(case, weight, bias)

        def interrupted(input1, input2):
            self.calls += 1
            self.seconds += 0.005 if self.calls % 3 == 1 else 0.001  # the first call is part of preparing
            return kernel(input1, input2)

        return interrupted


def ask(worker, request):
    """Return a worker's reply to a request."""
    return worker.handlers[type(request)](request)


def prepared(backend, folder, clock=None, case=CASE):
    """Return a worker in which a backend has prepared a case with two input sets."""
    worker = BackendWorker(clock)
    worker.hold(backend)
    ask(worker, Prepare(case, 2, folder))
    return worker

"""Edge cases and gradient checks, run in this process."""

from __future__ import annotations

import numpy as np
import pytest
from small_backends import Plain, ask

from harness.case import Case
from harness.correctness.edge_cases import all_edge_cases, judge_edge_case
from harness.correctness.verdict import Expected
from harness.process.protocol import CheckGradients, RunEdgeCase
from harness.worker.backend_worker import BackendWorker

EDGE_CASES = {edge_case.name: edge_case for edge_case in all_edge_cases(Case(5, 3, 4, 2))}
PRIMES = tuple(edge_case for edge_case in EDGE_CASES.values() if edge_case.case == EDGE_CASES["primes"].case)


class Counting(Plain):
    """Counts the kernels that it prepares, and their calls; raises for a second kernel if ``refuses_second``."""

    name = "numpy-counting"

    def __init__(self, refuses_second=False):
        super().__init__("cpu")
        self.prepared = self.called = 0
        self.refuses_second = refuses_second

    def prepare_forward(self, case, weight, bias):
        self.prepared += 1
        if self.refuses_second and self.prepared == 2:
            raise ValueError("one kernel is enough")

        def kernel(input1, input2):
            self.called += 1
            output = np.einsum("bi,oij,bj->bo", input1, weight, input2)
            return output if bias is None else output + bias

        return kernel


class ReadsFreshMemory(Plain):
    """Adds a number from 256 bytes of fresh memory, which is zero in a new process."""

    name = "numpy-reads-fresh-memory"

    def prepare_forward(self, case, weight, bias):
        def kernel(input1, input2):
            found = np.empty(64, np.float32)
            return np.einsum("bi,oij,bj->bo", input1, weight, input2) + bias + found[:1]

        return kernel


def worker_of(backend):
    worker = BackendWorker()
    worker.hold(backend)
    return worker


def run(worker, name, folder, alike=PRIMES):
    return ask(worker, RunEdgeCase(alike, name, folder))


def test_kernels_of_a_case_are_prepared_before_one_is_called(tmp_path):
    backend = Counting()
    worker = worker_of(backend)
    assert run(worker, "primes", tmp_path).failure is None
    assert (backend.prepared, backend.called) == (2, 2)  # one more call shows which operators of PyTorch run
    assert run(worker, "other-weight", tmp_path).failure is None
    assert (backend.prepared, backend.called) == (2, 3)


def test_results_are_in_a_folder_of_the_edge_case_s_name(tmp_path):
    worker, answers = worker_of(Counting()), {}
    for edge_case in PRIMES:
        reply = run(worker, edge_case.name, tmp_path)
        assert reply.results.facts["output"].shape == (7, 11)
        answers[edge_case.name] = {"output": np.load(tmp_path / edge_case.name / "output.npy")}
    right = {"output": answers["primes"]["output"].astype(np.float64)}
    assert judge_edge_case(EDGE_CASES["primes-again"], Expected(right), answers).ok
    assert not np.array_equal(answers["other-weight"]["output"], answers["primes"]["output"])


def test_a_kernel_that_cannot_be_prepared_fails_its_edge_cases_only(tmp_path):
    worker = worker_of(Counting(refuses_second=True))
    replies = {name: run(worker, name, tmp_path) for name in ("primes", "other-weight", "zero")}
    failed = [reply.failure.error for reply in replies.values() if reply.results is None]
    assert failed == ["ValueError: one kernel is enough"]


def test_fresh_memory_is_poisoned(tmp_path):
    worker = worker_of(ReadsFreshMemory("cpu"))
    assert run(worker, "primes", tmp_path).failure is None
    assert not np.isfinite(np.load(tmp_path / "primes" / "output.npy")).all()


@pytest.mark.parametrize(("sign", "objects"), [(1, False), (-1, True)])
def test_gradcheck_objects_to_a_wrong_gradient(sign, objects):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")

    class Stepping(Plain):
        """A step in PyTorch whose first gradient has a sign of the test's choice."""

        name = "torch-stepping"

        def to_device(self, array, dtype):
            return torch.tensor(array)

        def prepare_forward_backward(self, case):
            return self

        def forward(self, *given):
            self.leaves = [array.detach().requires_grad_() for array in given]
            self.output = torch.nn.functional.bilinear(*self.leaves)
            return self.output.detach()

        def backward(self, grad_output):
            first, *rest = torch.autograd.grad(self.output, self.leaves, grad_output)
            return (sign * first, *rest)

    case = Case(3, 2, 4, 2, dtype="float64", mode="forward_backward")
    reason = ask(worker_of(Stepping("cpu")), CheckGradients(case)).reason
    assert bool(reason) == objects
    assert ("Jacobian mismatch" in reason) == objects


def test_gradcheck_says_nothing_of_other_frameworks():
    class Stepping(Counting):
        """A step that is never called."""

        name = "numpy-stepping"

        def prepare_forward_backward(self, case):
            return self

    case = Case(3, 2, 4, 2, dtype="float64", mode="forward_backward")
    assert ask(worker_of(Stepping()), CheckGradients(case)).reason == ""

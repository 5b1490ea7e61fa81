"""The fake worker behaves like the real one: it replies with the same classes, and leaves the same files."""

from __future__ import annotations

import json

import numpy as np
import pytest
from fakes import FakePool, FakeWorker

from backends.numpy_loop import NumpyLoop
from harness.case import Case
from harness.correctness.edge_cases import all_edge_cases
from harness.correctness.questions import SCENARIOS, unseen
from harness.process import protocol
from harness.process.protocol import decode, encode, reply_type
from harness.process.supervisor import Supervisor
from harness.worker.backend_worker import BackendWorker
from harness.worker.reference_worker import ReferenceWorker

CASE = Case(5, 3, 4, 2, mode="forward_backward")
PRIMES = tuple(edge_case for edge_case in all_edge_cases(CASE) if edge_case.case == Case(7, 5, 3, 11, mode=CASE.mode))


def journey(folder):
    """Return every request that a run makes, in its order."""

    def place(name):
        (folder / name).mkdir(parents=True, exist_ok=True)
        return folder / name

    return [
        protocol.Load("numpy-loop", "backends.numpy_loop:NumpyLoop", "cpu"),
        protocol.AskSupport(CASE),
        protocol.RunEdgeCase(PRIMES, "primes", place("edge_cases")),
        protocol.CheckGradients(Case(3, 2, 4, 2, dtype="float64", mode="forward_backward")),
        protocol.ListFiles(),
        protocol.Prepare(CASE, 2, place("first")),
        protocol.Expect(CASE, 0, "normal", place("expected")),
        *(protocol.RunScenario(scenario.name, place(scenario.name)) for scenario in SCENARIOS),
        protocol.CheckIntegrity(place("integrity")),
        protocol.Locate(),
        protocol.WarmUp(0.001, 1),
        protocol.MoveArrays(new_kernel=True),
        protocol.SteadyGpuClock(),
        protocol.DrawValues(5, 4, 0),
        protocol.TakeSample(4, 0, 0.001, True),
        protocol.ReadGpu(),
        protocol.KeptResults(False, (3, -1), place("kept")),
        protocol.KeptResults(True, (3,), place("kept forward")),
        protocol.MeasureMemory(),
        protocol.MeasureDeviceTimes(2, 0.001, 3),
        protocol.CheckFresh((7, 8, 9), unseen(CASE.mode).kind, place("fresh")),
        protocol.Release(),
    ]


def replies(handlers, folder):
    """Return the handlers' replies to the whole journey, and the arrays that they leave, by path."""
    replied = [handlers[type(request)](request) for request in journey(folder)]
    return replied, {str(path.relative_to(folder)): np.load(path) for path in sorted(folder.rglob("*.npy"))}


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """Return (replies, arrays) of the fake worker and of the real ones."""
    real = BackendWorker()
    real.hold(NumpyLoop("cpu"))
    fake = FakeWorker(directory=tmp_path_factory.mktemp("worker"))
    return (
        replies(fake.handlers, tmp_path_factory.mktemp("fake")),
        replies({**real.handlers, **ReferenceWorker().handlers}, tmp_path_factory.mktemp("real")),
    )


def test_journey_has_every_request_that_the_fake_answers(tmp_path):
    assert {type(request) for request in journey(tmp_path)} == set(FakeWorker(directory=tmp_path).handlers)


def test_fake_and_real_workers_reply_with_the_class_of_the_protocol(both, tmp_path):
    expected = [reply_type(request) for request in journey(tmp_path)]
    for replied, _ in both:
        assert [type(reply) for reply in replied] == expected


def test_every_reply_survives_the_wire(both):
    for replied, _ in both:
        for reply in replied:
            assert decode(type(reply), json.loads(json.dumps(encode(reply)))) == reply


def test_fake_and_real_workers_leave_the_same_files(both):
    (_, fake), (_, real) = both
    assert set(fake) == set(real)
    for name, array in real.items():
        assert fake[name].shape == array.shape, name
        assert fake[name] == pytest.approx(array, rel=1e-4, abs=1e-4, nan_ok=True), name


def test_fake_and_real_workers_describe_arrays_alike(both):
    described = 0
    for fake, real in zip(both[0][0], both[1][0], strict=True):
        if hasattr(real, "results"):
            described += 1
            assert fake.results.facts == real.results.facts
            assert fake.results.native_type == real.results.native_type
        if hasattr(real, "inputs"):
            assert fake.inputs == real.inputs
    assert described == 5 + len(SCENARIOS)


def test_fake_pool_has_every_method_of_the_supervisor(tmp_path):
    public = {name for name in dir(Supervisor) if not name.startswith("_")}
    assert public <= set(dir(FakePool(tmp_path)))

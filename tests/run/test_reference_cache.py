"""The reference's results: each is computed once, read into memory, and never left in a folder."""

from __future__ import annotations

import numpy as np
import pytest
from fakes import CASE, STEP, FakeWorker, Faults, right
from faults import RIGHT

from harness.process.handle import WorkerError
from harness.process.protocol import Expect
from harness.record import Status
from harness.run.reference_cache import ReferenceCache, ReferenceUnavailable


@pytest.fixture
def reference(tmp_path):
    """Return a cache, and the requests to its worker."""
    log = []
    worker = FakeWorker("reference", tmp_path, log=log)
    return ReferenceCache(lambda device: worker, 1.0), log


def test_result_is_right_and_computed_once(reference):
    cache, log = reference
    for _ in range(2):
        expected = cache.of(STEP, "normal", 1)
    assert len(log) == 1
    for name, value in right(STEP, 1).items():
        assert np.array_equal(expected.values[name], value)
    assert set(expected.scales) == set(expected.quadratics) == set(STEP.result_shapes())


def test_other_inputs_are_another_result(reference):
    cache, log = reference
    for key in ((CASE, "normal", 0), (CASE, "normal", 1), (CASE, "integers", 0), (STEP, "normal", 0)):
        cache.of(*key)
    assert [(r.case, r.kind, r.variation) for _, r in log] == [
        *((CASE, "normal", 0), (CASE, "normal", 1), (CASE, "integers", 0), (STEP, "normal", 0))
    ]


def test_results_are_not_left_in_the_workers_folder(reference, tmp_path):
    reference[0].of(CASE, "normal", 0)
    assert not list(tmp_path.rglob("*.npy"))


def test_forgotten_results_are_computed_again_and_others_are_not(reference):
    cache, log = reference
    keys = ((CASE, "normal", 0), (CASE, "integers", 0), (STEP, "integers", 0))
    for key in keys:
        cache.of(*key)
    cache.forget(CASE, "integers")
    for key in keys:
        cache.of(*key)
    assert [request.kind for _, request in log] == ["normal", "integers", "integers", "integers"]
    cache.forget(CASE)
    cache.of(CASE, "normal", 0)
    assert len(log) == 5


def test_reference_that_fails_is_unavailable_with_its_status(tmp_path):
    failing = Faults(instead={Expect: WorkerError(Status.OUT_OF_MEMORY, "injected")})
    cache = ReferenceCache(lambda device: FakeWorker(directory=tmp_path, faults=failing), 1.0)
    with pytest.raises(ReferenceUnavailable) as raised:
        cache.of(CASE, "normal", 0)
    assert (raised.value.status, raised.value.reason) == (
        Status.OUT_OF_MEMORY,
        "no reference to check against: injected",
    )


def test_reference_that_does_not_start_is_unavailable():
    def start(device):
        raise WorkerError(Status.FAILED, f"no {device}")

    with pytest.raises(ReferenceUnavailable, match="no cpu"):
        ReferenceCache(start, 1.0).start()


def test_reference_that_was_killed_is_started_once_more(tmp_path):
    killed = Faults(instead={Expect: WorkerError(Status.FAILED, "killed by signal 9")})
    workers = [
        FakeWorker(directory=tmp_path / str(number), faults=faults) for number, faults in enumerate([killed, RIGHT])
    ]
    workers[0].alive = False
    assert ReferenceCache(lambda device: workers.pop(0), 1.0).of(CASE, "normal", 0).values
    dead = FakeWorker(directory=tmp_path / "dead", faults=killed)
    dead.alive = False
    with pytest.raises(ReferenceUnavailable, match="killed by signal 9"):
        ReferenceCache(lambda device: dead, 1.0).of(CASE, "normal", 0)

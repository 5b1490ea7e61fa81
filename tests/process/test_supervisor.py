"""The supervisor with real workers: each is stopped, timed out, killed or drained, and none is left behind."""

from __future__ import annotations

import itertools
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from harness.case import Case
from harness.machine import environment, usage
from harness.machine.usage import Usage
from harness.process.folders import LOCK, PREFIX
from harness.process.handle import Worker, WorkerError
from harness.process.protocol import Load, Prepare, Release, Released
from harness.process.supervisor import NO_GPU, SHARED_GPU, Supervisor
from harness.record import Status

CASE = Case(5, 3, 4, 2)


@pytest.fixture
def workers(faulty_path, tmp_path):
    with Supervisor(1, tmp_path / "cache") as supervisor:
        yield supervisor


def load(supervisor, name):
    worker, _ = supervisor.worker(name, "cpu")
    reply = worker.request(Load(name, target(name), "cpu"), 60.0)
    assert reply.available, reply
    return worker


def target(name):
    return "faulty_backends:" + "".join(part.title() for part in name.removeprefix("faulty-").split("-"))


def prepare(worker, limit=60.0):
    return worker.request(Prepare(CASE, 2, worker.directory), limit)


def state(pid):
    return psutil.Process(pid).status()


def test_a_worker_is_stopped_whenever_it_has_no_request(workers):
    one, other = load(workers, "faulty-honest"), load(workers, "faulty-raises")
    assert state(one.pid) == state(other.pid) == psutil.STATUS_STOPPED
    prepare(one)
    assert state(one.pid) == psutil.STATUS_STOPPED


def test_workers_share_a_gpu_and_do_not_get_what_would_change_times(tmp_path, monkeypatch):
    withheld = {
        "NVIDIA_TF32_OVERRIDE",
        "OMP_PROC_BIND",
        "OMP_PLACES",
        "GOMP_CPU_AFFINITY",
        "KMP_AFFINITY",
        "OMP_DYNAMIC",
    }
    withheld |= {"OMP_THREAD_LIMIT", "OMP_WAIT_POLICY", "MKL_DYNAMIC", "JAX_DEBUG_NANS", "PYTHONWARNINGS"}
    for name in withheld:
        monkeypatch.setenv(name, "0")
    with Supervisor(1, tmp_path / "cache") as supervisor:
        given = {}
        for device in ("cpu", "cuda"):
            given[device] = {}
            while not given[device]:  # a process has no environment until its program begins
                given[device] = psutil.Process(supervisor.reference(device).pid).environ()
    assert NO_GPU.items() <= given["cpu"].items()
    assert SHARED_GPU.items() <= given["cuda"].items()
    assert all(withheld.isdisjoint(variables) for variables in given.values())


def test_peaks_are_measured_by_compiled_code_whatever_is_switched_off(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")
    with Supervisor(1, tmp_path / "cache") as supervisor:
        peak_worker, variables = supervisor.peak_worker("numba"), {}
        while not variables:  # a process has no environment until its program begins
            variables = psutil.Process(peak_worker.pid).environ()
    assert variables["NUMBA_DISABLE_JIT"] == "0"


def test_without_freezing_workers_keep_running(faulty_path, tmp_path):
    with Supervisor(1, tmp_path / "cache", freeze=False) as supervisor:
        assert state(load(supervisor, "faulty-honest").pid) != psutil.STATUS_STOPPED


def test_children_outside_the_group_are_stopped_and_killed_too(workers, tmp_path, monkeypatch):
    monkeypatch.setenv("FAULTY_CHILDREN", str(tmp_path / "children"))
    worker = load(workers, "faulty-parent")
    prepare(worker)
    children = [psutil.Process(int(pid)) for pid in (tmp_path / "children").read_text().split()]
    assert len(children) == 2
    assert {child.status() for child in children} == {psutil.STATUS_STOPPED}
    workers.discard("faulty-parent", "cpu")
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive


def test_only_the_budgeted_cpus_are_used_and_read_back(workers):
    worker = load(workers, "faulty-honest")
    assert len(psutil.Process(worker.pid).cpu_affinity()) == 1
    assert len(prepare(worker).threads.affinity) == 1


def test_a_worker_that_raises_replies_and_lives_on(workers):
    worker = load(workers, "faulty-raises")
    with pytest.raises(WorkerError, match="ValueError: faulty") as caught:
        prepare(worker)
    assert caught.value.status is Status.FAILED
    assert worker.alive


@pytest.mark.parametrize(
    ("name", "status", "reason"),
    [
        ("faulty-quits", Status.FAILED, "SystemExit: faulty: had enough"),
        ("faulty-interrupts", Status.FAILED, "KeyboardInterrupt: faulty: not the user"),
        ("faulty-unusual", Status.FAILED, "BaseException: faulty: of no usual class"),
        ("faulty-segfaults", Status.FAILED, r"killed by signal 11 \(SIGSEGV\) in faulty_backends\.py:\d+ result"),
        ("faulty-aborts", Status.FAILED, r"killed by signal 6 \(SIGABRT\) in faulty_backends\.py:\d+ result"),
        ("faulty-hungry", Status.OUT_OF_MEMORY, "1 EiB"),
        ("faulty-exits", Status.FAILED, "exited with code 0 without an answer"),
        ("faulty-garbles", Status.FAILED, "broke the protocol"),
        ("faulty-lies", Status.FAILED, "broke the protocol"),
    ],
)
def test_each_way_to_fail_has_its_status_and_reason(workers, name, status, reason):
    with pytest.raises(WorkerError, match=reason) as caught:
        prepare(load(workers, name))
    assert caught.value.status is status


def test_a_hanging_worker_is_killed_and_its_last_output_is_kept(workers):
    worker = load(workers, "faulty-hangs")
    with pytest.raises(
        WorkerError, match=r"no answer within 1 s in faulty_backends\.py:\d+ result; its output ended: .*still here"
    ) as caught:
        prepare(worker, limit=1.0)
    assert caught.value.status is Status.TIMEOUT
    assert "most recent call first" in caught.value.traceback
    assert "still here" in caught.value.output
    assert not worker.alive
    assert not psutil.pid_exists(worker.pid)


@pytest.mark.parametrize("name", ["faulty-sleeps", "faulty-holds", "faulty-compiles"])
def test_a_silent_worker_is_killed_at_its_limit_wherever_it_hangs(workers, name):
    worker = load(workers, name)
    with pytest.raises(WorkerError, match="no answer within 1 s") as caught:
        prepare(worker, limit=1.0)
    assert caught.value.status is Status.TIMEOUT
    assert not psutil.pid_exists(worker.pid)


def test_a_worker_whose_import_hangs_is_killed_at_its_limit(workers):
    worker, _ = workers.worker("faulty-slow-import", "cpu")
    with pytest.raises(WorkerError, match=r"no answer within 5 s in faulty_slow_import\.py:5") as caught:
        worker.request(Load("faulty-slow-import", "faulty_slow_import:Backend", "cpu"), 5.0)
    assert caught.value.status is Status.TIMEOUT
    assert not psutil.pid_exists(worker.pid)


def test_a_worker_that_would_not_end_by_itself_is_ended(workers):
    worker = load(workers, "faulty-stays")
    prepare(worker)
    workers.discard("faulty-stays", "cpu")
    assert not psutil.pid_exists(worker.pid)


def test_a_worker_that_the_kernel_killed_for_memory_ran_out_of_it(workers, monkeypatch):
    kills = iter((3, 4))
    monkeypatch.setattr(environment, "oom_kills", lambda: next(kills))
    worker = load(workers, "faulty-honest")
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(WorkerError, match=r"killed by the kernel for memory \(killed by signal 9") as caught:
        prepare(worker)
    assert caught.value.status is Status.OUT_OF_MEMORY


def test_killing_a_worker_ends_the_wait_of_another_thread(workers):
    worker = load(workers, "faulty-hangs")
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(prepare, worker)
        while state(worker.pid) == psutil.STATUS_STOPPED:
            time.sleep(0.01)  # until it has its request
        worker.kill()
        # The waiting thread reads from a pipe that ends, or that is closed already.
        assert isinstance(answer.exception(timeout=20), WorkerError | OSError | ValueError)
    worker.kill()
    assert not worker.alive
    assert not psutil.pid_exists(worker.pid)


def test_a_chatty_worker_neither_blocks_nor_forges_a_reply(workers):
    worker = load(workers, "faulty-chatty")
    assert prepare(worker).first_call_seconds > 1e-9


def test_a_worker_killed_from_outside_is_reported_with_its_signal(workers):
    worker = load(workers, "faulty-honest")
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(WorkerError, match=r"killed by signal 9 \(SIGKILL\)"):
        prepare(worker)


def test_a_worker_that_the_system_does_not_start_says_why(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr("harness.process.handle.subprocess.Popen", refuse)
    before = set(Path("/proc/self/fd").iterdir())
    with pytest.raises(WorkerError, match="cannot be started: Resource temporarily unavailable"):
        Worker("backend", tmp_path / "worker", {}, 1)
    assert set(Path("/proc/self/fd").iterdir()) == before, "no pipe is left open"


def test_workers_start_at_the_same_time_and_the_first_request_waits(workers):
    start = time.monotonic()
    started = [workers.worker(name, "cpu")[0] for name in ("faulty-honest", "faulty-raises", "faulty-exits")]
    begun = time.monotonic() - start
    load(workers, "faulty-honest")
    assert all(worker.alive for worker in started)
    assert begun < time.monotonic() - start
    assert state(started[0].pid) == psutil.STATUS_STOPPED


def test_a_worker_that_does_not_start_says_so_at_its_first_request(tmp_path):
    worker = Worker("no such role", tmp_path / "worker", {}, 1)
    with pytest.raises(WorkerError, match=r"exited with code 1 without an answer; its output ended: .*no such role"):
        worker.request(Release(), 60.0)
    assert not worker.alive


def test_a_dead_worker_is_replaced_by_a_new_one(workers):
    worker = load(workers, "faulty-exits")
    with pytest.raises(WorkerError):
        prepare(worker)
    assert workers.worker("faulty-exits", "cpu")[0].pid != worker.pid


def test_a_request_to_a_dead_worker_raises(workers):
    worker = load(workers, "faulty-exits")
    with pytest.raises(WorkerError):
        prepare(worker)
    # The number of its closed pipe may be that of another file now, which the request must not be written to.
    with pytest.raises(WorkerError, match="its process had ended before") as caught:
        prepare(worker)
    assert caught.value.status is Status.FAILED


def test_time_while_stopped_does_not_count_against_the_limit(workers):
    worker = load(workers, "faulty-honest")
    time.sleep(0.3)  # stopped for longer than the limit below
    assert worker.request(Release(), 0.25) == Released(trimmed=True)


def test_time_of_waiting_for_a_cpu_is_added_to_the_limit(workers, monkeypatch):
    worker = load(workers, "faulty-hangs")
    readings = [{"1": Usage(0, nanoseconds, 9)} for nanoseconds in (5_000_000_000, 5_100_000_000, 5_150_000_000)]
    left = iter(readings)
    monkeypatch.setattr(usage, "read", lambda tasks: next(left, readings[-1]))
    with pytest.raises(WorkerError, match=r"no answer within 0\.2 s"):
        prepare(worker, limit=0.2)
    assert next(left, None) is None, "the waits were read again after each extension"


def test_time_in_which_the_run_was_stopped_is_not_counted(workers, monkeypatch):
    worker = load(workers, "faulty-honest")
    real, readings = time.monotonic, itertools.count()
    monkeypatch.setattr("harness.process.handle.time.monotonic", lambda: real() + 1000.0 * (next(readings) > 1))
    assert prepare(worker).first_call_seconds > 0
    assert worker.stopped_seconds > 900.0
    monkeypatch.undo()
    worker.request(Release(), 60.0)
    assert worker.stopped_seconds == 0.0


def test_a_worker_that_was_stopped_with_the_run_goes_on(workers, monkeypatch):
    worker = load(workers, "faulty-honest")
    real, readings = time.monotonic, itertools.count()

    def late():
        number = next(readings)
        if number == 1:  # the request has begun
            os.killpg(worker.pid, signal.SIGSTOP)
        return real() + 1000.0 * (number > 2)

    monkeypatch.setattr("harness.process.handle.time.monotonic", late)
    assert prepare(worker, limit=30.0).first_call_seconds > 0


def test_cpu_time_and_waits_of_a_request_are_those_since_it_was_sent(workers, monkeypatch):
    worker = load(workers, "faulty-honest")
    readings = iter([{"1": Usage(5, 10, 9)}, {"1": Usage(7, 30, 11), "2": Usage(1, 2, 3)}])
    monkeypatch.setattr(usage, "read", lambda tasks: next(readings))
    worker.request(Release(), 60.0)
    assert worker.usage == [Usage(2, 20, 2), Usage(1, 2, 3)]


def test_no_worker_and_no_private_folder_survives_the_supervisor(faulty_path, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with Supervisor(1, tmp_path / "cache") as supervisor:
        worker = load(supervisor, "faulty-honest")
        assert list(tmp_path.glob(f"{PREFIX}*"))
    assert not psutil.pid_exists(worker.pid)
    assert not list(tmp_path.glob(f"{PREFIX}*"))


def test_folders_that_a_killed_run_left_are_removed_by_the_next(faulty_path, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    left = tmp_path / f"{PREFIX}abc"
    left.mkdir()
    (left / LOCK).touch()
    with Supervisor(1, tmp_path / "cache"):
        assert not left.exists()


def test_without_a_place_for_caches_they_end_with_the_run(faulty_path, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with Supervisor(1, None) as supervisor:
        assert supervisor.worker("faulty-honest", "cpu")[1]
        assert supervisor.findings.is_relative_to(tmp_path)
    assert not list(tmp_path.iterdir())


def test_empty_compile_caches_are_private_to_each_worker(faulty_path, tmp_path):
    cache = tmp_path / "cache"
    (cache / "numba").mkdir(parents=True)
    (cache / "numba" / "compiled").touch()
    with Supervisor(1, cache, empty_caches=True) as supervisor:
        assert supervisor.worker("faulty-honest", "cpu")[1]
    with Supervisor(1, cache) as supervisor:
        assert not supervisor.worker("faulty-honest", "cpu")[1]


def test_a_file_in_the_working_directory_shadows_no_module(faulty_path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("numpy.py").write_text("raise RuntimeError('shadowed')")
    with Supervisor(1, tmp_path / "cache") as supervisor:
        load(supervisor, "faulty-honest")

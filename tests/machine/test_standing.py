"""What processes are granted, and what they took."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest

from harness.machine import standing


def stat(nice=0, policy=0, ticks=(0, 0, 0, 0)):
    """Return a line of /proc/PID/stat; the name holds brackets and spaces."""
    fields = ["S", *["0"] * 10, *map(str, ticks), "20", str(nice), *["0"] * 21, str(policy), "0"]
    return f"7 (a) b (c) {' '.join(fields)}\n"


@pytest.fixture
def thread(write):
    """Write the files of a thread of a fake process."""

    def into(process, number, cpus="0", **fields):
        write(f"{process}/task/{number}/stat", stat(**fields))
        write(f"{process}/task/{number}/status", f"Name:\tx\nCpus_allowed:\tff\nCpus_allowed_list:\t{cpus}\n")

    return into


def test_masks_priorities_and_times_of_all_threads_count(tmp_path, write, thread):
    thread(7, 7)
    thread(7, 8, cpus="2-4,9", nice=5)
    thread(11, 11, nice=-2, policy=2)
    write("7/stat", stat(ticks=(100, 20, 3, 0)))
    write("11/stat", stat(ticks=(1000, 0, 0, 0)))
    seconds = 1123 / os.sysconf("SC_CLK_TCK")
    assert standing.read([7, 11], tmp_path) == standing.Standing(frozenset({0, 2, 3, 4, 9}), -2, True, seconds)
    assert not standing.read([7], tmp_path).real_time


def test_processes_that_have_ended_are_left_out(tmp_path, thread, write):
    thread(7, 7)
    write("7/stat", stat())
    assert standing.read([7, 99], tmp_path) == standing.read([7], tmp_path)
    assert standing.read([99], tmp_path) is None


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone has /proc")
def test_a_thread_with_a_mask_of_its_own_is_seen_in_this_process():
    own, bound, seen = os.sched_getaffinity(0), threading.Event(), threading.Event()

    def binds():
        os.sched_setaffinity(0, {min(own)})
        bound.set()
        seen.wait()

    thread = threading.Thread(target=binds)
    thread.start()
    bound.wait()
    found = standing.read([os.getpid()])
    seen.set()
    thread.join()
    assert found.cpus == frozenset(own)
    assert found.nice == os.getpriority(os.PRIO_PROCESS, 0)
    assert not found.real_time
    assert found.cpu_seconds == pytest.approx(sum(os.times()[:4]), abs=0.1)


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone has /proc")
def test_a_nicer_process_is_seen():
    sleeping = subprocess.Popen([sys.executable, "-c", "import os; os.nice(3); print(flush=True); input()"], **PIPES)
    sleeping.stdout.readline()
    found = standing.read([sleeping.pid])
    sleeping.communicate("")
    assert found.nice == os.getpriority(os.PRIO_PROCESS, 0) + 3


PIPES = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}

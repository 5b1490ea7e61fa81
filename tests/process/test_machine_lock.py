"""One run at a time on a machine."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from harness.process import machine_lock
from harness.process.machine_lock import MachineIsTakenError, RunIsTakenError, one_process, one_run_at_a_time

HOLD = """
import sys
from pathlib import Path
from harness.process.machine_lock import one_run_at_a_time
with one_run_at_a_time(Path(sys.argv[1]), "a run", False, print):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "machine.lock"


@pytest.fixture
def holder(path):
    """Start a process that holds the lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def unwanted(text):
    raise AssertionError(text)


def test_lock_is_free_again_after_a_run(path):
    for _ in range(2):
        with one_run_at_a_time(path, "a run", wait=False, say=unwanted):
            pass


def test_second_run_is_refused_and_told_who_measures(path, holder):
    with (
        pytest.raises(MachineIsTakenError, match=rf"process {holder.pid} of .*a run.*--wait.*--no-lock"),
        one_run_at_a_time(path, "another", wait=False, say=unwanted),
    ):
        raise AssertionError("both hold the lock")


def test_second_run_waits_and_says_so_once(path, holder):
    lines, waits = [], []

    def sleep(seconds):
        waits.append(seconds)
        if len(waits) == 3:
            holder.kill()
            holder.wait()

    with one_run_at_a_time(path, "another", wait=True, say=lines.append, sleep=sleep):
        assert len(lines) == 1
        assert f"process {holder.pid}" in lines[0]
    assert waits == [machine_lock.RETRY_SECONDS] * 3


def test_killed_run_leaves_no_lock_behind(path, holder):
    holder.kill()
    holder.wait()
    with one_run_at_a_time(path, "another", wait=False, say=unwanted):
        assert f'"process": {os.getpid()}' in path.read_text()


def test_unreadable_signature_is_another_run(path, holder):
    path.write_text("{")
    with (
        pytest.raises(MachineIsTakenError, match=r"^another run measures"),
        one_run_at_a_time(path, "another", wait=False, say=unwanted),
    ):
        raise AssertionError("both hold the lock")


def test_folder_without_locks_holds_nobody_up(tmp_path):
    with one_run_at_a_time(tmp_path / "missing" / "machine.lock", "a run", wait=False, say=unwanted):
        pass


def test_link_in_a_shared_folder_is_not_followed(tmp_path, path):
    victim = tmp_path / "victim"
    victim.write_text("text")
    path.symlink_to(victim)
    with one_run_at_a_time(path, "a run", wait=False, say=unwanted):
        assert victim.read_text() == "text"


def test_other_users_can_open_the_file(path):
    with one_run_at_a_time(path, "a run", wait=False, say=unwanted):
        assert path.stat().st_mode & 0o777 == 0o666


def test_second_process_on_a_run_is_told_who_writes(tmp_path):
    with (
        one_process(tmp_path),
        pytest.raises(RunIsTakenError, match=rf"process {os.getpid()} of .* is writing to {tmp_path}: --resume"),
        one_process(tmp_path),
    ):
        raise AssertionError("both hold the lock")
    with one_process(tmp_path):
        pass


def test_run_that_cannot_be_written_is_not_resumed(tmp_path):
    with pytest.raises(RunIsTakenError, match=r"gone cannot be written \(No such file"), one_process(tmp_path / "gone"):
        raise AssertionError("there is no folder")


def test_run_on_a_file_system_without_locks_is_written(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError("no locks")

    monkeypatch.setattr(machine_lock.fcntl, "flock", no_locks)
    with one_process(tmp_path):
        pass

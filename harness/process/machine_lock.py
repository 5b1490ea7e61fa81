"""Locks: one run at a time on a machine, one process on a run's files, and whose private folder is still in use.

Two runs that measure at the same time spoil each other's times. So a run holds a lock on a file that all users of the
machine share. The system releases it when the process ends, however it ends, so no lock is ever stale. The file says
who holds it.
"""

from __future__ import annotations

import contextlib
import fcntl
import getpass
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

#: Time between two attempts to get the lock, in seconds.
RETRY_SECONDS: Final = 1.0
#: Lock of a run, in its folder.
RUN_LOCK: Final = ".lock"
#: Longest text about the holder that is read, in bytes.
MOST_BYTES: Final = 4096


class MachineIsTakenError(Exception):
    """Another run measures on this machine."""


class RunIsTakenError(Exception):
    """Another process writes to a run's folder, or this one cannot."""


def lock_file(temporary: Path) -> Path:
    """Return the file of this machine; a temporary folder may be shared with other hosts."""
    return temporary / f"bilinear-bench-{socket.gethostname()}.lock"


@contextlib.contextmanager
def one_run_at_a_time(
    path: Path, purpose: str, wait: bool, say: Callable[[str], None], sleep: Callable[[float], None] = time.sleep
) -> Iterator[None]:
    """Hold the machine's lock.

    A file that cannot be opened or locked stops no run: then the table of processes alone tells of other runs.

    Args:
        path: File of the lock.
        purpose: What this run does, for the others.
        wait: True to wait for a run that holds the lock.
        say: Called once with a line about the run that is waited for.
        sleep: Waits for some seconds.

    Raises:
        MachineIsTakenError: Another run holds the lock, and this one does not wait.
    """
    descriptor = opened(path)
    if descriptor is None:
        yield
        return
    try:
        told = False
        while locked(descriptor) is False:
            holder = _holder(descriptor)
            if not wait:
                raise MachineIsTakenError(
                    f"{holder} measures on this machine, and two at a time spoil each other's times: "
                    "--wait starts when it has ended, --no-lock at once"
                )
            if not told:
                say(f"Waiting for {holder}, which measures on this machine.")
                told = True
            sleep(RETRY_SECONDS)
        _sign(descriptor, purpose)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def one_process(folder: Path) -> Iterator[None]:
    """Hold the lock of a run's folder, so that no other process adds to its files.

    Raises:
        RunIsTakenError: Another process holds it, or the folder cannot be written.
    """
    try:
        descriptor = os.open(folder / RUN_LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise RunIsTakenError(
            f"{folder} cannot be written ({error.strerror}): a run is completed in a folder that can be"
        ) from None
    try:
        if locked(descriptor) is False:
            raise RunIsTakenError(
                f"{_holder(descriptor)} is writing to {folder}: --resume completes it when that has ended"
            )
        _sign(descriptor, "a run")
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def abandoned(path: Path) -> Iterator[bool]:
    """Return whether a file's lock is free, and hold it; false where the file system has no locks.

    Raises:
        OSError: The file cannot be opened.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield locked(descriptor) is True
    finally:
        os.close(descriptor)


def opened(path: Path) -> int | None:
    """Open the file, or create it for all users; return None where neither can be done."""
    # A file of another user in a sticky folder must be opened without O_CREAT (proc(5), protected_regular).
    for flags in (os.O_RDWR, os.O_RDWR | os.O_CREAT | os.O_EXCL, os.O_RDWR):
        with contextlib.suppress(OSError):
            descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
            with contextlib.suppress(OSError):
                os.fchmod(descriptor, 0o666)  # whatever the umask is
            return descriptor
    return None


def locked(descriptor: int) -> bool | None:
    """Take the lock; return true if it is ours, false if it is another's, None if this file system has no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _sign(descriptor: int, purpose: str) -> None:
    """Write who holds the lock."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # this user has no name
        user = str(os.getuid())
    signed = {"process": os.getpid(), "user": user, "since": time.strftime("%H:%M"), "purpose": purpose}
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(signed).encode(), 0)


def _holder(descriptor: int) -> str:
    """Return who holds the lock, in words."""
    try:
        signed = json.loads(os.pread(descriptor, MOST_BYTES, 0))
        process, user, since, purpose = (str(signed[key]) for key in ("process", "user", "since", "purpose"))
    except (OSError, ValueError, LookupError, TypeError):
        return "another run"
    return f"process {process} of {user} (since {since}, {purpose})"

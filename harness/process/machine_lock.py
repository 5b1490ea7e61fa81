"""One run at a time on a machine: two that measure at the same time spoil each other's times.

A run holds a lock on a file that all users of the machine share. The system releases it when the process ends, however
it ends, so no lock is ever stale. The file says who holds it.
"""

from __future__ import annotations

import contextlib
import fcntl
import getpass
import json
import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

#: Time between two attempts to get the lock, in seconds.
RETRY_SECONDS: Final = 1.0
#: Longest text about the holder that is read, in bytes.
MOST_BYTES: Final = 4096


class MachineIsTakenError(Exception):
    """Another run measures on this machine."""


def lock_file() -> Path:
    """Return the file of this machine; a temporary folder may be shared with other hosts."""
    return Path(tempfile.gettempdir()) / f"bilinear-bench-{socket.gethostname()}.lock"


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
    descriptor = _opened(path)
    if descriptor is None:
        yield
        return
    try:
        told = False
        while not _locked(descriptor):
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


def _opened(path: Path) -> int | None:
    """Open the file, or create it for all users; return None where neither can be done."""
    # A file of another user in a sticky folder must be opened without O_CREAT (proc(5), protected_regular).
    for flags in (os.O_RDWR, os.O_RDWR | os.O_CREAT | os.O_EXCL, os.O_RDWR):
        with contextlib.suppress(OSError):
            descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
            with contextlib.suppress(OSError):
                os.fchmod(descriptor, 0o666)  # whatever the umask is
            return descriptor
    return None


def _locked(descriptor: int) -> bool:
    """True if the lock is ours, or if this file system has no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
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

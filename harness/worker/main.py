"""The child process: one worker, one device, one thread budget.

The supervisor starts it through ``harness/process/start.py``. The worker binds itself to its CPUs before it imports
anything that has a thread pool. Then it answers requests, one JSON line each, over two private pipes. Its standard
output belongs to the backend and means nothing to the protocol.
"""

from __future__ import annotations

import ctypes
import faulthandler
import importlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import IO, Any, Final

from harness.machine import threads
from harness.process import frames, protocol
from harness.process.protocol import Configuration, Handlers, Load, Request, Started
from harness.worker.failures import failure

#: Module and class of each role; the module is imported only after the CPUs are bound.
ROLES: Final = {
    "backend": ("harness.worker.backend_worker", "BackendWorker"),
    "reference": ("harness.worker.reference_worker", "ReferenceWorker"),
    "peaks": ("harness.worker.peak_worker", "PeakWorker"),
    "gpu peaks": ("harness.worker.gpu_peak_worker", "GpuPeakWorker"),
}
#: prctl(2): descendants whose parent has ended become children of this process.
_PR_SET_CHILD_SUBREAPER: Final = 36
#: prctl(2): the signal that this process gets when its parent dies.
_PR_SET_PDEATHSIG: Final = 1


def main() -> None:
    """Serve until the pipe closes."""
    configuration = protocol.decode(Configuration, json.loads(sys.argv[1]))
    die_with_parent(configuration.parent)
    _report_crashes()
    threads.bind(configuration.cpus)
    _prefer_for_the_oom_killer()
    _adopt_orphans()
    # Children of a backend (compilers, say) must not hold the pipes open.
    for descriptor in (configuration.requests, configuration.replies):
        os.set_inheritable(descriptor, False)
    with os.fdopen(configuration.requests, "rb") as requests, os.fdopen(configuration.replies, "wb") as replies:
        module, name = ROLES[configuration.role]
        handlers = getattr(importlib.import_module(module), name)().handlers
        _send(replies, protocol.encode_reply(configuration.nonce, Started(configuration.cpus)))
        target = ""
        for line in requests:
            nonce, request = protocol.decode_request(line)
            target = request.target if isinstance(request, Load) else target
            _send(replies, protocol.encode_reply(nonce, reply_to(handlers, request, target)))


def reply_to(handlers: Handlers, request: Request[Any], target: str = "") -> object:
    """Carry out one request; whatever it raises becomes the reply.

    Args:
        handlers: What carries out each class of requests.
        request: The request.
        target: ``module:Class`` of the backend, whose own frames are named; empty before it is loaded.
    """
    try:
        return handlers[type(request)](request)
    except BaseException as error:  # SystemExit and KeyboardInterrupt in a backend's code are its failure, not our end
        return failure(error, target)


def die_with_parent(parent: int) -> None:
    """Ask the kernel to kill this process when its parent dies, stopped or not; Linux only."""
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # the parent died before that
        os._exit(1)


def _adopt_orphans() -> None:
    """Become the parent of descendants whose own parent ends, so that they are found and stopped; Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _prefer_for_the_oom_killer() -> None:
    """Have the kernel end this worker, not the process that keeps the results, when memory runs out."""
    try:
        Path("/proc/self/oom_score_adj").write_text("500")
    except OSError:
        return  # not Linux, or not permitted; the kernel then chooses by size, which mostly is a worker, too


def _report_crashes() -> None:
    """Have a crash print where it was, and a worker that hangs, when the parent asks by a signal."""
    faulthandler.enable()
    if hasattr(faulthandler, "register"):  # not on Windows
        faulthandler.register(frames.TELL_WHERE)


def _send(replies: IO[bytes], line: bytes) -> None:
    replies.write(line)
    replies.flush()

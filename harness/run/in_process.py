"""A backend and the reference in this process, asked as workers are; for conformance tests.

Importing this module imports PyTorch.
"""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from harness.correctness.verdict import Verdict
from harness.machine.standing import Standing
from harness.machine.usage import Usage
from harness.process import frames
from harness.process.protocol import Handlers, Locate, Located, ReplyT, Request
from harness.run.reference_cache import ReferenceCache
from harness.worker import failures
from harness.worker.backend_worker import BackendWorker
from harness.worker.reference_worker import ReferenceWorker

if TYPE_CHECKING:
    from harness.backend import Backend

#: No time limit is enforced in this process.
NO_LIMIT: Final = 0.0


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a backend replied to one check.

    Attributes:
        verdicts: Every verdict.
        explanation: What its wrong results fit; empty if nothing fits.
        located: Where its kernel is written; None if nothing was refused.
        raised: What it raised, by its traceback as text.
    """

    verdicts: list[Verdict]
    explanation: str = ""
    located: Located | None = None
    raised: Mapping[str, Exception] = dataclasses.field(default_factory=dict)


class LocalWorker:
    """A worker's handlers in this process, as a ``WorkerHandle``.

    Args:
        handlers: What carries out each class of requests.
        directory: Folder for its files; made here.
        raised: What the backend has raised in edge cases, by its traceback as text.
    """

    def __init__(self, handlers: Handlers, directory: Path, raised: Mapping[str, Exception]) -> None:
        self.directory = directory
        self.raised = raised
        self.output = ""  # pytest captures it
        self.elapsed_seconds = self.stopped_seconds = 0.0
        self.usage: Sequence[Usage] = ()
        self.alive = True
        self._handlers = handlers
        directory.mkdir()

    def request(self, request: Request[ReplyT], time_limit_seconds: float) -> ReplyT:
        """Return the handler's reply; an exception of the backend keeps its traceback."""
        start = time.monotonic()
        reply: ReplyT = self._handlers[type(request)](request)  # type: ignore[assignment]  # its handler replies to it
        self.elapsed_seconds = time.monotonic() - start
        return reply

    def standing(self) -> None:
        """Return nothing: the process is the tests' own."""

    def looking(self) -> contextlib.AbstractContextManager[list[Standing]]:
        """Look at nothing."""
        return contextlib.nullcontext([])

    def kill(self) -> None:
        """Do no more than note it: there is no process to end."""
        self.alive = False

    def located(self) -> Located | None:
        """Return where the prepared kernel is written; None if none is prepared."""
        with contextlib.suppress(RuntimeError):
            return self.request(Locate(), NO_LIMIT)
        return None


@contextlib.contextmanager
def in_this_process(backend: type[Backend], device: str) -> Iterator[tuple[LocalWorker, ReferenceCache]]:
    """Provide a backend and a reference in this process, and a folder that is deleted afterwards."""
    with tempfile.TemporaryDirectory(prefix="bilinear-bench-conformance-") as folder:
        worker = BackendWorker()
        worker.hold(backend(device))
        reference = LocalWorker(ReferenceWorker().handlers, Path(folder) / "reference", {})
        local = LocalWorker(worker.handlers, Path(folder) / "backend", worker.edge_cases.raised)
        yield local, ReferenceCache(lambda device: reference, NO_LIMIT)


def cause_of(error: Exception | None) -> Exception | None:
    """Return an exception without the harness's frames; None for one that is about the interface, and all harness."""
    if error is None or isinstance(error, failures.InterfaceError):
        return None
    return error.with_traceback(frames.without_harness(error))


def error_text(backend: type[Backend], error: Exception) -> str:
    """Return what a backend raised, and where."""
    said = failures.failure(error, backend.__module__)
    return f"{backend.name}: {said.error}" + (f"\n  {said.location}" if said.location else "")


def refusal_text(backend: type[Backend], refusal: Verdict, outcome: Outcome) -> str:
    """Return a refusal, what the wrong results fit, and where the fault is."""
    lines = [f"{backend.name}: {refusal.probe}: {refusal.reason}"]
    if explanation := refusal.hypothesis or outcome.explanation:
        lines.append(explanation)
    place = frames.own_frame(refusal.traceback, backend.__module__)
    if place is None and outcome.located is not None:
        place = outcome.located.places.get(refusal.wrong_result or "output")
    return "\n  ".join([*lines, *([str(place)] if place else [])])

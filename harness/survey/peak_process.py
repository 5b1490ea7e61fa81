"""One peak worker from its start to its end, with failures as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from harness.process.handle import WorkerError, WorkerHandle
from harness.process.protocol import MeasuredRate, ReplyT, Request
from harness.process.supervisor import WorkerPool

#: Longest reason that is kept, in characters.
REASON_LENGTH: Final = 200


class PeakProcess:
    """Starts a peak worker, and ends it on exit. Use as a context manager.

    A worker that does not start, or that dies, answers every request with the reason.

    Args:
        workers: Starts and ends the process.
        name: Name of the worker, which is that of its library.
        limit_seconds: Time limit of each request, in seconds.
        device: Device that is measured.
        variables: Environment variables on top of the worker's own.
    """

    def __init__(
        self,
        workers: WorkerPool,
        name: str,
        limit_seconds: float,
        device: str = "cpu",
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self._workers = workers
        self._name = name
        self._device = device
        self._variables = variables
        self._limit_seconds = limit_seconds
        self._worker: WorkerHandle | None = None
        self._ended = ""

    def __enter__(self) -> PeakProcess:
        try:
            self._worker = self._workers.peak_worker(self._name, self._device, self._variables)
        except WorkerError as error:
            self._ended = _first_line(error.reason)
        return self

    def __exit__(self, *_: object) -> None:
        self._workers.discard_peak_worker(self._name)

    def rate(self, request: Request[MeasuredRate]) -> tuple[float | None, str]:
        """Return a rate and its source, or None and the reason."""
        reply = self.ask(request)
        return (None, reply) if isinstance(reply, str) else (reply.per_second, reply.source)

    def ask(self, request: Request[ReplyT]) -> ReplyT | str:
        """Return the reply, or the reason why there is none."""
        if self._worker is None:
            return self._ended
        try:
            return self._worker.request(request, self._limit_seconds)
        except WorkerError as error:
            if not self._worker.alive:
                self._worker, self._ended = None, _first_line(error.reason)
            return _first_line(error.reason)


def _first_line(reason: str) -> str:
    """Return the first line of a library's error, cut to ``REASON_LENGTH``; some libraries add a page of advice."""
    return reason.strip().partition("\n")[0][:REASON_LENGTH]

"""A fake supervisor, and all that the tests of a run take from its workers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fake_worker import FakeWorker, right
from faults import CASE, GIB, LARGER, OVERHEAD_SECONDS, QUIET, STEP, TICK_SECONDS, Clock, Faults

from harness.process.protocol import Request
from harness.timing.selection import next_look
from harness.timing.variance import FEWEST_BLOCKS

__all__ = (
    "CASE",
    "GIB",
    "LARGER",
    "NARROW_BLOCKS",
    "OVERHEAD_SECONDS",
    "QUIET",
    "STEP",
    "TICK_SECONDS",
    "Clock",
    "FakePool",
    "FakeWorker",
    "Faults",
    "right",
)

#: Blocks after which an interval that is always narrow has been so at two looks in a row.
NARROW_BLOCKS = next_look(FEWEST_BLOCKS)


class FakePool:
    """A supervisor of fake workers.

    Args:
        folder: Parent of the workers' folders.
        faults: Faults by the worker's name in the log; other workers have none.

    Attributes:
        log: Requests of all workers, as (name, request).
        clock: The clock that calls advance.
        kept: Workers by name.
        discarded: Names of workers that were ended, in order.
    """

    def __init__(self, folder: Path, faults: Mapping[str, Faults] | None = None) -> None:
        self.empty_caches, self.findings = False, None
        self.log: list[tuple[str, Request[Any]]] = []
        self.clock = Clock()
        self.kept: dict[str, FakeWorker] = {}
        self.discarded: list[str] = []
        self._folder, self._faults = folder, dict(faults or {})
        self._started = 0

    def worker(self, name: str, device: str) -> tuple[FakeWorker, bool]:
        if name not in self.kept or not self.kept[name].alive:
            self._started += 1
            faults = self._faults.get(name, Faults())
            directory = self._folder / f"{name}{self._started}"
            kind = faults.kind or FakeWorker
            self.kept[name] = kind(name, directory, self.clock, self._started, self.log, faults)
        return self.kept[name], self.empty_caches

    def edge_case_worker(self, name: str, device: str) -> FakeWorker:
        return self.worker(f"edge cases of {name}", device)[0]

    def reference(self, device: str) -> FakeWorker:
        return self.worker("reference", device)[0]

    def peak_worker(self, name: str, device: str = "cpu", variables: Mapping[str, str] | None = None) -> FakeWorker:
        return self.worker(f"peak worker of {name}", device)[0]

    def discard(self, name: str, device: str) -> None:
        self.discarded.append(name)
        if name in self.kept:
            self.kept.pop(name).alive = False

    def discard_edge_case_worker(self, name: str, device: str) -> None:
        self.discard(f"edge cases of {name}", device)

    def discard_peak_worker(self, name: str) -> None:
        self.discard(f"peak worker of {name}", "cpu")

    def requests(self, name: str) -> list[Request[Any]]:
        """Return the requests to a worker, in order."""
        return [request for asked, request in self.log if asked == name]

    def asked(self, name: str) -> list[type[Request[Any]]]:
        """Return the classes of the requests to a worker, in order."""
        return [type(request) for request in self.requests(name)]

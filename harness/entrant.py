"""An entrant: one planned cell on its way to a record, and the worker that it is asked through."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Protocol

from harness.correctness import gate
from harness.process.supervisor import WorkerError
from harness.record import Status


class Remote(Protocol):
    """A worker, as the runner sees it."""

    directory: Path

    @property
    def alive(self) -> bool:
        """Whether it can still be asked."""
        ...

    def request(self, do: str, time_limit_seconds: float, **fields: Any) -> dict[str, Any]:
        """Ask; raises WorkerError."""
        ...


@dataclasses.dataclass
class Entrant:
    """One cell on its way to a record.

    Attributes:
        name: The backend's name in the rows.
        worker: Its worker, once it is loaded.
        loaded: What the worker said when it was loaded.
        status: What became of the cell; None while it is still going.
        phase: Where it is, or where its status was decided.
        reason: Why it has that status.
        predicted_bytes: Memory that its worker is expected to take.
        call_seconds: What a call takes, roughly.
        base_calls: How many calls make a sample.
        joins: How many of the panel's blocks it takes part in.
        calls: Calls of each sample.
        seconds: Seconds of a call, by block.
        forward_seconds: The same for the forward of a step alone.
        verdicts: What the gate said, each time.
        flags: What to know before trusting the row.
        columns: Columns of the record that are known already.
    """

    name: str
    worker: Remote | None = None
    loaded: dict[str, Any] = dataclasses.field(default_factory=dict)
    status: Status | None = None
    phase: str = "plan"
    reason: str = ""
    predicted_bytes: int = 0
    call_seconds: float = 0.0
    base_calls: int = 1
    joins: int = 0
    calls: list[int] = dataclasses.field(default_factory=list)
    seconds: dict[int, float] = dataclasses.field(default_factory=dict)
    forward_seconds: dict[int, float] = dataclasses.field(default_factory=dict)
    verdicts: list[gate.Verdict] = dataclasses.field(default_factory=list)
    flags: list[str] = dataclasses.field(default_factory=list)
    columns: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def going(self) -> bool:
        """Whether nothing has ended it yet."""
        return self.status is None

    def end(self, status: Status, reason: str) -> None:
        """Settle what becomes of the cell."""
        self.status, self.reason = status, reason or "no reason was given"

    def again(self) -> Entrant:
        """Return the same cell, asked but not yet prepared, for another panel."""
        return Entrant(self.name, self.worker, self.loaded, predicted_bytes=self.predicted_bytes)

    def ask(self, do: str, limit_seconds: float, **fields: Any) -> dict[str, Any] | None:
        """Ask its worker; whatever goes wrong ends the cell, and None is returned."""
        if self.worker is None:
            raise RuntimeError(f"{self.name} has no worker")
        try:
            return self.worker.request(do, limit_seconds, **fields)
        except WorkerError as error:
            self.end(error.status, error.reason)
            return None

    def results_folder(self) -> Path:
        """Where its worker leaves results for the gate."""
        if self.worker is None:
            raise RuntimeError(f"{self.name} has no worker")
        return self.worker.directory / "results"

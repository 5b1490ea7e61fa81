"""An cell: one planned cell on its way to a record, and the worker that it is asked through."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from harness.correctness import gate
from harness.process.handle import WorkerError, WorkerHandle
from harness.process.protocol import Loaded, ReplyT, Request
from harness.record import Status

#: Whose refusal becomes the reason, where several refuse: first what says most about the fault. An arithmetic that can
#: be named says more than the element that it spoilt most; one that cannot says less.
_TELLING: Final = ("edge_cases", "exact", "named precision", "bound", "conduct", "precision")


@dataclasses.dataclass
class Cell:
    """One cell on its way to a record.

    Attributes:
        name: The backend's name in the rows.
        worker: Its worker, once it is loaded.
        loaded: Reply of the worker to being loaded.
        said: Replies of the worker for ``environment.json``.
        status: What became of the cell; None while it is still going.
        phase: Where it is, or where its status was decided.
        reason: Why it has that status.
        predicted_bytes: Memory that its worker is expected to take.
        wide_range: Whether it does numbers beyond float16's range; None until the structure probe has asked.
        precision_class: Where the precision probe placed it.
        call_seconds: What a call takes, roughly.
        base_calls: How many calls make a sample.
        joins: How many of the panel's blocks it takes part in.
        kept_blocks: Of which of a process's blocks the results are judged, from 0.
        kernel_seconds: What making another kernel takes, its first call included.
        calls: Calls of each sample.
        seconds: Seconds of a call, by block.
        forward_seconds: The same for the forward of a step alone.
        measured_seconds: Of whole samples, by block, as the worker measured them.
        unseen_seconds: By block: what passed around a sample, and neither the worker nor the hypervisor accounts for.
        spot_peaks: By block: what the CPUs multiplied right before, in flop per second; not for a block where unknown.
        disturbed_blocks: In which of them the machine did something else besides.
        best_gpu_clock_mhz: The highest clock of the GPU after any sample.
        switch_rates: By sample: involuntary context switches a second.
        seconds_to_target: Since when its interval has been narrow enough, from the beginning of the group.
        stopped_by: Why measuring ended.
        gate_seconds: What the gate took, asking and judging, without the reference.
        verdicts: What the gate said, each time.
        flags: What to know before trusting the row.
        columns: Columns of the record that are known already.
    """

    name: str
    worker: WorkerHandle | None = None
    loaded: Loaded | None = None
    said: dict[str, Any] = dataclasses.field(default_factory=dict)
    status: Status | None = None
    phase: str = "plan"
    reason: str = ""
    predicted_bytes: int = 0
    wide_range: bool | None = None
    precision_class: str | None = None
    call_seconds: float = 0.0
    base_calls: int = 1
    joins: int = 0
    kept_blocks: frozenset[int] = frozenset()
    kernel_seconds: float = math.inf
    calls: list[int] = dataclasses.field(default_factory=list)
    seconds: dict[int, float] = dataclasses.field(default_factory=dict)
    forward_seconds: dict[int, float] = dataclasses.field(default_factory=dict)
    measured_seconds: list[float] = dataclasses.field(default_factory=list)
    unseen_seconds: list[float] = dataclasses.field(default_factory=list)
    spot_peaks: dict[int, float] = dataclasses.field(default_factory=dict)
    disturbed_blocks: set[int] = dataclasses.field(default_factory=set)
    best_gpu_clock_mhz: float = 0.0
    switch_rates: list[float] = dataclasses.field(default_factory=list)
    seconds_to_target: float | None = None
    stopped_by: str = "blocks"
    gate_seconds: float = 0.0
    verdicts: list[gate.Verdict] = dataclasses.field(default_factory=list)
    flags: list[str] = dataclasses.field(default_factory=list)
    columns: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def going(self) -> bool:
        """Whether nothing has ended it yet."""
        return self.status is None

    @property
    def base_name(self) -> str:
        """The backend's own name, without the number of a further entry."""
        return self.name.partition("#")[0]

    @property
    def untimeable(self) -> str:
        """Why its times would say nothing; empty if they say something."""
        return "" if self.loaded is None else self.loaded.untimeable

    @property
    def misbehaved(self) -> bool:
        """Whether the gate refused not only what it returned, but what it did besides."""
        return any(not verdict.ok and verdict.probe == "conduct" for verdict in self.verdicts)

    def end(self, status: Status, reason: str) -> None:
        """Settle what becomes of the cell."""
        self.status, self.reason = status, reason or "no reason was given"

    def again(self) -> Cell:
        """Return the same cell, asked but not yet prepared, for another panel."""
        return Cell(self.name, self.worker, self.loaded, self.said, predicted_bytes=self.predicted_bytes)

    def ask(self, request: Request[ReplyT], limit_seconds: float) -> ReplyT | None:
        """Ask its worker; whatever goes wrong ends the cell and the worker, and None is returned.

        What a worker holds when its memory ran out, the others lack; and after an illegal access a CUDA context fails
        whatever is asked of it.
        """
        if self.worker is None:
            raise RuntimeError(f"{self.name} has no worker")
        try:
            return self.worker.request(request, limit_seconds)
        except WorkerError as error:
            self.end(error.status, error.reason)
            self.worker.kill()
            return None

    def note(self, *verdicts: gate.Verdict) -> None:
        """Take down verdicts; a remark becomes a flag, once."""
        for verdict in verdicts:
            self.verdicts.append(verdict)
            self.flag(verdict.remark)

    def flag(self, text: str | None) -> None:
        """Flag the row, once; nothing if there is nothing to say."""
        if text and text not in self.flags:
            self.flags.append(text)

    def conclude(self) -> None:
        """End the cell as rejected if any verdict refused it."""
        refusals = [verdict for verdict in self.verdicts if not verdict.ok]
        if not self.going or not refusals:
            return

        def place(verdict: gate.Verdict) -> int:
            named = verdict.probe == "precision" and self.precision_class is not None
            return _TELLING.index("named precision" if named else verdict.probe)

        told = min(refusals, key=place)
        self.end(Status.REJECTED, f"{told.probe}: {told.reason}")

    def probes(self) -> str:
        """What each probe said: ``edge_cases=ok;exact=no``; probes that never asked are left out."""
        said = {}
        for probe in gate.PROBES:
            answers = [verdict.ok for verdict in self.verdicts if verdict.probe == probe]
            if answers:
                said[probe] = "ok" if all(answers) else "no"
        return ";".join(f"{probe}={answer}" for probe, answer in said.items())

    def largest(self, attribute: str) -> float | None:
        """The largest ``error_over_bound`` or ``absolute_error`` of all verdicts; None if there is none."""
        found = [value for verdict in self.verdicts if (value := getattr(verdict, attribute)) is not None]
        return max(found, default=None)

    @contextlib.contextmanager
    def gating(self, now: Callable[[], float]) -> Iterator[None]:
        """Count what is done within as time of the gate."""
        start = now()
        try:
            yield
        finally:
            self.gate_seconds += now() - start

    def results_folder(self, name: str = "results") -> Path:
        """Return an empty folder where its worker leaves results for the gate."""
        if self.worker is None:
            raise RuntimeError(f"{self.name} has no worker")
        return fresh_folder(self.worker.directory / name)

    def folder(self, name: str) -> Path:
        """A folder that ``results_folder`` made before."""
        if self.worker is None:
            raise RuntimeError(f"{self.name} has no worker")
        return self.worker.directory / name


def fresh_folder(folder: Path) -> Path:
    """Return the folder, emptied or made."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder

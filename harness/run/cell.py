"""A cell: one planned (case, mode, backend, device) on its way to a record, and the worker that it is asked through.

Length: all that is known of a cell, with a line for each attribute.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import shutil
from collections.abc import Iterator
from pathlib import Path

from harness.correctness.verdict import Verdict
from harness.machine.usage import Busy
from harness.process.handle import WorkerError, WorkerHandle
from harness.process.protocol import Loaded, Located, Prepared, ReplyT, Request
from harness.record import Status
from harness.run.gate_log import GateLog
from harness.run.time_spent import Stage, TimeSpent
from harness.timing import stopping


@dataclasses.dataclass
class Replies:
    """Replies of the cell's workers about themselves.

    Attributes:
        loaded: Reply of the first process to ``Load``; None before it is loaded.
        latest: Reply of the present process to ``Load``.
        prepared: Reply of the first process to ``Prepare``.
        busy: Threads that were busy while the present process warmed up.
        absent_times: Reason why a time of the device's clock is missing, by column.
    """

    loaded: Loaded | None = None
    latest: Loaded | None = None
    prepared: Prepared | None = None
    busy: Busy | None = None
    absent_times: dict[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Schedule:
    """Plan of a cell's samples.

    Attributes:
        call_seconds: Approximate time of a call, in seconds.
        base_calls: Least number of calls in a sample.
        joins: Number of the cohort's blocks that the cell takes part in.
        kept_blocks: Blocks of the present process whose results are judged, from 0.
        long_block: Block of the group whose sample is long, from 0.
        kernel_seconds: Time of making another kernel and calling it once, in seconds.
        seconds_to_target: Time from the group's beginning until the interval was narrow enough, in seconds; None if it
            is not.
        stopped_by: Reason why measuring ended, as in the record's column.
    """

    call_seconds: float = 0.0
    base_calls: int = 1
    joins: int = 0
    kept_blocks: frozenset[int] = frozenset()
    long_block: int | None = None
    kernel_seconds: float = math.inf
    seconds_to_target: float | None = None
    stopped_by: str = "blocks"

    @property
    def slow(self) -> bool:
        """True if a call takes so long that the backend joins only some blocks."""
        return self.call_seconds > stopping.SLOW_SECONDS


@dataclasses.dataclass
class Timings:
    """Measurements of a cell.

    Attributes:
        seconds: Time of a call in seconds, by block.
        forward_seconds: Time of a step's forward alone in seconds, by block.
        calls: Number of calls of each sample.
        measured_seconds: Time of each whole sample in seconds, as the worker measured it.
        unseen_seconds: Time around each sample, in seconds, that neither the worker nor the hypervisor accounts for.
        waited_seconds: Time around each sample, in seconds, that waits for a CPU may have taken while others ran.
        long_samples: Measured, unseen and waited time of each long sample, in seconds; they are not among the others.
        spot_peaks: FMA peak of the CPUs right before the sample, in flop per second, by block; unknown ones left out.
        cpu_and_wall_seconds: CPU time of the worker and its descendants during all samples, and the time of these by
            the run's clock.
        disturbed_blocks: Numbers of the blocks in which the machine was disturbed.
        switch_rates: Involuntary context switches of each sample, per second.
        best_gpu_clock_mhz: Highest clock of the GPU after any sample, in MHz.
        device_seconds: Time of a call by the device's clock in seconds, by column of the record.
        peak_memory_bytes: Memory of a call at its peak, beyond its results, in bytes; None if unknown.
        stopped_seconds: Time of requests in which the run or its machine was stopped, in seconds.
    """

    seconds: dict[int, float] = dataclasses.field(default_factory=dict)
    forward_seconds: dict[int, float] = dataclasses.field(default_factory=dict)
    calls: list[int] = dataclasses.field(default_factory=list)
    measured_seconds: list[float] = dataclasses.field(default_factory=list)
    unseen_seconds: list[float] = dataclasses.field(default_factory=list)
    waited_seconds: list[float] = dataclasses.field(default_factory=list)
    long_samples: list[tuple[float, float, float]] = dataclasses.field(default_factory=list)
    spot_peaks: dict[int, float] = dataclasses.field(default_factory=dict)
    cpu_and_wall_seconds: tuple[float, float] = (0.0, 0.0)
    disturbed_blocks: set[int] = dataclasses.field(default_factory=set)
    switch_rates: list[float] = dataclasses.field(default_factory=list)
    best_gpu_clock_mhz: float = 0.0
    device_seconds: dict[str, float] = dataclasses.field(default_factory=dict)
    peak_memory_bytes: int | None = None
    stopped_seconds: float = 0.0

    def keep_memory(self, peak_bytes: int | None, result_bytes: int) -> None:
        """Keep the memory of a call; the least of several, since a first touch may add some.

        Args:
            peak_bytes: Memory of the call at its peak, results included, in bytes; None if unknown.
            result_bytes: Size of its results in bytes, which are no workspace.
        """
        if peak_bytes is not None:
            beyond, known = max(0, peak_bytes - result_bytes), self.peak_memory_bytes
            self.peak_memory_bytes = beyond if known is None else min(known, beyond)


@dataclasses.dataclass
class Evidence:
    """What a wrong or failed cell leaves behind for its diagnosis.

    Attributes:
        error: Why its worker did not reply; None if it did.
        located: Where its kernel is written; None if it was not asked.
        output: End of what its workers printed.
    """

    error: WorkerError | None = None
    located: Located | None = None
    output: str = ""


@dataclasses.dataclass
class Cell:
    """One cell: its identity, its worker and its outcome.

    Attributes:
        name: The backend's name in the rows.
        worker: The present worker; None before it is loaded.
        status: Outcome of the cell; None while it is going.
        phase: Step that the cell is in, or that decided its status.
        reason: Reason for the status.
        predicted_bytes: Memory that the worker is expected to take, in bytes.
        compile_cache: State of the compile caches before the first call: the record's column.
        flags: Reasons to doubt the row.
        replies: Replies of the workers about themselves.
        gate: The gate's verdicts.
        schedule: Plan of the cell's samples.
        timings: Measurements.
        evidence: Facts for the diagnosis of a wrong or failed cell.
    """

    name: str
    worker: WorkerHandle | None = None
    status: Status | None = None
    phase: str = "plan"
    reason: str = ""
    predicted_bytes: int = 0
    compile_cache: str | None = None
    flags: list[str] = dataclasses.field(default_factory=list)
    replies: Replies = dataclasses.field(default_factory=Replies)
    gate: GateLog = dataclasses.field(default_factory=GateLog)
    schedule: Schedule = dataclasses.field(default_factory=Schedule)
    timings: Timings = dataclasses.field(default_factory=Timings)
    evidence: Evidence = dataclasses.field(default_factory=Evidence)

    @property
    def going(self) -> bool:
        """True if nothing has ended the cell yet."""
        return self.status is None

    @property
    def base_name(self) -> str:
        """Return the backend's own name, without the number of a further entry."""
        return self.name.partition("#")[0]

    @property
    def untimeable(self) -> str:
        """Return the reason why the backend's times mean nothing; empty if they do."""
        return self.replies.latest.untimeable if self.replies.latest else ""

    def end(self, status: Status, reason: str) -> None:
        """Settle the outcome."""
        self.status, self.reason = status, reason or "no reason was given"

    def fail(self, error: WorkerError, when: str = "") -> None:
        """Settle the outcome by a request that was not answered.

        Args:
            error: Why it was not.
            when: Words before the reason.
        """
        self.evidence.error = error
        self.evidence.output = self.evidence.output or error.output
        self.end(error.status, f"{when}{error.reason}")

    def again(self) -> Cell:
        """Return the same cell, asked but not yet prepared, for another cohort."""
        loaded = Replies(loaded=self.replies.loaded, latest=self.replies.latest)
        return Cell(self.name, self.worker, replies=loaded, predicted_bytes=self.predicted_bytes)

    def request(self, request: Request[ReplyT], limit_seconds: float) -> ReplyT | None:
        """Return the worker's reply; an error ends the cell and the worker, and None is returned.

        A worker whose memory ran out would keep it from the others. After an illegal access a CUDA context fails every
        request.
        """
        if self.worker is None:
            raise RuntimeError(f"{self.name} has no worker")
        try:
            reply = self.worker.request(request, limit_seconds)
            self.timings.stopped_seconds += self.worker.stopped_seconds
            return reply
        except WorkerError as error:
            self.fail(error)
            self.worker.kill()
            return None

    def note(self, *verdicts: Verdict, promise: str = "") -> None:
        """Keep verdicts; a remark becomes a flag, once.

        Args:
            verdicts: The verdicts.
            promise: Promise that they belong to, where they do not say it themselves.
        """
        for verdict in verdicts:
            self.gate.verdicts.append(dataclasses.replace(verdict, promise=verdict.promise or promise))
            self.flag(verdict.remark)

    def flag(self, text: str | None) -> None:
        """Flag the row, once; nothing if the text is empty."""
        if text and text not in self.flags:
            self.flags.append(text)

    def conclude(self) -> None:
        """End the cell as rejected if any verdict refused it."""
        if self.going and (refusal := self.gate.most_telling_refusal()) is not None:
            self.end(Status.REJECTED, f"{refusal.probe}: {refusal.full_reason}")

    @contextlib.contextmanager
    def gating(self, spent: TimeSpent, stage: Stage = Stage.GATE) -> Iterator[None]:
        """Add the time within to the time of the gate, and book it on a stage of the run."""
        start = spent.now()
        try:
            with spent(stage):
                yield
        finally:
            self.gate.seconds += spent.now() - start

    def results_folder(self, name: str) -> Path:
        """Return an empty folder, in which the worker leaves results for the gate."""
        return fresh_folder(self.folder(name))

    def folder(self, name: str) -> Path:
        """Return a folder of the worker that ``results_folder`` made before."""
        if self.worker is None:
            raise RuntimeError(f"{self.name} has no worker")
        return self.worker.directory / name


def fresh_folder(folder: Path) -> Path:
    """Return the folder, emptied or created."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder

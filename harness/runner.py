"""Cases and backends in, records out.

For each case, mode and device (a group): ask every backend whether it is here, can do the case and fits; let the panels
gate and time those that can; yield one record for every planned cell, whatever happened.
"""

from __future__ import annotations

import dataclasses
import statistics as python_statistics
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from harness.case import Case
from harness.entrant import Entrant
from harness.examination import Expectations
from harness.examiners import Examiners
from harness.machine import environment
from harness.panel import Panel
from harness.plan import BASELINE, make_record
from harness.process.supervisor import WorkerError
from harness.record import Record, Status
from harness.sitting import Remote, Sitting
from harness.timing import cost, statistics

#: An interval needs this many blocks (2 / 2^8 < 1 %).
INTERVAL_BLOCKS: Final = 8


class Runner:
    """Carries out a plan.

    Args:
        sitting: The plan, the workers and whom to tell.
        free_bytes: Memory that the workers may take together, asked when a group begins, in bytes.
    """

    def __init__(self, sitting: Sitting, free_bytes: Callable[[], int] = environment.available_bytes) -> None:
        self._sitting = sitting
        self._plan = sitting.plan
        self._workers = sitting.workers
        self._free_bytes = free_bytes
        self._expectations = Expectations(sitting.workers, sitting.plan.time_limit_seconds)
        self._examiners = Examiners(sitting, self._expectations)
        #: What each load answered: kept while its worker lives, or for good if the backend cannot be had.
        self._loaded: dict[tuple[str, str], tuple[Remote | None, dict[str, Any] | WorkerError]] = {}
        #: Versions, clock and thread pools of each worker, in its own words, for ``environment.json``.
        self.workers_said: dict[str, dict[str, Any]] = {}

    @property
    def examined_seconds(self) -> dict[str, float]:
        """What the structure probe took, by backend and device, loading included."""
        return self._examiners.seconds

    def run(self, skip: frozenset[tuple[str, str, str]] = frozenset()) -> Iterator[Record]:
        """Yield the records of every group but those in ``skip`` (case, mode, device)."""
        groups = self._plan.groups()
        for number, (case, device) in enumerate(groups, start=1):
            if (case.name, case.mode, device) in skip:
                continue
            self._sitting.observer.group(number, len(groups), case, device)
            yield from self._group(case, device)

    def _group(self, case: Case, device: str) -> Iterator[Record]:
        entrants = [Entrant(cell[2]) for cell in self._plan.cells(case, device)]
        free, needed = self._free_bytes(), cost.reference_bytes(case)
        if needed > free:
            for entrant in entrants:
                entrant.end(Status.OUT_OF_MEMORY, _too_large("the reference", needed, free))
        # The reference holds its results while the contestants hold theirs, and one examiner may be there besides.
        free -= needed + cost.PROCESS_BYTES
        baselines: list[Entrant] = []
        block, stopped_by = 0, "blocks"
        try:
            for entrant in entrants:
                if entrant.going:
                    self._ask(entrant, case, device, free)
            for members in panels(entrants, free):
                baselines += [entrant for entrant in members if entrant.name == BASELINE]
                panel = Panel(self._sitting, case, device, members, self._examiners, self._expectations)
                block = panel.measure(block)
                stopped_by = panel.stopped_by
        finally:
            self._expectations.forget(case)
            for entrant in entrants:
                if entrant.loaded:
                    self.workers_said[f"{entrant.name} on {device}"] = entrant.loaded
                if self._workers.cold:
                    self._workers.discard(entrant.name, device)
        yield from self._records(entrants, baselines, case, device, stopped_by)

    def _ask(self, entrant: Entrant, case: Case, device: str, free: int) -> None:
        """Load and ask whether it is here, can do this, and fits."""
        entrant.phase = "load"
        entrant.worker, loaded = self._load(entrant.name, device)
        if isinstance(loaded, WorkerError):
            entrant.end(loaded.status, loaded.reason)
            return
        if not loaded["available"]:
            entrant.end(Status.UNAVAILABLE if loaded["offered"] else Status.UNSUPPORTED, loaded["reason"])
            return
        entrant.loaded = loaded
        entrant.columns |= {"backend_version": loaded["version"], "import_seconds": loaded["import_seconds"]}
        entrant.phase = "support"
        said = entrant.ask("support", self._plan.time_limit_seconds, case=dataclasses.asdict(case))
        if said is None:
            return
        if not said["supported"]:
            entrant.end(Status.UNSUPPORTED, said["reason"])
            return
        entrant.predicted_bytes = cost.contestant_bytes(case, said["workspace_bytes"])
        if device == "cpu" and entrant.predicted_bytes > free:
            entrant.end(Status.OUT_OF_MEMORY, _too_large(entrant.name, entrant.predicted_bytes, free))

    def _load(self, name: str, device: str) -> tuple[Remote | None, dict[str, Any] | WorkerError]:
        """Return a backend's worker and what it said when it was loaded; each worker is asked once."""
        kept = self._loaded.get((name, device))
        if kept is not None and (kept[0] is None or kept[0].alive):
            return kept
        entry = self._plan.backends[name]
        installed = entry.installed()
        worker: Remote | None = None
        answer: dict[str, Any] | WorkerError
        if not installed.ok:
            answer = {"available": False, "reason": installed.reason, "offered": True}
        else:
            self._sitting.observer.stage(f"start {name}")
            try:
                worker, cold = self._workers.worker(name, device)
                limit, base = self._plan.time_limit_seconds, name.partition("#")[0]
                answer = worker.request("load", limit, name=base, target=entry.target, device=device)
                answer["cold"] = cold
            except WorkerError as error:
                answer = error
            if isinstance(answer, WorkerError) or not answer["available"]:
                # It will be no different for the next case: do not keep the process, do not ask again.
                self._workers.discard(name, device)
                worker = None
        self._loaded[name, device] = (worker, answer)
        return worker, answer

    def _records(
        self, entrants: list[Entrant], baselines: list[Entrant], case: Case, device: str, stopped_by: str
    ) -> Iterator[Record]:
        baseline = {block: time for entrant in baselines if entrant.going for block, time in entrant.seconds.items()}
        timed = {entrant.name: entrant.seconds for entrant in entrants if entrant.going and entrant.seconds}
        ranks = _ranks(entrants, timed)
        classes = {entrant.name.partition("#")[0]: entrant.precision_class for entrant in baselines}
        for entrant in entrants:
            columns: dict[str, Any] = entrant.columns | {
                "phase": entrant.phase,
                "probes": entrant.probes() or None,
                "precision_class": entrant.precision_class,
                "max_error_over_bound": entrant.largest("error_over_bound"),
                "max_absolute_error": entrant.largest("absolute_error"),
                "gate_seconds": entrant.gate_seconds or None,
                "gflop": cost.flop(case) / 1e9,
            }
            flags = list(entrant.flags)
            status, reason = entrant.status, entrant.reason or None
            if entrant.name in timed:
                status = Status.TIMED
                columns |= _times(entrant, baseline, case) | {"rank": ranks[entrant.name], "stopped_by": stopped_by}
                flags += ["few_blocks"] if len(entrant.seconds) < INTERVAL_BLOCKS else []
                flags += ["class_differs"] if classes.get(BASELINE) not in (None, entrant.precision_class) else []
            elif status is None:
                why = "there is nothing to compute" if case.empty else "only the gate was asked for"
                status, reason = Status.CHECKED, f"passed the gate; not timed, because {why}"
            columns["flags"] = ";".join(flags) or None
            yield make_record(self._plan, case, device, entrant.name, status, reason, **columns)


def _ranks(entrants: list[Entrant], timed: Mapping[str, Mapping[int, float]]) -> dict[str, int]:
    """Rank the timed ones, those of each precision class among themselves."""
    ranks: dict[str, int] = {}
    for precision_class in {entrant.precision_class for entrant in entrants if entrant.name in timed}:
        alike = [entrant.name for entrant in entrants if entrant.precision_class == precision_class]
        ranks |= statistics.ranks({name: timed[name] for name in alike if name in timed})
    return ranks


def panels(entrants: list[Entrant], free: int) -> list[list[Entrant]]:
    """Split a group into panels whose predicted memory fits; each part after the first gets a baseline of its own.

    Args:
        entrants: Of one group; those that have ended already are left out.
        free: Memory that a panel may take, in bytes.
    """
    going = [entrant for entrant in entrants if entrant.going]
    baseline = next((entrant for entrant in going if entrant.name == BASELINE), None)
    parts: list[list[Entrant]] = [[]]
    for entrant in going:
        taken = sum(member.predicted_bytes for member in parts[-1])
        if parts[-1] and taken + entrant.predicted_bytes > free:
            # Alone, and so without a ratio, where it would not fit beside the baseline.
            together = baseline is not None and baseline.predicted_bytes + entrant.predicted_bytes <= free
            parts.append([baseline.again()] if baseline is not None and together else [])
        parts[-1].append(entrant)
    return [part for part in parts if part]


def _times(entrant: Entrant, baseline: Mapping[int, float], case: Case) -> dict[str, Any]:
    """Return the columns that only a timed row has."""
    summary = statistics.summarize(list(entrant.seconds.values()))
    columns: dict[str, Any] = {
        "processes": 1,
        "blocks": len(entrant.seconds),
        "calls": round(python_statistics.median(entrant.calls)),
        "min_seconds": summary.minimum,
        "p25_seconds": summary.p25,
        "median_seconds": summary.median.estimate,
        "mean_seconds": summary.mean,
        "p75_seconds": summary.p75,
        "p95_seconds": summary.p95,
        "median_low_seconds": summary.median.low,
        "median_high_seconds": summary.median.high,
        "gflop_per_second": cost.flop(case) / 1e9 / summary.median.estimate,
    }
    if entrant.forward_seconds:
        columns["forward_seconds"] = python_statistics.median(entrant.forward_seconds.values())
        columns["backward_seconds"] = columns["median_seconds"] - columns["forward_seconds"]
    ratio = statistics.paired_ratio(baseline, entrant.seconds)
    if ratio is not None:
        shared = [baseline[block] for block in sorted(set(baseline) & set(entrant.seconds))]
        columns |= {
            "baseline": BASELINE,
            "baseline_median_seconds": python_statistics.median(shared),
            "speedup": ratio.estimate,
            "speedup_low": ratio.low,
            "speedup_high": ratio.high,
        }
    return columns


def _too_large(who: str, needed: int, free: int) -> str:
    return f"{who} would need {needed / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are free: not attempted"

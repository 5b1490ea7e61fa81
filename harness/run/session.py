"""Cases and backends in, records out.

For each case, mode and device (a group): ask every backend whether it is here, can do the case and fits; let the panels
gate and time those that can; yield one record for every planned cell, whatever happened.
"""

from __future__ import annotations

import dataclasses
import math
import statistics as python_statistics
from collections.abc import Callable, Iterator, Mapping, Set
from typing import Any, Final

from harness.case import Case
from harness.entrant import Entrant
from harness.examination import Expectations
from harness.examiners import Examiners, side_by_side
from harness.loader import Loader
from harness.machine import environment
from harness.panel import Panel
from harness.plan import BASELINE, make_record
from harness.process.supervisor import WorkerError
from harness.record import Record, Relation, Status
from harness.sitting import Sitting
from harness.timing import cost, statistics, steadiness

#: A GEMM so many times as fast as multiply-add chains ever were in a run has units that these do not reach; one that is
#: less ahead was measured in a better moment.
OTHER_UNITS: Final = 1.5
#: A time of less than 1 / 1.05 of what this machine could do at best is no time.
IMPLAUSIBLE: Final = 1.05


class Runner:
    """Carries out a plan.

    Args:
        sitting: The plan, the workers and whom to tell.
        free_bytes: Memory that the workers may take together, asked when a group begins, in bytes.
        peaks: What each device can do; one that is not there leaves its rows' limits empty.
        survey: Measures a device again, before a row is called faster than it.
        device_bytes: Memory of a device that has its own.
    """

    def __init__(
        self,
        sitting: Sitting,
        free_bytes: Callable[[], int] = environment.available_bytes,
        peaks: Mapping[str, cost.Peaks] | None = None,
        survey: Callable[[str], cost.Peaks] | None = None,
        device_bytes: Callable[[str], int | None] = environment.device_bytes,
    ) -> None:
        self._sitting = sitting
        self._plan = sitting.plan
        self._workers = sitting.workers
        self._free_bytes, self._device_bytes = free_bytes, device_bytes
        self._expectations = Expectations(sitting.workers, sitting.plan.time_limit_seconds)
        self._examiners = Examiners(sitting, self._expectations)
        self._loader = Loader(sitting)
        self._peaks, self._survey = dict(peaks or {}), survey
        #: The highest pace so far, by arithmetic.
        self._best_paces: dict[str, float] = {}
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
        # The reference holds its results while the contestants hold theirs, and examiners may be there besides.
        free -= needed + side_by_side(self._plan.threads) * cost.PROCESS_BYTES
        baselines: list[Entrant] = []
        processes: dict[int, int] = {}
        begun = self._sitting.now()
        self._expectations.device = device
        try:
            for entrant in entrants:
                if entrant.going:
                    self._ask(entrant, case, device, free)
            for members in panels(entrants, min(free, self._device_bytes(device) or free)):
                baselines += [entrant for entrant in members if entrant.name == BASELINE]
                for entrant in members:
                    # The panel before may have replaced the worker.
                    entrant.worker = self._loader.load(entrant.name, device)[0] or entrant.worker
                panel = Panel(self._sitting, case, device, members, self._examiners, self._expectations, self._loader)
                panel.measure(begun, processes)
        finally:
            self._expectations.forget(case)
            for entrant in entrants:
                if entrant.loaded:
                    self.workers_said[f"{entrant.name} on {device}"] = entrant.loaded
                if self._workers.cold:
                    self._workers.discard(entrant.name, device)
        yield from self._records(entrants, baselines, case, device, processes)

    def _ask(self, entrant: Entrant, case: Case, device: str, free: int) -> None:
        """Load and ask whether it is here, can do this, and fits."""
        entrant.phase = "load"
        entrant.worker, loaded = self._loader.load(entrant.name, device)
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

    def _records(
        self,
        entrants: list[Entrant],
        baselines: list[Entrant],
        case: Case,
        device: str,
        processes: Mapping[int, int],
    ) -> Iterator[Record]:
        going = [entrant for entrant in baselines if entrant.going]
        baseline = {block: time for entrant in going for block, time in entrant.seconds.items()}
        disturbed = frozenset(block for entrant in going for block in entrant.disturbed_blocks)
        cost_of_baseline = going[0].columns if going else {}
        timed = {entrant.name: entrant.seconds for entrant in entrants if entrant.going and entrant.seconds}
        arithmetic, paces = cost.arithmetic_of(case), [pace for entrant in entrants for pace in entrant.paces.values()]
        self._best_paces[arithmetic] = max([self._best_paces.get(arithmetic, 0.0), *paces])
        limit_seconds = self._limit(case, device, timed)
        implausible = {
            name
            for name, seconds in timed.items()
            if limit_seconds is not None and limit_seconds > IMPLAUSIBLE * python_statistics.median(seconds.values())
        }
        band = self._plan.band
        ranks = _ranks([entrant for entrant in entrants if entrant.name not in implausible], timed, processes, band)
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
                "limit_seconds": limit_seconds,
            }
            status, reason = entrant.status, entrant.reason or None
            if entrant.name in timed:
                status = Status.TIMED
                columns |= _times(entrant, case, processes)
                quiet = set(entrant.seconds) - disturbed - entrant.disturbed_blocks
                columns |= _comparison(entrant, baseline, processes, quiet, band)
                columns |= {"rank": ranks.get(entrant.name), "break_even_calls": _break_even(columns, cost_of_baseline)}
                if limit_seconds is not None:
                    columns["limit_fraction"] = limit_seconds / columns["median_seconds"]
                    columns |= _paced_fraction(entrant, self._paced_limits(case, device, entrant.paces), processes)
                    known = [entrant.columns.get(column) for column in ("device_seconds", "graph_seconds")]
                    if any(seconds is not None and limit_seconds > IMPLAUSIBLE * seconds for seconds in known):
                        entrant.flag("device_under_limit")
                if entrant.name in implausible:
                    entrant.flag("implausible")
                if len(entrant.seconds) < statistics.LEAST_VALUES:
                    entrant.flag("few_blocks")
                if columns["steadiness"] == steadiness.NO_STEADY_STATE:
                    entrant.flag("no_steady_state")
                entrant.flag(_disturbance(columns, len(quiet)))
                if classes.get(BASELINE) not in (None, entrant.precision_class):
                    entrant.flag("class_differs")
            elif status is None:
                why = entrant.untimeable or "only the gate was asked for"
                why = "there is nothing to compute" if case.empty else why
                status, reason = Status.CHECKED, f"passed the gate; not timed, because {why}"
            columns["flags"] = ";".join(entrant.flags) or None
            yield make_record(self._plan, case, device, entrant.name, status, reason, **columns)

    def _limit(self, case: Case, device: str, timed: Mapping[str, Mapping[int, float]]) -> float | None:
        """The least time that the device could take, in seconds; measured again before anybody seems to beat it."""
        if device not in self._peaks:
            return None
        limit = cost.limit_seconds(case, self._peaks[device])
        fastest = min((python_statistics.median(seconds.values()) for seconds in timed.values()), default=None)
        if limit is None or fastest is None or limit <= IMPLAUSIBLE * fastest or self._survey is None:
            return limit
        self._sitting.observer.stage("the machine's limit once more")
        self._peaks[device] = self._peaks[device].best(self._survey(device))
        return cost.limit_seconds(case, self._peaks[device])

    def _paced_limits(self, case: Case, device: str, paces: Mapping[int, float]) -> dict[int, float]:
        """The limit at each block's pace, in seconds; none if such a pace is not what the limit is made of.

        Where units that no multiply-add chain reaches make the peak, a chain's pace says nothing of it.
        """
        arithmetic = cost.arithmetic_of(case)
        peaks = self._peaks.get(device)
        if peaks is None or (rate := peaks.arithmetic.get(arithmetic)) is None:
            return {}
        if rate.flop_per_second >= OTHER_UNITS * max(rate.chains or 0.0, self._best_paces.get(arithmetic, 0.0)):
            return {}
        limits = {block: cost.limit_seconds(case, peaks.at_pace(arithmetic, pace)) for block, pace in paces.items()}
        return {block: limit for block, limit in limits.items() if limit is not None}


def _ranks(
    entrants: list[Entrant],
    timed: Mapping[str, Mapping[int, float]],
    processes: Mapping[int, int],
    band: float,
) -> dict[str, int]:
    """Rank the timed ones, those of each precision class among themselves."""
    ranks: dict[str, int] = {}
    for precision_class in {entrant.precision_class for entrant in entrants if entrant.name in timed}:
        alike = [entrant.name for entrant in entrants if entrant.precision_class == precision_class]
        ranks |= statistics.ranks({name: timed[name] for name in alike if name in timed}, processes, band)
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


def _times(entrant: Entrant, case: Case, processes: Mapping[int, int]) -> dict[str, Any]:
    """Return the columns that only a timed row has, but for what compares it with others."""
    summary = statistics.summarize(list(entrant.seconds.values()))
    columns: dict[str, Any] = {
        "processes": len({processes[block] for block in entrant.seconds}),
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
        "steadiness": steadiness.classify(entrant.seconds, processes),
        "disturbed_blocks": len(entrant.disturbed_blocks),
        "answer_seconds": entrant.answer_seconds,
        "stopped_by": entrant.stopped_by,
    }
    if entrant.forward_seconds:
        columns["forward_seconds"] = python_statistics.median(entrant.forward_seconds.values())
        columns["backward_seconds"] = columns["median_seconds"] - columns["forward_seconds"]
    return columns


def _comparison(
    entrant: Entrant,
    baseline: Mapping[int, float],
    processes: Mapping[int, int],
    quiet: Set[int],
    band: float,
) -> dict[str, Any]:
    """Return the columns that compare a row with the baseline; none without a block that both were in."""
    found = statistics.compare(entrant.seconds, baseline, processes, band)
    if found is None:
        return {}
    shared = [time for block, time in baseline.items() if block in entrant.seconds]
    columns: dict[str, Any] = {
        "baseline": BASELINE,
        "baseline_median_seconds": python_statistics.median(shared),
        "speedup": found.ratio.estimate,
        "speedup_low": found.ratio.low,
        "speedup_high": found.ratio.high,
    }
    if entrant.name == BASELINE:
        return columns  # it is no faster than itself
    kept = {block: time for block, time in entrant.seconds.items() if block in quiet}
    without = found if len(kept) == len(entrant.seconds) else statistics.compare(kept, baseline, processes, band)
    return columns | {
        "comparison": found.relation,
        "comparison_undisturbed": without.relation if without else Relation.AMBIGUOUS,
        "unit": found.unit,
        "block_spread": found.block_spread,
        "process_spread": found.process_spread,
    }


def _paced_fraction(
    entrant: Entrant, limits: Mapping[int, float], processes: Mapping[int, int]
) -> dict[str, float | None]:
    """Return the columns that compare a row with the limit in each of its blocks."""
    found = statistics.compare(entrant.seconds, limits, processes)
    if found is None:
        return {}
    return {
        "paced_limit_fraction": found.ratio.estimate,
        "paced_limit_fraction_low": found.ratio.low,
        "paced_limit_fraction_high": found.ratio.high,
    }


def _disturbance(columns: Mapping[str, Any], quiet: int) -> str | None:
    """Say that the verdict hangs on disturbed blocks, or that there are hardly others, as a flag."""
    without = columns.get("comparison_undisturbed")
    if quiet < columns["blocks"] / 2:
        return "mostly_disturbed"
    # With fewer quiet blocks than an interval needs, less can be said of course.
    differs = without != columns.get("comparison") and quiet >= statistics.LEAST_VALUES
    return f"undisturbed={without}" if differs else None


def _break_even(columns: Mapping[str, Any], baseline: Mapping[str, Any]) -> int | None:
    """Calls after which preparing, compiling and calling have taken less time than the baseline's; None if never."""
    if columns.get("comparison") != Relation.FASTER or "first_call_seconds" not in baseline:
        return None
    ahead = sum(columns[name] - baseline[name] for name in ("prepare_seconds", "first_call_seconds"))
    gained = columns["baseline_median_seconds"] - columns["median_seconds"]
    # The first call is in `ahead`; each one after it gains.
    return 1 if ahead <= 0 else 1 + math.ceil(ahead / gained) if gained > 0 else None


def _too_large(who: str, needed: int, free: int) -> str:
    return f"{who} would need {needed / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are free: not attempted"

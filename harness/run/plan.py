"""The plan: the cases, backends and limits of a run, and the rows that it will make."""

from __future__ import annotations

import dataclasses
import functools
import secrets
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final

from harness.case import MODE_NAMES, MODES, Case, CaseError, Mode
from harness.catalog.case_names import case_of
from harness.catalog.core import in_core
from harness.catalog.registry import Entry, RegistryError
from harness.catalog.selection import Selection, choose
from harness.catalog.suites import ONE_LAYER, Suite, suite
from harness.machine import environment
from harness.machine.threads import budget
from harness.output.listing import availability
from harness.record import Status
from harness.run.options import PlanError, PlanOptions
from harness.timing import roofline

#: Backend that speed is compared with, planned in every group that is timed.
BASELINE: Final = "torch-bilinear"
#: Suite of cases that the command line names one by one.
COMMAND_LINE_SUITE: Final = "command-line"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Cases, backends and limits of a run.

    Attributes:
        run_id: Identifier of the run in every row.
        suite: Name of the suite.
        cases: Cases, mode included, in the order of measuring.
        backends: Entries by the name used in the rows; with timing the baseline is added if missing.
        devices: Devices in the order of measuring; a group has one.
        threads: Number of CPUs of every worker.
        seed: Seed of the order of measuring; the cases carry the seed of their inputs.
        budget_seconds: Measuring time of a group, fresh processes included, in seconds.
        target: Half-width of the intervals at which measuring stops, as a share of the ratio.
        band: Half-width of the equivalence band, as a share of the ratio.
        processes: Largest number of fresh processes of a backend in a group.
        time_limit_seconds: Time limit of any one request, such as a preparation with its first call, in seconds.
        timing: False for the gate alone.
        flush_l2: True if twice the GPU's L2 is written before each timed call.
        recheck: True if edge cases are asked that an earlier run has found right.
        wanted: Each text of ``--backend`` with the backends that it stands for; one of them has to be asked.
        left_out: Backends that could be measured here and are not in the core set, if the run measures that.
    """

    run_id: str
    suite: str
    cases: tuple[Case, ...]
    backends: Mapping[str, Entry]
    devices: tuple[str, ...]
    threads: int
    seed: int = 0
    budget_seconds: float = 30.0
    target: float = 0.02
    band: float = 0.02
    processes: int = 40
    time_limit_seconds: float = 120.0
    timing: bool = True
    flush_l2: bool = False
    recheck: bool = False
    wanted: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    left_out: tuple[str, ...] = ()

    def groups(self) -> list[tuple[Case, str]]:
        """Return (case, device) in the order of measuring."""
        return [(case, device) for device in self.devices for case in self.cases]

    def cells(self, case: Case, device: str) -> list[tuple[str, str, str, str]]:
        """Identify the planned rows of a group, as ``Record.cell`` does; the baseline first."""
        first = [BASELINE] if self.timing or BASELINE in self.backends else []
        names = [*first, *(name for name in self.backends if name != BASELINE)]
        return [(case.name, case.mode, name, device) for name in names]


def make_plan(run_id: str, options: PlanOptions) -> Plan:
    """Turn options into a plan, or reject them before anything is measured.

    Raises:
        CaseError: A case that cannot be, or does not fit into this machine's memory.
        SuiteError: No such suite.
        RegistryError: No such backend, or no PyTorch, of which the reference is made.
        BudgetError: A thread budget that this machine does not have.
        PlanError: Options that contradict each other, or a device that this machine does not have.
    """
    chosen_suite, cases = _chosen_cases(options)
    changes = {"dtype": options.dtype, "precision": options.precision}
    changes = {key: value for key, value in changes.items() if value is not None}
    cases = list(dict.fromkeys(dataclasses.replace(case, **changes) for case in cases))  # type: ignore[arg-type]
    modes = {MODE_NAMES[name] for name in options.modes} or set(MODES)
    wanted: list[Mode] = [mode for mode in MODES if mode in modes]
    devices = _chosen_devices(options)
    selection = _chosen_backends(options, chosen_suite, devices)
    # No backend can know a drawn seed beforehand and bring the answers along. Every row has the seed.
    seed = secrets.randbelow(2**31) if options.seed is None else options.seed
    given = {field: getattr(options, field) for field in ("target", "band", "budget_seconds", "processes")}
    return Plan(
        run_id=run_id,
        suite=chosen_suite.name,
        cases=tuple(dataclasses.replace(case, mode=mode, seed=seed) for case in cases for mode in wanted),
        backends=selection.entries,
        devices=devices,
        threads=budget(options.threads),
        seed=seed,
        time_limit_seconds=options.time_limit_seconds,
        timing=options.timing,
        flush_l2=options.flush_l2,
        recheck=options.recheck,
        wanted=selection.wanted,
        left_out=tuple(availability(selection.left_out, devices).ready),
        **{field: getattr(chosen_suite, field) if value is None else value for field, value in given.items()},
    )


def _chosen_cases(options: PlanOptions) -> tuple[Suite, list[Case]]:
    """Return the suite, whose defaults hold, and the cases that options ask for."""
    if options.suite is not None and (options.cases or options.quick):
        other = "--case" if options.cases else "--quick"
        raise PlanError(f"--suite and {other} were given together, expected one of them")
    if not options.cases:
        usual = ONE_LAYER if options.quick else suite(options.suite or "quick")
        return usual, [entry.case for entry in usual.entries]
    cases = list(dict.fromkeys(case_of(text) for text in options.cases))
    if options.quick and len(cases) > 1:
        raise PlanError(f"--quick measures one case, {len(cases)} were given: leave out --quick or all but one")
    total = environment.total_bytes()
    for case in cases:
        needed = max(roofline.reference_bytes(case), roofline.backend_bytes(case, 0))
        if needed > total:
            raise CaseError(
                f"case {case.name} would take {needed / 2**30:,.1f} GiB, "
                f"this machine has {total / 2**30:,.1f} GiB: choose a smaller one"
            )
    return ONE_LAYER if options.quick else Suite(COMMAND_LINE_SUITE, "cases of the command line", ()), cases


def _chosen_backends(options: PlanOptions, chosen_suite: Suite, devices: Collection[str]) -> Selection:
    """Return the backends that options ask for, or the usual ones of the suite."""
    # A check compares with the reference alone, so nn.Bilinear is checked only where it is asked for.
    always = BASELINE if options.timing else None
    usual = functools.partial(in_core, devices=devices) if options.timing and chosen_suite.core else list
    selection = choose(options.backends, options.skip, always=always, usual=usual)
    torch = selection.known[BASELINE].installed()
    if not torch.ok:
        raise RegistryError(f"the reference is nn.Bilinear in float64, but {torch.reason}")
    return selection


def _chosen_devices(options: PlanOptions) -> tuple[str, ...]:
    """Return the devices that options ask for, or all that are here."""
    here = environment.devices()
    devices = tuple(dict.fromkeys(options.devices)) or here
    if "cuda" in devices and "cuda" not in here:
        raise PlanError("--device cuda: nvidia-smi lists no GPU on this machine; leave --device out, or give cpu")
    if options.flush_l2 and "cpu" in devices:
        raise PlanError(
            "--flush-l2 was given with rows on the CPU, whose caches no process can empty for sure: "
            "add --device cuda, or leave it out"
        )
    return devices


def complete_groups(plan: Plan, rows: Sequence[Mapping[str, str]]) -> frozenset[tuple[str, str, str]]:
    """Return the groups (case, mode, device) of which every planned row is there and none was interrupted."""
    there = {
        (row["case"], row["mode"], row["backend"], row["device"]) for row in rows if row["status"] != "interrupted"
    }
    return frozenset(
        (case.name, case.mode, device)
        for case, device in plan.groups()
        if all(cell in there for cell in plan.cells(case, device))
    )


def never_asked(plan: Plan, rows: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return each text of ``--backend`` of which no backend could be asked, with the reason of the first one."""
    reasons: dict[str, str] = {}
    asked = set[str]()
    for row in rows:
        not_for_device = row["status"] == Status.UNSUPPORTED and row["phase"] == "load"
        if row["status"] == Status.UNAVAILABLE or not_for_device:
            reasons.setdefault(row["backend"], row["reason"])
        else:
            asked.add(row["backend"])
    return {
        text: next((reasons[name] for name in names if name in reasons), "it has no row")
        for text, names in plan.wanted.items()
        if asked.isdisjoint(names)
    }

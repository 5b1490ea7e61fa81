"""The plan: the cases, backends and limits of a run, and the rows that it will make."""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from harness.case import MODES, Case, CaseError, Mode
from harness.catalog.registry import Entry, RegistryError, entries, select
from harness.catalog.suites import SUITES, Suite, SuiteError, suite
from harness.machine import environment
from harness.machine.threads import budget
from harness.output.store import Json, StoreError
from harness.output.store import environment as stored_environment
from harness.timing import roofline

#: Backend that speed is compared with, planned in every group.
BASELINE: Final = "torch-bilinear"
#: Suite of cases that the command line names one by one.
COMMAND_LINE_SUITE: Final = "command-line"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PlanOptions:
    """Options of a command line; None leaves the choice to the suite or the machine.

    Attributes:
        suite: Name of a suite; not together with ``cases``.
        cases: Cases as text.
        backends: Names of backends; default all.
        devices: ``cpu`` or ``cuda``; default all devices of the machine.
        modes: ``forward`` or ``forward_backward``; default both.
        dtype: Dtype in place of every case's own.
        precision: Precision in place of every case's own.
        threads: Number of CPUs of every worker; default all.
        seed: Seed of the inputs and of the order of measuring; default drawn.
        budget_seconds: Measuring time of a group, in seconds.
        target: Half-width of the intervals at which measuring stops, as a share of the ratio.
        band: Half-width of the equivalence band, as a share of the ratio.
        processes: Largest number of fresh processes of a backend in a group.
        time_limit_seconds: Time limit of any one request, in seconds.
        timing: False for the gate alone.
        flush_l2: True if twice the GPU's L2 is written before each timed call.
    """

    suite: str | None = None
    cases: Sequence[str] = ()
    backends: Sequence[str] = ()
    devices: Sequence[str] = ()
    modes: Sequence[str] = ()
    dtype: str | None = None
    precision: str | None = None
    threads: int | None = None
    seed: int | None = None
    budget_seconds: float | None = None
    target: float | None = None
    band: float | None = None
    processes: int | None = None
    time_limit_seconds: float = 120.0
    timing: bool = True
    flush_l2: bool = False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """Options of carrying out a plan.

    Attributes:
        freeze: True if idle workers are stopped while another one runs.
        empty_compile_cache: True if every cell has empty compile caches and a fresh worker.
        roofline: True if the machine's peaks are measured.
    """

    freeze: bool = True
    empty_compile_cache: bool = False
    roofline: bool = True


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Cases, backends and limits of a run.

    Attributes:
        run_id: Identifier of the run in every row.
        suite: Name of the suite.
        cases: Cases, mode included, in the order of measuring.
        backends: Entries by the name used in the rows; the baseline is added if missing.
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

    def groups(self) -> list[tuple[Case, str]]:
        """Return (case, device) in the order of measuring."""
        return [(case, device) for device in self.devices for case in self.cases]

    def cells(self, case: Case, device: str) -> list[tuple[str, str, str, str]]:
        """Identify the planned rows of a group, as ``Record.cell`` does; the baseline first."""
        names = [BASELINE, *(name for name in self.backends if name != BASELINE)]
        return [(case.name, case.mode, name, device) for name in names]


def make_plan(run_id: str, options: PlanOptions) -> Plan:
    """Turn options into a plan, or reject them before anything is measured.

    Raises:
        CaseError: A case that cannot be, or does not fit into this machine's memory.
        SuiteError: No such suite, or options that contradict each other.
        RegistryError: No such backend, or no PyTorch, of which the reference is made.
        BudgetError: A thread budget that this machine does not have.
    """
    name, cases = _chosen_cases(options)
    changes = {"dtype": options.dtype, "precision": options.precision}
    changes = {key: value for key, value in changes.items() if value is not None}
    cases = list(dict.fromkeys(dataclasses.replace(case, **changes) for case in cases))  # type: ignore[arg-type]
    modes: list[Mode] = [mode for mode in MODES if not options.modes or mode in options.modes]
    selected = select([BASELINE]) | select(options.backends or entries())
    torch = selected[BASELINE].installed()
    if not torch.ok:
        raise RegistryError(f"the reference is nn.Bilinear in float64, but {torch.reason}")
    # No backend can know a drawn seed beforehand and bring the answers along. Every row has the seed.
    seed = secrets.randbelow(2**31) if options.seed is None else options.seed
    usual = SUITES.get(name, Suite(COMMAND_LINE_SUITE, "cases of the command line", ()))
    chosen = {field: getattr(options, field) for field in ("target", "band", "budget_seconds", "processes")}
    return Plan(
        run_id=run_id,
        suite=name,
        cases=tuple(dataclasses.replace(case, mode=mode, seed=seed) for case in cases for mode in modes),
        backends=selected,
        devices=_chosen_devices(options),
        threads=budget(options.threads),
        seed=seed,
        time_limit_seconds=options.time_limit_seconds,
        timing=options.timing,
        flush_l2=options.flush_l2,
        **{field: getattr(usual, field) if value is None else value for field, value in chosen.items()},
    )


def _chosen_cases(options: PlanOptions) -> tuple[str, list[Case]]:
    """Return the suite's name and the cases that the options choose."""
    if options.cases and options.suite is not None:
        raise SuiteError("--suite and --case were given together, expected one of them")
    if not options.cases:
        name = options.suite or "quick"
        return name, [entry.case for entry in suite(name).entries]
    cases = list(dict.fromkeys(Case.parse(text) for text in options.cases))
    total = environment.total_bytes()
    for case in cases:
        needed = max(roofline.reference_bytes(case), roofline.backend_bytes(case, 0))
        if needed > total:
            raise CaseError(
                f"case {case.name} would take {needed / 2**30:,.1f} GiB, "
                f"this machine has {total / 2**30:,.1f} GiB: choose a smaller one"
            )
    return COMMAND_LINE_SUITE, cases


def _chosen_devices(options: PlanOptions) -> tuple[str, ...]:
    """Return the devices that the options choose, or all of this machine."""
    devices = tuple(dict.fromkeys(options.devices)) or ("cpu", *(["cuda"] if environment.gpus() else []))
    if options.flush_l2 and "cpu" in devices:
        raise SuiteError(
            "--flush-l2 was given with rows on the CPU, whose caches no process can empty for sure: "
            "add --device cuda, or leave it out"
        )
    return devices


def stored(plan: Plan, options: RunOptions) -> Json:
    """Return a plan as ``environment.json`` holds it, for ``--resume``."""
    values = {field.name: getattr(plan, field.name) for field in dataclasses.fields(plan)}
    values |= {"cases": [dataclasses.asdict(case) for case in plan.cases], "backends": list(plan.backends)}
    return values | {"options": dataclasses.asdict(options)}


def restore(folder: Path) -> tuple[Plan, RunOptions]:
    """Read a run's plan back.

    Raises:
        StoreError: The folder holds no plan that this version can resume.
    """
    try:
        values = dict(stored_environment(folder)["plan"])
        options = RunOptions(**values.pop("options"))
        values["cases"] = tuple(Case(**case) for case in values["cases"])
        values["backends"] = select(values["backends"])
        values["devices"] = tuple(values["devices"])
        values["threads"] = budget(values["threads"])
        return Plan(**values), options
    except (KeyError, TypeError) as error:
        raise StoreError(f"{folder} holds no plan that this version can resume ({error})") from None


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

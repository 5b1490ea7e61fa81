"""The command line: the only place that prints or exits.

Heavy imports stay inside the commands that need them, so that ``list`` and ``--help`` answer at once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import secrets
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from harness.case import DTYPES, MODES, PRECISIONS, Case, CaseError
from harness.catalog.registry import RegistryError, entries, select
from harness.catalog.suites import SUITES, Suite, SuiteError, suite

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console
    from rich.progress import Progress

    from harness.output.store import Store
    from harness.process.supervisor import Supervisor
    from harness.record import Record
    from harness.run.plan import Plan
    from harness.timing.roofline import Peaks

RESULTS: Final = Path("results")
COMMAND_LINE_SUITE: Final = "command-line"
#: Exit codes.
BAD_ROWS, USAGE, INTERRUPTED = 1, 2, 130
#: Width of what is printed into a file or a pipe, in characters.
PIPE_WIDTH: Final = 160

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Check implementations of torch.nn.Bilinear against nn.Bilinear itself, then time them.",
)


class Device(enum.StrEnum):
    """Where a backend runs."""

    CPU = "cpu"
    CUDA = "cuda"


class ModeOption(enum.StrEnum):
    """What is timed."""

    FORWARD = "forward"
    FORWARD_BACKWARD = "forward_backward"


def _share(text: str) -> float:
    """Read a share, as in ``0.8%`` or ``0.008``."""
    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = 0.0
    if not 0 < value < 1:
        raise typer.BadParameter(f"{text!r} is no share, expected one such as 2% or 0.02, above 0 and below 100%")
    return value


SuiteOption = Annotated[str | None, typer.Option("--suite", help="A named list of cases (see `list`); default: quick.")]
CaseOption = Annotated[
    list[str] | None,
    typer.Option("--case", help="BATCHxIN1xIN2xOUT[:float64][:tf32][:nobias], as in 2708x512x512x1; repeatable."),
]
BackendOption = Annotated[
    list[str] | None, typer.Option("--backend", help="A backend; NAME#2 enters it again; repeatable. Default: all.")
]
DeviceOption = Annotated[list[Device] | None, typer.Option("--device", help="Repeatable. Default: all that are found.")]
ModesOption = Annotated[list[ModeOption] | None, typer.Option("--mode", help="Repeatable. Default: both.")]
ThreadsOption = Annotated[int | None, typer.Option("--threads", help="CPUs of every worker. Default: all.")]
DtypeOption = Annotated[
    str | None, typer.Option("--dtype", help=f"Of every case, in place of its own: {', '.join(DTYPES)}.")
]
PrecisionOption = Annotated[
    str | None,
    typer.Option(
        "--precision", help=f"Of every case's float32 products, for all backends alike: {', '.join(PRECISIONS)}."
    ),
]
SeedOption = Annotated[
    int | None,
    typer.Option("--seed", min=0, help="Of the inputs and the order of measuring. Default: drawn, and in every row."),
]
LimitOption = Annotated[
    float,
    typer.Option(
        "--time-limit", min=0.1, help="Seconds that compiling and one call may take before a worker is killed."
    ),
]


def main() -> None:
    """Run the command line; errors of use are one line, without a traceback."""
    from harness.machine.threads import BudgetError
    from harness.output.store import StoreError
    from harness.output.sweep import GrowthError

    signal.signal(signal.SIGTERM, _interrupt)
    try:
        app(standalone_mode=True)
    except (CaseError, SuiteError, RegistryError, BudgetError, StoreError, GrowthError) as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(USAGE)
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        sys.exit(INTERRUPTED)


@app.command("list")
def list_(
    probe: Annotated[bool, typer.Option("--probe", help="Start each backend and ask it; takes a while.")] = False,
) -> None:
    """Show backends, suites and cases; imports no framework."""
    typer.echo("Backends (is the package installed?):")
    known = entries()
    for name, entry in known.items():
        installed = entry.installed()
        typer.echo(f"  {name:<16} {'installed' if installed.ok else installed.reason}   [{entry.distribution}]")
    if probe:
        typer.echo("\nAsked in a worker each:")
        for line in _probe(list(known)):
            typer.echo(f"  {line}")
    typer.echo("\nSuites (--suite NAME):")
    for name, listed in SUITES.items():
        typer.echo(f"  {name:<16} {len(listed.entries):>3} cases: {listed.purpose}")
    for name, listed in SUITES.items():
        if len(listed.entries) <= 20:
            typer.echo(f"\nCases of {name} (--case NAME):")
            for case in listed.entries:
                typer.echo(f"  {case.case.name:<24} {case.label}")


@app.command()
def check(
    suite: SuiteOption = None,
    case: CaseOption = None,
    backend: BackendOption = None,
    device: DeviceOption = None,
    mode: ModesOption = None,
    dtype: DtypeOption = None,
    precision: PrecisionOption = None,
    threads: ThreadsOption = None,
    seed: SeedOption = None,
    time_limit: LimitOption = 120.0,
) -> None:
    """Only check every backend against nn.Bilinear; time nothing, write nothing.

    The table says what each probe of the gate answered; below it stands, for each refusal, the first wrong element with
    both values and the seed that brings it back (--seed).
    """
    plan = dataclasses.replace(
        _plan("check", suite, case, backend, device, mode, threads, seed, dtype, precision),
        timing=False,
        time_limit_seconds=time_limit,
    )
    from harness.output import tables
    from harness.run.context import RunContext
    from harness.run.session import Runner

    records: list[Record] = []
    with _supervisor(plan) as workers, _progress(plan) as progress:
        records.extend(Runner(RunContext(plan, workers, progress)).run())
    console = _console()
    frame = _frame(records)
    for table in tables.checks(frame, _labels()):
        console.print(table)
    for lines in (tables.trouble(frame), tables.unasked(frame)):
        if lines is not None:
            console.print(lines)
            console.print()
    passed, bad = int((frame["status"] == "checked").sum()), _bad(frame)
    others = len(frame) - passed - bad
    console.print(
        f"{passed} of {len(frame)} passed the gate, {bad} did not"
        f"{f', {others} could not be asked' if others else ''}. Seed: {plan.seed}."
    )
    sys.exit(BAD_ROWS if _bad(frame) else 0)


@app.command()
def run(
    suite: SuiteOption = None,
    case: CaseOption = None,
    backend: BackendOption = None,
    device: DeviceOption = None,
    mode: ModesOption = None,
    dtype: DtypeOption = None,
    precision: PrecisionOption = None,
    threads: ThreadsOption = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder of the run; must not exist. Default: results/<run-id>.")
    ] = None,
    resume: Annotated[
        str | None, typer.Option("--resume", help="Complete a run that was stopped: its folder, id, or `latest`.")
    ] = None,
    target: Annotated[
        float | None,
        typer.Option(
            "--target",
            parser=_share,
            metavar="SHARE",
            help="Half-width of the interval at which measuring stops, as in 0.8%. Default: 2%, or the suite's.",
        ),
    ] = None,
    band: Annotated[
        float | None,
        typer.Option(
            "--band",
            parser=_share,
            metavar="SHARE",
            help="Equivalence band: ratios within it are no difference. Default: 2%, or the suite's.",
        ),
    ] = None,
    processes: Annotated[
        int | None,
        typer.Option("--processes", min=1, help="Most fresh processes of each backend. Default: 40, or the suite's."),
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option(
            "--budget",
            min=0.1,
            help="Seconds of measuring for a case in one mode on one device. Default: 30, or the suite's.",
        ),
    ] = None,
    empty_compile_cache: Annotated[
        bool, typer.Option("--empty-compile-cache", help="Empty compile caches and a fresh worker for every cell.")
    ] = False,
    flush_l2: Annotated[
        bool, typer.Option("--flush-l2", help="Write twice the GPU's L2 before each call; on a GPU only.")
    ] = False,
    roofline: Annotated[
        bool,
        typer.Option("--roofline/--no-roofline", help="Measure this machine's peaks, for the column `% of roofline`."),
    ] = True,
    seed: SeedOption = None,
    freeze: Annotated[
        bool, typer.Option("--freeze/--no-freeze", help="Stop idle workers while another one runs.")
    ] = True,
    time_limit: LimitOption = 120.0,
) -> None:
    """Check every backend, time those that are right, write CSV files, print the answer."""
    from harness.output import store

    if resume is not None:
        chosen = (suite, case, backend, device, mode, dtype, precision, threads, out)
        if any(option is not None for option in chosen):
            raise store.StoreError("--resume goes on with the plan of that run: give it alone")
        folder = store.find(resume, RESULTS)
        plan, options = _stored_plan(folder)
        skip = _complete_groups(plan, store.rows(folder / store.RECORDS))
        opened = store.Store.resume(folder, lambda row: (row["case"], row["mode"], row["device"]) in skip)
    else:
        run_id = store.new_run_id()
        folder = out if out is not None else RESULTS / run_id
        store.check_free(folder)
        plan = _plan(run_id, suite, case, backend, device, mode, threads, seed, dtype, precision)
        if flush_l2 and "cpu" in plan.devices:
            raise SuiteError(
                "--flush-l2 was given with rows on the CPU, whose caches no process can empty for sure: "
                "add --device cuda, or leave it out"
            )
        plan = dataclasses.replace(
            plan,
            band=plan.band if band is None else band,
            time_limit_seconds=time_limit,
            flush_l2=flush_l2,
            target=plan.target if target is None else target,
            budget_seconds=plan.budget_seconds if budget is None else budget,
            processes=plan.processes if processes is None else processes,
        )
        options = {"freeze": freeze, "empty_compile_cache": empty_compile_cache, "roofline": roofline}
        skip = frozenset()
        opened = store.Store.create(folder, _environment(plan, options))
    with opened:
        stopped = _measure(plan, options, opened, skip)
    _show(folder)
    if stopped:
        sys.exit(INTERRUPTED)
    sys.exit(BAD_ROWS if _bad(store.read(folder / store.RECORDS)) else 0)


@app.command("doctor")
def doctor_(threads: ThreadsOption = None) -> None:
    """Look at the machine before you trust it, and say what to do; takes about ten seconds."""
    from harness.machine.threads import budget
    from harness.output import tables
    from harness.process.supervisor import Supervisor, default_cache
    from harness.survey import doctor, facts, peaks

    count, limit = budget(threads), 120.0
    with Supervisor(count, default_cache()) as workers:
        measured = peaks.measure(workers, count, limit)
        findings = doctor.diagnose(facts.gather(count, measured))
        if told := doctor.trial(findings):
            # Advice that was not tried is hearsay.
            tried = peaks.products_with(workers, "numpy", told, limit)
            measured = dataclasses.replace(measured, products=(*measured.products, *tried))
            findings = doctor.diagnose(facts.gather(count, measured))
    console = _console()
    for table in tables.machine(measured.as_json(), doctor.as_json(findings)):
        console.print(table)
        console.print()


@app.command("report")
def report_(
    run: Annotated[str, typer.Argument(help="A run's folder, its id, or `latest`.")],
    plot: Annotated[
        Path | None,
        typer.Option("--plot", help="Draw how times grow with a size instead, into this file: .svg, .png or .pdf."),
    ] = None,
) -> None:
    """Print the tables of a run again, from its files."""
    from harness.output import store, sweep

    folder = store.find(run, RESULTS)
    if plot is None:
        _show(folder)
        return
    found = sweep.find(store.read(folder / store.RECORDS))
    sweep.draw(found, plot)
    console = _console()
    console.print(sweep.told(found))
    console.print(f"Figure: {_short(plot)}", style="bold", highlight=False)


@app.command("explain")
def explain_() -> None:
    """Walk through the operator step by step on the example of the article that started this."""
    from harness.explain import explain
    from harness.machine.threads import budget
    from harness.process.supervisor import Supervisor, WorkerError, default_cache

    with Supervisor(budget(None), default_cache()) as workers:
        try:
            for line in explain(workers):
                typer.echo(line)
        except (WorkerError, RuntimeError) as error:
            typer.echo(f"error: {error}", err=True)
            sys.exit(BAD_ROWS)


def _measure(plan: Plan, options: dict[str, Any], store: Store, skip: frozenset[tuple[str, str, str]]) -> bool:
    """Carry out the plan, row by row onto the disk; return whether it was interrupted."""
    from harness.output.store import add_to_environment
    from harness.run.context import RunContext
    from harness.run.plan import interrupted
    from harness.run.session import Runner
    from harness.survey import doctor, facts, peaks

    planned = {cell for case, device in plan.groups() for cell in plan.cells(case, device)}
    done = {cell for cell in planned if (cell[0], cell[1], cell[3]) in skip}
    stopped = False
    with _supervisor(plan, options["freeze"], options["empty_compile_cache"]) as workers, _progress(plan) as progress:

        def survey(device: str) -> Peaks:
            if device == "cpu":
                return peaks.measure(workers, plan.threads, plan.time_limit_seconds)
            return peaks.measure_device(workers, device, plan.time_limit_seconds)

        context = RunContext(plan, workers, progress, store.add_sample)
        if options["roofline"]:
            context.spot_peak = peaks.SpotPeak(workers, plan.time_limit_seconds).now
        runner = Runner(context)
        try:
            progress.begin("what this machine could do")
            measured = {device: survey(device) for device in plan.devices} if options["roofline"] else {}
            findings = doctor.diagnose(facts.gather(plan.threads, measured.get("cpu")))
            found = {device: device_peaks.as_json() for device, device_peaks in measured.items()}
            add_to_environment(store.folder, {"peaks": found, "doctor": doctor.as_json(findings)})
            runner = Runner(context, peaks=measured, survey=survey if measured else None)
            for record in runner.run(skip):
                store.add_record(record)
                done.add(record.cell)
        except KeyboardInterrupt:
            stopped = True
    for record in interrupted(plan, frozenset(done)):
        store.add_record(record)
    add_to_environment(store.folder, {"workers": runner.workers_said, "edge_case_seconds": runner.edge_case_seconds})
    return stopped


def _plan(
    run_id: str,
    suite_name: str | None,
    cases: list[str] | None,
    backends: list[str] | None,
    devices: list[Device] | None,
    modes: list[ModeOption] | None,
    threads: int | None,
    seed: int | None,
    dtype: str | None = None,
    precision: str | None = None,
) -> Plan:
    """Turn options into a plan; everything that can be wrong with them is found here, before anything is measured."""
    # Nobody knows a drawn seed beforehand, so no backend can bring the answers along; every row holds it.
    seed = secrets.randbelow(2**31) if seed is None else seed
    from harness.machine import environment
    from harness.machine.threads import budget
    from harness.run.plan import BASELINE, Plan
    from harness.timing import roofline

    if cases and suite_name is not None:
        raise SuiteError("--suite and --case were given together, expected one of them")
    if cases:
        name, chosen = COMMAND_LINE_SUITE, list(dict.fromkeys(Case.parse(text) for text in cases))
        total = environment.total_bytes()
        for case in chosen:
            needed = max(roofline.reference_bytes(case), roofline.backend_bytes(case, 0))
            if needed > total:
                raise CaseError(
                    f"case {case.name} would take {needed / 2**30:,.1f} GiB, "
                    f"this machine has {total / 2**30:,.1f} GiB: choose a smaller one"
                )
    else:
        name = suite_name or "quick"
        chosen = [entry.case for entry in suite(name).entries]
    changes: dict[str, Any] = {"dtype": dtype, "precision": precision}
    changes = {name: value for name, value in changes.items() if value is not None}
    chosen = list(dict.fromkeys(dataclasses.replace(case, **changes) for case in chosen))
    wanted = [mode.value for mode in dict.fromkeys(modes)] if modes else list(MODES)
    selected = select([BASELINE]) | select(backends or entries())
    torch = selected[BASELINE].installed()
    if not torch.ok:
        raise RegistryError(f"the reference is nn.Bilinear in float64, but {torch.reason}")
    found = [Device.CPU, *([Device.CUDA] if not devices and environment.gpus() else [])]
    usual = SUITES.get(name, Suite(COMMAND_LINE_SUITE, "cases of the command line", ()))
    return Plan(
        run_id=run_id,
        suite=name,
        target=usual.target,
        band=usual.band,
        budget_seconds=usual.budget_seconds,
        processes=usual.processes,
        cases=tuple(
            dataclasses.replace(case, mode=mode, seed=seed) for case in chosen for mode in MODES if mode in wanted
        ),
        backends=selected,
        devices=tuple(device.value for device in dict.fromkeys(devices or found)),
        threads=budget(threads),
        seed=seed,
    )


def _environment(plan: Plan, options: dict[str, Any]) -> dict[str, Any]:
    """What goes into ``environment.json``: the machine, and the plan as ``--resume`` reads it."""
    from harness.machine.environment import describe

    stored = {field.name: getattr(plan, field.name) for field in dataclasses.fields(plan)}
    stored |= {"cases": [dataclasses.asdict(case) for case in plan.cases], "backends": list(plan.backends)}
    return {"run_id": plan.run_id, **describe(), "plan": stored | {"options": options}}


def _stored_plan(folder: Path) -> tuple[Plan, dict[str, Any]]:
    """Read a plan back.

    Raises:
        StoreError: It is not one.
    """
    from harness.machine.threads import budget
    from harness.output.store import StoreError, environment
    from harness.run.plan import Plan

    try:
        stored = dict(environment(folder)["plan"])
        options = stored.pop("options")
        stored["cases"] = tuple(Case(**case) for case in stored["cases"])
        stored["backends"] = select(stored["backends"])
        stored["devices"] = tuple(stored["devices"])
        stored["threads"] = budget(stored["threads"])
        return Plan(**stored), {name: bool(options[name]) for name in ("freeze", "empty_compile_cache", "roofline")}
    except (KeyError, TypeError) as error:
        raise StoreError(f"{folder} holds no plan that this version can resume ({error})") from None


def _complete_groups(plan: Plan, rows: list[dict[str, str]]) -> frozenset[tuple[str, str, str]]:
    """Groups (case, mode, device) of which every planned row is there and none was interrupted."""
    there = {
        (row["case"], row["mode"], row["backend"], row["device"]) for row in rows if row["status"] != "interrupted"
    }
    return frozenset(
        (case.name, case.mode, device)
        for case, device in plan.groups()
        if all(cell in there for cell in plan.cells(case, device))
    )


def _show(folder: Path) -> None:
    """Print a run: the answer, what went wrong, the files, what next; then the tables, and how times grow."""
    from harness.output import store, sweep, tables

    records = store.read(folder / store.RECORDS)
    labels = _labels()
    console = _console()
    if records.empty:
        console.print(f"No row in {folder} yet.")
        return
    begun = tables.reached(records)
    if not begun.empty:
        console.print(tables.answer(begun, labels))
        console.print()
    if (line := tables.unreached(records)) is not None:
        console.print(line)
        console.print()
    if (trouble := tables.trouble(begun)) is not None:
        console.print(trouble)
        console.print()
    if (warnings := tables.warnings(store.environment(folder).get("doctor", []))) is not None:
        console.print(warnings)
        console.print()
    name = _short(folder)
    console.print(f"Files: {name / store.RECORDS}, {store.SAMPLES}, {store.ENVIRONMENT}", style="bold", highlight=False)
    stopped = bool((records["status"] == "interrupted").any())
    again = f"bilinear-bench run --resume {name} completes it; " if stopped else ""
    console.print(
        f"Next: {again}pandas.read_csv('{name / store.RECORDS}') loads the rows; "
        f"bilinear-bench report {name} prints this again; --case and --backend choose what to compare.\n",
        highlight=False,
    )
    for table in tables.tables(begun, labels):
        console.print(table)
    if (lines := tables.elsewhere(begun)) is not None:
        console.print(lines)
    if growths := sweep.find(records):
        console.print(sweep.told(growths))


def _labels() -> dict[str, str]:
    """What people call the cases of the suites, in whatever arithmetic they are asked for."""
    arithmetic = [*((dtype, "ieee") for dtype in DTYPES), ("float32", "tf32")]
    return {
        dataclasses.replace(entry.case, dtype=dtype, precision=precision).name: entry.label
        for listed in SUITES.values()
        for entry in listed.entries
        for dtype, precision in arithmetic
    }


def _short(folder: Path) -> Path:
    with contextlib.suppress(ValueError):
        return folder.resolve().relative_to(Path.cwd())
    return folder


def _frame(records: list[Record]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame([dataclasses.asdict(record) for record in records])


def _bad(records: pd.DataFrame) -> int:
    from harness.record import BAD

    return int(records["status"].isin([status.value for status in BAD]).sum())


def _probe(names: list[str]) -> Iterator[str]:
    from harness.machine.environment import gpus
    from harness.machine.threads import budget
    from harness.process.supervisor import Supervisor, WorkerError, default_cache

    devices = ["cpu", *(["cuda"] if gpus() else [])]
    with Supervisor(budget(None), default_cache()) as workers:
        for name in names:
            for device in devices:
                target = select([name])[name].target
                try:
                    worker, _ = workers.worker(name, device)
                    said = worker.request("load", 120.0, name=name, target=target, device=device)
                except WorkerError as error:
                    said = {"available": False, "reason": error.reason}
                workers.discard(name, device)
                detail = f"{said['version']}, imported in {said['import_seconds']:.2f} s" if said["available"] else ""
                yield f"{name:<16} {device:<5} {detail or 'no: ' + said['reason']}"


def _supervisor(plan: Plan, freeze: bool = True, empty_caches: bool = False) -> Supervisor:
    from harness.process.supervisor import Supervisor, default_cache

    return Supervisor(plan.threads, default_cache(), freeze, empty_caches)


def _console(stderr: bool = False) -> Console:
    from rich.console import Console

    console = Console(stderr=stderr)
    return console if console.is_terminal else Console(stderr=stderr, width=PIPE_WIDTH)


class _ProgressLine:
    """Says how far a run is, on standard error; never redraws by itself, so it never runs beside a sample."""

    def __init__(self, plan: Plan, progress: Progress, terminal: bool) -> None:
        self._progress = progress
        self._terminal = terminal
        self._task = progress.add_task("starting", total=len(plan.groups()))
        self._start = time.monotonic()
        self._begun = 0
        # Before anything is known: the budget, and as much again for compiling and checking.
        self._guess_seconds = 2 * plan.budget_seconds
        self._where = ""

    def begin(self, text: str) -> None:
        """What comes before the first group."""
        self._progress.update(self._task, description=text)
        if self._terminal:
            self._progress.refresh()
        else:
            self._progress.console.print(text, markup=False, highlight=False)

    def group(self, number: int, total: int, case: Case, device: str) -> None:
        """A group begins."""
        elapsed = time.monotonic() - self._start
        each = elapsed / self._begun if self._begun else self._guess_seconds
        left = each * (total - number + 1)
        self._begun += 1
        self._where = f"{case.name} {case.mode} {device}, about {max(1, round(left / 60))} min left"
        self._progress.update(self._task, completed=number - 1, description=self._where)
        if not self._terminal:
            self._progress.console.print(f"[{number}/{total}] {self._where}", markup=False, highlight=False)

    def stage(self, text: str) -> None:
        """What comes next within the group."""
        if self._terminal:
            self._progress.update(self._task, description=f"{self._where}: {text}")
            self._progress.refresh()


@contextlib.contextmanager
def _progress(plan: Plan) -> Iterator[_ProgressLine]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    console = _console(stderr=True)
    columns = (BarColumn(bar_width=20), MofNCompleteColumn(), TextColumn("{task.description}", markup=False))
    with Progress(
        *columns, console=console, auto_refresh=False, transient=True, disable=not console.is_terminal
    ) as progress:
        yield _ProgressLine(plan, progress, console.is_terminal)


def _interrupt(number: int, frame: object) -> None:
    """SIGTERM ends a run as Ctrl-C does: workers gone, rows written."""
    raise KeyboardInterrupt

"""The command line: the only place that prints or exits.

Heavy imports stay inside the commands that need them, so that ``list`` and ``--help`` answer at once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from harness.case import DTYPES, PRECISIONS, Case, CaseError
from harness.catalog.registry import RegistryError, entries, select
from harness.catalog.suites import SUITES, SuiteError

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console
    from rich.progress import Progress

    from harness.record import Record
    from harness.run.plan import Plan

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
    from harness.output import tables
    from harness.run import session
    from harness.run.plan import PlanOptions, make_plan

    options = PlanOptions(
        suite=suite,
        cases=case or (),
        backends=backend or (),
        devices=device or (),
        modes=mode or (),
        dtype=dtype,
        precision=precision,
        threads=threads,
        seed=seed,
        time_limit_seconds=time_limit,
        timing=False,
    )
    plan = make_plan("check", options)
    with _progress(plan) as progress:
        records = session.check(plan, progress)
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
    from harness.machine.environment import describe
    from harness.output import store
    from harness.run import session
    from harness.run.plan import PlanOptions, RunOptions, complete_groups, make_plan, restore, stored

    skip: frozenset[tuple[str, str, str]] = frozenset()
    if resume is not None:
        chosen = (suite, case, backend, device, mode, dtype, precision, threads, out)
        if any(option is not None for option in chosen):
            raise store.StoreError("--resume goes on with the plan of that run: give it alone")
        folder = store.find(resume, RESULTS)
        plan, how = restore(folder)
        skip = complete_groups(plan, store.rows(folder / store.RECORDS))
        opened = store.Store.resume(folder, lambda row: (row["case"], row["mode"], row["device"]) in skip)
    else:
        run_id = store.new_run_id()
        folder = out if out is not None else RESULTS / run_id
        store.check_free(folder)
        options = PlanOptions(
            suite=suite,
            cases=case or (),
            backends=backend or (),
            devices=device or (),
            modes=mode or (),
            dtype=dtype,
            precision=precision,
            threads=threads,
            seed=seed,
            budget_seconds=budget,
            target=target,
            band=band,
            processes=processes,
            time_limit_seconds=time_limit,
            flush_l2=flush_l2,
        )
        plan = make_plan(run_id, options)
        how = RunOptions(freeze=freeze, empty_compile_cache=empty_compile_cache, roofline=roofline)
        opened = store.Store.create(folder, {"run_id": run_id, **describe(), "plan": stored(plan, how)})
    with opened, _progress(plan) as progress:
        stopped = session.run(plan, how, opened, progress, skip)
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
    from harness.survey import doctor

    count = budget(threads)
    with Supervisor(count, default_cache()) as workers:
        diagnosis = doctor.measure_and_diagnose(workers, count, limit_seconds=120.0)
    console = _console()
    for table in tables.machine(diagnosis.peaks.as_json(), doctor.as_json(diagnosis.findings)):
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
    from harness.process.handle import WorkerError
    from harness.process.supervisor import Supervisor, default_cache

    with Supervisor(budget(None), default_cache()) as workers:
        try:
            for line in explain(workers):
                typer.echo(line)
        except (WorkerError, RuntimeError) as error:
            typer.echo(f"error: {error}", err=True)
            sys.exit(BAD_ROWS)


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
    from harness.process.handle import WorkerError
    from harness.process.protocol import Load, Loaded
    from harness.process.supervisor import Supervisor, default_cache

    devices = ["cpu", *(["cuda"] if gpus() else [])]
    with Supervisor(budget(None), default_cache()) as workers:
        for name in names:
            for device in devices:
                target = select([name])[name].target
                try:
                    worker, _ = workers.worker(name, device)
                    said = worker.request(Load(name, target, device), 120.0)
                except WorkerError as error:
                    said = Loaded(False, error.reason)
                workers.discard(name, device)
                detail = f"{said.version}, imported in {said.import_seconds:.2f} s" if said.available else ""
                yield f"{name:<16} {device:<5} {detail or 'no: ' + said.reason}"


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

"""The command line: parse options, have them carried out, print, exit.

Heavy imports stay inside the commands that need them, so that ``list`` and ``--help`` reply at once.

Length: an option takes a line or two of its own.
"""

from __future__ import annotations

import dataclasses
import enum
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from harness.case import DTYPES, PRECISIONS, CaseError
from harness.catalog.registry import RegistryError, entries
from harness.catalog.suites import SUITES, SuiteError
from harness.record import BAD

if TYPE_CHECKING:
    from collections.abc import Iterable

    from harness.output.layout import Lines
    from harness.output.store import Store
    from harness.run.plan import Plan, PlanOptions, RunOptions

RESULTS: Final = Path("results")
#: Exit codes.
BAD_ROWS, USAGE, INTERRUPTED = 1, 2, 130
#: Most cases of a suite that ``list`` shows one by one.
MOST_LISTED: Final = 20

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


# Parameters of commands have the names of the fields of PlanOptions and RunOptions: see _given.
Suite = Annotated[str | None, typer.Option("--suite", help="A named list of cases (see `list`); default: quick.")]
Cases = Annotated[
    list[str] | None,
    typer.Option("--case", help="BATCHxIN1xIN2xOUT[:float64][:tf32][:nobias], as in 2708x512x512x1; repeatable."),
]
Backends = Annotated[
    list[str] | None, typer.Option("--backend", help="A backend; NAME#2 enters it again; repeatable. Default: all.")
]
Devices = Annotated[list[Device] | None, typer.Option("--device", help="Repeatable. Default: all that are found.")]
Modes = Annotated[list[ModeOption] | None, typer.Option("--mode", help="Repeatable. Default: both.")]
Threads = Annotated[int | None, typer.Option("--threads", help="CPUs of every worker. Default: all.")]
Dtype = Annotated[
    str | None, typer.Option("--dtype", help=f"Dtype of every case, in place of its own: {', '.join(DTYPES)}.")
]
Precision = Annotated[
    str | None,
    typer.Option(
        "--precision", help=f"Precision of every case's float32 products, for all backends: {', '.join(PRECISIONS)}."
    ),
]
Seed = Annotated[
    int | None,
    typer.Option("--seed", min=0, help="Seed of the inputs and the order of measuring. Default: drawn, in every row."),
]
TimeLimit = Annotated[
    float,
    typer.Option(
        "--time-limit", min=0.1, help="Seconds that compiling and one call may take before a worker is killed."
    ),
]
Out = Annotated[
    Path | None, typer.Option("--out", help="Folder of the run; must not exist. Default: results/<run-id>.")
]
Resume = Annotated[
    str | None, typer.Option("--resume", help="Complete a run that was stopped: its folder, id, or `latest`.")
]
Target = Annotated[
    float | None,
    typer.Option(
        "--target",
        parser=_share,
        metavar="SHARE",
        help="Half-width of the interval at which measuring stops, as in 0.8%. Default: 2%, or the suite's.",
    ),
]
Band = Annotated[
    float | None,
    typer.Option(
        "--band",
        parser=_share,
        metavar="SHARE",
        help="Equivalence band: ratios within it are no difference. Default: 2%, or the suite's.",
    ),
]
Processes = Annotated[
    int | None,
    typer.Option("--processes", min=1, help="Most fresh processes of each backend. Default: 40, or the suite's."),
]
Budget = Annotated[
    float | None,
    typer.Option(
        "--budget",
        min=0.1,
        help="Seconds of measuring for a case in one mode on one device. Default: 30, or the suite's.",
    ),
]
EmptyCompileCache = Annotated[
    bool, typer.Option("--empty-compile-cache", help="Empty compile caches and a fresh worker for every cell.")
]
FlushL2 = Annotated[bool, typer.Option("--flush-l2", help="Write twice the GPU's L2 before each call; on a GPU only.")]
Roofline = Annotated[
    bool,
    typer.Option("--roofline/--no-roofline", help="Measure this machine's peaks, for the column `% of roofline`."),
]
Freeze = Annotated[bool, typer.Option("--freeze/--no-freeze", help="Stop idle workers while another one runs.")]


def main() -> None:
    """Run the command line; errors of use are one line, without a traceback."""
    from harness.machine.threads import BudgetError
    from harness.output.figures import FigureError
    from harness.output.store import StoreError

    signal.signal(signal.SIGTERM, _interrupt)
    try:
        app(standalone_mode=True)
    except (CaseError, SuiteError, RegistryError, BudgetError, StoreError, FigureError) as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(USAGE)
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        sys.exit(INTERRUPTED)


@app.command("list")
def list_(
    probe: Annotated[bool, typer.Option("--probe", help="Start each backend in a worker; takes a while.")] = False,
) -> None:
    """Show backends, suites and cases; imports no framework."""
    typer.echo("Backends (is the package installed?):")
    known = entries()
    for name, entry in known.items():
        installed = entry.installed()
        typer.echo(f"  {name:<16} {'installed' if installed.ok else installed.reason}   [{entry.distribution}]")
    if probe:
        from harness.run.probe import probe as probe_all

        typer.echo("\nStarted in a worker each:")
        for one in probe_all(list(known)):
            loaded = one.loaded
            detail = (
                f"{loaded.version}, imported in {loaded.import_seconds:.2f} s" if loaded.available else loaded.reason
            )
            typer.echo(f"  {one.name:<16} {one.device:<5} {'' if loaded.available else 'no: '}{detail}")
    typer.echo("\nSuites (--suite NAME):")
    for name, listed in SUITES.items():
        typer.echo(f"  {name:<16} {len(listed.entries):>3} cases: {listed.purpose}")
    for name, listed in SUITES.items():
        if len(listed.entries) <= MOST_LISTED:
            typer.echo(f"\nCases of {name} (--case NAME):")
            for case in listed.entries:
                typer.echo(f"  {case.case.name:<24} {case.label}")


@app.command()
def check(
    context: typer.Context,
    suite: Suite = None,
    cases: Cases = None,
    backends: Backends = None,
    devices: Devices = None,
    modes: Modes = None,
    dtype: Dtype = None,
    precision: Precision = None,
    threads: Threads = None,
    seed: Seed = None,
    time_limit_seconds: TimeLimit = 120.0,
) -> None:
    """Only check every backend against nn.Bilinear; time nothing, write nothing.

    The table shows each probe of the gate. Below it, each rejection has its first wrong element, with both values. The
    last line has the seed that repeats the check (--seed).
    """
    import pandas as pd

    from harness.catalog.suites import labels
    from harness.output.checks import report
    from harness.output.progress import progress
    from harness.run import session
    from harness.run.plan import make_plan

    plan = make_plan("check", _plan_options(context, timing=False))
    with progress(len(plan.groups()), plan.budget_seconds) as line:
        records = session.check(plan, line)
    frame = pd.DataFrame([dataclasses.asdict(record) for record in records])
    _print(report(frame, labels(), plan.seed, _width()))
    sys.exit(BAD_ROWS if _bad(frame["status"]) else 0)


@app.command()
def run(
    context: typer.Context,
    suite: Suite = None,
    cases: Cases = None,
    backends: Backends = None,
    devices: Devices = None,
    modes: Modes = None,
    dtype: Dtype = None,
    precision: Precision = None,
    threads: Threads = None,
    out: Out = None,
    resume: Resume = None,
    target: Target = None,
    band: Band = None,
    processes: Processes = None,
    budget_seconds: Budget = None,
    empty_compile_cache: EmptyCompileCache = False,
    flush_l2: FlushL2 = False,
    roofline: Roofline = True,
    seed: Seed = None,
    freeze: Freeze = True,
    time_limit_seconds: TimeLimit = 120.0,
) -> None:
    """Check every backend, time those that are right, write CSV files, print the answer."""
    # Over 40 lines: one line for each option.
    from harness.output import store
    from harness.output.progress import progress
    from harness.output.report import report
    from harness.run import session
    from harness.run.plan import complete_groups

    plan, how, opened = _open(context, out) if resume is None else _reopen(context, resume)
    skip = complete_groups(plan, store.rows(opened.folder / store.RECORDS))
    with opened, progress(len(plan.groups()), plan.budget_seconds) as line:
        stopped = session.run(plan, how, opened, line, skip)
    _print(report(opened.folder, _width()))
    if stopped:
        sys.exit(INTERRUPTED)
    sys.exit(BAD_ROWS if _bad(row["status"] for row in store.rows(opened.folder / store.RECORDS)) else 0)


@app.command("doctor")
def doctor_(threads: Threads = None) -> None:
    """Look at the machine before you trust it, and say what to do; takes about ten seconds."""
    from harness.machine.threads import budget
    from harness.output.remarks import machine
    from harness.process.supervisor import Supervisor, default_cache
    from harness.survey import doctor

    count = budget(threads)
    with Supervisor(count, default_cache()) as workers:
        diagnosis = doctor.measure_and_diagnose(workers, count, limit_seconds=120.0)
    _print(machine(diagnosis.peaks.as_json(), doctor.as_json(diagnosis.findings), _width()))


@app.command("report")
def report_(
    run: Annotated[str, typer.Argument(help="A run's folder, its id, or `latest`.")],
    plot: Annotated[
        Path | None,
        typer.Option("--plot", help="Draw the run instead, into this file: .svg, .png or .pdf."),
    ] = None,
) -> None:
    """Print the tables of a run again, from its files."""
    from harness.catalog.suites import labels
    from harness.output import figures, store
    from harness.output.layout import wrapped
    from harness.output.report import report, short

    folder = store.find(run, RESULTS)
    if plot is None:
        _print(report(folder, _width()))
        return
    caption = figures.draw(store.read(folder / store.RECORDS), store.environment(folder), labels(), plot)
    _print([line for text in (f"Figure: {short(plot)}", f"Caption: {caption}") for line in wrapped(text, _width())])


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


def _given(context: typer.Context, options: type) -> dict[str, Any]:
    """Return the values of a command's parameters that are fields of a class of options; absent ones are left out."""
    names = {field.name for field in dataclasses.fields(options)}
    return {name: value for name, value in context.params.items() if name in names and value is not None}


def _plan_options(context: typer.Context, timing: bool = True) -> PlanOptions:
    from harness.run.plan import PlanOptions

    return PlanOptions(**_given(context, PlanOptions), timing=timing)


def _open(context: typer.Context, out: Path | None) -> tuple[Plan, RunOptions, Store]:
    """Plan a run and create its folder."""
    from harness.machine.environment import describe
    from harness.output import store
    from harness.run.plan import RunOptions, make_plan, stored

    run_id = store.new_run_id()
    folder = out if out is not None else RESULTS / run_id
    store.check_free(folder)
    plan, how = make_plan(run_id, _plan_options(context)), RunOptions(**_given(context, RunOptions))
    return plan, how, store.Store.create(folder, {"run_id": run_id, **describe(), "plan": stored(plan, how)})


def _reopen(context: typer.Context, name: str) -> tuple[Plan, RunOptions, Store]:
    """Read the plan of a run that was stopped, and open its files without the rows of incomplete groups."""
    from harness.output import store
    from harness.run.plan import complete_groups, restore

    sources = {parameter: context.get_parameter_source(parameter) for parameter in context.params}
    if [parameter for parameter, source in sources.items() if source and source.name == "COMMANDLINE"] != ["resume"]:
        raise store.StoreError("--resume goes on with the plan of that run: give it alone")
    folder = store.find(name, RESULTS)
    plan, how = restore(folder)
    skip = complete_groups(plan, store.rows(folder / store.RECORDS))
    return plan, how, store.Store.resume(folder, lambda row: (row["case"], row["mode"], row["device"]) in skip)


def _bad(statuses: Iterable[str]) -> int:
    """Return the number of rows after which the exit code is ``BAD_ROWS``."""
    return sum(status in BAD for status in statuses)


def _width() -> int:
    from harness.output.console import width_of

    return width_of(sys.stdout)


def _print(lines: Lines) -> None:
    from harness.output.console import console, show

    show(lines, console())


def _interrupt(number: int, frame: object) -> None:
    """End a run at SIGTERM as at Ctrl-C: workers gone, rows written."""
    raise KeyboardInterrupt

"""The command line: parse options, have them carried out, print, exit.

Heavy imports stay inside the commands that need them, so that ``list`` and ``--help`` reply at once.

Length: a command takes a line for each of its options.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import importlib
import json
import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from harness import cli_options as given
from harness.case import MODE_NAMES, CaseError
from harness.catalog.core import core
from harness.catalog.registry import DISTRIBUTION, RegistryError, entries
from harness.catalog.suggest import suggestion
from harness.catalog.suites import SUITES, SuiteError, suite
from harness.cli_interrupt import Interrupts
from harness.cli_runs import (
    BAD_ROWS,
    INTERRUPTED,
    RESULTS,
    USAGE,
    check_room,
    complain,
    end,
    note_cache,
    open_new,
    plan_options,
    reopen,
    take_machine,
)
from harness.installed import version as version_of

if TYPE_CHECKING:
    from harness.checked import CheckReport
    from harness.output.layout import Lines

#: What ``list`` can show by itself.
LISTED: Final = ("backends", "suites", "cases")

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Check implementations of torch.nn.Bilinear against nn.Bilinear itself, then time them.",
)


def main() -> None:
    """Run the command line; errors of use are one line, without a traceback."""
    from harness.machine.threads import BudgetError
    from harness.new_backend import NewBackendError
    from harness.output.console import accept_any_text, open_missing_streams
    from harness.output.figures import FigureError
    from harness.output.store import StoreError
    from harness.process.folders import FolderError
    from harness.process.machine_lock import MachineIsTakenError, RunIsTakenError
    from harness.run.options import PlanError

    open_missing_streams()
    accept_any_text()
    interrupts = Interrupts()
    interrupts.install()
    try:
        Path.cwd()
    except OSError:
        complain("the working folder has been deleted: change to one that exists")
        sys.exit(USAGE)
    try:
        app(standalone_mode=True)
    except (
        *(CaseError, SuiteError, RegistryError, BudgetError, StoreError, FigureError),
        *(PlanError, NewBackendError, MachineIsTakenError, RunIsTakenError, FolderError),
    ) as error:
        complain(str(error))
        sys.exit(USAGE)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        where = f"at {error.filename}" if error.filename else "for files"
        complain(f"no room left {where}: free some, or set TMPDIR to another folder; --resume completes a run")
        sys.exit(USAGE)
    except KeyboardInterrupt:
        sys.exit(interrupts.exit_code)
    except SystemExit as ended:  # of every interrupt Typer makes the code of Ctrl-C, and so does `run`
        sys.exit(interrupts.exit_code if ended.code == INTERRUPTED else ended.code)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"{DISTRIBUTION} {version_of(DISTRIBUTION)}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def start(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Check implementations of torch.nn.Bilinear against nn.Bilinear itself, then time them."""
    if context.invoked_subcommand is None:
        _print(_welcome())


def _welcome() -> Lines:
    """Return the screen of the bare command, for which no framework is imported."""
    from harness.machine import environment
    from harness.output import header, listing
    from harness.output.welcome import welcome

    processors = (header.cpus(os.cpu_count(), environment.cpu_model()), header.gpus(environment.gpus()) or "no GPU")
    found = listing.availability(entries(), environment.devices())
    return welcome(
        version_of(DISTRIBUTION) or "", ", ".join(processors), len(found.ready), found.missing, found.broken, _width()
    )


@app.command("list")
def list_(
    what: Annotated[str, typer.Argument(metavar="backends|suites|cases", help="Default: backends and suites.")] = "",
    name: Annotated[str | None, typer.Argument(metavar="SUITE", help="With `cases`: one suite. Default: all.")] = None,
    probe: Annotated[bool, typer.Option("--probe", help="Start each backend in a worker; takes a while.")] = False,
) -> None:
    """Show backends, suites and cases.

    It imports no framework, so that it replies at once.
    """
    from harness.machine.environment import devices
    from harness.output import listing

    width = _width()
    if what not in ("", *LISTED):
        raise SuiteError(f"list {what!r} is unknown{suggestion(what, LISTED)}")
    if name is not None and what != "cases":
        raise SuiteError(f"list {what} takes no name, {name!r} was given: only `list cases SUITE` takes one")
    parts: list[Lines] = []
    if what in ("", "backends"):
        parts.append(listing.backends(listing.availability(entries(), devices()), width))
        parts.append(listing.core_set(core(devices()), width))
    if probe:
        parts.append(_probed())
    if what in ("", "suites"):
        parts.append(listing.suites(SUITES.values(), width))
    if what == "cases":
        parts += [listing.cases(one, width) for one in ([suite(name)] if name else SUITES.values())]
    if what == "":
        parts.append(listing.more(width))
    _print(listing.joined(parts))


@app.command()
def check(
    context: typer.Context,
    suite: given.Suite = None,
    cases: given.Cases = None,
    backends: given.Backends = None,
    skip: given.Skip = None,
    devices: given.Devices = None,
    modes: given.Modes = None,
    dtype: given.Dtype = None,
    precision: given.Precision = None,
    threads: given.Threads = None,
    seed: given.Seed = None,
    recheck: given.Recheck = False,
    time_limit_seconds: given.TimeLimit = 120.0,
    format_: given.Format = given.FormatOption.TEXT,
    verbose: given.Verbose = False,
) -> None:
    """Check every backend; time nothing.

    A right backend has one line. A wrong one has a block: which promises it kept, its first wrong element and where the
    others are, the likely cause, the place in its source, and the command that repeats it.
    """
    from harness.output.progress import progress
    from harness.run import session
    from harness.run.plan import make_plan

    plan = make_plan("check", plan_options(context, timing=False))
    check_room(plan)
    # Printing takes pandas, which is imported while workers start.
    threading.Thread(target=importlib.import_module, args=("pandas",), daemon=True).start()
    with progress(plan.groups(), len(plan.backends), 0.0) as line:
        checked, records = session.check(plan, line)
    rows = [dataclasses.asdict(record) for record in records]
    _print_check(checked, rows, format_, verbose)
    end(plan, rows)


@app.command()
def run(
    context: typer.Context,
    layer: given.Layer = None,
    quick: given.Quick = False,
    suite: given.Suite = None,
    cases: given.Cases = None,
    backends: given.Backends = None,
    skip: given.Skip = None,
    devices: given.Devices = None,
    modes: given.Modes = None,
    dtype: given.Dtype = None,
    precision: given.Precision = None,
    threads: given.Threads = None,
    out: given.Out = None,
    resume: given.Resume = None,
    allow_different: given.AllowDifferent = False,
    target: given.Target = None,
    band: given.Band = None,
    processes: given.Processes = None,
    budget_seconds: given.Budget = None,
    empty_compile_cache: given.EmptyCompileCache = False,
    flush_l2: given.FlushL2 = False,
    roofline: given.Roofline = True,
    seed: given.Seed = None,
    recheck: given.Recheck = False,
    freeze: given.Freeze = True,
    wait: given.Wait = False,
    lock: given.Lock = True,
    explain_time: given.ExplainTime = False,
    time_limit_seconds: given.TimeLimit = 120.0,
) -> None:
    """Check backends, time the right ones.

    The rows go to CSV files; the answer is printed.
    """
    # Over 40 lines: one line for each option.
    from rich.text import Text

    from harness.output import store
    from harness.output.format import argument
    from harness.output.progress import progress
    from harness.output.report import ending, short
    from harness.output.time_table import time_table
    from harness.run import session
    from harness.run.plan import complete_groups

    with contextlib.ExitStack() as held:
        take = functools.partial(take_machine, held, wait, lock)
        if resume is None:
            plan, how, opened = open_new(context, out, held, take)
        else:
            plan, how, opened = reopen(context, resume, held, take)
        skip_groups = complete_groups(plan, store.rows(opened.folder / store.RECORDS))
        groups, count = plan.groups(), len(plan.backends)
        with opened, progress(groups, count, plan.budget_seconds, skip_groups) as line:
            line.begin(f"Run {plan.run_id}: {count} backends, rows go to {argument(str(short(opened.folder)))}/")
            stopped = session.run(plan, how, opened, line, skip_groups)
    if explain_time:
        _print([*time_table(store.environment(opened.folder)["time_spent"], _width()), Text()])
    name = store.LATEST if out is None and resume is None else str(out or resume)
    _print(ending(opened.folder, argument(name), _width()))
    if stopped:
        sys.exit(INTERRUPTED)
    end(plan, store.rows(opened.folder / store.RECORDS))


@app.command("doctor")
def doctor_(
    threads: given.Threads = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with code 1 if this machine is not fit to measure on.")
    ] = False,
) -> None:
    """Say whether this machine is fit to measure.

    It takes about ten seconds, and says what to do.
    """
    from rich.text import Text

    from harness.machine.threads import budget
    from harness.output.remarks import machine
    from harness.process.folders import default_cache
    from harness.process.supervisor import Supervisor
    from harness.survey import doctor

    count = budget(threads)
    note_cache()
    with Supervisor(count, default_cache()) as workers:
        diagnosis = doctor.measure_and_diagnose(workers, count, limit_seconds=120.0)
    lines = machine(diagnosis.peaks.as_json(), doctor.as_json(diagnosis.findings), _width())
    _print([*lines, Text(), Text(doctor.verdict(diagnosis.findings), style="bold")])
    sys.exit(BAD_ROWS if strict and not doctor.is_fit(diagnosis.findings) else 0)


@app.command("report")
def report_(
    run: Annotated[str, typer.Argument(help="A run's folder, its id, or `latest`: the newest in results/.")],
    case: Annotated[
        str | None, typer.Option("--case", help="Only this case, with bars: its label or its sizes, as in SimGNN.")
    ] = None,
    modes: given.Modes = None,
    wide: Annotated[bool, typer.Option("--wide", help="Show every column, whatever the width.")] = False,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", help="Draw the run, or the case, into this file: .svg, .png or .pdf."),
    ] = None,
) -> None:
    """Print the tables of a run again.

    They come from its files; the answer comes last.
    """
    from harness.output import figures, store
    from harness.output.format import argument
    from harness.output.layout import wrapped
    from harness.output.report import chosen, one_case, report, short

    folder = store.find(run, RESULTS)
    mode_names = [MODE_NAMES[mode] for mode in modes or ()]
    if plot is None:
        some = case is not None or modes
        _print(
            one_case(folder, case, mode_names, _width(), wide)
            if some
            else report(folder, argument(run), _width(), wide)
        )
        return
    caption = figures.draw(chosen(folder, case, mode_names), store.environment(folder), plot)
    _print(
        [
            line
            for text in (f"Figure: {argument(str(short(plot)))}", f"Caption: {caption}")
            for line in wrapped(text, _width())
        ]
    )


@app.command("new")
def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the backend, as in my-kernel; makes ./NAME.")],
    torch: Annotated[bool, typer.Option("--torch", help="A formula in PyTorch; autograd makes the gradients.")] = False,
) -> None:
    """Write a package with a backend of your own.

    It has a module, an entry point and a test. The next two commands are printed.
    """
    from harness.new_backend import write

    folder = write(name, Path.cwd(), entries(), torch=torch)
    typer.echo(f"Wrote {name}/: {', '.join(sorted(path.name for path in folder.iterdir()))}. Next:\n")
    typer.echo(f"  pip install -e ./{name}")
    typer.echo(f"  bilinear-bench check --backend {name}")


@app.command("explain")
def explain_() -> None:
    """Explain the layer step by step.

    The example is that of the article that started this project.
    """
    from harness.explain import explain
    from harness.machine.threads import budget
    from harness.process.folders import default_cache
    from harness.process.handle import WorkerError
    from harness.process.supervisor import Supervisor

    note_cache()
    with Supervisor(budget(None), default_cache()) as workers:
        try:
            for line in explain(workers):
                typer.echo(line)
        except (WorkerError, RuntimeError) as error:
            complain(str(error))
            sys.exit(BAD_ROWS)


def _probed() -> Lines:
    """Start each backend in a worker, and return a line for its reply."""
    from rich.text import Text

    from harness.run.probe import probe

    lines = [Text("Started in a worker each:", style="bold")]
    for one in probe(list(entries())):
        loaded = one.loaded
        seconds = f"{loaded.version}, imported in {loaded.import_seconds:.2f} s"
        lines.append(
            Text(f"  {one.name:<16} {one.device:<5} {seconds if loaded.available else f'no: {loaded.reason}'}")
        )
    return lines


def _width() -> int:
    from harness.output.console import width_of

    return width_of(sys.stdout)


def _print(lines: Lines) -> None:
    from harness.output.console import console, show

    show(lines, console())


def _print_check(checked: CheckReport, rows: list[dict[str, Any]], form: given.FormatOption, verbose: bool) -> None:
    """Print a check in one of its formats."""
    import pandas as pd

    from harness.catalog.suites import labels
    from harness.output import annotations, checks

    frame = pd.DataFrame(list(rows))
    if form is given.FormatOption.JSON:
        from harness.process.protocol import encode

        typer.echo(json.dumps(encode(checked), indent=2))
    elif form is given.FormatOption.GITHUB:
        for line in (*annotations.commands(checked), checks.summary(frame, checked.seed)):
            typer.echo(line)
    else:
        _print(checks.report(checked, frame, labels(), _width(), verbose))

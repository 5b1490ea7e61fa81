"""What the command line does around a run: plan it, create or reopen its files, and end with its exit code."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

import typer

from harness.record import BAD

if TYPE_CHECKING:
    from harness.output.store import Store
    from harness.run.options import PlanOptions, RunOptions
    from harness.run.plan import Plan

RESULTS: Final = Path("results")
#: Exit codes.
BAD_ROWS, USAGE, INTERRUPTED = 1, 2, 130


def _given(context: typer.Context, options: type) -> dict[str, Any]:
    """Return the values of a command's parameters that are fields of a class of options; absent ones are left out."""
    names = {field.name for field in dataclasses.fields(options)}
    return {name: value for name, value in context.params.items() if name in names and value is not None}


def plan_options(context: typer.Context, timing: bool = True) -> PlanOptions:
    """Return what a command line asks for.

    Args:
        context: The command's parameters, which have the names of the fields.
        timing: False for the gate alone.
    """
    from harness.run.options import PlanOptions

    options = PlanOptions(**_given(context, PlanOptions), timing=timing)
    layer = context.params.get("layer")
    return options if layer is None else dataclasses.replace(options, cases=[*options.cases, layer])


def take_machine(held: contextlib.ExitStack, wait: bool, lock: bool, run_id: str) -> None:
    """Take the machine's lock.

    Args:
        held: Releases the lock at its end.
        wait: True to wait for a run that holds it.
        lock: False to measure without it.
        run_id: Name of the run, for those that wait.

    Raises:
        MachineIsTakenError: Another run holds the lock, and this one does not wait.
    """
    from harness.process import machine_lock

    if lock:
        say = functools.partial(typer.echo, err=True)
        held.enter_context(machine_lock.one_run_at_a_time(machine_lock.lock_file(), f"run {run_id}", wait, say))


def open_new(context: typer.Context, out: Path | None, take: Callable[[str], None]) -> tuple[Plan, RunOptions, Store]:
    """Plan a run, take the machine and create the run's folder.

    Args:
        context: The command's parameters.
        out: Folder for the rows; None for one under ``RESULTS``.
        take: Takes the machine for the run of that name.
    """
    from harness.machine.environment import describe
    from harness.output import store
    from harness.run.options import RunOptions
    from harness.run.plan import make_plan
    from harness.run.stored_plan import stored

    run_id = store.new_run_id()
    folder = out if out is not None else RESULTS / run_id
    store.check_free(folder)
    options, how = plan_options(context), RunOptions(**_given(context, RunOptions))
    if options.quick:
        how = dataclasses.replace(how, roofline=False)  # measuring the peaks would take a third of the minute
    plan = make_plan(run_id, options)
    take(run_id)
    return plan, how, store.Store.create(folder, {"run_id": run_id, **describe(), "plan": stored(plan, how)})


def reopen(context: typer.Context, name: str, take: Callable[[str], None]) -> tuple[Plan, RunOptions, Store]:
    """Read the plan of a run that was stopped, and open its files without the rows of incomplete groups.

    A run that is complete ends here, with the exit code that it ended with.

    Args:
        context: The command's parameters.
        name: The run.
        take: Takes the machine for the run of that name.
    """
    from harness.output import store
    from harness.output.report import short
    from harness.run.plan import complete_groups
    from harness.run.stored_plan import restore

    sources = {parameter: context.get_parameter_source(parameter) for parameter in context.params}
    typed = {parameter for parameter, source in sources.items() if source and source.name == "COMMANDLINE"}
    if typed - {"wait", "lock", "explain_time"} != {"resume"}:
        raise store.StoreError(
            "--resume goes on with the plan of that run: give it alone, or with --wait, --no-lock or --explain-time"
        )
    folder = store.find(name, RESULTS)
    plan, how = restore(folder)
    rows = store.rows(folder / store.RECORDS, earlier=True)
    done = complete_groups(plan, rows)
    if len(done) == len(plan.groups()):
        typer.echo(f"{short(folder)} is complete, nothing is left to measure: bilinear-bench report {short(folder)}")
        end(plan, rows)
    take(plan.run_id)
    return plan, how, store.Store.resume(folder, lambda row: (row["case"], row["mode"], row["device"]) in done)


def end(plan: Plan, rows: Iterable[Mapping[str, Any]]) -> NoReturn:
    """Exit with the code that the rows deserve; name what was to be asked and could not be."""
    from harness.run.plan import never_asked

    rows = list(rows)
    missed = never_asked(plan, rows)
    for text, reason in missed.items():
        complain(f"--backend {text} could not be asked: {reason}")
    sys.exit(BAD_ROWS if missed or any(row["status"] in BAD for row in rows) else 0)


def complain(message: str) -> None:
    """Print an error as one line; signs that a terminal would obey are escaped."""
    shown = "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in message)
    typer.echo(f"error: {shown}", err=True)

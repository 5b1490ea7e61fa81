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
    from harness.output.store import Json, Store
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
    from harness.process.folders import temporary_folder

    if lock:
        path, say = machine_lock.lock_file(temporary_folder()), functools.partial(typer.echo, err=True)
        held.enter_context(machine_lock.one_run_at_a_time(path, f"run {run_id}", wait, say))


def note_cache() -> None:
    """Print a line if the usual folder of compile caches takes no files."""
    from harness.process.folders import cache_fault

    if fault := cache_fault():
        typer.echo(f"note: {escaped(fault)}", err=True)


def check_room(plan: Plan) -> None:
    """Check that the temporary folder has room for a worker's results and the reference's; note temporary caches.

    Raises:
        FolderError: It has none.
    """
    from harness.process.folders import PROBE_BYTES, temporary_folder

    # The reference leaves each element twice in float64: its value, and its scale.
    elements = max((case.result_bytes // case.itemsize for case in plan.cases), default=0)
    temporary_folder(PROBE_BYTES + 2 * 8 * elements)
    note_cache()


def open_new(
    context: typer.Context, out: Path | None, held: contextlib.ExitStack, take: Callable[[str], None]
) -> tuple[Plan, RunOptions, Store]:
    """Plan a run, take the machine and create the run's folder.

    Args:
        context: The command's parameters.
        out: Folder for the rows; None for one under ``RESULTS``.
        held: Releases the lock of the folder at its end.
        take: Takes the machine for the run of that name.
    """
    from harness.machine.environment import describe
    from harness.output import store
    from harness.process.machine_lock import one_process
    from harness.run.options import PlanError, RunOptions
    from harness.run.plan import make_plan
    from harness.run.stored_plan import stored

    if context.params["allow_different"]:
        raise PlanError("--allow-different was given without --resume: it allows a run to go on on another machine")
    run_id = store.new_run_id()
    folder = out if out is not None else RESULTS / run_id
    store.check_free(folder)
    options, how = plan_options(context), RunOptions(**_given(context, RunOptions))
    if options.quick:
        how = dataclasses.replace(how, roofline=False)  # measuring the peaks would take a third of the minute
    plan = make_plan(run_id, options)
    check_room(plan)
    take(run_id)
    opened = store.Store.create(folder, {"run_id": run_id, **describe(), "plan": stored(plan, how)})
    held.enter_context(one_process(folder))
    return plan, how, opened


def reopen(
    context: typer.Context, name: str, held: contextlib.ExitStack, take: Callable[[str], None]
) -> tuple[Plan, RunOptions, Store]:
    """Read the plan of a run that was stopped, and open its files without the rows of incomplete groups.

    A run that is complete ends here, with the exit code that it ended with.

    Args:
        context: The command's parameters.
        name: The run.
        held: Releases the lock of the run's folder at its end.
        take: Takes the machine for the run of that name.
    """
    from harness.output import store
    from harness.output.format import argument
    from harness.output.report import short
    from harness.process.machine_lock import one_process
    from harness.run.plan import complete_groups
    from harness.run.stored_plan import restore

    _require_resume_alone(context)
    folder = store.find(name, RESULTS)
    held.enter_context(one_process(folder))
    plan, how = restore(folder)
    rows = store.rows(folder / store.RECORDS, earlier=True)
    done = complete_groups(plan, rows)
    if len(done) == len(plan.groups()):
        shown = argument(str(short(folder)))
        typer.echo(f"{shown} is complete, nothing is left to measure: bilinear-bench report {shown}")
        end(plan, rows)
    plan, additions = _where_it_began(plan, folder, context.params["allow_different"])
    check_room(plan)
    take(plan.run_id)
    opened = store.Store.resume(folder, lambda row: (row["case"], row["mode"], row["device"]) in done)
    if additions:
        store.add_to_environment(folder, additions)
    return plan, how, opened


def _require_resume_alone(context: typer.Context) -> None:
    """Do nothing if the plan of a run is not changed by other options.

    Raises:
        StoreError: It is.
    """
    from harness.output.store import StoreError

    sources = {parameter: context.get_parameter_source(parameter) for parameter in context.params}
    typed = {parameter for parameter, source in sources.items() if source and source.name == "COMMANDLINE"}
    if typed - {"wait", "lock", "explain_time", "allow_different"} != {"resume"}:
        raise StoreError(
            "--resume goes on with the plan of that run: "
            "give it alone, or with --allow-different, --wait, --no-lock or --explain-time"
        )


def _where_it_began(plan: Plan, folder: Path, allowed: bool) -> tuple[Plan, Json]:
    """Return the plan of a run for this machine, and what to add to its environment if this is not where it began.

    Raises:
        StoreError: Something differs, and that is not allowed.
    """
    from harness.machine.environment import describe
    from harness.machine.threads import available_threads
    from harness.output import store
    from harness.run.elsewhere import differences, moved

    then, now, most = store.environment(folder), describe(), available_threads()
    found = differences(then, now)
    if plan.threads > most:
        found.append(f"threads of a worker were {plan.threads}, are at most {most}")
    if not found:
        return plan, {}
    if not allowed:
        raise store.StoreError(
            f"{folder} began elsewhere: {'; '.join(found)}. Resume it there, or go on here with --allow-different"
        )
    return dataclasses.replace(plan, threads=min(plan.threads, most)), moved(then, now, found)


def end(plan: Plan, rows: Iterable[Mapping[str, Any]]) -> NoReturn:
    """Exit with the code that the rows deserve; name what was to be asked and could not be."""
    from harness.run.plan import never_asked

    rows = list(rows)
    missed = never_asked(plan, rows)
    for text, reason in missed.items():
        complain(f"--backend {text} could not be asked: {reason}")
    sys.exit(BAD_ROWS if missed or any(row["status"] in BAD for row in rows) else 0)


def complain(message: str) -> None:
    """Print an error as one line."""
    typer.echo(f"error: {escaped(message)}", err=True)


def escaped(message: str) -> str:
    """Return a message without signs that a terminal would obey, line breaks among them."""
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in message)

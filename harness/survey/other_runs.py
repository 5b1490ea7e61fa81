"""Other runs of this harness on this machine, from the table of processes.

A process counts as a run by the module or script in its arguments. A run and its workers count once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Final

import psutil

#: Commands of this harness that keep a machine busy.
COMMANDS: Final = ("run", "check")
#: Module of a worker.
WORKER_MODULE: Final = "harness.worker.main"
#: Name of the script.
SCRIPT: Final = "bilinear-bench"

#: Parent and arguments of each process, by its number.
ProcessTable = Mapping[int, tuple[int, list[str]]]


def process_table() -> dict[int, tuple[int, list[str]]]:
    """Return parent and arguments of every process, by its number."""
    processes = psutil.process_iter(["pid", "ppid", "cmdline"])
    return {one.info["pid"]: (one.info["ppid"] or 0, one.info["cmdline"] or []) for one in processes}


def count_other_runs(table: ProcessTable, own: int) -> int:
    """Return the number of runs that this process is no part of.

    Args:
        table: Parent and arguments of each process.
        own: Number of this process.
    """
    runs = {number for number, (_, arguments) in table.items() if is_run(arguments)}
    ours = family(table, own)
    return sum(1 for number in runs if number not in ours and not runs & set(_ancestors(table, number)))


def is_run(arguments: Sequence[str]) -> bool:
    """True if a process with these arguments is a run of this harness or one of its workers."""
    for at, argument in enumerate(arguments):
        module, command = (*arguments[at + 1 : at + 3], "", "")[:2]
        if argument == "-m":
            return module == "harness" and command in COMMANDS
        if argument == WORKER_MODULE:  # after the script that starts it
            return True
        if at < 2 and PurePath(argument).name == SCRIPT:  # the script, alone or after its interpreter
            return module in COMMANDS
    return False


def family(table: ProcessTable, own: int) -> frozenset[int]:
    """Return this process, its ancestors, and all descendants of the outermost run among them, or of itself."""
    above = [own, *_ancestors(table, own)]
    top = next((number for number in reversed(above) if is_run(table.get(number, (0, []))[1])), own)
    return frozenset(above) | {number for number in table if top in _ancestors(table, number)}


def _ancestors(table: ProcessTable, number: int) -> list[int]:
    """Return the ancestors of a process, nearest first."""
    ancestors: list[int] = []
    parent = table.get(number, (0, []))[0]
    while parent not in (*ancestors, number, 0):  # reused process numbers could make a circle
        ancestors.append(parent)
        parent = table.get(parent, (0, []))[0]
    return ancestors

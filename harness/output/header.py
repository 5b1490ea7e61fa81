"""Name a run in a line: its identifier, date, machine and threads."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from rich.text import Text

from harness.output.layout import Lines, wrapped

if TYPE_CHECKING:
    import pandas as pd

#: Parts of a processor's name that tell nothing here: marks, generic words, and what ``environment.cpu_model`` adds.
_FILLER: Final = re.compile(r"\((?:R|TM|family[^)]*)\)|@.*|\b(?:CPU|Processor)\b|\d+-Core\b")
#: Topics of the doctor's warnings that mean other work on the machine.
_BUSY: Final = ("load", "other runs")


def run_line(records: pd.DataFrame, environment: Mapping[str, Any], width: int) -> Lines:
    """Return the first line of a report: the run, its date, the machine and the threads.

    Args:
        records: Rows of a run.
        environment: What ``environment.json`` holds.
        width: Terminal cells of a line.
    """
    run_id = str(records["run_id"].iloc[0])
    date = f"{run_id[:4]}-{run_id[4:6]}-{run_id[6:8]}"
    machines = [machine(environment, device) for device in reversed(records["device"].unique())]
    if "cpu" not in set(records["device"]):
        machines.append(machine(environment, "cpu"))
    threads = sorted({int(count) for count in records["threads"].dropna()})
    words = [*filter(None, machines), *(f"threads: {count}" for count in threads)]
    line = ": ".join(filter(None, (f"Run {run_id}, {date}", ", ".join(words))))
    return wrapped(Text(line, style="bold"), width, indent="  ")


def machine(environment: Mapping[str, Any], device: str) -> str:
    """Return the name of the processors of a device, as in ``2 CPUs AMD EPYC``; empty if it is unknown."""
    if device != "cpu":
        return gpus(environment.get("gpus") or ())
    return cpus(environment.get("cpu_count"), environment.get("cpu_model"))


def cpus(count: int | None, model: str | None) -> str:
    """Return the number and the short name of CPUs, as in ``2 CPUs AMD EPYC``; empty if both are unknown."""
    name = " ".join(_FILLER.sub(" ", model or "").split())
    number = f"{count} CPU{'s' if count != 1 else ''}" if count else ""
    return " ".join(filter(None, (number, name)))


def gpus(listed: Sequence[str]) -> str:
    """Return the names of GPUs, each with its number if there are several; empty without one.

    Args:
        listed: Name, driver and memory of each GPU, as ``environment.gpus`` returns them.
    """
    names = [line.split(",")[0] for line in listed]
    counted = ((names.count(name), name) for name in dict.fromkeys(names))
    return " and ".join(f"{count} x {name}" if count > 1 else name for count, name in counted)


def busy(records: pd.DataFrame, environment: Mapping[str, Any]) -> bool:
    """True if other work ran on the machine: the doctor warned of it, or rows are flagged as mostly disturbed."""
    warned = any(
        finding["level"] == "warning" and finding["topic"] in _BUSY for finding in environment.get("doctor", ())
    )
    return warned or bool(records["flags"].fillna("").str.contains("mostly_disturbed|oversubscribed").any())

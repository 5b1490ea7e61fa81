"""Print what the bare command says: the machine, the backends that are ready, and four commands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from rich.text import Text

from harness.output.layout import GAP, Column, Lines, table, wrapped
from harness.output.remarks import by_reason, short_reason

#: Commands to begin with, and what each is for.
COMMANDS: Final = {
    "bilinear-bench run --quick": "one layer, one minute",
    "bilinear-bench run --case SimGNN": "a published layer (see: list cases)",
    "bilinear-bench check --backend mine": "is my kernel right?",
    "bilinear-bench explain": "what the layer computes",
}


def welcome(
    version: str, machine: str, ready: int, missing: Mapping[str, str], broken: Mapping[str, str], width: int
) -> Lines:
    """Return the lines of the bare command.

    Args:
        version: Version of this project, as in ``0.2``.
        machine: Names of the processors.
        ready: Number of backends that can be measured here.
        missing: Why others are not here, by name.
        broken: Why entry points of others lead nowhere, by name.
        width: Terminal cells of a line.
    """
    question = f"bilinear-bench {version}: which way of computing torch.nn.Bilinear is right, and fastest, here?"
    here = f"{GAP}{machine}.  {ready} backend{'s' if ready != 1 else ''} ready"
    absent = {name: short_reason(reason) for name, reason in missing.items()} | dict.fromkeys(
        broken, "broken: see list"
    )
    here += f"; not here: {by_reason(absent)}" if absent else ""
    commands, purposes = zip(*COMMANDS.items(), strict=True)
    listed = table([Column("", [Text(command, "bold") for command in commands]), Column("", purposes)], width)[1:]
    return [
        *wrapped(Text(question, "bold"), width, indent=GAP),
        *wrapped(here, width, indent=GAP),
        Text(),
        *(Text(GAP) + line for line in listed),
    ]

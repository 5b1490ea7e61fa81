"""Show what the wall time of a run went into, one line for each stage."""

from __future__ import annotations

from typing import Final

from rich.text import Text

from harness.output import format as form
from harness.output.layout import Column, Lines, table
from harness.output.store import Json

#: Beginning of the name of a stage that belongs to samples.
OF_SAMPLES: Final = "samples: "


def time_table(spent: Json, width: int) -> Lines:
    """Return a line for each stage, in the order of a run, and a line for all.

    Args:
        spent: Seconds of each stage and the number of samples, as ``environment.json`` has them under ``time_spent``.
        width: Terminal cells of a line.
    """
    seconds, samples = spent["seconds"], spent["samples"]
    whole = sum(seconds.values())
    of_samples = sum(taken for stage, taken in seconds.items() if stage.startswith(OF_SAMPLES))
    rows = [(stage, taken, stage.startswith(OF_SAMPLES)) for stage, taken in seconds.items()]
    rows += [("all", whole, False)]
    columns = [
        Column("stage", [stage for stage, _, _ in rows]),
        Column("seconds", [f"{taken:.1f}" for _, taken, _ in rows], right=True),
        Column("share", [form.percent(taken / whole) if whole else "" for _, taken, _ in rows], right=True),
        Column(
            "ms a sample",
            [f"{1e3 * taken / samples:.2f}" if of_sample and samples else "" for _, taken, of_sample in rows],
            right=True,
            goes=1,
        ),
    ]
    heading = Text("What the time went into", style="bold")
    lines = [heading, *table(columns, width)]
    if samples:
        each = f"{1e3 * of_samples / samples:.1f} ms each with all that belongs to them"
        lines.append(Text(f"{samples:,} samples, {each}"))
    return lines

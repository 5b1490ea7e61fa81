"""Show how far a run is, on standard error: a line for each finished group, on a terminal above a line of what goes on.

The lower line is redrawn only when it is called, so that drawing never runs while a sample is taken.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING

from rich.live import Live
from rich.text import Text

from harness.catalog.suites import labels
from harness.output.case_labels import labels_of
from harness.output.console import console, show
from harness.output.group_line import group_line, group_name
from harness.output.time_left import Planned, TimeLeft
from harness.record import Record

if TYPE_CHECKING:
    from rich.console import Console

    from harness.case import Case


class ProgressLine:
    """Shows how far a run is.

    Args:
        out: Console on standard error.
        left: Estimates the time that is left.
        live: Display of the line of what goes on; None where no line can be redrawn.
    """

    def __init__(self, out: Console, left: TimeLeft, live: Live | None) -> None:
        self._out, self._left, self._live = out, left, live
        self._labels = labels()
        self._where = ""

    def begin(self, text: str) -> None:
        """Print a line before the first group."""
        show([Text(text)], self._out)

    def group(self, number: int, total: int, case: Case, device: str) -> None:
        """Show that a group begins.

        Args:
            number: Number of the group, from 1.
            total: Number of all groups.
            case: The group's case.
            device: The group's device.
        """
        self._left.begin(time.monotonic(), number)
        self._where = f"[{number}/{total}] {group_name(case.name, case.mode, device, self._labels)}"

    def stage(self, text: str) -> None:
        """Show what comes next within the group, or before the first one; on a terminal only."""
        if self._live is not None:
            line = f"{self._where}, {self._time_left()}: {text}" if self._where else text
            self._live.update(Text(line, no_wrap=True, overflow="ellipsis"), refresh=True)

    def finished(self, number: int, total: int, records: Sequence[Record], once_seconds: float) -> None:
        """Print how a group ended.

        Args:
            number: Number of the group, from 1.
            total: Number of all groups.
            records: Its rows.
            once_seconds: Part of its time that no later group takes again, in seconds.
        """
        import pandas as pd  # not at the top: other commands reply without it

        self._left.end(time.monotonic(), once_seconds)
        rows = pd.DataFrame([dataclasses.asdict(record) for record in records])
        # On a terminal the line below says it.
        left = f", {self._time_left()}" if self._live is None and number < total else ""
        show([Text(f"[{number}/{total}{left}] {group_line(rows, labels_of(rows))}")], self._out)

    def _time_left(self) -> str:
        """Return the time that is left, in words."""
        minutes = round(self._left.seconds(time.monotonic()) / 60)
        return f"about {minutes} min left" if minutes else "less than a minute left"


@contextlib.contextmanager
def progress(
    groups: Sequence[tuple[Case, str]],
    backends: int,
    budget_seconds: float,
    skip: Collection[tuple[str, str, str]] = (),
) -> Iterator[ProgressLine]:
    """Provide the progress line of a run.

    Args:
        groups: Case and device of each planned group, in their order.
        backends: Number of backends of each group.
        budget_seconds: Measuring time of a group, in seconds.
        skip: Groups (case, mode, device) that are not measured.
    """
    out = console(stderr=True)
    measured = {
        number: Planned.of(case, device)
        for number, (case, device) in enumerate(groups, start=1)
        if (case.name, case.mode, device) not in skip
    }
    left = TimeLeft(measured, backends, budget_seconds)
    # Neither a file nor a dumb terminal can redraw a line, whatever FORCE_COLOR says.
    if not sys.stderr.isatty() or out.is_dumb_terminal:
        yield ProgressLine(out, left, None)
        return
    with Live(console=out, auto_refresh=False, transient=True) as live:
        yield ProgressLine(out, left, live)

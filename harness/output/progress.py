"""Show how far a run is, on standard error: a line for each finished group, on a terminal above a line of what goes on.

The lower line is redrawn only when it is called, so that drawing never runs while a sample is taken.
"""

from __future__ import annotations

import contextlib
import dataclasses
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from rich.live import Live
from rich.text import Text

from harness.catalog.suites import labels
from harness.output.case_labels import labels_of
from harness.output.console import console, show
from harness.output.group_line import group_line, group_name
from harness.record import Record

if TYPE_CHECKING:
    from rich.console import Console

    from harness.case import Case

#: Time that compiling and checking a backend takes in a group, in seconds, before any group has ended.
BACKEND_SECONDS: Final = 2.0
#: Number of groups that the first guess counts for.
GUESS_WEIGHT: Final = 2


class TimeLeft:
    """Estimates the time that is left: the median of what groups took, with a first guess among them.

    A median does not follow the first group, which starts every backend, nor one group of long calls.

    Args:
        guess_seconds: Time of a group, in seconds, before any has ended.
    """

    def __init__(self, guess_seconds: float) -> None:
        self._taken = [guess_seconds] * GUESS_WEIGHT
        self._begun = 0.0

    def begin(self, now: float) -> None:
        """Note that a group begins."""
        self._begun = now

    def end(self, now: float) -> None:
        """Note that the group has ended."""
        self._taken.append(now - self._begun)

    def seconds(self, now: float, groups: int) -> float:
        """Return the time that is left, in seconds, with this number of groups to end."""
        each = statistics.median(self._taken)
        return each * (groups - 1) + max(0.0, each - (now - self._begun))


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
        self._to_go = 0

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
        self._left.begin(time.monotonic())
        self._to_go = total - number + 1
        self._where = f"[{number}/{total}] {group_name(case.name, case.mode, device, self._labels)}"

    def stage(self, text: str) -> None:
        """Show what comes next within the group, or before the first one; on a terminal only."""
        if self._live is not None:
            minutes = round(self._left.seconds(time.monotonic(), self._to_go) / 60)
            left = f"about {minutes} min left" if minutes else "less than a minute left"
            line = f"{self._where}, {left}: {text}" if self._where else text
            self._live.update(Text(line, no_wrap=True, overflow="ellipsis"), refresh=True)

    def finished(self, number: int, total: int, records: Sequence[Record]) -> None:
        """Print how a group ended.

        Args:
            number: Number of the group, from 1.
            total: Number of all groups.
            records: Its rows.
        """
        import pandas as pd  # not at the top: other commands reply without it

        self._left.end(time.monotonic())
        rows = pd.DataFrame([dataclasses.asdict(record) for record in records])
        show([Text(f"[{number}/{total}] {group_line(rows, labels_of(rows))}")], self._out)


@contextlib.contextmanager
def progress(backends: int, budget_seconds: float) -> Iterator[ProgressLine]:
    """Provide the progress line of a run.

    Args:
        backends: Number of backends of each group.
        budget_seconds: Measuring time of a group, in seconds.
    """
    out = console(stderr=True)
    left = TimeLeft(budget_seconds + BACKEND_SECONDS * backends)
    # Neither a file nor a dumb terminal can redraw a line, whatever FORCE_COLOR says.
    if not sys.stderr.isatty() or out.is_dumb_terminal:
        yield ProgressLine(out, left, None)
        return
    with Live(console=out, auto_refresh=False, transient=True) as live:
        yield ProgressLine(out, left, live)

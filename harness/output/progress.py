"""The progress line of a run, on standard error.

It redraws only when it is called, so that it never runs while a sample is taken.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from harness.output.console import console

if TYPE_CHECKING:
    from harness.case import Case


class ProgressLine:
    """Show how far a run is.

    Args:
        progress: Rich's display.
        groups: Number of groups of the run.
        budget_seconds: Measuring time of a group, in seconds.
        terminal: True if the line is redrawn in place; else each group has a line of its own.
    """

    def __init__(self, progress: Progress, groups: int, budget_seconds: float, terminal: bool) -> None:
        self._progress = progress
        self._terminal = terminal
        self._task = progress.add_task("starting", total=groups)
        self._start = time.monotonic()
        self._begun = 0
        # Before any group has ended: the budget, and as long again for compiling and checking.
        self._guess_seconds = 2 * budget_seconds
        self._where = ""

    def begin(self, text: str) -> None:
        """Show what comes before the first group."""
        self._progress.update(self._task, description=text)
        if self._terminal:
            self._progress.refresh()
        else:
            self._progress.console.print(text, markup=False)

    def group(self, number: int, total: int, case: Case, device: str) -> None:
        """Show that a group begins.

        Args:
            number: Number of the group, from 1.
            total: Number of all groups.
            case: The group's case.
            device: The group's device.
        """
        elapsed = time.monotonic() - self._start
        each = elapsed / self._begun if self._begun else self._guess_seconds
        minutes = max(1, round(each * (total - number + 1) / 60))
        self._begun += 1
        self._where = f"{case.name} {case.mode} {device}, about {minutes} min left"
        self._progress.update(self._task, completed=number - 1, description=self._where)
        if not self._terminal:
            self._progress.console.print(f"[{number}/{total}] {self._where}", markup=False)

    def stage(self, text: str) -> None:
        """Show what comes next within the group; on a terminal only."""
        if self._terminal:
            self._progress.update(self._task, description=f"{self._where}: {text}")
            self._progress.refresh()


@contextlib.contextmanager
def progress(groups: int, budget_seconds: float) -> Iterator[ProgressLine]:
    """Provide the progress line of a run.

    Args:
        groups: Number of groups of the run.
        budget_seconds: Measuring time of a group, in seconds.
    """
    out = console(stderr=True)
    columns = (BarColumn(bar_width=20), MofNCompleteColumn(), TextColumn("{task.description}", markup=False))
    # Neither a file nor a dumb terminal can redraw a line, whatever FORCE_COLOR says.
    terminal = sys.stderr.isatty() and not out.is_dumb_terminal
    with Progress(*columns, console=out, auto_refresh=False, transient=True, disable=not terminal) as display:
        yield ProgressLine(display, groups, budget_seconds, terminal)

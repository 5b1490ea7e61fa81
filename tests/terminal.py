"""A pseudo-terminal: what a command prints where its user looks."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import struct
import subprocess
import termios
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

#: Sequences that move the cursor or colour the text.
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Screen(NamedTuple):
    """What a command left on the terminal.

    Attributes:
        code: Its exit code.
        raw: Every sign that it wrote.
        lines: The lines without colours; of a line that was redrawn, its last state.
    """

    code: int
    raw: str
    lines: list[str]

    @property
    def text(self) -> str:
        """The lines as one text."""
        return "\n".join(self.lines)


def in_terminal(command: list[str], folder: Path, variables: Mapping[str, str], columns: int = 80) -> Screen:
    """Run a command to its end on a terminal of its own."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 25, columns, 0, 0))
    with subprocess.Popen(
        command, cwd=folder, env=dict(variables), stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    ) as process:
        os.close(theirs)
        written = b""
        with contextlib.suppress(OSError):  # what Linux raises when the last process has closed the terminal
            while piece := os.read(ours, 2**16):
                written += piece
    os.close(ours)
    raw = written.decode(errors="replace")
    shown = [line.rstrip("\r").rpartition("\r")[2].rstrip() for line in ESCAPES.sub("", raw).split("\n")]
    return Screen(process.returncode, raw, shown)

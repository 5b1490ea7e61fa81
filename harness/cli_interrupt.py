"""End a run at Ctrl-C, SIGTERM or SIGHUP: its workers gone, its rows written, and the exit code of a shell.

A signal that was ignored when the command began stays ignored, as under ``nohup``.
"""

from __future__ import annotations

import signal
import time
from types import FrameType
from typing import Final

#: Signals that end a run.
SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
#: Time after a signal in which further ones do not disturb the ending of the run, in seconds.
GRACE_SECONDS: Final = 5.0


class Interrupted(KeyboardInterrupt):  # it is an interrupt, not an error
    """A signal. Python ends itself by SIGINT after a plain KeyboardInterrupt inside of ``exec``, even one caught."""


class Interrupts:
    """Raises Interrupted at a signal of ``SIGNALS``, and knows the exit code then."""

    def __init__(self) -> None:
        self._number: int = signal.SIGINT
        self._last = -GRACE_SECONDS

    @property
    def exit_code(self) -> int:
        """Return 128 and the number of the last signal, as a shell counts."""
        return 128 + self._number

    def install(self) -> None:
        """Handle the signals from now on."""
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._raise)

    def _raise(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if now - self._last >= GRACE_SECONDS:
            self._number, self._last = number, now
            raise Interrupted

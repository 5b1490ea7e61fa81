"""The reference's results, each computed once and kept in memory."""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from harness.case import Case
from harness.correctness.drawn import Drawn
from harness.correctness.verdict import Expected
from harness.process.handle import WorkerError, WorkerHandle
from harness.process.protocol import Expect, ReferenceReply
from harness.record import Status
from harness.run.cell import fresh_folder

Arrays = Mapping[str, npt.NDArray[Any]]

#: Held while a file is read: two threads of Python 3.11 that parse a header at once raise SystemError.
_READING: Final = threading.Lock()
#: Case that makes the reference import its framework.
_LEAST: Final = Case(1, 1, 1, 1)


class ReferenceUnavailable(Exception):  # noqa: N818  # it names a state, which the suffix Error would hide
    """The reference cannot compute, so no backend can be judged."""

    def __init__(self, status: Status, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = f"no reference to check against: {reason}"


class ReferenceCache:
    """The reference's results, each computed once.

    They are mapped into this process's memory and their files deleted at once: while a backend runs, no right result is
    in any folder. Several threads may ask.

    Args:
        reference: Function that returns the reference's worker on a device, started if there is none.
        limit_seconds: Time limit of a request, in seconds.

    Attributes:
        device: Device that computes: that of the rows.
    """

    def __init__(self, reference: Callable[[str], WorkerHandle], limit_seconds: float) -> None:
        self.device = "cpu"
        self._reference = reference
        self._limit_seconds = limit_seconds
        self._known: dict[tuple[Case, str, int, Drawn | None], Expected] = {}
        self._lock = threading.Lock()

    def of(self, case: Case, kind: str, variation: int, drawn: Drawn | None = None) -> Expected:
        """Return the right results; a part of them is kept until another part of them is asked for.

        Args:
            case: The case.
            kind: Kind of the inputs.
            variation: Number of the inputs.
            drawn: Part of the results that is enough; None for all.

        Raises:
            ReferenceUnavailable: The reference's worker did not reply.
        """
        key = (case, kind, variation, drawn)
        with self._lock:
            if (whole := self._known.get((case, kind, variation, None))) is not None:
                return whole
            if key not in self._known:
                for other in [other for other in self._known if other[:3] == key[:3]]:
                    del self._known[other]
                self._known[key] = self._computed(*key)
            return self._known[key]

    def start(self, at_work: bool = False) -> None:
        """Start the reference's worker in this thread: a worker dies with the thread that started it.

        Args:
            at_work: True if it imports its framework at once, while this thread goes on.

        Raises:
            ReferenceUnavailable: The worker did not start.
        """
        try:
            self._reference(self.device)
        except WorkerError as error:
            raise ReferenceUnavailable(error.status, error.reason) from None
        if at_work:
            threading.Thread(target=self._begin, daemon=True).start()

    def _begin(self) -> None:
        """Have the least case computed; an error comes again with the next request."""
        with contextlib.suppress(ReferenceUnavailable):
            self.of(_LEAST, "integers", 0)

    def forget(self, case: Case, kind: str | None = None) -> None:
        """Release the results of a case: all of them, or those of one kind."""
        for key in [key for key in self._known if key[0] == case and kind in (None, key[1])]:
            del self._known[key]

    def _asked(
        self, reference: WorkerHandle, case: Case, kind: str, variation: int, drawn: Drawn | None
    ) -> tuple[Path, ReferenceReply]:
        """Have a worker compute; return the folder of the results, and its reply."""
        folder = fresh_folder(reference.directory / "expected")
        asked = Expect(case, variation, kind, folder, self.device, drawn)
        return folder, reference.request(asked, self._limit_seconds)

    def _computed(self, case: Case, kind: str, variation: int, drawn: Drawn | None) -> Expected:
        try:
            reference = self._reference(self.device)
            try:
                folder, reply = self._asked(reference, case, kind, variation, drawn)
            except WorkerError as error:
                if reference.alive or error.status is not Status.FAILED:
                    raise
                # It may have been killed from outside: a second end is its own doing.
                folder, reply = self._asked(self._reference(self.device), case, kind, variation, drawn)
        except WorkerError as error:
            raise ReferenceUnavailable(error.status, error.reason) from None
        positions, wide = (arrays(folder, case, suffix) for suffix in (".positions", ".wide"))
        samples = {name: (positions[name], wide[name]) for name in positions}
        expected = Expected(arrays(folder, case), arrays(folder, case, ".scale"), reply.quadratics, samples, drawn)
        shutil.rmtree(folder, ignore_errors=True)
        return expected


def arrays(folder: Path, case: Case, suffix: str = "") -> Arrays:
    """Map the files of a case's results that are in a folder, by name."""
    with _READING:
        return {
            name: np.load(path, mmap_mode="r", allow_pickle=False)
            for name in case.result_shapes()
            if (path := folder / f"{name}{suffix}.npy").is_file()
        }

"""Right findings of the edge cases, kept between runs next to the compile caches.

A file holds the findings of one backend for a dtype, precision and mode. They count as long as nothing has changed that
they depend on:

* in the file's name: the backend's entry point and package; the versions of Python, NumPy, PyTorch and of what the
  backend requires; the CPU and the thread budget; the harness's own source; the environment's ``VARIABLE_PREFIXES``;
* in the file: every module and library that the backend's worker had loaded. Files of installed packages count by size
  and time of change, others by their content.

The seed is not among them: edge cases that were right for one seed are not asked again for another. Findings with a
refusal are never kept, nor are those on a GPU. Where the environment variable ``CI`` is set, all are asked again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import platform
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement

from harness.case import Case
from harness.catalog.registry import Entry
from harness.correctness import edge_cases
from harness.correctness.verdict import passed
from harness.installed import version
from harness.machine import environment
from harness.run.edge_case_questions import EdgeCaseFindings

#: Folder of the harness's own source.
_HARNESS: Final = Path(__file__).parent.parent
#: Folders of installed packages.
_INSTALLED: Final = ("site-packages", "dist-packages")
#: A file changed so shortly before it was loaded, in seconds, may have been loaded in another state.
JUST_CHANGED: Final = 2.0


class KeptFindings:
    """Right findings in a folder.

    Args:
        folder: The folder, made if missing; None to keep none.
        threads: Number of CPUs of a worker.
        recheck: True to find none, and keep new ones.
    """

    def __init__(self, folder: Path | None, threads: int, recheck: bool = False) -> None:
        self._folder = None if os.environ.get("CI") else folder
        self._threads = threads
        self._recheck = recheck

    def find(self, entry: Entry, device: str, kind: Case) -> EdgeCaseFindings | None:
        """Return what was found before; None if nothing was, or if anything has changed that it depends on."""
        place = self._place(entry, device, kind)
        if place is None or self._recheck:
            return None
        try:
            kept = json.loads(place.read_text())
            if any(_stamp(Path(path)) != stamp for path, stamp in kept["files"].items()):
                return None
            verdicts = {
                name: dataclasses.replace(passed(edge_cases.PROBE, remark), promise=promise)
                for name, (remark, promise) in kept["verdicts"].items()
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError):  # no file, or one that was cut off
            return None
        return EdgeCaseFindings(verdicts, wide_range=True, kept=True)

    def keep(
        self, entry: Entry, device: str, kind: Case, findings: EdgeCaseFindings, files: Iterable[str], loaded_at: float
    ) -> None:
        """Keep findings if all are right.

        Args:
            entry: The backend.
            device: Its device.
            kind: Dtype, precision and mode.
            findings: What was found.
            files: Every file that the worker has loaded.
            loaded_at: Time right before the worker loaded the backend, in seconds since the epoch.
        """
        place = self._place(entry, device, kind)
        if place is None or not findings.wide_range or not all(verdict.ok for verdict in findings.verdicts.values()):
            return
        paths = [Path(file) for file in files]
        if any(_changed(path) > loaded_at - JUST_CHANGED for path in paths):
            return
        verdicts = {name: (verdict.remark, verdict.promise) for name, verdict in findings.verdicts.items()}
        kept = {"files": {str(path): _stamp(path) for path in paths}, "verdicts": verdicts}
        with contextlib.suppress(OSError):  # a full cache: the next run asks again
            place.parent.mkdir(parents=True, exist_ok=True)
            unfinished = place.with_suffix(f".{os.getpid()}")
            unfinished.write_text(json.dumps(kept))
            unfinished.replace(place)

    def asks(self, device: str) -> bool:
        """True if findings on a device may be kept, so that the worker's files are needed."""
        return self._folder is not None and device == "cpu"

    def _place(self, entry: Entry, device: str, kind: Case) -> Path | None:
        """Return the file of a backend's findings; its name has what they depend on. None if none are kept."""
        if self._folder is None or not self.asks(device):
            return None
        required = sorted({"numpy", "torch", *(Requirement(text).name for text in entry.requirements)})
        depends = {
            "entry": dataclasses.asdict(entry),
            "kind": dataclasses.asdict(dataclasses.replace(kind, seed=0)),
            "versions": [platform.python_version(), *map(version, required)],
            "cpu": environment.cpu_model(),
            "threads": self._threads,
            "variables": sorted(
                pair for pair in os.environ.items() if pair[0].startswith(environment.VARIABLE_PREFIXES)
            ),
            "harness": _source_hash(),
        }
        return self._folder / f"{hashlib.sha256(json.dumps(depends).encode()).hexdigest()}.json"


@functools.cache
def _source_hash() -> str:
    """Return a hash of the harness's own source."""
    whole = hashlib.sha256()
    for path in sorted(_HARNESS.rglob("*.py")):
        whole.update(str(path.relative_to(_HARNESS)).encode() + path.read_bytes())
    return whole.hexdigest()


def _stamp(path: Path) -> str:
    """Return the state of a file: size and time of change of one that is installed, a hash of any other."""
    if any(part in _INSTALLED for part in path.parts):
        status = path.stat()
        return f"{status.st_size} {status.st_mtime_ns}"
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return time.time()  # it is gone: what it was is unknown

"""Find the backend's own place in a traceback, or in what faulthandler printed of a crash."""

from __future__ import annotations

import importlib
import importlib.util
import re
import signal
import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Final

import harness
from harness.checked import Location

#: Signal at which a worker prints where it is.
TELL_WHERE: Final = signal.SIGUSR1
#: Characters that are kept of the end of a traceback.
TRACEBACK_CHARACTERS: Final = 8000
#: Lines that are kept of a crash.
CRASH_LINES: Final = 12
_FRAME: Final = re.compile(r'File "([^"\n]+)", line (\d+)(?:,? in (\S+))?')
#: How faulthandler's report begins.
_CRASH: Final = re.compile(r"^(Fatal Python error: |Current thread |Thread 0x|Stack \(most recent)", re.MULTILINE)
_LISTED: Final = "Extension modules:"
_CURRENT: Final = "Current thread"
_FATAL: Final = "Fatal Python error: "
_HARNESS: Final = Path(harness.__file__).resolve().parent
_STANDARD: Final = Path(sysconfig.get_path("stdlib")).resolve()
_PACKAGES: Final = {"site-packages", "dist-packages"}


def without_harness(error: BaseException) -> TracebackType | None:
    """Return an exception's traceback without the frames at its beginning that call or import the backend."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None and _calls(trace.tb_frame.f_code.co_filename):
        trace = trace.tb_next
    return trace


def text_of(error: BaseException) -> str:
    """Return the end of an exception's traceback, with its text."""
    return "".join(traceback.format_exception(type(error), error, without_harness(error)))[-TRACEBACK_CHARACTERS:]


def own_frame(text: str, target: str) -> Location | None:
    """Return the deepest frame in a backend's own file or package; None if there is none.

    Args:
        text: A traceback, or faulthandler's report.
        target: ``module:Class`` of the backend.
    """
    root = root_of(target)
    return None if root is None else next((frame for frame in _deepest_first(text) if within(frame.file, root)), None)


def deepest_frame(text: str) -> Location | None:
    """Return the deepest frame outside of the harness and the standard library; None if there is none."""
    outside = (
        frame for frame in _deepest_first(text) if not within(frame.file, _HARNESS) and not _standard(frame.file)
    )
    return next(outside, None)


def root_of(target: str) -> Path | None:
    """Return the folder of the package that a backend is in, or the file of its module; None if it is not found."""
    try:
        spec = importlib.util.find_spec(target.partition(":")[0].partition(".")[0])
    except (ImportError, ValueError):  # a module that was run or made has no specification
        return None
    if spec is None:
        return None
    places = [spec.origin] if spec.submodule_search_locations is None else list(spec.submodule_search_locations)
    return Path(places[0]).resolve() if places and places[0] else None


def parted(output: str) -> tuple[str, str]:
    """Part what a worker printed into its own words and faulthandler's report; each may be empty."""
    found = _CRASH.search(output)
    if found is None:
        return output, ""
    report = output[found.start() :].partition(_LISTED)[0]
    # Of several threads, the one that crashed comes last.
    lines = report[max(report.rfind(_CURRENT), 0) :].splitlines()
    fatal = report.splitlines()[0] if report.startswith(_FATAL) and not lines[0].startswith(_FATAL) else ""
    kept = [line for line in (fatal, *lines) if line.strip() and not _ours(line)]
    return output[: found.start()], "\n".join(kept[:CRASH_LINES])


def _deepest_first(text: str) -> Iterator[Location]:
    """Yield the frames of a text; faulthandler prints the deepest first, a traceback prints it last."""
    frames = [Location(file, int(line), _function(name)) for file, line, name in _FRAME.findall(text)]
    yield from frames if _CRASH.search(text) else reversed(frames)


def _calls(file: str) -> bool:
    """True if a file is of the harness, or imports modules."""
    return within(file, _HARNESS) or file.startswith("<frozen importlib") or file == importlib.__file__


def _standard(file: str) -> bool:
    """True if a file is of the standard library, or made by it."""
    return file.startswith("<") or (within(file, _STANDARD) and not _PACKAGES & set(Path(file).parts))


def _function(name: str) -> str:
    return "" if name == "<module>" else name


def _ours(line: str) -> bool:
    """True if a line names a frame of the harness, or of what started it."""
    return any(within(file, _HARNESS) or _standard(file) for file, _, _ in _FRAME.findall(line))


def within(file: str, root: Path) -> bool:
    """True if a file is a root, or in the folder that a root is."""
    path = Path(file).resolve()
    return path == root or root in path.parents

"""Where a backend's code is: the function that made a result."""

from __future__ import annotations

import inspect
import sys
import sysconfig
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import CodeType, FrameType, FunctionType, MethodType
from typing import TYPE_CHECKING, Any, Final

from harness.checked import Location
from harness.process import frames

if TYPE_CHECKING:
    from harness.backend import Backend

#: Attributes in which compilers and decorators keep the function that they were given.
_WRAPPED: Final = ("__wrapped__", "py_func", "_torchdynamo_orig_callable", "fn", "func")
#: Wrappers that are looked into, at most.
_DEPTH: Final = 8


def location_of(function: Callable[..., Any], backend: Backend) -> Location | None:
    """Return where a function of a backend is written: in the backend's own files if possible, else its class."""
    root = frames.root_of(type(backend).__module__)
    for candidate in (function, backend.prepare_forward):
        location = definition_of(candidate)
        if location is not None and root is not None and frames.within(location.file, root):
            return location
    try:
        file, (_, line) = inspect.getsourcefile(type(backend)), inspect.getsourcelines(type(backend))
    except (OSError, TypeError):  # it was made without a source
        return None
    return None if file is None else Location(file, line, type(backend).__name__)


def definition_of(function: Any) -> Location | None:
    """Return where a function is written, through wrappers, methods and objects that are called; None if unknown."""
    for _ in range(_DEPTH):
        if isinstance(function, MethodType):
            function = function.__func__
        if isinstance(function, type):
            function = vars(function).get("__init__")
        inner = next((found for name in _WRAPPED if callable(found := getattr(function, name, None))), None)
        if inner is not None:
            function = inner
        elif isinstance(function, FunctionType):
            code: CodeType = function.__code__
            return Location(code.co_filename, code.co_firstlineno, code.co_name.strip("<>"))
        else:
            function = getattr(type(function), "__call__", None)  # noqa: B004  # the method is wanted, not whether it is there
    return None


def loaded_files() -> tuple[str, ...]:
    """Return the files of all modules and libraries in this process, but for Python's own and the harness's."""
    own = Path(__file__).resolve().parent.parent, Path(sysconfig.get_path("stdlib"))
    named = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:  # not Linux
        lines = []
    found = {*filter(None, named), *(parts[5] for line in lines if len(parts := line.split(maxsplit=5)) > 5)}
    outside = [path for path in map(Path, found) if "site-packages" in path.parts or not _within(path, own)]
    return tuple(sorted(str(path) for path in outside if path.is_file() and not str(path).startswith("/dev/")))


def _within(path: Path, folders: Sequence[Path]) -> bool:
    return any(path.is_relative_to(folder) for folder in folders)


def makers(call: Callable[[], Mapping[str, Any]], backend: Backend) -> dict[str, Location]:
    """Call once more, and return the line where each result was returned by the innermost function that made it.

    Functions outside of the backend's own files are left out. A compiled function is not seen; the function that
    returned its result is.

    Args:
        call: Returns the results by name.
        backend: The backend.
    """
    root = frames.root_of(type(backend).__module__)
    returned: list[tuple[Any, Location]] = []
    own: dict[str, bool] = {}

    def watch(frame: FrameType, event: str, value: Any) -> None:
        code = frame.f_code
        if code.co_filename not in own:
            own[code.co_filename] = root is not None and frames.within(code.co_filename, root)
        if event == "return" and own[code.co_filename]:
            returned.append((value, Location(code.co_filename, frame.f_lineno, code.co_name.strip("<>"))))

    before = sys.getprofile()
    sys.setprofile(watch)
    try:
        results = call()
    except Exception:  # a wrong backend may raise in one call and not in another
        return {}
    finally:
        sys.setprofile(before)
    made = {}
    for name, result in results.items():
        for value, location in returned:
            if value is result or (isinstance(value, tuple) and any(part is result for part in value)):
                made[name] = location
                break
    return made

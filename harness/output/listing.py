"""Print what there is to measure: backends with a sentence each, suites, and the cases of a suite."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Final, NamedTuple

from rich.text import Text

from harness.catalog.entry_source import LeadsNowhereError, devices_of, sentence_of
from harness.catalog.registry import Entry
from harness.catalog.suites import Suite
from harness.output.layout import Lines, wrapped

#: Spaces before a name and after the longest one.
_INDENT: Final = "  "


class Availability(NamedTuple):
    """Registered backends by what can be said of them without importing one: each name with a text.

    Attributes:
        ready: Backends that are installed, with the first sentence of their class.
        missing: Backends that are not here, with the missing package or device.
        broken: Backends whose entry point leads nowhere, with the reason.
    """

    ready: dict[str, str]
    missing: dict[str, str]
    broken: dict[str, str]


def availability(entries: Mapping[str, Entry], devices: Collection[str]) -> Availability:
    """Sort the registered backends.

    Args:
        entries: Registered backends, by name.
        devices: Devices of this machine.
    """
    found = Availability({}, {}, {})
    for name, entry in entries.items():
        origin = "" if entry.is_ours else f" [{entry.distribution}]"
        try:
            sentence, needed = sentence_of(entry.target), devices_of(entry.target)
        except LeadsNowhereError as error:
            found.broken[name] = f"{error}{origin}"
            continue
        installed = entry.installed()
        if not installed.ok:
            found.missing[name] = installed.reason + origin
        elif needed and set(devices).isdisjoint(needed):
            found.missing[name] = f"needs {' or '.join(one.upper() for one in needed)}{origin}"
        else:
            found.ready[name] = sentence + origin
    return found


def backends(found: Availability, width: int) -> Lines:
    """Return the backends that are ready, those that are not here, and those whose entry point leads nowhere."""
    lines = _table("Backends (--backend NAME):", found.ready, width)
    if found.missing:
        lines += [Text(), *_table("Not here:", found.missing, width)]
    if found.broken:
        lines += [Text(), *_table("Broken:", found.broken, width, style="red")]
    return lines


def core_set(core: Mapping[str, str], width: int) -> Lines:
    """Return the backends of the core set, each with its reason."""
    lines = _table("Core set (default of `run` on quick, and of --quick):", core, width)
    return [*lines, *wrapped(f"{_INDENT}and every backend of another package; all: --backend all", width, _INDENT)]


def suites(known: Collection[Suite], width: int) -> Lines:
    """Return the suites with their purposes."""
    counts = {one.name: f"{len(one.entries)} case{'s' if len(one.entries) > 1 else ''}" for one in known}
    purposes = {one.name: f"{counts[one.name]}: {one.purpose}" for one in known}
    return _table("Suites (--suite NAME):", purposes, width)


def cases(suite: Suite, width: int) -> Lines:
    """Return the cases of a suite with their labels; either can be given to ``--case``."""
    labels = {entry.case.name: entry.label for entry in suite.entries}
    return _table(f"Cases of {suite.name} (--case SIZES or --case LABEL):", labels, width)


def more(width: int) -> Lines:
    """Return a line that says how to list cases."""
    return wrapped("Cases: bilinear-bench list cases SUITE", width)


def joined(parts: Iterable[Lines]) -> Lines:
    """Return all parts, with an empty line between two."""
    first, *others = parts
    return first + [line for part in others for line in (Text(), *part)]


def _table(title: str, rows: Mapping[str, str], width: int, style: str = "") -> Lines:
    """Return a title and a line for each name with its text; a long text goes on below itself."""
    column = max((len(name) for name in rows), default=0)
    lines = [Text(title, style="bold")]
    for name, text in rows.items():
        start = f"{_INDENT}{name:<{column}}{_INDENT}"
        first, *more = wrapped(Text(text, style=style), max(20, width - len(start))) or [Text()]
        lines.append(Text(start) + first)
        lines += [Text(" " * len(start)) + line for line in more]
    return lines

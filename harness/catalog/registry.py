"""Find backends: entry points of the group ``bilinear_bench.backends``, read without importing any of them.

The backends of this project are found in the same way as a third party's, so the project has to be installed.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import re
from collections.abc import Iterable, Mapping
from typing import Final

from packaging.requirements import InvalidRequirement, Requirement

from harness.backend import Support
from harness.catalog.suggest import suggestion
from harness.catalog.switches import switched_off
from harness.installed import UNREADABLE, version
from harness.record import NAME_PATTERN

GROUP: Final = "bilinear_bench.backends"
DISTRIBUTION: Final = "bilinear-bench"
#: Word of ``--backend`` for every backend, so no backend can have it as its name.
ALL: Final = "all"
#: End of the name of a distribution that is built for one version of CUDA; the builds hold the same package.
_BUILD: Final = re.compile(r"-cuda\d+x$")


class RegistryError(Exception):
    """A name that no backend or several backends have, or no installed backends at all. The message says what to do."""


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """One registered backend, not imported.

    Attributes:
        name: Name of the backend.
        target: Import path, as in ``module:Class``.
        requirements: Requirements of the entry point's extras, as in ``numba>=0.60``.
        distribution: Name and version of the distribution that registers it.
    """

    name: str
    target: str
    requirements: tuple[str, ...]
    distribution: str

    @property
    def is_ours(self) -> bool:
        """True if this project registers it."""
        return self.distribution.startswith(f"{DISTRIBUTION} ")

    def installed(self) -> Support:
        """Return yes if the packages of the extras are installed, by metadata alone, and compile; else why not."""
        for text in self.requirements:
            requirement = Requirement(text)
            if (found := _version(requirement.name)) is None:
                return Support(False, f"{requirement.name} is not installed: pip install '{text}'")
            if not requirement.specifier.contains(found, prereleases=True):
                return Support(False, f"{requirement.name} {found} is installed, expected {requirement.specifier}")
        off = switched_off([Requirement(text).name for text in self.requirements], os.environ)
        return Support(not off, off)


def _version(name: str) -> str | None:
    """Return the version of a distribution, or of its build for another CUDA; None if neither is installed."""
    found = version(name)
    if found is not None or not _BUILD.search(name):
        return found
    package = _BUILD.sub("", name)
    named = ((_name(one), one) for one in importlib.metadata.distributions())
    return next((one.version for other, one in named if _BUILD.sub("", other) == package), None)


def entries() -> dict[str, Entry]:
    """Return every registered backend by name, sorted, without importing one.

    Raises:
        RegistryError: A name is registered twice or malformed, or this project is not installed.
    """
    found: dict[str, Entry] = {}
    for entry in _registered():
        if not NAME_PATTERN.fullmatch(entry.name) or "#" in entry.name:
            raise RegistryError(f"{entry.distribution} registers a backend with the malformed name {entry.name!r}")
        if entry.name == ALL:
            raise RegistryError(f"{entry.distribution} registers a backend {ALL!r}, which stands for every backend")
        if entry.name in found:
            raise RegistryError(
                f"backend {entry.name} is registered twice, by {found[entry.name].distribution} and by "
                f"{entry.distribution}: uninstall one, or rename its entry point"
            )
        found[entry.name] = entry
    return dict(sorted(found.items()))


def select(names: Iterable[str], known: Mapping[str, Entry] | None = None) -> dict[str, Entry]:
    """Return the entries for ``names``, each optionally with ``#2`` and so on for a further entry of the same backend.

    Args:
        names: The names.
        known: What ``entries`` returned; None to read it again, which takes a while.

    Raises:
        RegistryError: A name is unknown or occurs twice, or this project is not installed.
    """
    known = entries() if known is None else known
    chosen: dict[str, Entry] = {}
    for name in names:
        base, mark, number = name.partition("#")
        if base not in known or (mark and not re.fullmatch("[0-9]{1,4}", number)):
            raise RegistryError(f"backend {name!r} is unknown{suggestion(base, known)}")
        if name in chosen:
            raise RegistryError(f"backend {name!r} is given twice: write {base}#2 to enter it a second time")
        chosen[name] = known[base]
    return chosen


def _registered() -> Iterable[Entry]:
    ours = False
    # A distribution is listed once per path entry that holds it; as with Python's own import, the first wins.
    seen: set[str] = set()
    for distribution in importlib.metadata.distributions():
        name = _canonical(_name(distribution))
        if not name or name in seen:
            continue
        seen.add(name)
        points = _points(distribution)
        ours = ours or (name == DISTRIBUTION and bool(points))
        for point in points:
            yield Entry(
                point.name,
                f"{point.module}:{point.attr}",
                tuple(_requirements(distribution.requires or (), point.extras)),
                f"{distribution.metadata['Name']} {distribution.version}",
            )
    if not ours:
        raise RegistryError(
            f"{DISTRIBUTION} is not installed, so its backends are unknown: run `pip install -e .` in its checkout"
        )


def _name(distribution: importlib.metadata.Distribution) -> str:
    """Return a distribution's name; empty if its metadata cannot be read."""
    try:
        return distribution.metadata["Name"] or ""
    except UNREADABLE:
        return ""


def _points(distribution: importlib.metadata.Distribution) -> list[importlib.metadata.EntryPoint]:
    """Return a distribution's entry points of ``GROUP``; none if its metadata cannot be read.

    Raises:
        RegistryError: An entry point of ``GROUP`` is not ``module:attribute``.
    """
    try:
        points = [point for point in distribution.entry_points if point.group == GROUP]
    except UNREADABLE:
        return []
    for point in points:
        if not point.pattern.match(point.value):
            raise RegistryError(
                f"{_name(distribution)} registers the backend {point.name} as {point.value!r}, expected module:Class"
            )
    return points


def _requirements(required: Iterable[str], extras: Iterable[str]) -> Iterable[str]:
    """Yield the requirements that ``extras`` add to a distribution, stripped of their markers."""
    wanted = tuple(extras)
    for text in required:
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            continue  # malformed metadata of another project; importing the backend shows what is missing
        marker = requirement.marker
        if marker is None or marker.evaluate({"extra": ""}):
            continue
        if any(marker.evaluate({"extra": extra}) for extra in wanted):
            yield f"{requirement.name}{requirement.specifier}"


def _canonical(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")

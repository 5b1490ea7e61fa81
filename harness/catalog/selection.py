"""Choose backends as the command line gives them: names, patterns and lists of both."""

from __future__ import annotations

import dataclasses
import fnmatch
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from harness.catalog.registry import ALL, Entry, RegistryError, entries, select

#: Signs that make a text a pattern.
_PATTERN: Final = re.compile(r"[*?\[]")


@dataclasses.dataclass(frozen=True, slots=True)
class Selection:
    """The chosen backends.

    Attributes:
        entries: The backends by the name used in the rows.
        wanted: Each text of ``--backend`` with the backends that it stands for; empty without such a text.
        known: Every registered backend.
        left_out: Registered backends that ``usual`` leaves out, and ``--skip`` does not.
    """

    entries: Mapping[str, Entry]
    wanted: Mapping[str, tuple[str, ...]]
    known: Mapping[str, Entry]
    left_out: Mapping[str, Entry]


def choose(
    texts: Sequence[str],
    skipped: Sequence[str] = (),
    *,
    always: str | None,
    usual: Callable[[Mapping[str, Entry]], Iterable[str]] = list,
) -> Selection:
    """Return the backends of ``texts``, or the usual ones, without those of ``skipped``.

    Args:
        texts: Names, patterns as in ``torch-*``, the word ``all``, or lists with commas; ``NAME#2`` enters a backend a
            second time.
        skipped: Names, patterns or lists of backends to leave out.
        always: Name of the backend that every run measures; it comes first, and a pattern does not leave it out. None
            without such a backend.
        usual: Returns the names that are taken without ``texts``, of the registered backends; default all.

    Raises:
        RegistryError: A name is unknown or occurs twice, a pattern matches nothing, or nothing is left.
    """
    known = entries()
    given = list(_split(texts))
    names_given = (text for text in given if text != ALL and not _is_pattern(text))
    select(names_given, known)  # refuses what is unknown, or given twice
    wanted = {text: tuple(_matching(text, known)) for text in given}
    names = dict.fromkeys((name for matching in wanted.values() for name in matching) if given else usual(known))
    skips = {name for text in _split(skipped) for name in _skipped(text, {**names, **known}, known, always)}
    kept = [name for name in names if name not in skips]
    if not kept:
        raise RegistryError("no backend is left: --skip leaves out every one")
    wanted = {text: tuple(name for name in matching if name not in skips) for text, matching in wanted.items()}
    chosen = select(dict.fromkeys(kept if always is None else (always, *kept)), known)
    left_out = {} if given else {name: entry for name, entry in known.items() if name not in {*chosen, *skips}}
    return Selection(chosen, {text: matching for text, matching in wanted.items() if matching}, known, left_out)


def _split(texts: Iterable[str]) -> Iterable[str]:
    return (part.strip() for text in texts for part in text.split(","))


def _is_pattern(text: str) -> bool:
    return _PATTERN.search(text) is not None


def _matching(text: str, known: Mapping[str, Entry]) -> list[str]:
    """Return the backends that a text stands for."""
    if text == ALL:
        return list(known)
    if not _is_pattern(text):
        return [text]
    matching = [name for name in known if fnmatch.fnmatchcase(name, text)]
    if not matching:
        raise RegistryError(f"no backend matches {text!r}, expected a pattern of some of: {', '.join(known)}")
    return matching


def _skipped(text: str, names: Iterable[str], known: Mapping[str, Entry], always: str | None) -> list[str]:
    """Return those of ``names`` that one text of ``--skip`` leaves out, each with all its further entries."""
    if text == always:
        raise RegistryError(f"--skip {always}: it is the baseline of every ratio, and always measured; leave it out")
    if _is_pattern(text):
        _matching(text, known)  # refuses a pattern that matches nothing
    else:
        select([text], known)
    return [
        name for name in names if fnmatch.fnmatchcase(name, text) or fnmatch.fnmatchcase(name.partition("#")[0], text)
    ]

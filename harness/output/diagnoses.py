"""Print what is known of each wrong backend: the pattern of its promises, the wrong elements, the likely cause."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from rich.text import Text

from harness.checked import Answer, Diagnosis
from harness.output import format as form
from harness.output.layout import Lines, wrapped
from harness.record import Status

#: Blocks of one backend, at most; the others are counted.
MOST_BLOCKS: Final = 3
#: Characters of what is wrong, at most.
MOST_CHARACTERS: Final = 400
#: Lines of a traceback and of captured output, at most.
MOST_LINES: Final = 40
#: Words of faulthandler.
_CRASHED: Final = "most recent call first"
_INDENT: Final = "  "
_GAP: Final = "   "
_VERDICTS: Final = {
    Status.REJECTED.value: "WRONG",
    Status.FAILED.value: "FAILED",
    Status.TIMEOUT.value: "TIMED OUT",
    Status.OUT_OF_MEMORY.value: "OUT OF MEMORY",
}
_SIGNS: Final[dict[Answer, tuple[str, str]]] = {
    "failed": ("x", "red"),
    "kept": ("ok", "green"),
    "not asked": ("-", "dim"),
}
#: The answers that the pattern names, and the most promises of each.
_NAMED: Final[tuple[tuple[Answer, int], ...]] = (("failed", 5), ("kept", 3))


def blocks(diagnoses: Iterable[Diagnosis], width: int, verbose: bool) -> Iterator[Lines]:
    """Yield the blocks of each backend, one for each fault that differs from its others.

    Args:
        diagnoses: What is known of each wrong row.
        width: Terminal cells of a line.
        verbose: True for all promises, tracebacks and output.
    """
    for alike in _by_backend(diagnoses):
        shown = list(alike.values())[: None if verbose else MOST_BLOCKS]
        for same in shown:
            yield block(same, width, verbose)
        if hidden := len(alike) - len(shown):
            yield wrapped(f"{shown[0][0].backend}: {hidden} more in other ways (--verbose shows them)", width, _INDENT)


def distinct(diagnoses: Iterable[Diagnosis]) -> list[Diagnosis]:
    """Return one diagnosis for each fault of each backend, the most telling one."""
    return [same[0] for alike in _by_backend(diagnoses) for same in alike.values()]


def block(same: list[Diagnosis], width: int, verbose: bool = False) -> Lines:
    """Return the lines about one fault of one backend.

    Args:
        same: The rows that show it, the most telling first.
        width: Terminal cells of a line.
        verbose: True for all promises, traceback and output.
    """
    first = same[0]
    lines = [_head(first)]
    if first.promises:
        lines += _every_promise(first) if verbose else _pattern(first, width)
    summary = form.text(first.summary)
    if len(summary) > MOST_CHARACTERS and not verbose:
        summary = f"{summary[:MOST_CHARACTERS]} ... (--verbose shows all)"
    for text in (summary, form.text(first.hypothesis)):
        lines += wrapped(_INDENT + text, width, _INDENT * 2) if text else []
    lines += _place(first, width)
    if len(same) > 1 and first.phase != "load":
        lines += wrapped(f"{_INDENT}the same: {_others(same)}", width, _INDENT * 2)
    if verbose or _CRASHED in first.traceback:
        lines += _quoted("traceback", first.traceback)
    if verbose:
        lines += _quoted("it printed", first.output)
    return lines


def _by_backend(diagnoses: Iterable[Diagnosis]) -> list[dict[object, list[Diagnosis]]]:
    """Return the diagnoses of each backend by what they show; those with a hypothesis and of the forward first."""
    backends: dict[str, list[Diagnosis]] = {}
    for diagnosis in diagnoses:
        backends.setdefault(diagnosis.backend, []).append(diagnosis)
    found = []
    for own in backends.values():
        alike: dict[object, list[Diagnosis]] = {}
        for diagnosis in sorted(own, key=lambda one: (not one.hypothesis, one.mode != "forward")):
            alike.setdefault(_signature(diagnosis), []).append(diagnosis)
        found.append(alike)
    return found


def _signature(diagnosis: Diagnosis) -> object:
    """Return what two rows with the same fault have in common."""
    if diagnosis.hypothesis:
        return diagnosis.hypothesis
    result = diagnosis.elements.result if diagnosis.elements else ""
    return diagnosis.status, result, str(diagnosis.location)


def _head(first: Diagnosis) -> Text:
    kept = f"{first.count('kept')} of {len(first.promises)} promises kept, " if first.promises else ""
    device = "" if first.device == "cpu" else f", {first.device}"
    verdict = _VERDICTS.get(first.status, first.status)
    if first.phase == "load":
        return Text.assemble((first.backend, "bold"), "  ", (verdict, "bold red"), "  to load")
    what = f"  {kept}{form.MODES[first.mode]}, {first.case}{device}"
    return Text.assemble((first.backend, "bold"), "  ", (verdict, "bold red"), what)


def _pattern(first: Diagnosis, width: int) -> Lines:
    """Return the promises that tell most, those that failed first, and how many were not asked for."""
    parts: list[Text] = []
    for answer, most in _NAMED:
        names = [promise.short for promise in first.promises if promise.answer == answer]
        sign, style = _SIGNS[answer]
        parts += [Text.assemble((sign, style), " ", name) for name in names[:most]]
        if answer == "failed" and len(names) > most:
            parts.append(Text(f"+{len(names) - most} more", style))
    if unasked := first.count("not asked"):
        parts.append(Text(f"- {unasked} not asked", "dim"))
    lines = [Text(_INDENT)]
    for part in parts:
        line = lines[-1]
        gap = _GAP if len(line) > len(_INDENT) else ""
        if gap and line.cell_len + len(gap) + part.cell_len > width:
            lines.append(Text(_INDENT) + part)
        else:
            lines[-1] = line + Text(gap) + part
    return lines


def _every_promise(first: Diagnosis) -> Lines:
    return [
        Text.assemble(_INDENT, (f"{_SIGNS[promise.answer][0]:<3}", _SIGNS[promise.answer][1]), promise.sentence)
        for promise in first.promises
    ]


def _place(first: Diagnosis, width: int) -> Lines:
    """Return where the fault is and how to repeat it, in one line if that fits."""
    place = str(first.location) if first.location else ""
    again = f"again: {first.again}"
    whole = f"{_INDENT}{place}{_GAP * 2 if place else ''}{again}"
    if len(whole) <= width:
        return [Text(whole)]
    lines = [Text(_INDENT + place)] if place else []
    return lines + [Text(line) for line in _command(again, width)]


def _command(text: str, width: int) -> list[str]:
    """Return a command in lines that can be pasted: no option is parted from its value."""
    first, *options = text.split(" --")
    lines = [_INDENT + first]
    for option in options:
        if len(lines[-1]) + len(f" --{option} \\") > width:
            lines[-1] += " \\"
            lines.append(f"{_INDENT * 2}--{option}")
        else:
            lines[-1] += f" --{option}"
    return lines


def _others(same: list[Diagnosis]) -> str:
    """Return in which other modes and cases a fault shows."""
    first = same[0]
    modes = dict.fromkeys(form.MODES[one.mode] for one in same if one.mode != first.mode)
    cases = len({one.planned for one in same}) - 1
    others = [f"{cases} other case{'s' if cases > 1 else ''}"] if cases else []
    devices = sorted({one.device for one in same} - {first.device})
    return ", ".join([*modes, *others, *devices])


def _quoted(heading: str, text: str) -> Lines:
    """Return a text of the backend's, line by line; none if it is empty."""
    lines = [form.text(line) for line in text.splitlines()]
    if not any(lines):
        return []
    cut = [f"({len(lines) - MOST_LINES} lines before)"] if len(lines) > MOST_LINES else []
    return [
        Text(f"{_INDENT}{heading}:", "dim"),
        *(Text(f"{_INDENT * 2}{line}") for line in [*cut, *lines[-MOST_LINES:]]),
    ]

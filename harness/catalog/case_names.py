"""Read a case as people write it: by its sizes, or by the label that it has in a suite."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from harness.case import DTYPES, Case, CaseError
from harness.catalog.suggest import did_you_mean
from harness.catalog.suites import SUITES

#: A text that begins so is meant as sizes.
_SIZES: Final = re.compile(r"\s*-?\d+\s*x", re.IGNORECASE)


def case_of(text: str) -> Case:
    """Return the case of ``SIZES[:options]`` or ``LABEL[:options]``, as in ``SimGNN:float64``.

    A label may be in any case of letters, and may be cut short while it still names one case. Of several suites that
    have the label, the first counts. An option replaces the one that the suite's case has.

    Raises:
        CaseError: The text is neither of the two, or names several cases.
    """
    if _SIZES.match(text):
        return Case.parse(text)
    label, *options = text.split(":")
    case = _labelled(_folded(label), text)
    sizes, *own = case.name.split(":")
    if any(option in DTYPES for option in options):
        own = [option for option in own if option not in DTYPES]
    return Case.parse(":".join(dict.fromkeys((sizes, *own, *options))))


def _labelled(label: str, text: str) -> Case:
    """Return the case of a label; the suites come in their order."""
    known = [{_folded(entry.label): entry.label for entry in suite.entries} for suite in SUITES.values()]
    everywhere = {folded: shown for labels in reversed(known) for folded, shown in labels.items()}
    if label not in everywhere:
        label = _completed(label, everywhere, text)
    suite = next(suite for suite, labels in zip(SUITES.values(), known, strict=True) if label in labels)
    cases = list(dict.fromkeys(entry.case for entry in suite.entries if _folded(entry.label) == label))
    if len(cases) > 1:
        names = ", ".join(case.name for case in cases)
        raise CaseError(f"case {text!r} names {len(cases)} cases, expected the sizes of one: {names}")
    return cases[0]


def _completed(label: str, known: Mapping[str, str], text: str) -> str:
    """Return the one known label that begins with a text."""
    longer = [folded for folded in known if label and folded.startswith(label)]
    if len(longer) == 1:
        return longer[0]
    if longer:
        shown = ", ".join(known[folded] for folded in longer)
        raise CaseError(f"case {text!r} is the beginning of {len(longer)} labels, expected one: {shown}")
    meant = did_you_mean(label, known.values())
    raise CaseError(
        f"case {text!r} is unknown: {meant or 'expected BATCHxIN1xIN2xOUT, as in 128x20x30x40, or a label'} "
        "(`bilinear-bench list cases` has all labels)"
    )


def _folded(label: str) -> str:
    """Return a label in small letters, with single spaces."""
    return " ".join(label.split()).casefold()

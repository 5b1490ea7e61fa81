"""Name cases as people call them, and find those of a run by such a name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from harness.case import CaseError
from harness.catalog.suggest import suggestion

if TYPE_CHECKING:
    import pandas as pd


def labels_of(records: pd.DataFrame) -> dict[str, str]:
    """Return the labels of the cases of a run, by their text; a case without a name has none."""
    named = records.dropna(subset=["label"])
    return dict(zip(named["case"], named["label"], strict=True))


def names_of(cases: Iterable[str], labels: Mapping[str, str], *known: str) -> dict[str, str]:
    """Return a name for each case, as ``--case`` takes it: its label and the options that are not the usual ones.

    Args:
        cases: Texts of cases, all different.
        labels: Names of cases, by their text.
        known: Options that a heading has said already, as in ``bfloat16``.
    """
    texts = list(cases)
    short = {text: _name(text, labels, (*known, "nobias")) for text in texts}
    # A label belongs to sizes, with a bias or without. The option is named where a run has both.
    twice = {name for name in short.values() if list(short.values()).count(name) > 1}
    return {text: _name(text, labels, known) if name in twice else name for text, name in short.items()}


def _name(text: str, labels: Mapping[str, str], without: Iterable[str]) -> str:
    sizes, *options = text.split(":")
    if text not in labels:
        without = [option for option in without if option != "nobias"]
    return ":".join((labels.get(text, sizes), *(option for option in options if option not in without)))


def find(name: str, cases: Iterable[str], labels: Mapping[str, str]) -> list[str]:
    """Return the cases of a run that a name means: a text of a case, its sizes, or a label, each with options or not.

    Raises:
        CaseError: The run has no such case.
    """
    wanted, *options = name.casefold().split(":")
    names = {text: (text.split(":")[0].casefold(), labels.get(text, "").casefold()) for text in cases}
    with_options = [text for text in names if set(options) <= set(text.casefold().split(":")[1:])]
    exact = [text for text in with_options if wanted in names[text]]
    found = exact or [text for text in with_options if any(known.startswith(wanted) for known in names[text])]
    if not found:
        raise CaseError(f"case {name!r} is not in this run{suggestion(name, names_of(names, labels).values())}")
    return found

"""Results after changes of few elements: read what a scenario left, and judge it by what the changes must bring."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

from harness.case import Case
from harness.correctness import gate
from harness.correctness.telling_changes import Variant, expected
from harness.correctness.verdict import Expected, Verdict
from harness.run.reference_cache import arrays


def judge(case: Case, base: Expected, folder: Path) -> Iterator[Verdict]:
    """Yield a verdict on each variant whose results are in the folder.

    Args:
        case: The case.
        base: Right results without a change.
        folder: Folder with a folder for each variant.
    """
    for place in sorted(place for place in folder.iterdir() if place.is_dir()):
        variant, actual = Variant.of(place.name), arrays(place, case)
        if set(actual) != set(base.values):
            raise ValueError(f"it left {', '.join(actual) or 'nothing'} after a change ({variant})")
        right = Expected(expected(case, variant.change, variant.kind, base.values))
        verdict = gate.judge_exactly(case, right, actual)
        yield dataclasses.replace(verdict, reason=verdict.reason and f"after a change ({variant}): {verdict.reason}")

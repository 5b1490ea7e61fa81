"""Say in a line how a group ended: one case in one mode on one device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from harness.output import format as form
from harness.output.case_labels import names_of
from harness.output.fastest import Fastest, fastest
from harness.output.tables import FEW, UNKNOWN, not_here
from harness.record import Status

if TYPE_CHECKING:
    import pandas as pd

#: Words for the backends that have no time.
_WORDS: Final = {
    Status.REJECTED: "wrong",
    Status.FAILED: "failed",
    Status.TIMEOUT: "over the time limit",
    Status.OUT_OF_MEMORY: "out of memory",
    Status.TOO_SLOW: "too slow",
    Status.UNSUPPORTED: "not supported",
    Status.INTERRUPTED: "interrupted",
}


def group_line(rows: pd.DataFrame, labels: Mapping[str, str]) -> str:
    """Return the line of a group, as in ``SimGNN forward: numba-fused 5.7 us, 56x nn.Bilinear (13 right)``.

    Args:
        rows: Rows of one case, mode and device.
        labels: Names of cases, by their text.
    """
    winners = "; ".join(_winner(found) for found in fastest(rows))
    right = int(rows["status"].isin([Status.TIMED.value, Status.CHECKED.value, Status.TOO_SLOW.value]).sum())
    here, impossible = rows[~not_here(rows)], rows[(rows["status"] == Status.TIMED.value) & rows["rank"].isna()]
    left_out = {word: here.loc[here["status"] == status.value, "backend"] for status, word in _WORDS.items()}
    left_out["impossible time"] = impossible["backend"]
    counts = [f"{right} right", *(f"{word}: {', '.join(names)}" for word, names in left_out.items() if len(names))]
    ended = f"{winners} ({', '.join(counts)})" if winners else ", ".join(counts)
    first = rows.iloc[0]
    return f"{group_name(first['case'], first['mode'], first['device'], labels)}: {ended}"


def group_name(case: str, mode: str, device: str, labels: Mapping[str, str]) -> str:
    """Return what people call a group: the case, the mode and, other than the CPU, the device."""
    (name,) = names_of([case], labels).values()
    return f"{name} {form.MODES[mode]}{'' if device == 'cpu' else f' on {device}'}"


def _winner(found: Fastest) -> str:
    """Return the fastest backend in words."""
    if found.ties_baseline:
        return f"{found.name}, nn.Bilinear too, from {found.median}"
    others = f" +{found.others}" if found.others else ""
    name = f"{found.name}{others} {found.median}"
    if found.ratio == UNKNOWN:
        return f"{name}, {FEW} for a ratio"
    return f"{name}, {found.ratio} nn.Bilinear" if found.ratio else name

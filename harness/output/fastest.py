"""Find the fastest right backends of a group: those that share the first rank, for each precision class.

Rows come as a data frame with the columns of ``harness.record.Record``. Ranks are read, not computed.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from harness.output import format as form
from harness.output.tables import ratio, timed
from harness.record import Flag

if TYPE_CHECKING:
    import pandas as pd


@dataclasses.dataclass(frozen=True, slots=True)
class Fastest:
    """The backends that share the first rank.

    Attributes:
        backend: Name of the first one by printed median, then by name.
        others: Number of the others.
        ties_baseline: True if nn.Bilinear is one of several.
        median: Its time of a call, as text.
        ratio: nn.Bilinear's time divided by its own, as text; ``tables.UNKNOWN`` with too few samples.
        few_blocks: True if it has under ten samples.
        precision_class: Precision class, as text; empty if the group has one class only.
    """

    backend: str
    others: int
    ties_baseline: bool
    median: str
    ratio: str
    few_blocks: bool
    precision_class: str

    @property
    def name(self) -> str:
        """Its name, or that no difference was shown where nn.Bilinear is one of several; with the precision class."""
        words = f"no difference shown among {self.others + 1}" if self.ties_baseline else self.backend
        return f"{words} ({self.precision_class})" if self.precision_class else words


def fastest(rows: pd.DataFrame) -> list[Fastest]:
    """Return one result for each precision class of a group, the fastest class first; none if nothing is ranked.

    Args:
        rows: Rows of one case, mode and device.
    """
    times = timed(rows)
    several = times["precision_class"].nunique(dropna=False) > 1
    best = times[times["rank"] == 1]
    return [
        _of(tied, (name or "no class") if several else "")
        for name, tied in best.groupby(best["precision_class"].fillna(""), sort=False)
    ]


def _of(tied: pd.DataFrame, precision_class: str) -> Fastest:
    """Return the result for rows that share the first rank, the fastest first."""
    first = tied.iloc[0]
    return Fastest(
        backend=str(first["backend"]),
        others=len(tied) - 1,
        ties_baseline=len(tied) > 1 and bool(tied["backend"].isin(tied["baseline"]).any()),
        median=form.seconds(first["median_seconds"], first["median_low_seconds"], first["median_high_seconds"]),
        ratio=ratio(first),
        few_blocks=Flag.FEW_BLOCKS in form.text(first["flags"]).split(";"),
        precision_class=precision_class,
    )

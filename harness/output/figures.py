"""Draw a run for a paper: how times grow where a size grows, else the ratios to nn.Bilinear.

Imports stay inside ``draw``, so that the command line can catch ``FigureError`` without pandas and Matplotlib.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import pandas as pd

#: The formats that ``draw`` writes, by a file's suffix, with the metadata that would differ each time.
FORMATS: Final[dict[str, dict[str, None]]] = {".svg": {"Date": None}, ".png": {}, ".pdf": {"CreationDate": None}}


class FigureError(ValueError):
    """A run that cannot be drawn, or a file that cannot be written. The message says what to do."""


def draw(records: pd.DataFrame, environment: Mapping[str, Any], path: Path) -> str:
    """Write the figure of a run, and return its caption.

    Args:
        records: Rows of a run.
        environment: What the run's ``environment.json`` holds.
        path: File to write; its suffix is one of ``FORMATS``.

    Raises:
        FigureError: Nothing was timed, the format is unknown, Matplotlib is missing, or the file cannot be written.
    """
    from harness.output import sweep
    from harness.output.caption import caption
    from harness.output.tables import timed

    suffix = _suffix(path)
    ranked = timed(records).dropna(subset=["rank"])
    if ranked.empty:
        raise FigureError(
            "no backend of these rows was timed, so there is nothing to draw: see `report` without --plot"
        )
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise FigureError(f'a figure needs Matplotlib ({error}): pip install "bilinear-bench[plot]"') from None
    from harness.output import figure_style, growth_figure, ratio_figure

    words, growths = caption(ranked, environment), sweep.find(records)
    drawn = io.BytesIO()
    with figure_style.style():
        figure = growth_figure.figure(growths, words) if growths else ratio_figure.figure(records, words)
        figure.savefig(drawn, format=suffix[1:], metadata=FORMATS[suffix])
    try:
        path.write_bytes(drawn.getvalue())
    except OSError as error:
        raise FigureError(f"--plot {path} cannot be written: {error.strerror}") from None
    return words


def _suffix(path: Path) -> str:
    """Return the suffix that chooses the format, before anything is drawn.

    Raises:
        FigureError: The format is unknown, or the folder does not exist.
    """
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise FigureError(f"--plot {path} is no figure: expected a name that ends in {', '.join(FORMATS)}")
    if not path.parent.is_dir():
        raise FigureError(f"--plot {path} cannot be written: {path.parent} is not a folder, make it first")
    return suffix

"""What a figure shows, for the tests of figures."""

from __future__ import annotations

import itertools


def texts(figure):
    """Return the texts of a figure that are not empty and can be seen."""
    from matplotlib.text import Text

    return [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]


def words(figure):
    """Return what the texts say."""
    return [text.get_text() for text in texts(figure)]


def misplaced(figure):
    """Return the texts that are cut by the figure's edge, and the pairs that overlap; the figure is laid out first."""
    figure.draw_without_rendering()
    boxes = {text: text.get_window_extent() for text in texts(figure)}
    whole = figure.bbox.padded(0.5)
    found = [text.get_text() for text, box in boxes.items() if not _contains(whole, box)]
    for (one, first), (other, second) in itertools.combinations(boxes.items(), 2):
        if first.padded(-0.5).overlaps(second.padded(-0.5)):
            found.append(f"{one.get_text()} | {other.get_text()}")
    return found


def _contains(whole, box):
    return whole.x0 <= box.x0 and whole.y0 <= box.y0 and box.x1 <= whole.x1 and box.y1 <= whole.y1

"""Format what a table shows: significant digits, intervals, units.

An empty string stands for a missing value.
"""

from __future__ import annotations

import math
import os
import shlex
from typing import Any, Final

#: Fewest and most significant digits of a time or a ratio.
FEWEST_DIGITS, MOST_DIGITS = 2, 4
#: Largest quotient of an interval's ends at which its ratio is shown.
WIDEST: Final = 10.0
#: Units of a time, the largest first, in seconds.
_UNITS: Final = {"s": 1.0, "ms": 1e-3, "us": 1e-6}
#: Modes, as titles of tables name them.
MODES: Final = {"forward": "forward", "forward_backward": "training step"}


def seconds(value: float | None, low: float | None = None, high: float | None = None) -> str:
    """Return a time in the unit that suits it, with the digits that its interval supports."""
    if value is None or missing(value):
        return ""
    count = digits(value, low, high)
    shown = {unit: significant(value / scale, count) for unit, scale in _UNITS.items()}
    unit = next((unit for unit, number in shown.items() if _read(number) >= 1), "us")
    return f"{shown[unit]} {unit}"


def printed_seconds(value: float | None, low: float | None = None, high: float | None = None) -> float:
    """Return the time that ``seconds`` prints, in seconds; NaN for a missing value."""
    shown, _, unit = seconds(value, low, high).partition(" ")
    return _read(shown) * _UNITS[unit] if unit else math.nan


def plus_minus(value: float | None, low: float | None, high: float | None) -> str:
    """Return the half-width of an interval as a share of its estimate, as in ``30 %``.

    Above 100 % the interval is too asymmetric for a half-width.
    """
    if value is None or missing(value) or (half := half_width(low, high)) is None:
        return ""
    return percent(half / value) if half <= value else ">100 %"


def ratio(value: float | None, low: float | None = None, high: float | None = None) -> str:
    """Return a ratio, as in ``1.86x``, with the digits that its interval supports."""
    if value is None or missing(value):
        return ""
    if value == 1 and half_width(low, high) == 0:
        return "1x"
    return f"{significant(value, digits(value, low, high))}x"


def too_wide(low: float | None, high: float | None) -> bool:
    """True if an interval is missing, or so wide that its ratio would mislead: more than ``WIDEST``-fold."""
    return low is None or high is None or missing(low) or missing(high) or high > WIDEST * low


def interval(low: float | None, high: float | None) -> str:
    """Return both ends of a ratio's interval, as in ``1.80x .. 1.92x``."""
    return "" if half_width(low, high) is None else f"{ratio(low, low, high)} .. {ratio(high, low, high)}"


def percent(share: float | None) -> str:
    """Return a share in percent, with two significant digits."""
    return "" if share is None or missing(share) else f"{significant(100 * share, 2)} %"


def size(value: float | None) -> str:
    """Return bytes in the unit that suits them, with two significant digits; 0 below a kibibyte."""
    if value is None or missing(value):
        return ""
    for unit, scale in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if value >= scale:
            return f"{significant(value / scale, 2)} {unit}"
    return "0"


def number(value: float | None, form: str) -> str:
    """Return a number in a format of Python's, as in ``.1e``."""
    return "" if missing(value) else format(value, form)


def text(value: Any) -> str:
    """Return a text that cannot move the cursor or colour the terminal."""
    return "" if missing(value) else printable(str(value))


def printable(shown: str) -> str:
    """Return a text with a space for every sign that a terminal would not show."""
    return "".join(sign if sign.isprintable() else " " for sign in shown)


def argument(name: str) -> str:
    """Return the name of a file or a run as a shell takes it, in one line."""
    name = f"./{name}" if name.startswith("-") else name
    if name.isprintable():
        return shlex.quote(name)
    signs = (chr(byte) if 32 <= byte < 127 and byte not in b"'\\" else f"\\x{byte:02x}" for byte in os.fsencode(name))
    return f"$'{''.join(signs)}'"


def missing(value: Any) -> bool:
    """True if a table has no such value."""
    import pandas as pd  # not at the top: the bare command replies without it

    return value is None or bool(pd.isna(value))


def half_width(low: float | None, high: float | None) -> float | None:
    """Return half the width of an interval; None without one."""
    if low is None or high is None or missing(low) or missing(high):
        return None
    return (high - low) / 2


def digits(value: float | None, low: float | None = None, high: float | None = None) -> int:
    """Return the number of significant digits that an interval supports.

    The last digit is the first that the interval leaves open. Without an interval it is ``FEWEST_DIGITS``.
    """
    half = half_width(low, high)
    if value is None or half is None:
        return FEWEST_DIGITS
    supported = _exponent(value) - _exponent(half) + 1 if half > 0 else MOST_DIGITS
    return max(FEWEST_DIGITS, min(MOST_DIGITS, supported))


def significant(value: float, count: int) -> str:
    """Return a number rounded to ``count`` significant digits, without an exponent."""
    decimals = count - 1 - _exponent(value)
    rounded = round(value, decimals)
    if _exponent(rounded) > _exponent(value):  # 9.99 becomes 10.0: one decimal less says the same
        decimals -= 1
    return f"{rounded:,.{max(0, decimals)}f}"


def _read(shown: str) -> float:
    return float(shown.replace(",", ""))


def _exponent(value: float) -> int:
    return math.floor(math.log10(abs(value))) if value else 0

"""Hold the results of many calls, and find two that share memory: buffers that take turns come round again."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from harness.worker import integrity

if TYPE_CHECKING:
    from harness.worker.calls import NativeArrays

#: Most bytes of results that are held; at least two calls are made all the same.
HELD_BYTES: Final = 64 * 2**20
#: Most calls whose results are held: buffers take turns, and counters wrap.
HELD_CALLS: Final = 2000
#: No further call is made after this time, in seconds.
HELD_SECONDS: Final = 0.25


def hold(call: Callable[[], NativeArrays], result_bytes: int) -> tuple[list[NativeArrays], float]:
    """Call repeatedly; return the results of all calls, and the seconds of the fastest one.

    Args:
        call: Function that calls once, and returns when the results exist.
        result_bytes: Size of one call's results, in bytes.
    """
    most = max(2, min(HELD_CALLS, HELD_BYTES // max(result_bytes, 1)))
    held: list[NativeArrays] = []
    fastest = HELD_SECONDS
    begin = start = time.perf_counter()
    # A single call may be slow by chance, or because a compiler optimises in it.
    while len(held) < 2 or (len(held) < most and start - begin < HELD_SECONDS):
        held.append(call())
        end = time.perf_counter()
        fastest, start = min(fastest, end - start) if len(held) > 1 else end - start, end
    return held, fastest


def overlapping(results: Sequence[NativeArrays]) -> tuple[int, int] | None:
    """Return the numbers of two calls whose results share memory, the earlier one first; None if no two do."""
    places = sorted(
        (place.start, place.start + place.size, number)
        for number, each in enumerate(results)
        for place in integrity.storages(each).values()
        if place.size
    )
    furthest, owner = 0, -1
    for start, end, number in places:
        if start < furthest and number != owner:
            return min(owner, number), max(owner, number)
        if end > furthest:
            furthest, owner = end, number
    return None

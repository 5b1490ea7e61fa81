"""What a run has done side by side: in order, at most two at a time, and given up as a whole."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from harness.sitting import Sitting


def sitting(threads):
    return Sitting(SimpleNamespace(threads=threads, seed=0), workers=None)


def test_answers_come_in_the_order_of_the_items_whoever_is_done_first():
    second = threading.Event()

    def task(item):
        if item == "second":
            second.set()
        else:
            second.wait(10)
        return item.upper()

    assert sitting(2).side_by_side(task, ["first", "second", "third"], lambda _: None) == ["FIRST", "SECOND", "THIRD"]


@pytest.mark.parametrize(("threads", "most"), [(1, 1), (2, 2), (64, 2)])
def test_no_more_than_two_are_at_work_and_no_more_than_there_are_cpus(threads, most):
    at_work, seen, lock = set(), [], threading.Lock()
    met = threading.Barrier(most, timeout=10)

    def task(item):
        with lock:
            at_work.add(item)
        met.wait()  # all that may be at work are
        with lock:
            seen.append(len(at_work))
        met.wait()  # none leaves before all have looked
        with lock:
            at_work.remove(item)

    sitting(threads).side_by_side(task, range(4), lambda _: None)
    assert max(seen) == most


def test_an_error_gives_up_what_is_under_way_and_begins_nothing_more():
    begun, ended = [], threading.Event()

    def task(item):
        begun.append(item)
        if item == "wrong":
            raise ValueError("planted")
        assert ended.wait(10), "nobody ended it"

    given_up = []

    def give_up(item):
        given_up.append(item)
        ended.set()

    with pytest.raises(ValueError, match="planted"):
        sitting(2).side_by_side(task, ["wrong", "waits", "waits too", "late"], give_up)
    assert given_up == ["wrong", "waits", "waits too", "late"]
    assert "late" not in begun

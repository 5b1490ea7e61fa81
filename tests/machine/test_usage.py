from __future__ import annotations

import pytest

from harness.machine import usage
from harness.machine.usage import Busy, Usage


def schedstat(root, **threads_):
    for name, (ran, waited) in threads_.items():
        (root / name).mkdir(exist_ok=True)
        (root / name / "schedstat").write_text(f"{ran} {waited} 17\n")
    return usage.read(root)


def test_threads_that_ran_and_threads_that_were_runnable_are_counted(tmp_path):
    before = schedstat(tmp_path, main=(0, 0), pool=(5_000_000, 0), idle=(7_000_000, 0))
    after = schedstat(
        tmp_path,
        main=(900_000_000, 100_000_000),
        pool=(805_000_000, 200_000_000),
        idle=(8_000_000, 0),
        late=(300_000_000, 0),
    )
    busy = usage.busy(before, after, seconds=1.0)
    assert busy.threads == 3
    assert busy.runnable == pytest.approx(1.0 + 1.0 + 0.001 + 0.3)


def test_gain_of_a_thread_that_the_system_does_not_count_is_left_out(tmp_path):
    before = schedstat(tmp_path, main=(10, 20), pool=(5, 0))
    (tmp_path / "main" / "schedstat").write_text("30 50 19\n")
    (tmp_path / "pool" / "schedstat").write_text("0 0 0\n")
    assert usage.gained(before, usage.read(tmp_path)) == [Usage(20, 30, 2)]
    assert usage.gained({}, {"main": Usage(30, 50, 19)}) == [Usage(30, 50, 19)]


def test_a_thread_that_works_alone_waits_around_its_calls_at_a_few_turns():
    alone = Usage(ran=950_000_000, waited=500_000_000, turns=50)
    idle = Usage(ran=50_000_000, waited=900_000_000, turns=9)
    assert usage.waited_around([idle, alone]) == pytest.approx(usage.TURNS * 0.01)
    assert usage.waited_around([]) is None


def test_all_waits_of_a_team_count_since_it_waits_at_each_barrier():
    team = [Usage(ran=500_000_000, waited=300_000_000, turns=50), Usage(400_000_000, 200_000_000, 9)]
    assert usage.waited_around(team) == pytest.approx(0.5)


def test_main_thread_that_hands_over_to_its_pool_is_no_overload():
    assert usage.overload(Busy(3, 2.2), 2) is None
    assert usage.overload(Busy(4, 3.6), 2) == "oversubscribed(3.6)"
    assert usage.overload(None, 2) is None


def test_usage_that_the_system_lacks_is_unknown(tmp_path):
    assert usage.read(tmp_path) == {}
    assert usage.busy({}, {}, 1.0) is None
    schedstat(tmp_path, main=(1, 1))
    (tmp_path / "main" / "schedstat").write_text("nonsense")
    assert usage.read(tmp_path) == {}

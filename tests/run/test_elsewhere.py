"""A run that is resumed elsewhere: what differs, and what is kept."""

from __future__ import annotations

import pytest

from harness.machine.environment import describe
from harness.run.elsewhere import differences, moved

THEN = {
    "cpu_model": "Fast One",
    "cpu_count": 8,
    "threads_available": 8,
    "gpus": [],
    "memory_available_bytes": 1,
    "load_average": [0.1],
    "versions": {"numpy": "2.0", "torch": "2.6"},
    "variables": {"OPENBLAS_CORETYPE": "ZEN"},
}


def test_the_same_machine_does_not_differ_from_itself():
    assert not differences(describe(), describe())


def test_what_changes_by_itself_is_no_difference():
    assert not differences(THEN, THEN | {"memory_available_bytes": 2, "load_average": [3.0]})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"cpu_model": "Slow One"}, "cpu_model was Fast One, is Slow One"),
        ({"threads_available": 4}, "threads_available was 8, is 4"),
        ({"gpus": ["NVIDIA H100"]}, "gpus was none, is NVIDIA H100"),
        ({"versions": {"numpy": "2.0", "torch": "2.7"}}, "torch was 2.6, is 2.7"),
        ({"versions": {"numpy": "2.0"}}, "torch was 2.6, is unknown"),
        ({"variables": {}}, "OPENBLAS_CORETYPE was ZEN, is unknown"),
    ],
)
def test_each_difference_is_said_with_both_values(change, said):
    assert differences(THEN, THEN | change) == [said]


def test_what_an_earlier_version_did_not_write_is_no_difference():
    now = THEN | {"versions": {"numpy": "2.0", "torch": "2.6"}}
    assert not differences({"versions": None, "cpu_count": 8}, now)


def test_a_run_that_moved_keeps_every_environment():
    run = {"run_id": "one", "plan": {}, "peaks": {"cpu": 1}}
    first = moved(THEN | run, {"cpu_model": "B"}, ["A, then B"])
    second = moved(run | first, {"cpu_model": "C"}, ["B, then C"])
    assert second["cpu_model"] == "C"
    assert [one["cpu_model"] for one in second["earlier_environments"]] == ["Fast One", "B"]
    assert second["earlier_environments"][0]["peaks"] == {"cpu": 1}
    assert second["differences"] == ["A, then B", "B, then C"]
